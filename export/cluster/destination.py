"""Where a bulk run's rows go: a folder or a bucket of Parquet files, one for each part of the list of files.

The list is cut into parts once, and kept: whoever works on a part writes the same rows under the same name, whole or
not at all. So an id has one row, however often a part is begun. Names that begin with "_" are no data to readers of
Parquet folders, and do not end in ".parquet".
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset, feather, fs, parquet

from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.export.cluster.sources import locate, printable, storage_errors

_text, _share, _seconds = pa.string(), pa.float64(), pa.float64()
_FILE = {"id": _text, "path": _text}
_END = {"duration_s": _seconds, "note": _text, "model": _text, "error": _text}
_NAMES = {name: _text for name in ("name", "label", "bass", "chord", "root", "type")}
_SHARES = {name: _share for name in ("label_confidence", "confidence")}
CHORDS = pa.schema(
    {**_FILE, **_NAMES, **_SHARES}
    | {"type_confidence": _share, "root_confidence": _share, "agreement": _share, "windows": pa.int64()}
    | _END
)
"""A row of each file, with the columns of `infer --csv`."""
_SEGMENT = pa.struct({"start_s": _seconds, "end_s": _seconds, **_NAMES, **_SHARES, "roman": _text})
_BEAT = pa.struct({"s": _seconds, "position": pa.int64()})
TIMELINES = pa.schema(
    {**_FILE, "segments": pa.list_(_SEGMENT), "key": _text, "key_confidence": _share, "tempo_bpm": pa.float64()}
    | {"meter": pa.int64(), "beats": pa.list_(_BEAT)}
    | _END
)
"""A row of each song, with the fields of `infer --timeline --json`."""
RUN, FILES, LOCK = "_run.json", "_files.arrow", "_lock"
_ATTEMPTS = "_attempts-{:06d}.json"
_PART = re.compile(r"part-(\d+)\.parquet")
STATISTICS = b"triadbench"
"""Key of a part's metadata: its time, memory and bytes, as JSON."""


class Destination:
    """A folder or a bucket, by its path or URI."""

    def __init__(self, uri: str):
        if not uri.strip():
            raise UserError("--out has no name; give a folder or a bucket")
        with storage_errors(uri):
            self._system, self._root = locate(uri)
        self.is_local = isinstance(self._system, fs.LocalFileSystem)
        self.uri = self._root if self.is_local else uri

    def names(self) -> list[str]:
        """Names of its files; none if it does not exist yet."""
        with storage_errors(self.uri):
            if self.is_local:  # where names need not be text
                names = os.listdir(self._root) if os.path.lexists(self._root) else []
            else:
                infos = self._system.get_file_info(fs.FileSelector(self._root, allow_not_found=True))
                names = [info.base_name for info in infos]
        return [name for name in names if name != LOCK and name[0] != "."]

    def parts(self) -> set[int]:
        """Numbers of the parts that are done."""
        return {int(found[1]) for found in map(_PART.fullmatch, self.names()) if found}

    def read(self, name: str) -> bytes:
        """A file's bytes."""
        with storage_errors(f"{self.uri}/{name}"), self._system.open_input_file(f"{self._root}/{name}") as file:
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        if self.is_local:
            with atomic_path(Path(self._root, name)) as temporary:
                temporary.write_bytes(content)
            return
        with storage_errors(f"{self.uri}/{name}"), self._system.open_output_stream(f"{self._root}/{name}") as file:
            file.write(content)

    def write_part(self, number: int, rows: Sequence[dict], schema: pa.Schema, statistics: dict) -> None:
        """Write a part's rows with its statistics, and delete its record of attempts."""
        table = pa.Table.from_pylist(rows, schema.with_metadata({STATISTICS: json.dumps(statistics)}))
        content = io.BytesIO()
        parquet.write_table(table, content)
        self.write(f"part-{number:06d}.parquet", content.getvalue())
        self._delete(_ATTEMPTS.format(number))

    def _delete(self, name: str) -> None:
        with storage_errors(self.uri), contextlib.suppress(FileNotFoundError):
            self._system.delete_file(f"{self._root}/{name}")

    def read_attempts(self, number: int) -> list[str]:
        """Of a part that is not done, one entry for each attempt at it in this run: the file that it was at, or ""."""
        name = _ATTEMPTS.format(number)
        with storage_errors(self.uri):
            there = self._system.get_file_info(f"{self._root}/{name}").is_file
        return json.loads(self.read(name)) if there else []

    def write_attempts(self, number: int, attempts: Sequence[str]) -> None:
        """Keep the attempts at a part, the present one last."""
        self.write(_ATTEMPTS.format(number), json.dumps(attempts).encode())

    def plan(self, files: pa.Table, run: dict[str, Any]) -> pa.Table:
        """The list of files with the column `part`, null for files that no earlier run listed. Nothing is written.

        Raises:
            UserError: a run with other settings, a damaged one, or something else, is here; or there is no such bucket.
        """
        names, bucket = self.names(), self._root.partition("/")[0]
        with storage_errors(self.uri):
            if not self.is_local and self._system.get_file_info(bucket).type == fs.FileType.NotFound:
                raise UserError(f"{self.uri}: there is no bucket {bucket}")
            stored = json.loads(self.read(RUN)) if RUN in names else {}
            listed = feather.read_table(io.BytesIO(self.read(FILES))) if FILES in names else None
        if not isinstance(stored, dict) or (listed is not None and listed.column_names != ["id", "path", "part"]):
            raise UserError(f"{self.uri}: the run here is damaged; choose another --out")
        if RUN in names:
            for key, value in run.items():
                if stored.get(key) != value:
                    difference = f"its {key} is {stored.get(key)}, and now it is {value}"
                    raise UserError(f"{self.uri}: another run is here ({difference}); choose another --out")
        elif names:
            example = printable(min(names))
            raise UserError(f"{self.uri}: other files are here, as {example}; choose a new folder with --out")
        if listed is None:
            return files.append_column("part", pa.nulls(len(files), pa.int64()))
        paths = files["path"].take(pc.index_in(listed["id"], files["id"]))  # of an id that may have a better one now
        listed = listed.set_column(1, "path", pc.coalesce(paths, listed["path"]))
        new = files.filter(pc.invert(pc.is_in(files["id"], listed["id"])))
        return pa.concat_tables([listed, new.append_column("part", pa.nulls(len(new), pa.int64()))])

    def write_plan(self, files: pa.Table, run: dict[str, Any], size: int) -> pa.Table:
        """Keep the run and the list of `plan`, whose new files become parts of `size` behind the others: that list."""
        old = files["part"].drop_null().to_pylist()
        first = max(old, default=-1) + 1
        new = [first + k // size for k in range(len(files) - len(old))]
        files = files.set_column(2, "part", pa.array(old + new, pa.int64()))
        content = io.BytesIO()
        feather.write_feather(files, content)
        for name in self.names():
            if name.startswith("_attempts"):  # of a run that was ended, which is no fault of a file
                self._delete(name)
        self.write(RUN, json.dumps(run, indent=1).encode())
        self.write(FILES, content.getvalue())
        return files

    def _paths(self) -> list[str]:
        return [f"{self._root}/{name}" for name in sorted(filter(_PART.fullmatch, self.names()))]

    def count(self) -> tuple[int, int, int]:
        """(rows, different ids, rows with an error) of all parts, of which there is one at least."""
        with storage_errors(self.uri):
            rows = dataset.dataset(self._paths(), filesystem=self._system).to_table(columns=["id", "error"])
        return len(rows), pc.count_distinct(rows["id"]).as_py(), len(rows) - rows["error"].null_count

    def statistics(self) -> dict[int, dict]:
        """Time, memory, bytes and failed files of each part that is done."""
        with storage_errors(self.uri):
            schemas = [parquet.read_schema(path, filesystem=self._system) for path in self._paths()]
        found = ((schema.metadata or {}).get(STATISTICS, b'{"failed": null}') for schema in schemas)
        return dict(zip(sorted(self.parts()), map(json.loads, found), strict=True))
