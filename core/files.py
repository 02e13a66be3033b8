"""Files: the shipped ones, written whole or not at all, held by one process, listed, checksums, room on the disk."""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from triadbench.core.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder that is imported as `triadbench`: a checkout, or a part of site-packages."""
StrPath = str | os.PathLike
ModelFiles = StrPath | Sequence[StrPath]
"""The file of a model; or two, the type network and the root network of the original study, joined into one model."""


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
    """Yield a path of the same name in a scratch folder beside `path`; rename it to `path` if the block succeeds.

    It is an empty file, or with `directory=True` a new folder, and then `path` must not exist yet or be an empty one.
    The umask decides who may read it.

    Raises:
        UserError: the parent folder cannot be made, `path` is a full folder, or the disk refuses the write.
    """
    from triadbench.kernels.scratch import scratch_folder  # not for commands that write nothing

    path = Path(path)
    make_folder(path.parent)
    if directory and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path} exists already and is not empty; remove it or choose another output")
    if not directory and path.is_dir():
        raise UserError(f"{path} is a folder, and a file is to be written there; give a file name")
    with contextlib.ExitStack() as stack:
        try:
            temporary = stack.enter_context(scratch_folder(path.parent)) / path.name
            temporary.mkdir() if directory else temporary.touch()
            mode = stat.S_IMODE(temporary.stat().st_mode)
        except OSError as error:
            raise UserError(f"{path.parent}: cannot write here ({error.strerror})") from error
        try:
            yield temporary
            if directory and path.is_dir():
                path.rmdir()
            temporary.chmod(mode)  # some writers make the file anew, readable by its owner alone
            os.replace(temporary, path)
        except OSError as error:
            raise UserError(f"{path}: cannot write ({error.strerror or error}); nothing was changed there") from error


def only_one(folder: Path, option: str = "--run", name: str = "lock") -> contextlib.AbstractContextManager[None]:
    """Hold a folder for this process alone, or raise UserError; a process that dies lets go of it.

    `option` is the way out that the UserError names; `name` is that of the file which is held.
    """
    return _hold(folder / name, folder, "here", option)


def only_writer(records_path: Path, option: str = "--records") -> contextlib.AbstractContextManager[None]:
    """Hold a record file for this process alone, by a file "NAME.lock" beside it; as `only_one`."""
    return _hold(records_path.with_name(f"{records_path.name}.lock"), records_path, "with these records", option)


@contextlib.contextmanager
def _hold(lock: Path, held: Path, where: str, option: str) -> Iterator[None]:
    try:
        is_new = not lock.parent.exists()
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "a")
    except OSError as error:
        raise UserError(f"{held}: cannot be written ({error.strerror}); choose another {option}") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                raise BlockingIOError  # its holder has just removed it, and the next may have made another
        except (BlockingIOError, FileNotFoundError) as error:
            way_out = f"wait for it or choose another {option}"
            raise UserError(f"{held}: another run is at work {where}; {way_out}") from error
        except (ImportError, OSError):  # no locks, on Windows or this disk: two runs are the user's to avoid
            pass
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()
                if is_new:
                    lock.parent.rmdir()  # unless something is in it


def model_paths(files: ModelFiles) -> tuple[Path, ...]:
    """One path, or two; UserError: more, or none."""
    try:
        paths = (Path(files),) if isinstance(files, StrPath) else tuple(map(Path, files))
    except TypeError as error:
        raise UserError(f"model={files!r}: expected a path, or a list of two") from error
    if len(paths) not in (1, 2):
        given = ", ".join(map(str, paths)) or "no model file"
        raise UserError(f"{given}: give one model, or two: the checkpoints of a type network and of a root network")
    return paths


def model_name(files: ModelFiles) -> str:
    """Names of a model's files, for people: "type.pth + root.pth"; two of one name with their folders."""
    paths = model_paths(files)
    n = 1 if len({path.name for path in paths}) == len(paths) else 2
    return " + ".join("/".join(path.parts[-n:]) for path in paths)


def model_stem(files: ModelFiles) -> str:
    """What files made of a model are called; of two, both names in the order of the alphabet, or the one they share."""
    return "-".join(sorted({path.stem for path in model_paths(files)}))


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
