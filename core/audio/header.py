"""What a sound file promises, whether the file is long enough, and the plainest wav read at once.

FFmpeg reads a file that was cut short without a word, passes over damaged pages of ogg, and stops where one file ends
and another was joined to it. A label would then be learnt from half a clip, so all that is looked for here.
Layouts: wav (RIFF), AIFF, FLAC (RFC 9639), Ogg pages (RFC 3533), boxes of mp4, the Xing/Info frame of mp3.
"""

import io
import itertools
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

from triadbench.core.errors import UserError

BLOCK_VALUES = 1 << 20
"""Samples (all channels together) decoded at once, so that a header's promise cannot claim memory."""
CONVERT = "if a player plays it, `ffmpeg -i FILE out.wav` makes a wav of it"
HEADER_BYTES = 4096
"""First bytes that `parse_header` takes: a wav may hold some notes before its sound."""
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_STREAMED = (range(0x7FFFF000, 0x80000001), range(0xFFFFFF00, 0x100000000))
"""Sizes that programs write when they do not yet know the length (a pipe), and cannot go back to mend."""
_XING_FRAMES, _XING_BYTES = 1, 2
_TAG_BYTES = 4096
"""Of tags behind an mp3; where more follows, it may be sound."""
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MATROSKA, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"
_OGG_FIRST_PAGE = 2
_IFF = (b"RIFF", b"RF64", b"FORM")
_REPEATED = {b"fLaC": 8, _MATROSKA: 8, b".snd": 8, b"NIST": 8, b"#!AM": 6, b"FLV\1": 9, b"TTA1": 10}
_REPEATED |= {b"caff": 12, b"riff": 16, b"0&\xb2u": 16, b"Crea": 20}
"""Other kinds of file by their first four bytes: so many of its first bytes stand nowhere else in one."""
_CHUNK_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]{2}[A-Za-z0-9_ ]")
_MP3 = b"ID3"
_KINDS = {
    b"WAVE": rb"(?:RIFF|RF64)....WAVE",
    b"AVI ": rb"RIFF....AVI ",
    b"AIF": rb"FORM....AIF[FC]",
    b"fLaC": rb"fLaC[\0\x80]\0\0\x22",
    b"OggS": rb"OggS\0\x02\0{4}",
    b"ftyp": rb"\0\0\0.ftyp(?:M4|mp4|iso|qt|dash|3gp)",
    b"caff": rb"caff\0\x01\0\0",
    b"riff": rb"riff\x2e\x91\xcf\x11",
    b"0&\xb2u": rb"0&\xb2u\x8ef\xcf\x11",
    _MATROSKA: rb"\x1aE\xdf\xa3.{1,8}?\x42[\x82\x86\xf7]",
    b".snd": rb"\.snd\0\0.{6}\0\0\0[\x01-\x1b]",
    _MP3: rb"ID3[\x02-\x04]\0[\0@\x80\xc0][\0-\7][\0-\x7f]{3}",
}
"""Kinds of files that people join: bytes that each holds, and how it begins."""
_TAG_BETWEEN, _HEADER_WITHIN = (_MP3, _MP3), (_MATROSKA, b"fLaC")
_FRAMES = re.compile(rb"\xff[\xf1-\xf3\xf9-\xfb][\x10-\xeb]|\x0b\x77")
"""How mp3, aac and ac3 begin: too few bytes to look for, enough where a file ends."""
_KIND_BYTES = 20
_MOST_JOINED, _MOST_KINDS, _MOST_BOXES = 10_000, 100, 1_000_000
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class AudioError(UserError):
    """A sound that cannot be used, and why."""


@dataclass(frozen=True)
class AudioHeader:
    """What a sound file says of itself.

    Attributes:
        sample_rate: in Hz. frames: samples per channel, None where the file does not say.
        format: container ("WAV", "FLAC", "MOV", ...).
        subtype: coding ("PCM_16", "AAC", ...), None where the first bytes do not tell.
        truncated: how the file falls short of its promise, or None.
        offset: where the sound begins, in bytes, if the first bytes tell.
    """

    sample_rate: int
    channels: int
    frames: int | None
    format: str
    subtype: str | None = None
    truncated: str | None = None
    offset: int | None = None

    @property
    def duration_s(self) -> float | None:
        return None if self.frames is None else self.frames / self.sample_rate


class FilePart:
    """Bytes `start` to `end` of a file, as a file. Where reading fails it ends, with the error in `failure`, since PyAV
    would print what is raised in its calls. It has no name for FFmpeg to judge it by."""

    def __init__(self, file: IO[bytes], start: int, end: int):
        self._file, self._start, self._end = file, start, end
        self.failure: BaseException | None = None
        file.seek(start)

    def tell(self) -> int:
        return self._file.tell() - self._start

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._file.tell()
        size = max(0, left if size < 0 else min(size, left))
        try:
            data = self._file.read(size)
            if size and not data:
                raise OSError("it became shorter while it was read")
        except BaseException as error:
            self.failure = self.failure or error
            return b""
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._end}[whence]
        self._file.seek(min(max(self._start, base + offset), self._end))  # damaged files ask for places far outside
        return self.tell()


def parse_header(prefix: bytes, size: int) -> AudioHeader | None:
    """Header of a wav or FLAC file of `size` bytes by its first bytes; None for others or where they do not reach."""
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WAVE":
        return _parse_wav(prefix, size)
    if prefix[:4] != b"fLaC" or len(prefix) < 42 or prefix[4] & 0x7F:
        return None
    # STREAMINFO: 20 bits rate, 3 bits channels - 1, 5 bits depth - 1, 36 bits total samples (0: not known).
    packed = int.from_bytes(prefix[18:26], "big")
    frames, bits = packed & ((1 << 36) - 1), (packed >> 36 & 0x1F) + 1
    return AudioHeader(packed >> 44, (packed >> 41 & 0x7) + 1, frames or None, "FLAC", f"PCM_{bits}")


def mp3_promise(file: IO[bytes] | FilePart) -> tuple[bool, str | None]:
    """Whether the first frame of an mp3 file states the length, and what is wrong with it, or None."""
    size, start = file.seek(0, os.SEEK_END), _tag_bytes(_read_at(file, 0, 10))
    frame = _read_at(file, start, 200)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if frame[:1] != b"\xff" or at < 0 or len(frame) < at + 16:
        return False, None
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    offset, present = at + 8 + (4 if flags & _XING_FRAMES else 0), size - start
    promised = int.from_bytes(frame[offset : offset + 4], "big") if flags & _XING_BYTES else 0
    is_whole = bool(flags & _XING_FRAMES) and present <= promised + _TAG_BYTES  # no other mp3 was joined to it
    return is_whole, f"truncated: {_missing(promised, present)}" if promised > present else None


def truncation(head: bytes, size: int) -> str | None:
    """How a file of `size` bytes with these first bytes falls short of its promise, or None."""
    promised = _promised(head)
    return f"truncated: {_missing(promised, size)}" if promised > size else None


def _promised(head: bytes) -> int:
    """Bytes that a wma, avi, w64, caf, webm or mkv file with these first bytes says it has, or 0."""
    promised = 0
    if (at := head.find(_ASF_PROPERTIES)) >= 0:
        promised = int.from_bytes(head[at + 40 : at + 48], "little")
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        promised = 8 + int.from_bytes(head[4:8], "little")
        promised = 0 if any(promised - 8 in sizes for sizes in _STREAMED) else promised
    elif head[:4] == b"riff":
        promised = int.from_bytes(head[16:24], "little")
    elif head[:4] == b"caff":
        at = 8
        while head[at : at + 4] not in (b"data", b"") and at < len(head):
            at += 12 + int.from_bytes(head[at + 4 : at + 12], "big")
        promised = at + 12 + int.from_bytes(head[at + 4 : at + 12], "big") if head[at : at + 4] else 0
    elif head[:4] == _MATROSKA and (at := head.find(_SEGMENT)) >= 0:
        length = 9 - head[at + 4].bit_length()  # of the size, whose first byte says how long it is; all ones: not known
        body = int.from_bytes(head[at + 4 : at + 4 + length], "big") & ((1 << 7 * length) - 1)
        promised = 0 if body == (1 << 7 * length) - 1 else at + 4 + length + body
    return promised if promised < 1 << 62 else 0  # what is larger says that the writer did not know


def joined_files(file: IO[bytes]) -> tuple[list[tuple[int, int]], str | None]:
    """First and last byte + 1 of each of the files that were joined into this one (most are a single one), and what is
    wrong with it, or None."""
    size, begin, parts = file.seek(0, os.SEEK_END), 0, list[tuple[int, int]]()
    for _ in range(_MOST_KINDS):
        rest = FilePart(file, begin, size)
        links, damage = _links(rest, size - begin)
        parts += [(begin + start, begin + end) for start, end in links]
        if rest.failure:
            raise rest.failure
        if damage:
            return parts, damage
        # The last of one kind may be the first of another.
        last, end = parts[-1]
        if last > begin and _kind(_read_at(file, last, _KIND_BYTES)) != _kind(_read_at(file, begin, _KIND_BYTES)):
            parts.pop()
            begin = last
        elif end < size and _kind(_read_at(file, end, _KIND_BYTES)):
            begin = end
        else:
            return [part for part in parts if not _is_tag(file, *part)] or parts, None
    return parts, f"files of more than {_MOST_KINDS} kinds were joined into it"


def _links(file: FilePart, size: int) -> tuple[list[tuple[int, int]], str | None]:
    """As `joined_files`, up to the first file of another kind."""
    head = _read_at(file, 0, _KIND_BYTES)
    if head[:4] == b"OggS":
        return _ogg_links(file)
    starts = [0, *itertools.islice(_later_starts(file, head, size), _MOST_JOINED)]
    damage = f"more than {_MOST_JOINED} files were joined into it" if len(starts) > _MOST_JOINED else None
    return list(zip(starts, [*starts[1:], size], strict=True)), damage


def _kind(head: bytes) -> bytes:
    """Which kind of sound file begins with these bytes; empty: none that is known."""
    kind = next((kind for kind, pattern in _KINDS.items() if re.match(pattern, head, re.DOTALL)), b"")
    return _MP3 if not kind and _FRAMES.match(head) else kind


def _tag_bytes(head: bytes) -> int:
    """Length of the ID3 tag that a file with these first ten bytes begins with, or 0."""
    sizes = zip(head[6:10], (21, 14, 7, 0), strict=True) if head[:3] == b"ID3" and len(head) == 10 else None
    return 10 + sum((byte & 0x7F) << shift for byte, shift in sizes) if sizes else 0


def _opening_bytes(file: IO[bytes] | FilePart, head: bytes) -> int:
    """Length of the tags that an mp3 or FLAC file begins with: pictures and headers in them are no files."""
    position, is_last = _tag_bytes(head[:10]), head[:4] != b"fLaC"
    for _ in range(_MOST_BOXES):
        if is_last:
            break
        position = position or 4
        block = _read_at(file, position, 4)
        position += 4 + int.from_bytes(block[1:], "big")
        is_last = len(block) < 4 or block[0] >= 0x80
    return position


def _is_tag(file: IO[bytes], start: int, end: int) -> bool:
    return 0 < end - start <= _tag_bytes(_read_at(file, start, 10))


def _later_starts(file: IO[bytes] | FilePart, head: bytes, size: int) -> Iterator[int]:
    """Where further files begin in a file of `size` bytes with these first bytes."""
    position = 0
    if head[:4] in _IFF:
        for _ in range(_MOST_BOXES):
            length = int.from_bytes(head[4:8], "big" if head[:4] == b"FORM" else "little")
            if head[:4] == b"RF64" and length == 0xFFFFFFFF:
                length = int.from_bytes(_read_at(file, position + 20, 8), "little")
            position += 8 + length
            head = _read_at(file, min(position, size), _KIND_BYTES)
            if head[:4] not in _IFF and not _kind(head):  # after an odd length comes a byte that some writers leave out
                position, head = position + 1, head[1:]
            if head[:4] not in _IFF:
                if _kind(head):
                    yield position
                return
            if head[8:12] != b"AVIX":  # a long film goes on so
                yield position
        return
    if head[4:8] == b"ftyp":
        for _ in range(_MOST_BOXES):
            box = _read_at(file, min(position, size), 16)
            if position and box[4:8] == b"ftyp":
                yield position
            elif position and _kind(box):
                yield position
                return
            length = int.from_bytes(box[:4], "big")
            length = int.from_bytes(box[8:], "big") if length == 1 else length
            if length < 8:  # 0: to the end of the file
                return
            position += length
        return
    first, own_kind, later = head[: _REPEATED.get(head[:4], 0)], _kind(head), 0
    if not (own_kind or first):
        return
    while length := _promised(_read_at(file, later, HEADER_BYTES)):
        later += length
        if not (kind := _kind(_read_at(file, min(later, size), _KIND_BYTES))):
            break
        yield later
        if kind != own_kind:
            return
    later = max(later + 1, _opening_bytes(file, head))
    data, position = b"", file.seek(later)
    while block := file.read(BLOCK_VALUES):
        data += block
        # Between mp3s stand tags as well, and a film holds the header of its flac.
        kinds = [kind for kind in _KINDS if kind in data and (own_kind, kind) not in (_TAG_BETWEEN, _HEADER_WITHIN)]
        patterns = [_KINDS[kind] for kind in kinds]
        patterns += [re.escape(first)] if first else []
        places = {found.start() for pattern in patterns for found in re.finditer(pattern, data, re.DOTALL)}
        for place in sorted(places):
            if position + place >= later:  # blocks overlap
                yield position + place
                later = position + place + 1
                if _kind(data[place : place + _KIND_BYTES]) != own_kind:
                    return
        position += len(data) - _KIND_BYTES + 1
        data = data[1 - _KIND_BYTES :]


def _ogg_links(file: IO[bytes] | FilePart) -> tuple[list[tuple[int, int]], str | None]:
    size, position, starts, was_first = file.seek(0, os.SEEK_END), 0, [0], True
    while len(page := _read_at(file, position, 27)) == 27 and page[:4] == b"OggS":
        page += file.read(page[26])
        body = sum(page[27:])
        page += file.read(body)
        if (missing := 27 + page[26] + body - len(page)) > 0:
            return [(0, size)], f"truncated: its last Ogg page lacks {missing} bytes"
        if _ogg_checksum(page[:22] + bytes(4) + page[26:]) != int.from_bytes(page[22:26], "little"):
            return [(0, size)], f"damaged: the Ogg page at byte {position} does not match its checksum"
        is_first = bool(page[5] & _OGG_FIRST_PAGE)
        if is_first and not was_first:
            starts.append(position)
        was_first = is_first
        position += len(page)
    if page[:4] == b"OggS":
        return [(0, size)], "truncated: it ends within the header of an Ogg page"
    if page and b"OggS" in file.read():
        return [(0, size)], f"damaged: no Ogg page begins at byte {position}"
    return list(zip(starts, [*starts[1:], position], strict=True)), None


def _missing(promised: int, present: int) -> str:
    return f"its header promises {promised} bytes and {present} are there"


def _ogg_checksum(page: bytes) -> int:
    """Ogg's CRC is zlib's with all bits in the other order, from 0, not inverted."""
    crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED_BITS), "big")


def _read_at(file: IO[bytes] | FilePart, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length)


def read_plain_wav(source: object, sample_rate: int, limit: int) -> np.ndarray | None:
    """The waveform of the commonest clip, a short undamaged 16-bit mono wav file, in one go.

    A decoder takes several times as long to open such a file as to decode it. Values are the same.

    Returns:
        (samples,) float32 in [-1, 1), at most `limit` samples; None, and nothing was read, where `source` is anything
        else than the path of such a file of `sample_rate` Hz.
    """
    if not isinstance(source, (str, os.PathLike)) or os.fspath(source)[-4:].lower() != ".wav":
        return None
    try:
        # Not of the open file: a pipe must not be opened here and then once more.
        if not stat.S_ISREG(os.stat(source).st_mode):
            return None
        with open(source, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > 2 * limit + HEADER_BYTES:
                return None
            data = file.read(size)
    except (OSError, ValueError):
        return None
    header = parse_header(data[:HEADER_BYTES], len(data))
    if header is None or header.offset is None or header.truncated or not header.frames or header.frames > limit:
        return None
    if (header.subtype, header.channels, header.sample_rate) != ("PCM_16", 1, sample_rate):
        return None
    if len(data) > 8 + struct.unpack_from("<I", data, 4)[0]:  # another file may be joined to it
        return None
    waveform = np.frombuffer(data, "<i2", header.frames, header.offset).astype(np.float32)
    waveform *= 1 / 32768
    return waveform


def _parse_wav(prefix: bytes, size: int) -> AudioHeader | None:
    position, layout = 12, None
    while position + 8 <= len(prefix):
        tag, length = prefix[position : position + 4], struct.unpack_from("<I", prefix, position + 4)[0]
        body = prefix[position + 8 : position + 8 + length]
        if tag == b"fmt " and len(body) >= 16:
            layout = struct.unpack_from("<HHIIHH", body)
            if layout[0] == _EXTENSIBLE and len(body) >= 26:
                layout = (struct.unpack_from("<H", body, 24)[0], *layout[1:])
        elif tag == b"data":
            if layout is None:
                return None
            start = position + 8
            # Recorders write the size at the end, and a crash leaves 0: it is true where the next chunk follows.
            unfinished = length == 0 and not _CHUNK_NAME.match(prefix, start)
            return _wav_header(layout, size - start if unfinished else length, start, size)
        position += 8 + length + (length & 1)
    return None


def _wav_header(layout: tuple, promised: int, start: int, size: int) -> AudioHeader | None:
    coding, channels, sample_rate, _, block_align, bits = layout
    cut, present = None, size - start
    if any(promised in sizes for sizes in _STREAMED):
        promised = present
    elif promised > present:
        cut = _missing(promised, present)
    if coding == _PCM and bits in range(17, 33) and block_align == 4 * channels:
        bits = 32  # of fewer bits in four bytes, the upper ones
    if coding not in (_PCM, _FLOAT) or 0 in (channels, bits) or block_align != channels * ((bits + 7) // 8):
        # Compressed or odd: the decoder has to say how many frames it holds.
        return AudioHeader(sample_rate, channels, None, "WAV", None, cut) if cut else None
    kind = "FLOAT" if coding == _FLOAT and bits == 32 else "DOUBLE" if coding == _FLOAT else f"PCM_{bits}"
    subtype = "PCM_U8" if bits == 8 else kind
    return AudioHeader(sample_rate, channels, promised // block_align, "WAV", subtype, cut, start)
