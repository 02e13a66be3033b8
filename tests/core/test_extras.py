"""A command whose extra is missing says in one line which one to install, and the base install is enough for `infer`."""

import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from triadbench.core import extras
from triadbench.core.commands.console import Group

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(extras.__file__).resolve().parents[1]


def run_needing(package):
    """The result of a command whose body imports a package that is not installed."""

    @click.group(cls=Group)
    def main():
        pass

    @main.command()
    def work():
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    return CliRunner().invoke(main, ["work"])


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("torch", 'work needs PyTorch; pip install "triadbench[study]"'),
        ("torch.nn", 'work needs PyTorch; pip install "triadbench[study]"'),
        ("numba.core.types", 'work needs numba; pip install "triadbench[study]"'),
        ("line_profiler", 'work needs line_profiler; pip install "triadbench[study]"'),
        ("gradio", 'work needs Gradio; pip install "triadbench[app]"'),
        ("librosa", 'work needs librosa; pip install "triadbench[rivals]"'),
    ],
)
def test_a_missing_extra_is_one_line(package, line):
    done = run_needing(package)
    assert (done.exit_code, done.stderr, done.stdout) == (1, f"Error: {line}\n", "")


@pytest.mark.parametrize("package", ["triadbench.gone", "torchlike", None])
def test_another_missing_module_is_a_fault_of_ours(package):
    assert isinstance(run_needing(package).exception, ModuleNotFoundError)


def test_importable(monkeypatch):
    assert extras.importable("numpy") and not extras.importable("no_such_package")
    monkeypatch.setitem(sys.modules, "torch", None)  # as a test hides one
    assert not extras.importable("torch")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reads TOML")
def test_the_table_is_that_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def packages(requirements):
        return {re.split(r"[\[<>=; ]", requirement)[0].lower().replace("-", "_") for requirement in requirements}

    base = packages(project["dependencies"])
    for extra, names in extras.EXTRAS.items():
        listed = packages(project["optional-dependencies"][extra])
        assert {name.lower() for name in names} - {"llvmlite"} <= listed and not set(names) & base, extra
