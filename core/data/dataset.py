"""Open a set of labelled clips: a folder, a zip read without unpacking, or a packed array (`core.data.pack`).

Labels come from file names alone (`core.models.chords`); a file whose name or header cannot be read is listed in
`Dataset.skipped` with the reason, never guessed at. A manifest `clips.jsonl` beside the clips may say which recording
a clip is a variant of, one JSON object a line: `{"file": "piano_3_Af_d_m_45.wav", "recording": "r17"}`; other keys
are for whoever wrote it.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from triadbench.core.audio.header import HEADER_BYTES, AudioHeader
from triadbench.core.audio.io import AUDIO_SUFFIXES, AudioError, check_header, read_audio, read_clip, read_header
from triadbench.core.data.clips import Clip, Dataset, Progress, Skipped, parse_member
from triadbench.core.data.containers import Container, Folder, Zip
from triadbench.core.data.pack import is_pack, open_pack
from triadbench.core.errors import UserError
from triadbench.core.files import StrPath

__all__ = ["MANIFEST", "Clip", "Dataset", "FileDataset", "open_dataset", "parse_member"]

MANIFEST = "clips.jsonl"
_IGNORED = {MANIFEST, "thumbs.db", "desktop.ini"}
_CHECK_CHUNK = 256
_CHECK_THREADS = 8
"""Header checks wait for the disk, not the processor; on a network disk the threads wait together."""


class FileDataset(Dataset):
    """Clips that are the sound files of a container."""

    def __init__(
        self, container: Container, clips: Sequence[Clip], skipped: Skipped, headers: Sequence[AudioHeader | None]
    ):
        super().__init__(container.path, container.kind, clips, skipped)
        self._container, self._headers = container, list(headers)

    def read(self, index: int) -> np.ndarray:
        source, name = self._source(index)
        return read_clip(source, name=name)

    def read_native(self, index: int) -> tuple[np.ndarray, int]:
        source, name = self._source(index)
        return read_audio(source, name=name)

    def header(self, index: int) -> AudioHeader:
        header = self._headers[index]
        if header is None:
            source, name = self._source(index)
            header = self._headers[index] = read_header(source, name=name)
        return header

    def file_bytes(self, index: int) -> bytes:
        return self._container.prefix(self.clips[index].member, None)[0]

    def subset(self, indices: Sequence[int]) -> FileDataset:
        clips, headers = [self.clips[i] for i in indices], [self._headers[i] for i in indices]
        return FileDataset(self._container, clips, self.skipped, headers)

    def _source(self, index: int) -> tuple[Path | bytes, str]:
        member = self.clips[index].member
        return self._container.source(member), f"{self.path}{':' if self.kind == 'zip' else '/'}{member}"

    def _state(self, member: str) -> tuple[int, ...]:
        return self._container.state(member)


def open_dataset(path: StrPath, *, check: str = "header", progress: Progress | None = None) -> Dataset:
    """Open a folder (with all below it), a zip, or a pack.

    Hidden files, `__MACOSX` and manifests are passed over; any other file that is no clip is listed as skipped.

    Args:
        check: "header" judges each file by its first bytes and skips what is damaged; "none" opens none.
        progress: called with (files checked, files to check).

    Raises:
        UserError: nothing there, not a data set, no clip in it, or a manifest that cannot be read.
    """
    if check not in ("header", "none"):
        raise ValueError(f"check={check!r} must be 'header' or 'none'")
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give a folder of clips, a .zip of them, or a pack")
    if path.is_dir() and is_pack(path):
        return open_pack(path)
    container: Container = Folder(path) if path.is_dir() else Zip(path)
    skipped = list(container.skipped)
    recordings = _read_manifests(container, skipped)
    clips = []
    for member in container.members:
        if not _is_ignored(member):
            try:
                clips.append(Clip(parse_member(member), member, recordings.get(member)))
            except UserError as error:
                skipped.append((member, str(error)))
    headers: list[AudioHeader | None] = [None] * len(clips)
    if check == "header":
        clips, headers, damaged = _check_all(container, clips, progress)
        skipped += damaged
    skipped.sort()
    if not clips:
        raise UserError(_no_clip_message(path, skipped))
    return FileDataset(container, clips, skipped, headers)


def _is_ignored(member: str) -> bool:
    """True for what is never a clip and not worth listing: hidden files, `__MACOSX`, manifests."""
    parts = member.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts) or parts[-1].lower() in _IGNORED


def _read_manifests(container: Container, skipped: list[tuple[str, str]]) -> dict[str, str]:
    """Recordings by member; what a manifest names and is not there goes to `skipped`."""
    members = set(container.members)
    recordings: dict[str, str] = {}
    for manifest in (member for member in container.members if posixpath.basename(member) == MANIFEST):
        label = f"{container.path}/{manifest}"
        try:
            lines = container.prefix(manifest, None)[0].decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"{label} is not UTF-8 text; mend or remove it") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            file, recording = _read_line(line, f"{label}, line {number}")
            member = posixpath.normpath(posixpath.join(posixpath.dirname(manifest), file.replace("\\", "/")))
            if member not in members:
                skipped.append((member, f"named in {manifest} but not there"))
            elif recording is not None:
                if recordings.setdefault(member, recording) != recording:
                    raise UserError(f"{label}, line {number}: {file!r} has two recordings; mend the manifest")
    return recordings


def _read_line(line: str, where: str) -> tuple[str, str | None]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({error}); mend or remove the manifest") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise UserError(f'{where} must be an object with "file"; mend or remove the manifest')
    recording = entry.get("recording")
    if recording is not None and (isinstance(recording, bool) or not isinstance(recording, (str, int))):
        raise UserError(f'{where}: "recording" must be a string or a whole number, not {recording!r}')
    return entry["file"], None if recording is None else str(recording)


def _check_all(
    container: Container, clips: Sequence[Clip], progress: Progress | None
) -> tuple[list[Clip], list[AudioHeader | None], list[tuple[str, str]]]:
    """The undamaged clips, their headers, and (member, reason) of the damaged."""
    results: list[AudioHeader | str] = []
    chunks = [clips[start : start + _CHECK_CHUNK] for start in range(0, len(clips), _CHECK_CHUNK)]
    with ThreadPoolExecutor(_CHECK_THREADS) as pool:
        for chunk in pool.map(lambda chunk: [_check(container, clip) for clip in chunk], chunks):
            results += chunk
            if progress is not None:
                progress(len(results), len(clips))
    checked = list(zip(clips, results, strict=True))
    kept = [clip for clip, result in checked if isinstance(result, AudioHeader)]
    headers: list[AudioHeader | None] = [result for result in results if isinstance(result, AudioHeader)]
    return kept, headers, [(clip.member, result) for clip, result in checked if isinstance(result, str)]


def _check(container: Container, clip: Clip) -> AudioHeader | str:
    """The header of a clip, or why it is skipped."""
    name = posixpath.basename(clip.member)
    try:
        header = check_header(*container.prefix(clip.member, HEADER_BYTES), name=name)
        return header if header is not None else read_header(container.source(clip.member), name=name)
    except AudioError as error:
        return str(error).removeprefix(f"{name}: ")


def _no_clip_message(path: Path, skipped: Sequence[tuple[str, str]]) -> str:
    line = (
        f"{path}: no clip found; looked for {', '.join('*' + suffix for suffix in AUDIO_SUFFIXES)} "
        f"named like piano_3_Af_d_m_45.wav or shred___Af_d__000.wav, {len(skipped)} other files skipped"
    )
    if skipped:
        line += f" (the first: {skipped[0][0]}: {skipped[0][1]})"
    archives = [member for member, _ in skipped if member.lower().endswith(".zip")]
    return f"{line}; to read {archives[0]}, give its own path" if archives else line
