"""The promise: the TorchScript file runs where there is torch and nothing else, and refuses a wrong waveform in words."""

import dataclasses
import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from tests.core.damage import damaged
from tests.core.toys import small_net
from tests.export.exports import TORCHSCRIPT
from triadbench.core.errors import UserError
from triadbench.core.files import file_digest
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.networks import OriginalNet
from triadbench.core.models.predictor import SHIPPED, Predictor
from triadbench.export.formats.torchscript_model import (
    EXTRA_FILE,
    _WaveformModel,
    filter_blocks,
    network_module,
    to_bytes,
    waveform_module,
)
from triadbench.export.predict.metadata import KEY, ExportInfo
from triadbench.export.predict.models import TorchScriptModel
from triadbench.kernels.mel_reference import mel_spectrogram
from triadbench.kernels.spec import CHORD, ORIGINAL, WHISPER, MelSpec

# torch announces the end of TorchScript at every use; `export` keeps that from its users.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

SPECS = {
    "CHORD": CHORD,
    "ORIGINAL": ORIGINAL,
    "WHISPER": WHISPER,
    "window shorter than n_fft": MelSpec(n_fft=300, hop_length=100, n_mels=20, win_length=250),
    "hop above n_fft": MelSpec(n_fft=256, hop_length=384, n_mels=25),
    "magnitudes": dataclasses.replace(ORIGINAL, power=1.0),
    "no centre, padded, normalised": dataclasses.replace(ORIGINAL, center=False, pad=100, normalized=True),
    "edges go round": dataclasses.replace(ORIGINAL, pad_mode="circular"),
    "empty filters": MelSpec(n_fft=256, hop_length=128, n_mels=60),
}
# In a process of its own, in which importing any of these fails.
STRANGER = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {"core", "kernels", "export", "bench", "cli", "torchaudio", "numba", "scipy", "onnx"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import json, warnings
warnings.simplefilter("ignore")
import torch
extra = {"triadbench.json": ""}
model = torch.jit.load(sys.argv[1], _extra_files=extra)
wave = torch.sin(2 * torch.pi * 220.0 * torch.arange(40000) / 16000)[None].repeat(3, 1)
answers = [output.tolist() for output in model(wave)]
print(json.dumps([answers, json.loads(extra["triadbench.json"])]))
"""


def load(path):
    return TorchScriptModel(path).module


def noise(batch, samples):
    return (0.1 * np.random.default_rng(samples).standard_normal((batch, samples))).astype(np.float32)


def info_for(checkpoint, samples=None):
    log = checkpoint.architecture == "chordnet"
    return ExportInfo(
        checkpoint.architecture,
        checkpoint.task,
        "torchscript",
        "stft",
        "fp32",
        checkpoint.spec.to_dict(),
        log,
        samples,
        "0",
    )


@pytest.fixture(scope="module")
def small():
    return Checkpoint(small_net().eval(), "chordnet", "both", small_net().spec)


@pytest.fixture(scope="module")
def module(small):
    return waveform_module(small, info_for(small))


def test_the_shipped_file_runs_with_torch_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(TORCHSCRIPT)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (types, roots, logits, *_), described = json.loads(done.stdout)
    wave = np.sin(2 * np.pi * np.float32(220.0) * np.arange(40_000, dtype=np.float32) / 16_000)[None].repeat(3, 0)
    wanted = Predictor.load()(wave.astype(np.float32))
    assert np.abs(np.array(types) - wanted.types).max() < 1e-4  # the sine itself is rounded otherwise
    assert np.abs(np.array(roots) - wanted.roots).max() < 1e-4 and np.shape(logits) == (3, 12, 4)
    assert described["checkpoint_sha256"] == file_digest(SHIPPED), "export again: it is of another checkpoint"


def test_it_answers_as_the_model_for_any_batch_and_length(small, module):
    predictor = Predictor(small)
    for batch, samples in ((1, 64_000), (3, 4096), (2, 70_001)):
        waveforms = noise(batch, samples)
        types, roots, logits, chords, bass = module(torch.from_numpy(waveforms))
        wanted = predictor(waveforms)
        assert np.abs(types.numpy() - wanted.types).max() < 1e-5 and np.abs(roots.numpy() - wanted.roots).max() < 1e-5
        joint = torch.softmax(logits.flatten(1), 1).reshape(-1, 12, 4)
        assert np.abs(joint.numpy() - wanted.joint).max() < 1e-5
        assert np.abs(torch.softmax(chords, 1).numpy() - wanted.chords).max() < 1e-5
        assert np.abs(bass.numpy() - wanted.bass).max() < 1e-5


@pytest.mark.parametrize("name", SPECS)
def test_its_mel_is_the_reference_mel(name):
    spec = SPECS[name]
    network = torch.jit.trace(torch.nn.Identity(), torch.zeros(1, 2, 3))
    info = info_for(Checkpoint(None, "chordnet", "both", spec))
    model = torch.jit.script(_WaveformModel(network, info))
    for batch, samples in ((1, 5001), (3, 7777)):
        waveforms = noise(batch, samples)
        found = model(torch.from_numpy(waveforms)).numpy()
        wanted = np.stack([mel_spectrogram(clip, spec, log=True) for clip in waveforms.astype(np.float64)])
        assert found.shape == wanted.shape
        assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 1e-6


def test_blocks_hold_every_weight_once():
    filterbank = CHORD.filterbank()[:, :1100]
    blocks, bins = filter_blocks(filterbank)
    again = np.zeros((blocks.shape[0] * blocks.shape[1], filterbank.shape[1]))
    for i, (block, columns) in enumerate(zip(blocks, bins.reshape(len(blocks), -1), strict=True)):
        again[24 * i : 24 * i + 24, columns] = block
    assert np.array_equal(again[: len(filterbank)], filterbank) and not again[len(filterbank) :].any()
    assert blocks.size < filterbank.size / 3


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (torch.zeros(64_000), "1 axes"),
        (torch.zeros(1, 1, 64_000), "3 axes"),
        (torch.zeros(1, 4095), "at least 4096"),
        (torch.zeros(1, 0), "at least 4096"),
        (torch.zeros(1, 64_000, dtype=torch.int16), "float32"),
        (torch.zeros(1, 64_000, dtype=torch.float64), "float32"),
    ],
)
def test_a_wrong_waveform_is_refused_in_words(module, waveform, words):
    with pytest.raises(torch.jit.Error, match=words):
        module(waveform)


@pytest.mark.parametrize("task", ["type", "root"])
def test_the_original_network_with_its_one_length(task):
    torch.manual_seed(0)
    checkpoint = Checkpoint(OriginalNet({"type": 4, "root": 12}[task]).eval(), "original", task, ORIGINAL)
    module = waveform_module(checkpoint, info_for(checkpoint, 64_000))
    scores = Predictor(checkpoint)(noise(3, 64_000))
    found, _ = module(torch.from_numpy(noise(3, 64_000)))
    assert np.abs(found.numpy() - (scores.types if task == "type" else scores.roots)).max() < 1e-5
    with pytest.raises(torch.jit.Error, match="takes 64000"):
        module(torch.zeros(1, 63_999))


def test_folding_leaves_the_model_as_it_was():
    net = small_net().eval()
    checkpoint = Checkpoint(net, "chordnet", "both", net.spec)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    network_module(checkpoint, info_for(checkpoint))
    after = net.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_a_file_says_what_it_is_and_not_where_it_was_made(small, module, tmp_path):
    info = info_for(small)
    content = to_bytes(module, info)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert __file__.encode() not in everything and b"site-packages" not in everything
    assert b"debug_pkl" not in content and str(SHIPPED.parents[1]).encode() not in everything
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    extra = {EXTRA_FILE: ""}
    torch.jit.load(path, _extra_files=extra)
    text = extra[EXTRA_FILE]
    assert ExportInfo.from_metadata({KEY: text.decode() if isinstance(text, bytes) else text}, "model.pt") == info
    waveforms = torch.from_numpy(noise(2, 9000))
    again = load(path)
    assert all(torch.equal(a, b) for a, b in zip(again(waveforms), module(waveforms), strict=True))
    assert not any(output.requires_grad for output in again(waveforms))


@pytest.mark.gpu
def test_it_moves_to_a_gpu():
    on_cpu = load(TORCHSCRIPT)(torch.from_numpy(noise(3, 64_000)))
    on_gpu = load(TORCHSCRIPT).to("cuda")(torch.from_numpy(noise(3, 64_000)).cuda())
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert (ours.cpu() - theirs).abs().max() < 1e-2 * theirs.abs().max()


def test_no_clips_have_no_answers():
    module = load(TORCHSCRIPT)
    assert [tuple(output.shape) for output in module(torch.zeros(0, 64_000))] == [
        (0, 4),
        (0, 12),
        (0, 12, 4),
        (0, 205),
        (0, 12),
    ]
    with pytest.raises(torch.jit.Error, match="at least 4096 are needed"):
        module(torch.zeros(0, 100))


def test_no_damaged_file_answers(tmp_path):
    path = tmp_path / "m.torchscript.pt"
    for what, content in damaged(TORCHSCRIPT.read_bytes(), 60):
        path.write_bytes(content)
        with pytest.raises(UserError):
            TorchScriptModel(path)
            pytest.fail(what)
