"""The promise: `pip install triadbench` is enough for `infer`, timelines and `ChordPredictor`; the rest names its extra."""

import ast
import json
from importlib import resources

import numpy as np
import pytest
import soundfile

from tests.core.toys import chord
from tests.export.base_install import ROOT, command_without, run_without
from tests.odd_files import A_MINOR, C_MAJOR
from triadbench.core.extras import EXTRAS

EXAMPLES = resources.files("triadbench.export.app") / "examples"
CLIP, SONG = EXAMPLES / "c-major.ogg", EXAMPLES / "progression-in-g-major.ogg"
HEAVY = {*EXTRAS["study"], "gradio", "tqdm", "soxr", "mido"}
MOST_MODULES = 18


def test_infer(tmp_path):
    soundfile.write(tmp_path / "c.wav", chord(*C_MAJOR), 16_000)
    soundfile.write(tmp_path / "am.flac", chord(*A_MINOR, rate=44_100), 44_100)
    done = command_without(None, "infer", "--json", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert [result["chord"] for result in json.loads(done.stdout)["results"]] == ["Am", "C"]


def test_timeline_in_every_format_but_the_plot(tmp_path):
    names = [f"x.{kind}" for kind in ("lab", "json", "csv", "mid")]
    done = command_without(
        None, "infer", SONG, "--timeline", *(part for name in names for part in ("--out", name)), cwd=tmp_path
    )
    assert done.returncode == 0 and "key " in done.stdout, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    done = command_without(None, "infer", SONG, "--timeline", "--out", "x.html", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'Error: infer needs plotly; pip install "triadbench[study]"\n'


def test_chord_predictor():
    code = """
from triadbench.export.predict import ChordPredictor
import numpy as np
predictor = ChordPredictor()
predictor.warm_kernel(wait=True)
print(predictor.name(np.zeros(64000, np.float32))["chord"], predictor.note)
"""
    done = run_without(None, code)
    assert done.stdout == 'N many files are faster with our mel kernel; pip install "triadbench[study]"\n', done.stderr


def test_chord_predictor_imports_little():
    code = """
from triadbench.export.predict import ChordPredictor
ChordPredictor()
print(sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""
    assert run_without([], code, *HEAVY).stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["export"], "export needs PyTorch"),
        (["infer", "--provider", "torch", CLIP], "infer needs PyTorch"),
        (["evaluate", "--data", "x"], "evaluate needs PyTorch"),
    ],
)
def test_everything_else_names_its_extra(arguments, line, tmp_path):
    done = command_without(None, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, f'Error: {line}; pip install "triadbench[study]"\n')


def test_many_files_are_told_once_that_the_kernel_is_faster(tmp_path):
    soundfile.write(tmp_path / "c.wav", chord(*C_MAJOR), 16_000)
    line = 'many files are faster with our mel kernel; pip install "triadbench[study]"\n'
    for n, expected in ((90, ""), (250, line)):
        done = command_without(["numba"], "infer", "--jsonl", *["c.wav"] * n, cwd=tmp_path)
        notes = "".join(f"{text}\n" for text in done.stderr.splitlines() if not text.startswith("infer: "))
        assert (done.returncode, done.stdout.count('"label": "C:maj"'), notes) == (0, n, expected)


# ---- what one clip loads


def _has_code(module):
    """Whether there is more in a module than its docstring."""
    path = ROOT.joinpath(*module.split(".")[1:])
    path = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    return len(ast.parse(path.read_text(encoding="utf-8")).body) > 1


@pytest.mark.parametrize("name", ["c-major.ogg", "c.wav"])
def test_one_clip_loads_few_of_our_modules(tmp_path, name):
    path = EXAMPLES / name
    if name == "c.wav":
        path = tmp_path / name
        soundfile.write(path, np.resize(chord(*C_MAJOR, rate=44_100), 200_000), 44_100)
    code = "import atexit, cli\nsys.argv[0] = 'cli.py'\n"
    code += "atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))\ncli.main()"
    loaded = run_without([], code, "infer", path).stderr.split()
    ours = [module for module in loaded if module.startswith("triadbench")]
    with_code = [module for module in ours if _has_code(module)]
    assert "triadbench.export.predict.predictor" in ours and len(with_code) > 8
    assert len(with_code) <= MOST_MODULES, with_code
    assert not [module for module in ours if module.startswith(("triadbench.bench", "triadbench.kernels"))]
    heavy = HEAVY - {"soxr"} if name == "c.wav" else HEAVY
    assert not heavy & {module.split(".")[0] for module in loaded}
