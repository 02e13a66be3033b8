"""The promise: imports point right only (cli, bench, export, core, kernels, triadbench.kernels.spec), and backends stay apart."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["cli", "bench", "export", "core", "kernels"]  # an arrow may skip to the right
BACKEND = "kernels.mel_"  # they may import these and parts of their own: mel_numba has numba_plan and others
SHARED = ("triadbench.kernels.spec.", "triadbench.kernels.torch_operator.")


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, root: Path) -> list[tuple[int, str]]:
    """Every (line, dotted module) that a file imports, in functions and under TYPE_CHECKING as well."""
    package = list(path.relative_to(root).parent.parts)
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            # `from triadbench.kernels import mel_numba` imports a module too: both readings are checked.
            found += [(node.lineno, module), *((node.lineno, f"{module}.{alias.name}") for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                found.append((node.lineno, node.args[0].value))
    return found


def wrong_arrows(root: Path) -> list[str]:
    files = [root / "cli.py", *(path for layer in LAYERS[1:] for path in sorted((root / layer).rglob("*.py")))]
    wrong = []
    for path in files:
        if not path.exists():
            continue
        module = _module_name(path, root)
        for line, target in _imports(path, root):
            if target.split(".")[0] not in LAYERS:
                continue
            left = LAYERS.index(target.split(".")[0]) < LAYERS.index(module.split(".")[0])
            from_spec = module == "triadbench.kernels.spec"
            from_shared = module == "triadbench.kernels.torch_operator" and not f"{target}.".startswith(
                "triadbench.kernels.spec."
            )
            own = f"kernels.{module.removeprefix(BACKEND)}_"
            apart = module.startswith(BACKEND) and not f"{target}.".startswith((*SHARED, own))
            if left or from_spec or from_shared or apart:
                wrong.append(f"{path.relative_to(root)}:{line}: {module} imports {target}")
    return wrong


def test_no_arrow_points_left():
    assert wrong_arrows(ROOT) == []


def test_the_files_are_really_read():
    targets = {target for _, target in _imports(ROOT / "kernels" / "mel_reference.py", ROOT)}
    assert {"numpy", "triadbench.kernels.spec", "triadbench.kernels.spec.MelSpec", "torch"} <= targets


@pytest.mark.parametrize(
    ("path", "source", "target"),
    [
        ("core/a.py", "import export", "export"),
        ("core/a.py", "from triadbench.bench.report import x", "triadbench.bench.report"),
        ("core/deep/a.py", "def f():\n    from triadbench.cli import main", "cli"),
        ("kernels/a.py", "import triadbench.core.audio.io as audio", "triadbench.core.audio.io"),
        ("kernels/__init__.py", "from triadbench.core import audio", "core"),
        (
            "export/a.py",
            "import importlib\nimportlib.import_module('triadbench.core.timing')",
            "triadbench.core.timing",
        ),
        ("bench/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import cli", "cli"),
        ("core/a.py", "from ..bench import timing", "bench"),
        ("kernels/mel_a.py", "from triadbench.kernels import mel_b", "kernels.mel_b"),
        ("kernels/mel_a.py", "from . import mel_b", "kernels.mel_b"),
        ("kernels/mel_a.py", "from .mel_b import forward", "kernels.mel_b"),
        ("kernels/mel_a.py", "import triadbench.kernels.compare", "triadbench.kernels.compare"),
        ("kernels/mel_a.py", "import kernels.b_plan", "kernels.b_plan"),
        ("kernels/spec.py", "from triadbench.kernels.compare import compare", "triadbench.kernels.compare"),
        ("kernels/spec.py", "from triadbench.kernels.torch_operator import Kept", "triadbench.kernels.torch_operator"),
        ("kernels/torch_operator.py", "import kernels.mel_a", "kernels.mel_a"),
        ("kernels/torch_operator.py", "from kernels.a_plan import b", "kernels.a_plan"),
    ],
)
def test_a_left_pointing_arrow_is_found(tmp_path, path, source, target):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source, encoding="utf-8")
    assert any(arrow.endswith(f"imports {target}") for arrow in wrong_arrows(tmp_path))


def test_right_pointing_arrows_pass(tmp_path):
    for path, source in {
        "cli.py": "import bench, triadbench.core.audio.io\nfrom kernels import MelSpec",
        "bench/a.py": "from triadbench.export import b\nfrom bench.c import d",
        "core/a.py": "from triadbench.kernels.spec import MelSpec\nfrom . import b\nimport numpy, bencher",
        "kernels/__init__.py": "from triadbench.kernels import mel_a\nfrom .spec import MelSpec",
        "kernels/torch_operator.py": "from triadbench.kernels.spec import MelSpec",
        "kernels/mel_a.py": "from triadbench.kernels.spec import MelSpec\nfrom .spec import LOG_EPS\nimport torch, kernels.a_plan\n"
        "from triadbench.kernels.torch_operator import Kept",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(source, encoding="utf-8")
    assert wrong_arrows(tmp_path) == []
