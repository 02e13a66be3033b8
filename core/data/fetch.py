"""The Audio Piano Triads archive (A. Macaya Valladares, Zenodo record 4740877), fetched, checked and unpacked.

Its length, MD5 and address are read from the record at the time, so that they are those of the file as published.
A download that was cut is resumed: what has arrived stays in `NAME.part` beside the target, with the server's tag of
the file in `NAME.part.json`, so that a later call, or the next attempt of this one, asks for the rest only (RFC 9110,
range requests with If-Range).
"""

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from triadbench.core.data.clips import Progress
from triadbench.core.data.unpack import safe_unpack
from triadbench.core.errors import UserError
from triadbench.core.files import StrPath, atomic_path, check_room, file_digest, make_folder, only_one

RECORD_URL = "https://zenodo.org/api/records/4740877"
ARCHIVE = "audioPianoTriadDataset.zip"
FOLDER = "audioPianoTriadDataset"
_TIMEOUT_S = 30.0
PAUSE_S = 1.0
"""Wait before the second attempt in a row that brought nothing; it doubles with each."""
_PAUSE_LIMIT_S = 30.0
_BLOCK = 1 << 18
_JSON_LIMIT = 16 << 20
_TEMPORARY_STATUS = {408, 425, 429, 500, 502, 503, 504}
"""HTTP statuses of a server that may do better soon."""
_DIGESTS = {"md5", "sha1", "sha256", "sha512"}
_FAILURES = (http.client.HTTPException, OSError)  # URLError, timeouts and lost connections are OSErrors


class _TemporaryError(Exception):
    """A failure after which another attempt makes sense."""


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

    A finished download is checked and kept. The unpacked folder appears whole; where it is there, nothing is done.
    `record_url` holds the record's JSON description; the callbacks get (bytes done, bytes in all).

    Returns:
        {"archive": path or None, "folder": path or None, "size", "checksum"} (the last two None if nothing was done)

    Raises:
        UserError: as `download` and `safe_unpack`, an unusable record, or another process fetches into the folder.
    """
    out_dir = Path(out_dir)
    archive, folder = out_dir / ARCHIVE, out_dir / FOLDER
    if unpack and folder.is_dir() and any(folder.iterdir()):
        present = str(archive) if archive.is_file() else None
        return {"archive": present, "folder": str(folder), "size": None, "checksum": None}
    with only_one(out_dir, "folder"):
        url, described = _find_file(_fetch_json(record_url, retries=retries, pause_s=pause_s), ARCHIVE, record_url)
        download(url, archive, **described, retries=retries, progress=progress, pause_s=pause_s)
        if unpack:
            safe_unpack(archive, folder, unpack_progress)
    return {"archive": str(archive), "folder": str(folder) if unpack else None, **described}


def _find_file(record: Any, name: str, record_url: str) -> tuple[str, dict[str, Any]]:
    """Address of one file of a Zenodo record, and {"size", "checksum" ("md5:HEX")}."""
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
        _check_url(url)
        return url, {"size": size, "checksum": checksum}
    raise UserError(f"{record_url}: the record has no file {name!r}; give the address of its JSON description")


def download(
    url: str,
    path: StrPath,
    *,
    size: int | None = None,
    checksum: str | None = None,
    retries: int = 5,
    progress: Progress | None = None,
    pause_s: float = PAUSE_S,
) -> Path:
    """Fetch a file, whole and checked; what an earlier call left is continued.

    Args:
        size: its length in bytes, where known. checksum: "md5:HEX" (or sha1, sha256, sha512), where known.
        retries: attempts in a row that may bring nothing before it gives up; progress starts the count again.
        progress: called with (bytes here, bytes in all or None).

    Returns:
        `path`. A file that is there already and has that size and checksum is not fetched again.

    Raises:
        UserError: no http or https, refused, gave up (the part stays), another length than stated, no room, or a wrong
            file (removed).
    """
    _check_url(url)
    path = Path(path)
    if path.is_file() and (size, checksum) != (None, None) and _mismatch(path, size, checksum, progress) is None:
        return path
    make_folder(path.parent)
    if path.exists():
        raise UserError(f"{path} exists already and is not the file to be fetched; move it or choose another folder")
    part = path.with_name(path.name + ".part")
    failures, most = 0, _size(part)
    while True:
        try:
            _attempt(url, part, size, progress)
            break
        except _TemporaryError as error:
            # Against the most there ever was: a server that starts over each time makes no progress by coming back.
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures > retries:
                kept = f"{_size(part)} bytes are kept in {part}: run the same command again to continue"
                tries = f"gave up after {failures} attempts without progress"
                raise UserError(f"{url}: {error}; {tries}. {kept}") from error
            time.sleep(min(_PAUSE_LIMIT_S, pause_s * 2 ** max(0, failures - 1)))
    if mismatch := _mismatch(part, size, checksum):
        _forget(part)
        raise UserError(f"{url}: wrong file: {mismatch}. It was removed; run the command again")
    _tag_path(part).unlink(missing_ok=True)  # first, so that nothing but the file can be left
    os.replace(part, path)
    return path


def _check_url(url: str) -> None:
    """Refuse whatever is not http or https with a host (a file: address would read this machine)."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or re.search(r"[\0-\x20]|\s", url):
        raise UserError(f"{url!r} is not an http or https address")


def _fetch_json(url: str, *, retries: int, pause_s: float) -> Any:
    _check_url(url)
    for attempt in range(retries + 1):
        try:
            with _request(url, {}) as response:
                body = response.read(_JSON_LIMIT + 1)
            break
        except (_TemporaryError, *_FAILURES) as error:
            if attempt == retries:
                raise UserError(f"{url}: {_reason(error)}; gave up after {attempt + 1} attempts") from error
            time.sleep(min(_PAUSE_LIMIT_S, pause_s * 2**attempt))
    if len(body) > _JSON_LIMIT:
        raise UserError(f"{url}: more than {_JSON_LIMIT} bytes where a short description was expected")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{url}: the response is not JSON ({error})") from error


def _attempt(url: str, part: Path, size: int | None, progress: Progress | None) -> None:
    """Fetch what is missing of `part`, or raise `_TemporaryError` with what has come kept."""
    have, tag = _size(part), _read_tag(part, url)
    if have == size:
        return
    # Too long, or nothing says that the rest would belong to the same file.
    if have > size if size is not None else have and tag is None:
        _forget(part)
        have, tag = 0, None
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {})
    try:
        with _request(url, headers) as response:
            start, total = _place(response, have, size, url)
            check_room(part.parent, (total or 0) - start)
            _write_tag(part, url, response.headers.get("ETag") or response.headers.get("Last-Modified"))
            _receive(response, part, start, total, url, progress)
    except urllib.error.HTTPError as error:
        # The server has no byte beyond ours: the file is complete if that is its length, else it is another file.
        if error.headers.get("Content-Range") != f"bytes */{have}":
            _forget(part)
            raise _TemporaryError("the server's file is shorter than what was kept of it") from error
    except _FAILURES as error:
        raise _TemporaryError(_reason(error)) from error


def _request(url: str, headers: dict[str, str]):
    """The response; an HTTPError where nothing is left after the range that the headers ask for."""
    request = urllib.request.Request(url, headers={"User-Agent": "triadbench", **headers})
    try:
        return urllib.request.build_opener(_SafeRedirects).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and "Range" in headers:
                raise
            if error.code in _TEMPORARY_STATUS:
                raise _TemporaryError(f"the server answered {error.code} {error.reason}") from error
            raise UserError(f"{url}: the server answered {error.code} {error.reason}") from error


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        _check_url(newurl)
        if req.type == "https" and not newurl.lower().startswith("https:"):
            raise UserError(f"{req.full_url}: redirected from https to {newurl}, which is not; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _place(response, have: int, size: int | None, url: str) -> tuple[int, int | None]:
    """Where the response's first byte belongs, and the length of the whole file; checked against what is known."""
    length = response.headers.get("Content-Length", "")
    start, total = 0, int(length) if length.isdigit() else size
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            raise UserError(f"{url}: the server sent another part than was asked for (from byte {have})")
        start, total = have, size if match[3] == "*" else int(match[3])
    if size not in (None, total):
        raise UserError(f"{url}: the server's file has {total} bytes, and {size} are stated; it is not the file")
    return start, total


def _receive(response, part: Path, start: int, total: int | None, url: str, progress: Progress | None) -> None:
    done = start
    try:
        with open(part, "r+b" if part.exists() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            while total is None or done <= total:
                if progress is not None:
                    progress(done, total)
                try:
                    block = response.read1(_BLOCK)
                except _FAILURES as error:
                    raise _TemporaryError(f"{_reason(error)} after {done} bytes") from error
                if not block:
                    break
                done += len(block)
                file.write(block)
    except OSError as error:
        # A disk that refuses is no failure of the network: another attempt does not help.
        raise UserError(f"{part}: cannot be written ({error.strerror or error}); what came is kept") from error
    if total is not None and done > total:
        _forget(part)
        raise UserError(f"{url}: the server sends more than the {total} bytes that are stated; it is not the file")
    if total is not None and done < total:
        raise _TemporaryError(f"the connection closed after {done} of {total} bytes")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_path(part).unlink(missing_ok=True)


def _mismatch(path: Path, size: int | None, checksum: str | None, progress: Progress | None = None) -> str | None:
    """How a file differs from what is stated of it, or None."""
    actual, stated = f"{_size(path)} bytes", "" if size is None else f"{size} bytes"
    if size not in (None, _size(path)):
        return f"{actual}; stated: {stated}"
    if checksum is None:
        return None
    algorithm, _, value = checksum.partition(":")
    if algorithm not in _DIGESTS or not value:
        raise UserError(f"checksum {checksum!r} must look like md5:HEX, with one of {', '.join(sorted(_DIGESTS))}")
    digest = file_digest(path, algorithm, progress)
    separator = ", " if stated else ""
    return None if digest == value.lower() else f"{actual}, {algorithm} {digest}; stated: {stated}{separator}{checksum}"


def _tag_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_tag(part: Path, url: str) -> str | None:
    try:
        stored = json.loads(_tag_path(part).read_text("utf-8"))
        return stored["tag"] if stored["url"] == hashlib.sha256(url.encode()).hexdigest() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_tag(part: Path, url: str, tag: str | None) -> None:
    # A weak tag (W/) must not be used in If-Range: it promises the same meaning, not the same bytes.
    if tag is None or tag.startswith("W/"):
        _tag_path(part).unlink(missing_ok=True)
        return
    with atomic_path(_tag_path(part)) as temporary:
        # The address may hold a key, and is only compared.
        stored = {"url": hashlib.sha256(url.encode()).hexdigest(), "tag": tag}
        temporary.write_text(json.dumps(stored), "utf-8")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason) or type(error).__name__
