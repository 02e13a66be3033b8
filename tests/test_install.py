"""The promise: a wheel and a bare checkout both name a chord, from any folder, and never mix with another copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CLIP = Path("export/app/examples/c-major.ogg")
NOT_SHIPPED = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "data", "runs", "tests", "results"
)
STUDY = ("torch", "torchaudio", "numba", "onnx", "plotly", "scipy", "safetensors", "psutil", "line_profiler")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of this checkout that is installed nowhere."""
    folder = tmp_path_factory.mktemp("checkout") / "any name"
    # core/data and bench/results are rooms of ours, data/ and runs/ at the top are what commands wrote.
    shutil.copytree(ROOT, folder, ignore=lambda where, names: NOT_SHIPPED(where, names) - _ours(where))
    return folder


def _ours(where: str) -> set[str]:
    return {"data", "results"} if Path(where) != ROOT else set()


def _environment(folder: Path) -> tuple[Path, dict[str, str]]:
    """(python, variables) of a virtual environment that sees this one's packages, but no installed triadbench."""
    venv.create(folder, with_pip=False)
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sorted(paths))}
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python", variables


def _run(command: list, cwd: Path, variables: dict[str, str] | None = None, code: int = 0):
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=variables, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    python, variables = _environment(tmp_path_factory.mktemp("bare") / "venv")
    done = subprocess.run([python, "-c", "import triadbench"], env=variables, cwd="/", capture_output=True, text=True)
    if "No module named 'triadbench'" not in done.stderr:
        pytest.skip("triadbench lies in site-packages itself here: every environment sees it")
    return python, variables


def test_a_bare_checkout_names_a_chord_from_another_folder(checkout, bare, tmp_path):
    python, variables = bare
    done = _run([python, checkout / "cli.py", "infer", checkout / CLIP], tmp_path, variables)
    assert "C " in done.stdout


def test_a_bare_checkout_starts_processes(checkout, bare, tmp_path):
    python, variables = bare
    command = ["data", "render", "set", "-n", "4", "--jobs", "2", "-i", "synth:1", "--json"]
    _run([python, checkout / "cli.py", *command], tmp_path, variables)
    assert len(list((tmp_path / "set").glob("*.wav"))) == 4
    done = _run([*_start_of(checkout, python), "triadbench.bench.providers.contestants"], tmp_path, variables, code=1)
    assert "IndexError" in done.stderr and str(checkout) in done.stderr  # it ran, and missed its argument


def _start_of(checkout: Path, python: Path) -> list:
    from triadbench.core import workers

    return [python, "-c", workers._RUN, checkout / "cli.py"]


def test_another_installed_copy_is_named(checkout, bare, tmp_path):
    python, variables = bare
    other = tmp_path / "site" / "triadbench"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    variables = {**variables, "PYTHONPATH": f"{other.parent}{os.pathsep}{variables['PYTHONPATH']}"}
    done = _run([python, checkout / "cli.py", "--version"], tmp_path, variables, code=1)
    assert done.stderr.count("\n") == 1 and str(other) in done.stderr and "another copy of triadbench" in done.stderr


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, checkout],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode and "setuptools" in done.stderr:
        pytest.skip("pip cannot fetch setuptools: no package registry is reached")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_installs_one_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"triadbench"}
    assert not [name for name in names if name.startswith("triadbench/tests/")]
    kinds = (".py", ".html", ".css", ".js", ".csv", ".ogg", ".onnx", ".safetensors", ".pt")
    ours = [path for layer in ("kernels", "core", "export", "bench") for path in (ROOT / layer).rglob("*")]
    assert {f"triadbench/{path.relative_to(ROOT)}" for path in ours if path.suffix in kinds} <= set(names)
    assert {"triadbench/py.typed", "triadbench/core/pretrained/README.md"} <= set(names)


def test_the_wheel_alone_names_a_chord_beside_the_package_kernels(wheel, tmp_path):
    """In a fresh environment with the base dependencies alone, from another folder."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run([*install, wheel], env=variables, capture_output=True, text=True, timeout=900)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("pip cannot fetch the dependencies: no package registry is reached")
    assert done.returncode == 0, done.stderr
    _run([*install, "--no-deps", "kernels"], tmp_path, variables)
    program = f"import importlib.util as u; print([n for n in {STUDY!r} if u.find_spec(n)])"
    assert _run([python, "-c", program], tmp_path, variables).stdout.strip() == "[]"
    command = python.with_name("triadbench")
    examples = ROOT / CLIP
    assert "C " in _run([command, "infer", examples], tmp_path, variables).stdout
    song = examples.with_name("progression-in-g-major.ogg")
    done = _run([command, "infer", song, "--timeline", "--out", "song.lab", "--out", "song.mid"], tmp_path, variables)
    assert "G" in done.stdout and (tmp_path / "song.lab").stat().st_size and (tmp_path / "song.mid").stat().st_size
    program = (
        "import numpy, sys\nfrom triadbench.export.predict import ChordPredictor\n"
        "print(ChordPredictor().name(numpy.zeros(64000, numpy.float32))['chord'], 'torch' in sys.modules)"
    )
    assert _run([python, "-c", program], tmp_path, variables).stdout.split() == ["N", "False"]
    done = _run([command, "train", tmp_path, tmp_path / "out"], tmp_path, variables, code=1)
    assert done.stderr.count("\n") == 1 and "triadbench[study]" in done.stderr
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 800e6
