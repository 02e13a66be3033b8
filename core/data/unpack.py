"""Unpacking an archive from elsewhere: every member is judged before the first byte is written.

Refused, whole: names that leave the folder or that a system could read otherwise, links and devices, members of the
same name, encryption, sizes that contradict the archive's, and bombs. What is accepted is unpacked into a temporary
folder and renamed, so a hostile or damaged archive leaves nothing.
"""

import shutil
import stat
import unicodedata
import zipfile
import zlib
from pathlib import Path

from triadbench.core.data.clips import Progress
from triadbench.core.data.dataset import ENCRYPTED, first_true, unsafe_name
from triadbench.core.errors import UserError
from triadbench.core.files import StrPath, atomic_path, check_room

MAX_BYTES = 64 << 30
MAX_MEMBERS = 1_000_000
MAX_RATIO = 100
"""Unpacked over packed size of the whole archive; sound shrinks two- or threefold, a bomb hundreds of times."""
_RATIO_MATTERS_BYTES = 64 << 20
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, UnicodeError)


def safe_unpack(
    zip_path: StrPath,
    out: StrPath,
    progress: Progress | None = None,
    *,
    max_bytes: int = MAX_BYTES,
    max_ratio: float = MAX_RATIO,
) -> int:
    """Unpack a zip into the folder `out`, which must not exist yet or be empty.

    Args:
        progress: called with (bytes written, bytes in all).
        max_bytes, max_ratio: most that it may unpack to, and grow by where that is more than 64 MiB.

    Returns:
        the number of files; a UserError, and nothing at `out`, if hostile, damaged, or `out` is taken or has no room.
    """
    zip_path = Path(zip_path)
    try:
        with zipfile.ZipFile(zip_path) as archive:
            members = archive.infolist()
            total = _judge(zip_path, members, max_bytes, max_ratio)
            with atomic_path(out, directory=True) as folder:
                check_room(folder.parent, total)
                done = 0
                for info in members:
                    done += _write(archive, info, folder.joinpath(*info.filename.rstrip("/").split("/")))
                    if progress is not None:
                        progress(done, total)
    except FileNotFoundError as error:
        raise UserError(f"{zip_path} does not exist") from error
    except OSError as error:
        raise UserError(f"{zip_path}: cannot be read ({error.strerror or error})") from error
    except _DAMAGE as error:
        raise UserError(f"{zip_path}: damaged or not a zip ({error}); nothing was unpacked") from error
    return sum(not info.is_dir() for info in members)


def _judge(zip_path: Path, members: list[zipfile.ZipInfo], max_bytes: int, max_ratio: float) -> int:
    """Refuse a hostile archive by its directory alone; the bytes that it declares otherwise."""
    if len(members) > MAX_MEMBERS:
        raise UserError(f"{zip_path}: refused, {len(members)} members are more than {MAX_MEMBERS}")
    files: set[str] = set()
    folders: set[str] = set()
    for info in members:
        name = info.filename.rstrip("/")
        path = unicodedata.normalize("NFC", name).casefold()  # as file systems that ignore case or accents see it
        parents = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
        reason = unsafe_name(info.orig_filename) or first_true(
            ("a link or device", stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)),
            ("an empty part in its path", any(part.strip(" .") == "" for part in name.split("/"))),
            ("encrypted", info.flag_bits & ENCRYPTED),
            ("a folder with content", info.is_dir() and info.file_size),
            ("a second member of that name", path in files or (path in folders and not info.is_dir())),
            ("a file is also a folder", not files.isdisjoint(parents)),
        )
        if reason is not None:
            raise UserError(f"{zip_path}: refused, member {info.orig_filename!r}: {reason}; nothing was unpacked")
        (folders if info.is_dir() else files).add(path)
        folders.update(parents)
    size = zip_path.stat().st_size
    total = sum(info.file_size for info in members)
    if total > max_bytes or (total > _RATIO_MATTERS_BYTES and total > max_ratio * size):
        limits = f"at most {max_bytes} and {max_ratio} times the archive"
        raise UserError(f"{zip_path}: refused, {size} bytes would unpack to {total} ({limits}); nothing was unpacked")
    if sum(info.compress_size for info in members) > size:
        raise UserError(f"{zip_path}: refused, its members overlap; nothing was unpacked")
    return total


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> int:
    """Unpack one member; the bytes written."""
    if info.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, open(target, "xb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
        if file.tell() != info.file_size:
            raise zipfile.BadZipFile(f"member {info.filename!r} has another length than it declares")
    return info.file_size
