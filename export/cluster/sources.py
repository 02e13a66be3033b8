"""What a bulk run reads: folders, buckets and lists of files, as one table of ids and paths.

A path is one of this machine, absolute, or a URI: s3://bucket/key, gs://bucket/key, https://host/file. What follows
"://" in a bucket is taken as it stands, without escapes.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import os
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import quote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs, parquet

from triadbench.core.audio.io import AUDIO_SUFFIXES, SUFFIXES_SAID, find_files
from triadbench.core.errors import UserError
from triadbench.export.predict.bulk import source_of

LISTS = (".txt", ".csv", ".parquet")
"""Suffixes of lists of files."""
_LOGIN_HINTS = {
    "s3": "if it is not public, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; for another server AWS_ENDPOINT_URL",
    "gs": "if it is not public, set GOOGLE_APPLICATION_CREDENTIALS, or log in with gcloud",
}
_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S, _RETRY_S, _ATTEMPTS = 5, 60, 15, 3
_LONGEST_REASON = 300
_URL_CHARACTERS = "%/:?#[]@!$&'()*+,;=~"  # that are part of a URL as they stand
_REFUSED = re.compile(r"HTTP (status|Error) 4(?!08|29)\d\d|ACCESS_DENIED|NO_SUCH_KEY")


class StorageFailure(Exception):
    """A bucket does not answer. The file is not at fault: the run stops, and can go on another time."""


def locate(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or of a bucket's URI, and the name that it has there. Raises UserError for another
    scheme, and what `storage_errors` explains."""
    scheme, remote, name = path.partition("://")
    if not remote:
        return fs.LocalFileSystem(), os.path.abspath(path)
    if scheme not in _LOGIN_HINTS:
        raise UserError(f"{path}: {scheme}:// is not supported; give a path, s3:// or gs://")
    return _file_system(scheme, name.partition("/")[0]), name.rstrip("/")


@functools.cache
def _file_system(scheme: str, bucket: str) -> fs.FileSystem:
    if scheme == "gs":
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=_RETRY_S))
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        region=region or (None if endpoint.netloc else fs.resolve_s3_region(bucket)),
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or "https",
        connect_timeout=_CONNECT_TIMEOUT_S,
        request_timeout=_READ_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


@contextlib.contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """What goes wrong with a place, as a UserError that says how to get in."""
    try:
        yield
    except (OSError, ValueError, csv.Error, pa.ArrowException, StorageFailure) as error:
        hint = next((f"; {words}" for scheme, words in _LOGIN_HINTS.items() if path.startswith(f"{scheme}://")), "")
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:_LONGEST_REASON]
        raise UserError(f"{path}: cannot be used ({reason}){hint}") from error


def list_files(sources: Sequence[str]) -> pa.Table:
    """The files of all sources: columns `id`, the path or what a list says, and `path` (bytes, as the system has it).

    Raises:
        UserError: a source is missing, cannot be read or holds no file, a list is damaged, or an id occurs twice.
    """
    table = pa.concat_tables(map(_list, sources))
    counts = pc.value_counts(table["id"])
    if len(counts) < len(table):
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        first = repeated[0].as_py()
        raise UserError(f"{len(repeated)} ids occur more than once, as {first!r}; give each file its own id")
    return table


def _list(source: str) -> pa.Table:
    suffix = PurePosixPath(urlsplit(source).path if "://" in source else source).suffix.lower()
    if suffix in LISTS and (suffix == ".parquet" or not os.path.isdir(source)):
        return _read_list(source, suffix)
    paths = _list_bucket(source) if "://" in source else _list_folder(source)
    if not paths:
        raise UserError(f"{source}: no audio file is in it (looked for {SUFFIXES_SAID})")
    return _table(sorted(paths))


def _table(paths: Sequence[str], ids: Sequence[str] | None = None) -> pa.Table:
    ids = list(map(printable, paths)) if ids is None else ids
    return pa.table({"id": pa.array(ids, pa.string()), "path": pa.array(map(os.fsencode, paths), pa.binary())})


def printable(text: str) -> str:
    """Text with parts of file names in it as UTF-8 can hold it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _list_folder(source: str) -> list[str]:
    if not os.path.exists(source):
        raise UserError(f"{source} does not exist; give folders, buckets, or lists ({', '.join(LISTS)})")
    return [os.path.abspath(path) for path in find_files([source]) if path != source or not os.path.isdir(path)]


def _list_bucket(source: str) -> list[str]:
    scheme = source.partition("://")[0]
    if scheme in ("http", "https"):
        raise UserError(f"{source}: files on a web server cannot be listed; give a list ({', '.join(LISTS)})")
    with storage_errors(source):
        system, root = locate(source)
        entry = system.get_file_info(root)
        entries = [entry] if entry.is_file else system.get_file_info(fs.FileSelector(root, recursive=True))
    return [f"{scheme}://{e.path}" for e in entries if e.is_file and e.path.lower().endswith(AUDIO_SUFFIXES)]


def _read_list(source: str, suffix: str) -> pa.Table:
    """Its columns `path` and, if there is one, `id`; a text file has a path a line. Relative paths begin at it."""
    with contextlib.ExitStack() as stack, storage_errors(source):
        if "://" in source:
            file: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            fetch(source, file)
            file.seek(0)
        elif not os.path.isdir(source):
            file = stack.enter_context(open(source, "rb"))
        if suffix == ".parquet":
            table = parquet.read_table(source if os.path.isdir(source) else file)
            columns = [*zip(table.column_names, table.columns, strict=True)]
        elif suffix == ".csv":
            reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), skipinitialspace=True)
            rows = [row for row in reader if row]
            if len({len(row) for row in rows}) > 1:
                raise UserError(f"{source}: not all rows of the list have the same number of columns")
            columns = [(column[0], pa.array(column[1:], pa.string())) for column in zip(*rows, strict=True)]
        else:
            lines = [line.strip() for line in file.read().decode("utf-8-sig", "surrogateescape").split("\n")]
            if bad := [line for line in lines if printable(line) != line]:
                raise UserError(f"{source}: the list is no UTF-8 text, as {printable(bad[0])}")
            columns = [("path", pa.array([line for line in lines if line], pa.string()))]
        names = [name.strip().lower() for name, _ in columns]
        if names.count("path") != 1 or names.count("id") > 1:
            raise UserError(f"{source}: the list has not one column `path`, or ids twice (it has {', '.join(names)})")
        wanted = [name for name in ("path", "id") if name in names]
        lists = {name: columns[names.index(name)][1].cast(pa.string()).to_pylist() for name in wanted}
    if not lists["path"]:
        raise UserError(f"{source}: the list is empty")
    for name, values in lists.items():
        for number, value in enumerate(values, 1):
            if not value or "\0" in value:
                raise UserError(f"{source}: file {number} of the list has no {name}")
    if "://" in source:
        folder = source.partition("?")[0].rpartition("/")[0]
        paths = [path if "://" in path else f"{folder}/{path}" for path in lists["path"]]
    else:
        folder = os.path.dirname(os.path.abspath(source))
        paths = [path if "://" in path else os.path.normpath(os.path.join(folder, path)) for path in lists["path"]]
    return _table(paths, lists.get("id"))


def fetch(path: str, into: IO[bytes]) -> None:
    """Copy what is at a URI.

    Raises:
        UserError: it is not there or may not be read, or its web server does not answer.
        StorageFailure: its bucket does not answer, three times.
    """
    reason = ""
    for attempt in range(_ATTEMPTS):
        time.sleep(2**attempt - 1)
        try:
            into.seek(0)
            into.truncate()
            with _open(path) as file:
                shutil.copyfileobj(file, into, 1 << 20)
                if getattr(file, "length", 0):  # of a web server's answer: http.client does not tell
                    raise OSError("the connection ended early")
            return
        except UserError:
            raise
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist") from error
        except Exception as error:
            reason = " ".join(str(error).split())
            if _REFUSED.search(reason) or isinstance(error, PermissionError | ValueError):
                raise UserError(f"{path}: cannot be read ({reason})") from error
    raise (UserError if path.startswith("http") else StorageFailure)(f"{path}: no answer ({reason})")


def _open(path: str) -> Any:
    if path.startswith(("http://", "https://")):
        return urllib.request.urlopen(quote(path, safe=_URL_CHARACTERS), timeout=_READ_TIMEOUT_S)
    system, name = locate(path)
    return system.open_input_stream(name)


class Reader:
    """Opens files for `infer_files` and `find_timeline`, from several threads; `sizes`, in bytes, of those so far."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, path: str) -> tuple[str | IO[bytes], str | None]:
        """The sound of a path or URI, and the name for its messages, None: its path. Raises as `source_of`, `fetch`."""
        if "://" not in path:
            with contextlib.suppress(OSError):
                self.sizes.append(os.path.getsize(path))
            return source_of(path)
        sound = tempfile.TemporaryFile()
        try:
            fetch(path, sound)
        except BaseException:
            sound.close()
            raise
        self.sizes.append(sound.tell())
        sound.seek(0)
        return sound, path
