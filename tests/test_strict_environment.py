"""In a Python that has torch, torchaudio, numba, numba-cuda, click, onnx and ONNX Runtime alone, all that a GPU run needs works."""

import json
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from tests.core.sounds import encode, tone
from tests.core.toys import all_names, chord, write_set
from tests.strict_environment import PACKAGES, bare_variables, strict_python
from triadbench import cli
from triadbench.core.audio.io import write_wav

ROOT = Path(cli.__file__).resolve().parent
ABSENT = (
    "av soundfile soxr scipy psutil safetensors tqdm plotly mido line_profiler onnxscript pytest triadbench".split()
)
PROGRAM = """
import importlib.util, json, sys
from pathlib import Path
absent, folder = sys.argv[1].split(), Path(sys.argv[2])
found = [name for name in absent if importlib.util.find_spec(name)]

import cli, numpy, torch
from triadbench.bench import machine
from triadbench.core import device, extras, timing
from triadbench.core.audio import io
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import pack
from triadbench.core.data.splits import random_split
from triadbench.core.models import chroma_template
from triadbench.core.models.predictor import Predictor
from triadbench.core.training.batches import file_reader
from triadbench.core.training.epoch import StudyTrainer
from triadbench.core.training.settings import ORIGINAL_PIPELINE, fast_pipeline

files = open_dataset(folder / "set")
pack(files, folder / "pack")
packed = open_dataset(folder / "pack")
losses = {}
for name, dataset, switches in (
    ("files", files, ORIGINAL_PIPELINE),
    ("pack", packed, fast_pipeline("cpu").with_(fused_blocks=False)),
):
    settings = {"task": "type", "batch_size": 16, "seed": 3, "device": "cpu", "learning_rate": 1e-4}
    losses[name] = StudyTrainer(dataset, switches=switches, **settings).train_epoch().losses

def refusal(work):
    try:
        work()
    except Exception as error:
        return extras.missing(error, "it") if isinstance(error, ModuleNotFoundError) else str(error)

def trained(folder):
    rows = numpy.arange(1)
    return list(StudyTrainer(open_dataset(folder), switches=ORIGINAL_PIPELINE, **settings).train_epoch().losses)

clips = files.read_many(range(4))
scores = Predictor.load()(clips)
environment = machine.environment()
work = timing.OtherWork()
print(json.dumps({
    "found": found,
    "machine": [environment[key] for key in ("cores_physical", "cores_logical", "ram_gb")],
    "has soundfile": environment["versions"]["soundfile"],
    "load": [work.cores(), device.available_bytes("cpu")],
    "n": [len(files), len(packed), *map(len, random_split(48, 0.25, 0))],
    "roots": scores.roots.argmax(1).tolist(),
    "wanted": files.labels()[1][:4].tolist(),
    "template": chroma_template.predict(clips)[1].argmax(1).tolist(),
    "reader": file_reader(),
    "losses": losses,
    "stereo": io.read_clip(folder / "stereo.wav", 1.0).mean().item(),
    "refusals": {
        "flac": refusal(lambda: io.read_clip(folder / "a.flac")),
        "rate": refusal(lambda: io.read_clip(folder / "cd.wav")),
        "24 bits": refusal(lambda: trained(folder / "deep")),
    },
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return strict_python(tmp_path_factory.mktemp("strict"))


def run(python, *arguments):
    command = [python, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=bare_variables(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    write_set(folder / "set", all_names())
    (folder / "a.flac").write_bytes(encode(tone(1000), format="FLAC"))
    (folder / "cd.wav").write_bytes(encode(tone(1000), 44_100))
    (folder / "stereo.wav").write_bytes(encode(tone(16_000, channels=2) * 0 + [0.5, 0.25]))
    (folder / "deep").mkdir()
    for number in range(4):
        name = f"piano_5_Af_j_m_0{number}.wav"
        (folder / "deep" / name).write_bytes(encode(tone(), subtype="PCM_24"))
    return folder


@pytest.fixture(scope="module")
def result(python, folder):
    done = run(python, "-c", PROGRAM, " ".join(ABSENT), folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_only_the_named_packages_are_there(result, tmp_path):
    assert result["found"] == []
    with pytest.raises(PackageNotFoundError, match="no-such-package"):
        strict_python(tmp_path, [*PACKAGES, "no-such-package"])
    assert list(tmp_path.iterdir()) == []


def test_the_machine_is_known_without_psutil(result):
    physical, logical, ram_gb = result["machine"]
    assert logical >= (physical or 1) and ram_gb > 0.5 and result["has soundfile"] is None
    others, available = result["load"]
    assert others >= 0 and available > 1e6


def test_sets_models_and_training_work(result):
    assert result["n"] == [48, 48, 36, 12]
    assert result["roots"] == result["template"] == result["wanted"]
    assert result["losses"]["pack"] == pytest.approx(result["losses"]["files"], rel=1e-3)
    assert result["stereo"] == pytest.approx(0.375, abs=1e-4) and result["reader"] == "wave"


def test_what_needs_more_names_the_package(result):
    assert result["refusals"]["flac"] == "it needs PyAV (av); pip install av"
    assert result["refusals"]["rate"] == "it needs soxr; pip install soxr"
    assert "without soundfile only wav of 16 bits is read (24 bits a sample)" in result["refusals"]["24 bits"]


def test_train(python, folder, tmp_path):
    done = run(
        python, "cli.py", "train", folder / "set", tmp_path, "--recipe", "original", "--task", "type", "--epochs", 1
    )
    assert done.returncode == 0, done.stderr
    assert 'no curves.html: it needs plotly; pip install "triadbench[study]"' in done.stdout
    assert {"final.safetensors", "history.json"} <= {path.name for path in tmp_path.iterdir()}


def test_infer(python, folder, tmp_path):
    write_wav(tmp_path / "c.wav", chord(4, 0))
    done = run(python, "cli.py", "infer", tmp_path / "c.wav")
    assert (done.returncode, done.stdout.count(" C ")) == (0, 1), done.stderr
    done = run(python, "cli.py", "infer", folder / "a.flac")
    assert (done.returncode, done.stderr) == (1, "Error: infer needs PyAV (av); pip install av\n")
