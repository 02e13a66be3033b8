"""Sound files whose header fields are set to what no writer writes: 0, 1, the most, and their neighbours' values."""

import itertools
import random
import struct
from collections.abc import Iterator
from typing import NamedTuple

from tests.core.audio.real_files import encoded, mp3, sine, snd, wav


class Field(NamedTuple):
    start: int
    size: int
    order: str = "little"


def wav_fields(data: bytes) -> Iterator[Field]:
    """Sizes and names of RIFF and its chunks, and all of fmt, fact and ds64."""
    yield from (Field(0, 4), Field(4, 4), Field(8, 4))
    at = 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        yield from (Field(at, 4), Field(at + 4, 4))
        if name == b"fmt ":
            yield from (
                Field(at + 8 + start, size) for start, size in ((0, 2), (2, 2), (4, 4), (8, 4), (12, 2), (14, 2))
            )
        elif name in (b"fact", b"ds64"):
            yield from (Field(at + 8 + start, 4) for start in range(0, min(length, 28), 4))
        elif name == b"data":
            return
        at += 8 + length + (length & 1)


def flac_fields(data: bytes) -> Iterator[Field]:
    """Marker, block header and all of STREAMINFO, the second block's header, and the first frame's header."""
    sizes = [4, 1, 3, 2, 2, 3, 3, 3, 1, 4]
    for start, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False):
        yield Field(start, size, "big")
    yield from (Field(42, 1, "big"), Field(43, 3, "big"))
    frame = data.find(b"\xff\xf8", 42)
    yield from (Field(frame + k, 1, "big") for k in range(8))


def ogg_fields(data: bytes) -> Iterator[Field]:
    """All of the first three pages' headers, and the fields of the identification header (rate, channels, blocks)."""
    at = 0
    for _ in range(3):
        sizes = [4, 1, 1, 8, 4, 4, 4, 1, 1]
        for start, size in zip(itertools.accumulate(sizes, initial=at), sizes, strict=False):
            yield Field(start, size)
        if at == 0:
            body = 27 + data[26]
            yield from (
                Field(body + k, n) for k, n in ((0, 1), (7, 4), (8, 1), (10, 2), (11, 1), (12, 4), (16, 2), (28, 1))
            )
        at = data.find(b"OggS", at + 4)
        if at < 0:
            return


def mp3_fields(data: bytes) -> Iterator[Field]:
    """ID3's size, the bytes of two frame headers, and the Xing frame's flags, lengths and paddings."""
    start = 10 + (data[8] << 7 | data[9]) if data[:3] == b"ID3" else 0
    yield from (Field(k, 1, "big") for k in range(10))
    yield from (Field(start + k, 1, "big") for k in range(4))
    at = max(data.find(b"Xing"), data.find(b"Info"))
    yield from (Field(at + k, n, "big") for k, n in ((0, 4), (4, 4), (8, 4), (12, 4), (116, 4), (120, 9), (141, 3)))
    second = data.find(b"\xff\xfb", at)
    yield from (Field(second + k, 1, "big") for k in range(6))


def chunk_fields(data: bytes) -> Iterator[Field]:
    """Every four bytes of the first 200, and the second and third hundred: of containers of other makes (mp4, AIFF, ...)."""
    yield from (Field(start, 4, "big") for start in range(0, min(len(data), 400) - 4, 2))


def fields_at_the_end(data: bytes) -> Iterator[Field]:
    """As `chunk_fields`, of the index that an m4a has behind its sound."""
    yield from (Field(start, 4, "big") for start in range(data.rfind(b"moov") - 4, len(data) - 4, 2))


SEEDS = {
    "wav": (wav, (), wav_fields),
    "wav, 24 bits": (encoded, ("wav", "pcm_s24le"), wav_fields),
    "rf64": (snd, ("RF64", "PCM_16"), wav_fields),
    "wav, extensible": (snd, ("WAVEX", "PCM_16"), wav_fields),
    "wav, ADPCM": (snd, ("WAV", "MS_ADPCM"), wav_fields),
    "flac": (snd, ("FLAC", "PCM_16"), flac_fields),
    "ogg": (snd, ("OGG", "VORBIS"), ogg_fields),
    "opus": (encoded, ("ogg", "libopus"), ogg_fields),
    "flac in ogg": (encoded, ("ogg", "flac"), ogg_fields),
    "mp3": (mp3, (48_000,), mp3_fields),
    "aiff": (snd, ("AIFF", "PCM_16"), chunk_fields),
    "caf": (encoded, ("caf", "pcm_s16be"), chunk_fields),
    "webm": (encoded, ("webm", "libopus"), chunk_fields),
    "m4a": (encoded, ("ipod", "aac"), fields_at_the_end),
    "alac": (encoded, ("ipod", "alac"), fields_at_the_end),
    "wma": (encoded, ("asf", "wmav2"), chunk_fields),
    "au": (encoded, ("au", "pcm_s16be"), chunk_fields),
    "wavpack": (encoded, ("wv", "wavpack"), chunk_fields),
    "w64": (encoded, ("w64", "pcm_s16le"), chunk_fields),
    "tta": (encoded, ("tta", "tta"), chunk_fields),
}


def _values(data: bytes, field: Field, fields: list[Field]) -> Iterator[int]:
    most, now = (1 << 8 * field.size) - 1, int.from_bytes(data[field.start : field.start + field.size], field.order)
    yield from (
        0,
        1,
        2,
        most,
        most >> 1,
        (most >> 1) + 1,
        most - 1,
        (now + 1) & most,
        (now - 1) & most,
        now ^ 0x80 & most,
    )
    at = fields.index(field)
    for other in fields[max(0, at - 2) : at + 3]:
        yield int.from_bytes(data[other.start : other.start + other.size], other.order) & most


def fuzzed(n: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`n` files, each with its name; every field with every value first, then two or three fields at once. Ogg pages get
    their checksums again, or nothing behind the checksum would ever be reached."""
    made = {}
    for name, (function, arguments, _) in SEEDS.items():
        made[name] = function(*arguments, sound=sine(seconds=0.2), **({"b": "128k"} if name == "wma" else {}))
    fields = {name: list(dict.fromkeys(SEEDS[name][2](data))) for name, data in made.items()}
    singles = [
        (name, ((field, value),))
        for name in SEEDS
        for field in fields[name]
        for value in _values(made[name], field, fields[name])
    ]
    draw = random.Random(seed)
    draw.shuffle(singles)

    def several():
        while True:
            name = draw.choice(list(SEEDS))
            some = draw.sample(fields[name], draw.choice([2, 2, 3]))
            yield name, tuple((field, draw.choice(list(_values(made[name], field, fields[name])))) for field in some)

    alone = singles[: max(n // 2, n - len(singles))] if n < len(singles) else singles
    for name, changes in itertools.islice(itertools.chain(alone, several()), n):
        data = bytearray(made[name])
        for field, value in changes:
            if 0 <= field.start and field.start + field.size <= len(data):
                data[field.start : field.start + field.size] = value.to_bytes(field.size, field.order)
        title = ", ".join(f"{field.start}:{value:#x}" for field, value in changes)
        yield f"{name} {title}", _checksummed(bytes(data)) if draw.random() < 0.8 else bytes(data)


def _checksummed(data: bytes) -> bytes:
    """An ogg file with true checksums, as far as its pages can be followed; others as they are."""
    from triadbench.core.audio.header import _ogg_checksum

    whole, at = bytearray(data), 0
    while data[at : at + 4] == b"OggS" and len(data) >= at + 27:
        end = at + 27 + data[at + 26]
        end += sum(data[at + 27 : end])
        page = data[at : at + 22] + bytes(4) + data[at + 26 : end]
        whole[at + 22 : at + 26] = _ogg_checksum(page).to_bytes(4, "little")
        at = end
    return bytes(whole)
