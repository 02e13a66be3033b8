"""Files: the shipped ones, written whole or not at all, listed below a folder, checksums, room on the disk."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

from triadbench.core.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder that is imported as `triadbench`: a checkout, or a part of site-packages."""
StrPath = str | os.PathLike


def pretrained_path(name: str = "") -> Path:
    """Path of the shipped file `name` (weights, exported models, their card); without a name, of their folder."""
    return Path(str(resources.files("triadbench.core.pretrained")), name)


def make_folder(folder: Path) -> None:
    """Make a folder, or raise a `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make this folder ({error.strerror}); choose another output") from error


@contextlib.contextmanager
def atomic_path(path: StrPath, *, directory: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it otherwise.

    With `directory=True` the temporary path is a new folder, and `path` must not exist yet or be an empty folder.
    The temporary name keeps the suffix of `path`, because writers choose a format by it.

    Raises:
        UserError: the parent folder cannot be made, `path` is a full folder, or the disk refuses the write.
    """
    path = Path(path)
    make_folder(path.parent)
    if directory and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already and is not empty; remove it or choose another output")
    if not directory and path.is_dir():
        raise UserError(f"{path} is a folder, and a file is to be written there; give a file name")
    try:
        if directory:
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        else:
            handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
            os.close(handle)
            temporary = Path(name)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot write here ({error.strerror})") from error
    try:
        yield temporary
        if directory and path.is_dir():
            path.rmdir()
        # Here and not earlier: some writers make the file anew, readable by its owner alone.
        os.chmod(temporary, 0o755 if directory else 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror or error}); nothing was changed there") from error
    finally:
        if directory:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def check_model_file(path: Path, way_out: str = "") -> None:
    """Raises UserError where no such file is (`way_out` is added) or where a library of models would not open it."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a model file; give a file in it")
    if not path.is_file():
        raise UserError(f"{path}: no such model file{way_out}")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: its path is no UTF-8 text, which model files need; rename it") from error


def file_digest(path: StrPath, algorithm: str = "sha256", progress: Callable[[int, int], None] | None = None) -> str:
    """Hex digest of a file's bytes by `algorithm` (a name that hashlib knows), read in blocks."""
    digest, total = hashlib.new(algorithm), os.path.getsize(path)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            if progress is not None:
                progress(file.tell(), total)
    return digest.hexdigest()


def check_room(folder: Path, n_bytes: int) -> None:
    """Raises UserError where the disk of `folder` has less room than `n_bytes`."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise UserError(f"{folder}: {n_bytes / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free")


def walk_files(root: StrPath) -> Iterator[tuple[str, str | None]]:
    """Yield the files below a folder as (path below `root` with "/", None), or what cannot be used ("" for `root`) with
    the reason. Links to folders are followed, no folder twice; hidden folders are left out.
    """
    waiting, seen = [""], set()  # a stack, for folders may lie deeper than Python's calls may
    while waiting:
        below = waiting.pop()
        folder = os.path.join(root, below)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            yield below, f"folder that cannot be read ({error.strerror})"
            continue
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:  # a link to itself
                is_folder = is_file = False
            if not is_folder:
                yield path, None if is_file else "broken link or not a plain file"
            elif not entry.name.startswith("."):
                waiting.append(path)
