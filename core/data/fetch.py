"""The Audio Piano Triads archive (A. Macaya Valladares, Zenodo record 4740877), fetched, checked and unpacked.

Its length, MD5 and address are read from the record at the time, so that they are those of the file as published.
"""

from pathlib import Path
from typing import Any

from triadbench.core.data.clips import Progress
from triadbench.core.data.download import PAUSE_S, check_url, download, fetch_json
from triadbench.core.data.unpack import safe_unpack
from triadbench.core.errors import UserError
from triadbench.core.files import StrPath

RECORD_URL = "https://zenodo.org/api/records/4740877"
ARCHIVE = "audioPianoTriadDataset.zip"
FOLDER = "audioPianoTriadDataset"


def fetch(
    out_dir: StrPath,
    *,
    record_url: str = RECORD_URL,
    progress: Progress | None = None,
    unpack_progress: Progress | None = None,
    unpack: bool = True,
    retries: int = 5,
    pause_s: float = PAUSE_S,
) -> dict:
    """Download the archive into `out_dir` (about 3.8 GB) and unpack it beside (about 6.1 GB more).

    A download that was cut continues where it stopped; a finished one is checked and kept. The unpacked folder appears
    whole; where it is already there, nothing is done.

    Args:
        record_url: the record's JSON description.
        progress, unpack_progress: called with (bytes done, bytes in all) of the download and of unpacking.
        retries: attempts in a row without progress before it gives up.

    Returns:
        {"archive": path or None, "folder": path or None, "size", "checksum"} (the last two None if nothing was done)

    Raises:
        UserError: as `core.data.download.download` and `core.data.unpack.safe_unpack`, or an unusable record.
    """
    out_dir = Path(out_dir)
    archive, folder = out_dir / ARCHIVE, out_dir / FOLDER
    if unpack and folder.is_dir() and any(folder.iterdir()):
        present = str(archive) if archive.is_file() else None
        return {"archive": present, "folder": str(folder), "size": None, "checksum": None}
    url, described = find_file(fetch_json(record_url, retries=retries, pause_s=pause_s), ARCHIVE, record_url)
    download(url, archive, **described, retries=retries, progress=progress, pause_s=pause_s)
    if unpack:
        safe_unpack(archive, folder, unpack_progress)
    return {"archive": str(archive), "folder": str(folder) if unpack else None, **described}


def find_file(record: Any, name: str, record_url: str) -> tuple[str, dict[str, Any]]:
    """Address of one file of a Zenodo record, and {"size", "checksum" ("md5:HEX")}.

    Raises:
        UserError: the record lacks the file or says too little to check it.
    """
    files = record.get("files") if isinstance(record, dict) else None
    for entry in files if isinstance(files, list) else []:
        if not isinstance(entry, dict) or entry.get("key") != name:
            continue
        size, checksum, links = entry.get("size"), entry.get("checksum"), entry.get("links")
        # Zenodo's "self" is the content; servers of its kind that keep them apart add "content".
        url = (links.get("content") or links.get("self")) if isinstance(links, dict) else None
        if not isinstance(size, int) or isinstance(size, bool) or size <= 0 or not isinstance(checksum, str):
            raise UserError(f"{record_url}: the record states no usable size and checksum of {name}")
        if not isinstance(url, str):
            raise UserError(f"{record_url}: the record gives no address of {name}")
        check_url(url)
        return url, {"size": size, "checksum": checksum}
    raise UserError(f"{record_url}: the record has no file {name!r}; give the address of its JSON description")
