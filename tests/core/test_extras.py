"""A command whose extra is missing says in one line which one to install, and the base install is enough for `infer`."""

import ast
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
        ("av", "work needs PyAV (av); pip install av"),
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


BROUGHT = {"llvmlite", "httpx", "starlette", "pil"}
"""Import names of what numba and Gradio bring, and of Pillow."""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reads TOML")
def test_the_table_is_that_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def packages(requirements):
        return {re.split(r"[\[<>=; ]", requirement)[0].lower().replace("-", "_") for requirement in requirements}

    base = packages(project["dependencies"])
    for extra, names in extras.EXTRAS.items():
        listed = packages(project["optional-dependencies"][extra])
        assert {name.lower() for name in names} - BROUGHT <= listed and not set(names) & base, extra
    assert base == {*extras.BASE, "onnxruntime_gpu"}


ASKED_FIRST = {"cuda", "nvidia", "nvmath", "pynvml", "threadpoolctl"}
"""Packages that the code looks for before it imports them: drivers, and rivals that name themselves."""


def test_every_imported_package_belongs_to_the_base_install_or_to_an_extra():
    packages = set()
    for layer in ("kernels", "core", "export", "bench"):
        for path in (ROOT / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    packages |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    packages.add(node.module.split(".")[0])
    assert {"torch", "markupsafe"} <= packages
    known = {*extras.BASE} | ASKED_FIRST | {name for names in extras.EXTRAS.values() for name in names}
    assert packages - set(sys.stdlib_module_names) - {"triadbench"} - known == set()
