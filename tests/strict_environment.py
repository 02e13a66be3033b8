"""A Python that has only the packages that the GPU run may count on, made in a moment of those installed here.

It is a virtual environment whose site-packages holds links to the files of the named packages and of all that their
metadata requires. Nothing is copied or fetched.
"""

import functools
import os
import sys
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

PACKAGES = ("torch", "torchaudio", "numba", "numba-cuda", "click", "onnx", "onnxruntime")
_STANDS_FOR = {"onnxruntime": "onnxruntime-gpu"}
_SHARED = {"nvidia", "cuda", "google"}
"""Folders that many distributions fill, even if one of them puts an __init__.py there."""


def strict_python(folder: Path, packages: Iterable[str] = PACKAGES) -> Path:
    """The interpreter of a new virtual environment in `folder`. Run it with `bare_variables()`: no PYTHONPATH.

    Raises:
        importlib.metadata.PackageNotFoundError: one of the named packages is not installed here.
    """
    distributions = _with_all_required(packages)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    site = folder / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    linked: set[Path] = set()
    for distribution in distributions:
        for file in distribution.files or ():
            if ".." in file.parts or "__pycache__" in file.parts:
                continue
            part = _whole(Path(str(distribution.locate_file(""))), file.parts)
            if part not in linked:
                linked.add(part)
                (site / part).parent.mkdir(parents=True, exist_ok=True)
                (site / part).symlink_to(Path(str(distribution.locate_file(part))))
    return folder / "venv" / "bin" / "python"


def bare_variables(**more: str) -> dict[str, str]:
    """This process's environment without what would let another Python find packages elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return kept | more


def _with_all_required(packages: Iterable[str]) -> list[metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    waiting = [Requirement(package) for package in packages]
    for requirement in waiting:  # which grows
        required = False
        name = requirement.name.lower().replace("_", "-")
        if name not in found:
            try:
                found[name] = _distribution(name)
            except metadata.PackageNotFoundError:
                if name in packages:
                    raise
                continue  # required for another system, or of an install that is not whole: importing will tell
            required = True
        if required or requirement.extras:
            for text in found[name].requires or ():
                needed = Requirement(text)
                if needed.marker is None or any(
                    needed.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)
                ):
                    if needed.name.lower().replace("_", "-") not in found or needed.extras:
                        waiting.append(needed)
    return list(found.values())


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return metadata.distribution(_STANDS_FOR.get(name, name))


def _whole(site: Path, parts: tuple[str, ...]) -> Path:
    """The file, or the outermost folder around it that belongs to its distribution alone."""
    for depth in range(1, len(parts)):
        part = Path(*parts[:depth])
        if _is_one(site / part):
            return part
    return Path(*parts)


@functools.cache
def _is_one(folder: Path) -> bool:
    is_package = (folder / "__init__.py").exists() and folder.name not in _SHARED
    return is_package or folder.suffix in (".dist-info", ".egg-info")
