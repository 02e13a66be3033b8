"""The promise: imports point right only (cli, bench, export, core, kernels, kernels.spec), rooms keep apart, no circles."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["cli", "bench", "export", "core", "kernels"]  # an arrow may skip to the right
ROOMS = {  # the rooms of its own layer that a room may import from; modules that lie in the layer itself are for all
    "core.audio": set(),
    "core.pretrained": set(),
    "core.models": {"core.audio", "core.pretrained"},
    "core.render": {"core.audio", "core.models"},
    "core.data": {"core.audio", "core.models", "core.render"},
    "core.training": {"core.audio", "core.models", "core.data", "core.pretrained"},
    "core.commands": {"core.audio", "core.models", "core.render", "core.data", "core.training", "core.pretrained"},
    "export.predict": set(),
    "export.formats": {"export.predict"},
    "export.songs": {"export.predict"},
    "export.app": {"export.predict", "export.songs"},
    "export.cluster": {"export.predict", "export.songs"},
    "export.commands": {"export.predict", "export.formats", "export.songs", "export.app", "export.cluster"},
    "bench.mel": set(),
    "bench.profile": {"bench.mel", "bench.study"},
    "bench.providers": set(),
    "bench.study": set(),
    "bench.gpu": {"bench.mel", "bench.study", "bench.providers"},
    "bench.analysis": set(),
    "bench.report": {"bench.analysis"},
    "bench.commands": {
        f"bench.{room}" for room in ("mel", "profile", "providers", "study", "gpu", "analysis", "report")
    },
    "kernels.cpu": set(),
    "kernels.gpu": set(),
    "kernels.conv_pool": {"kernels.cpu"},
}
BACKENDS = ("kernels.mel_", "kernels.cpu.", "kernels.gpu.")  # they never import one another ...
SHARED = tuple(
    f"kernels.{name}"
    for name in ("spec", "torch_operator", "object_cache", "scratch", "matmul_plan", "operation_count")
)
"""... but these."""


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, root: Path) -> list[tuple[int, str]]:
    """Every (line, dotted name without `triadbench.`) that a file imports, in functions and for types as well."""
    package = ["triadbench", *path.relative_to(root).parent.parts]
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            # `from triadbench.kernels import spec` imports a module too: both readings are kept.
            names += [(node.lineno, module), *((node.lineno, f"{module}.{alias.name}") for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.append((node.lineno, node.args[0].value))
    return [(line, name.removeprefix("triadbench.")) for line, name in names if name.startswith("triadbench.")]


def _files(root: Path) -> dict[str, Path]:
    paths = [root / "cli.py", *(path for layer in LAYERS[1:] for path in sorted((root / layer).rglob("*.py")))]
    return {_module_name(path, root): path for path in paths if path.exists()}


def _room(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in ROOMS else parts[0]


def _is_wrong(module: str, target: str) -> bool:
    here, there = module.split(".")[0], target.split(".")[0]
    if there not in LAYERS:
        return False
    if LAYERS.index(there) < LAYERS.index(here):
        return True
    if module == "kernels.spec":
        return True
    if module.startswith(BACKENDS):
        own = module.split(".")[1] if module.count(".") == 2 else module
        return there == "kernels" and not target.startswith((*SHARED, f"kernels.{own}", own)) and target != "kernels"
    if here != there:
        return False
    mine, theirs = _room(module), _room(target)
    return mine in ROOMS and theirs in ROOMS and theirs not in {mine, *ROOMS[mine]}


def wrong_arrows(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}:{line}: {module} imports {target}"
        for module, path in _files(root).items()
        for line, target in _imports(path, root)
        if _is_wrong(module, target)
    ]


def circle(root: Path) -> list[str]:
    """Modules that import one another in a circle, at the top or in functions; empty if there is none."""
    files = _files(root)
    graph = {}
    for module, path in files.items():
        targets = {target for _, target in _imports(path, root)}
        # A package's own __init__ runs first, whoever imports from it: that is Python's doing and no arrow of ours.
        graph[module] = {t for t in targets if t in files and t != module and not module.startswith(f"{t}.")}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_arrow_is_wrong():
    assert wrong_arrows(ROOT) == []


def test_there_is_no_circle():
    assert circle(ROOT) == []
    graphlib.TopologicalSorter(ROOMS).prepare()  # rooms keep to `ROOMS`, which has none either


def test_the_files_are_really_read():
    targets = {target for _, target in _imports(ROOT / "kernels" / "mel_reference.py", ROOT)}
    assert {"kernels.spec", "kernels.spec.MelSpec"} <= targets
    assert len(_files(ROOT)) > 100 and {_room(module) for module in _files(ROOT)} >= set(ROOMS)


@pytest.mark.parametrize(
    ("path", "source", "target"),
    [
        ("core/a.py", "import triadbench.export", "export"),
        ("core/a.py", "from triadbench.bench.report import x", "bench.report"),
        ("core/deep/a.py", "def f():\n    from triadbench.cli import main", "cli"),
        ("kernels/a.py", "import triadbench.core.audio.io as audio", "core.audio.io"),
        ("kernels/__init__.py", "from triadbench.core import audio", "core"),
        ("export/a.py", "import importlib\nimportlib.import_module('triadbench.bench.roofs')", "bench.roofs"),
        ("bench/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import triadbench.cli", "cli"),
        ("core/a.py", "from ..bench import roofs", "bench"),
        ("core/data/a.py", "from triadbench.core.training import train", "core.training"),
        ("core/render/a.py", "from triadbench.core.data.dataset import x", "core.data.dataset"),
        ("bench/analysis/a.py", "from triadbench.bench.study.ladder import x", "bench.study.ladder"),
        ("bench/mel/a.py", "def f():\n    from triadbench.bench.report import page", "bench.report"),
        ("export/predict/a.py", "from triadbench.export.formats import verify", "export.formats"),
        ("kernels/mel_a.py", "from triadbench.kernels import mel_b", "kernels.mel_b"),
        ("kernels/mel_a.py", "from . import mel_b", "kernels.mel_b"),
        ("kernels/mel_a.py", "from .mel_b import forward", "kernels.mel_b"),
        ("kernels/mel_a.py", "import triadbench.kernels.compare", "kernels.compare"),
        ("kernels/cpu/a.py", "import triadbench.kernels.gpu.plan", "kernels.gpu.plan"),
        ("kernels/gpu/a.py", "from triadbench.kernels import mel_b", "kernels.mel_b"),
        ("kernels/spec.py", "from triadbench.kernels.compare import compare", "kernels.compare"),
    ],
)
def test_a_wrong_arrow_is_seen(tmp_path, path, source, target):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source, encoding="utf-8")
    assert any(arrow.endswith(f"imports {target}") for arrow in wrong_arrows(tmp_path))


def test_right_pointing_arrows_pass(tmp_path):
    for path, source in {
        "cli.py": "import triadbench.bench, triadbench.core.audio\nfrom triadbench.kernels import MelSpec",
        "bench/a.py": "from triadbench.export import b\nfrom triadbench.bench.c import d",
        "core/a.py": "from triadbench.kernels.spec import MelSpec\nfrom . import b\nimport numpy, bencher",
        "core/data/a.py": "from triadbench.core.render.chords import x\nfrom triadbench.core import files",
        "kernels/__init__.py": "from triadbench.kernels import mel_a\nfrom .spec import MelSpec",
        "kernels/mel_a.py": "from triadbench.kernels.spec import MelSpec\nfrom .spec import LOG_EPS\nimport torch",
        "kernels/cpu/a.py": "from triadbench.kernels.cpu.plan import b\nfrom triadbench.kernels import object_cache",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text(source, encoding="utf-8")
    assert wrong_arrows(tmp_path) == []


def test_a_circle_is_seen(tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "a.py").write_text("def f():\n    from triadbench.core import b", encoding="utf-8")
    (tmp_path / "core" / "b.py").write_text("from triadbench.core.a import f", encoding="utf-8")
    assert set(circle(tmp_path)) == {"core.a", "core.b"}
