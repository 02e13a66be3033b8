"""Reading and writing sound: any rate, depth and channel count in, 16 kHz mono float32 out.

Wav files of 16 bits, by far the most, are read and written here, and need no package; FFmpeg (through PyAV) decodes the
rest, soxr resamples. The original study resampled and then averaged the channels; both steps are linear, so averaging
first gives the same waveform, and one channel is resampled, not eight. Where the channels cancel each other out (one
is inverted), the loudest is taken instead.
A source is a path, the bytes of a file, or a binary file object such as standard input; `name` is what messages call
it. Whatever is wrong with a source is an `AudioError` of one line.
"""

import contextlib
import dataclasses
import io
import itertools
import os
import select
import shutil
import stat
import struct
import tempfile
import wave
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from triadbench.core.audio.header import (
    BLOCK_VALUES,
    CONVERT,
    HEADER_BYTES,
    AudioError,
    AudioHeader,
    FilePart,
    joined_files,
    parse_header,
    read_plain_wav,
)
from triadbench.core.constants import CLIP_SAMPLES, CLIP_SECONDS, SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path, walk_files

AUDIO_SUFFIXES = tuple(
    ".wav .flac .ogg .mp3 .m4a .opus .webm .aac .aif .aiff .aifc .caf .mp4 .mov .mkv .mka .wma .oga .amr .3gp .m4b .wv "
    ".ape .au .avi .mpg .mpeg .m4v .ac3 .eac3 .mp2 .weba .ogv .flv .dts .w64 .wmv .m2ts .spx .3g2 .dsf .rm .tta "
    ".tak .mpc .mpga .voc .rf64 .bwf .oma .thd .mlp .shn .qcp .sph .8svx".split()
)
SUFFIXES_SAID = f"{', '.join(AUDIO_SUFFIXES[:5])} and others"
"""For messages."""
STDIN = "-"
SAMPLE_RATE_LIMITS = (100, 1_000_000)
"""Rates outside are damage, not sound; without a limit a header of 1 Hz would ask for 16,000 samples per sample."""

_MARGIN_S = 1.0
"""Read beyond a clip's end, so that the resampling filter sees what follows it."""
_SPOOL_BYTES = 64 << 20
_HEAD_BYTES = 65_536
_FIFO_WAIT_S = 10.0
_CANCELLED = 0.25
"""Channels cancel each other out where their sum has less than this share of the power that it would have if they were
unrelated: two alike, at a correlation of -0.75. An inverted channel under noise at -6 dB stays below, and so does one
in a hundred wide reverbs, whose average is as weak."""
_SHORT_BLOCK = 4000
"""Frames; a shorter block, as the last one of a file, is too little to tell by."""
_LOUDEST = 1e10
"""32-bit integers stored as floats reach 2^31; what is louder still is no sound, and its power overflows float32."""
Source = str | os.PathLike | bytes | IO[bytes]
Note = Callable[[str], None]
"""Takes one line about a sound that was read all the same: a part was lost, or one channel is inverted."""


@dataclasses.dataclass
class _Sound:
    """An open sound: `sources` decode it one after another, most often a single one; `label` is its name in messages,
    `note` takes what has to be said of it."""

    header: AudioHeader
    sources: Iterable[Any]
    label: str
    note: Note | None
    cancelled: bool | None = None


class _PcmFile:
    """The sound of a wav file of 16 or 32 bits, as `Decoder` would give it."""

    slack_s = lost_s = 0.0

    def __init__(self, file: FilePart, header: AudioHeader):
        self._file, self.header = file, header

    def blocks(self, limit: int | None) -> Iterator[tuple[int, np.ndarray]]:
        assert self.header.offset is not None and self.header.frames is not None  # a wav's header tells both
        self._file.seek(self.header.offset)
        channels, left = self.header.channels, min(self.header.frames, limit or self.header.frames)
        size = 2 if self.header.subtype == "PCM_16" else 4
        while left > 0 and (data := self._file.read(size * channels * min(left, max(1, BLOCK_VALUES // channels)))):
            block = np.frombuffer(data, f"<i{size}", len(data) // size // channels * channels).astype(np.float32)
            block *= 2.0 ** (1 - 8 * size)
            left -= len(block) // channels
            yield self.header.sample_rate, block.reshape(-1, channels)
        if self._file.failure:
            raise self._file.failure


def find_files(paths: Iterable[str | os.PathLike]) -> list[str]:
    """The audio files that a user's paths name: files and "-" (standard input) as they are, and all below a folder,
    sorted, without hidden ones. What is missing, empty or cannot be read stays in the list, to be reported.
    """
    files: list[str] = []
    for path in (os.fspath(path) for path in paths):
        members = []
        for member, problem in walk_files(path) if path != STDIN and os.path.isdir(path) else ():
            is_sound = member.lower().endswith(AUDIO_SUFFIXES) and not member.rpartition("/")[2].startswith(".")
            if is_sound if problem is None else problem.startswith("folder"):
                members.append(member.split("/"))
        files += [str(Path(path, *parts)) for parts in sorted(members)] or [path]
    return files


def read_audio(source: Source, *, name: str | None = None) -> tuple[np.ndarray, int]:
    """A whole sound at its own rate: (samples,) float32, channels averaged, full scale [-1, 1), and the rate in Hz.

    Raises:
        AudioError: missing, folder, empty, zero-length, truncated, not sound, or with NaN or infinite samples.
    """
    with _open(source, name) as sound:
        return _decode(sound, None), sound.header.sample_rate


def read_clip(source: Source, seconds: float | None = CLIP_SECONDS, *, name: str | None = None) -> np.ndarray:
    """Read a sound as the network takes it: 16 kHz mono, cut or right-padded with zeros to `seconds` (None: neither).

    Of a longer file only the start is decoded, so damage further back is not seen, unless the header tells.

    Returns:
        (round(seconds * 16000),) float32; (64000,) by default. Raises as `read_audio`.
    """
    if seconds is not None:
        plain = read_plain_wav(source, SAMPLE_RATE, round((seconds + _MARGIN_S) * SAMPLE_RATE))
        if plain is not None:
            return fit(plain, round(seconds * SAMPLE_RATE))
    with _open(source, name) as sound:
        rate = sound.header.sample_rate
        limit = None if seconds is None else int(np.ceil((seconds + _MARGIN_S) * rate))
        waveform = resample(_decode(sound, limit), rate)
        _check_finite(waveform, sound.label)
    return waveform if seconds is None else fit(waveform, round(seconds * SAMPLE_RATE))


def iter_blocks(
    source: Source, block_seconds: float = 30.0, *, name: str | None = None, note: Note | None = None
) -> Iterator[np.ndarray]:
    """Read a sound of any length in blocks, in bounded memory. Joined, they are what `read_clip(source, None)` returns.

    `note` is told that a channel is inverted, and what is left out for it cannot be decoded: an error otherwise.

    Yields:
        (round(block_seconds * 16000),) float32 at 16 kHz; the last block is shorter. Raises as `read_audio`, after the
        blocks before the damage.
    """
    size = round(block_seconds * SAMPLE_RATE)
    if size < 1:
        raise ValueError(f"block_seconds={block_seconds} must be at least one sample (1/{SAMPLE_RATE} s)")
    plain = read_plain_wav(source, SAMPLE_RATE, size)
    if plain is not None:
        yield plain
        return
    with _open(source, name, note) as sound:
        waiting: list[np.ndarray] = []
        n_waiting = 0
        for block in _resampled(_decoded_blocks(sound, None), sound.header.sample_rate, SAMPLE_RATE, sound.label):
            waiting.append(block)
            n_waiting += len(block)
            while n_waiting >= size:
                joined = np.concatenate(waiting)
                yield joined[:size].copy()
                waiting = [joined[size:]]
                n_waiting -= size
        if n_waiting:
            yield np.concatenate(waiting)


def read_header(source: Source, *, name: str | None = None) -> AudioHeader:
    """What a sound says of itself, without decoding it. Raises as `read_audio`, as far as a header shows damage."""
    with _open(source, name) as sound:
        return sound.header


def check_header(prefix: bytes, size: int, name: str) -> AudioHeader | None:
    """Judge a file of `size` bytes by its first bytes alone, or None where they do not settle it (`read_header` does).

    Raises:
        AudioError: empty, truncated, zero-length, or a rate that no sound has.
    """
    if size == 0:
        raise AudioError(f"{name}: the file is empty (0 bytes)")
    header = parse_header(prefix, size)
    if header is not None:
        _check_header(header, name)
    return header


def resample(waveform: np.ndarray, sample_rate: int, target_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Change the rate of a waveform (samples,) with soxr's high-quality band-limited filter; float32 out."""
    if sample_rate == target_rate:
        return np.asarray(waveform, dtype=np.float32)
    import soxr

    return soxr.resample(np.asarray(waveform, dtype=np.float32), sample_rate, target_rate, quality="HQ")


def fit(waveform: np.ndarray, samples: int = CLIP_SAMPLES) -> np.ndarray:
    """Cut, or right-pad with zeros, a waveform (n,) to (samples,)."""
    if len(waveform) >= samples:
        return np.ascontiguousarray(waveform[:samples])
    return np.pad(waveform, (0, samples - len(waveform)))


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """16-bit samples of a float waveform (...,), clipped to [-1, 1]; the inverse of dividing by 32768.

    Raises:
        AudioError: NaN or infinite values.
    """
    waveform = np.asarray(waveform)
    if waveform.dtype == np.int16:
        return waveform
    if not np.isfinite(waveform).all():
        raise AudioError("a waveform to be written holds NaN or infinite samples; nothing was written")
    return np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)


def write_wav(path: str | os.PathLike, waveform: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write a waveform (samples,) or (samples, channels), clipped to [-1, 1], as 16-bit PCM, whole or not at all.

    Raises:
        AudioError: NaN or infinite values.
        UserError: the place cannot be written.
    """
    samples = to_int16(waveform)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            with wave.open(file, "wb") as sound:
                sound.setparams((samples.shape[1] if samples.ndim > 1 else 1, 2, sample_rate, 0, "NONE", ""))
                sound.writeframes(samples.astype("<i2").tobytes())
        except (wave.Error, struct.error) as error:
            raise UserError(f"{path}: cannot write this sound ({error})") from error


@contextlib.contextmanager
def _open(source: Source, name: str | None, note: Note | None = None) -> Iterator[_Sound]:
    label = name or _label(source)
    with contextlib.ExitStack() as stack:
        try:
            file = _as_file(source, label, stack)
            parts, damage = joined_files(file)
            if damage:
                raise AudioError(f"{label}: {damage}; copy it again, or {CONVERT}")
            decoders = (_decoder(FilePart(file, *part), label, stack) for part in parts)
            first = next(decoders)
            header = first.header if len(parts) == 1 else dataclasses.replace(first.header, frames=None)
            yield _Sound(header, itertools.chain([first], decoders), label, note)
        except OSError as error:
            raise AudioError(f"{label}: cannot be read ({error.strerror or error})") from error


def _decoder(file: FilePart, label: str, stack: contextlib.ExitStack) -> Any:
    """What decodes a file, which is checked as far as its header goes."""
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise AudioError(f"{label}: the file is empty (0 bytes)")
    file.seek(0)
    head = file.read(HEADER_BYTES)
    header = parse_header(head, size)
    if header is None:
        head += file.read(_HEAD_BYTES)
        header = parse_header(head, size)
    if header is not None:
        _check_header(header, label)
    if header is not None and header.format == "WAV" and header.subtype in ("PCM_16", "PCM_32"):
        return _PcmFile(file, header)
    from triadbench.core.audio.decoder import Decoder

    decoder = Decoder(file, head, header, label, stack)
    _check_header(decoder.header, label)
    return decoder


def _as_file(source: Source, label: str, stack: contextlib.ExitStack) -> IO[bytes]:
    """A seekable file of the source."""
    if isinstance(source, bytes | bytearray | memoryview):
        return io.BytesIO(source)
    if not isinstance(source, (str, os.PathLike)):
        return _seekable(source, stack)
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{label} is a folder, not a sound file")
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):  # /dev/zero has no end
            raise AudioError(f"{label} is a device, not a plain file")
        if stat.S_ISFIFO(mode):
            return _seekable(stack.enter_context(_open_fifo(source, label)), stack)
        file = stack.enter_context(open(source, "rb"))
    except FileNotFoundError as error:
        raise AudioError(f"{label} does not exist") from error
    except (OSError, ValueError) as error:
        raise AudioError(f"{label}: cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    return file if stat.S_ISREG(mode) else _seekable(file, stack)


def _open_fifo(path: str | os.PathLike, label: str) -> IO[bytes]:
    """A named pipe, opened without waiting for a writer that may never come."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not select.select([descriptor], [], [], _FIFO_WAIT_S)[0]:
        os.close(descriptor)
        raise AudioError(
            f"{label}: nothing was written into this named pipe for {_FIFO_WAIT_S:g} s; is there a writer?"
        )
    os.set_blocking(descriptor, True)
    return open(descriptor, "rb")


def _seekable(file: IO[bytes], stack: contextlib.ExitStack) -> IO[bytes]:
    if file.seekable():
        return file
    spool = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES))
    shutil.copyfileobj(file, spool, 1 << 20)
    return spool


def _check_header(header: AudioHeader, label: str) -> None:
    if header.truncated:
        raise AudioError(f"{label}: truncated: {header.truncated}; copy it again, or {CONVERT}")
    low, high = SAMPLE_RATE_LIMITS
    if not low <= header.sample_rate <= high:
        raise AudioError(
            f"{label}: its sample rate, {header.sample_rate} Hz, is outside {low} to {high} Hz; damaged header?"
        )
    if header.frames == 0:
        raise AudioError(f"{label}: zero length, the file holds no samples")


def _decode(sound: _Sound, limit: int | None) -> np.ndarray:
    """Mono float32 (samples,) of the first `limit` frames, or of all."""
    blocks = list(_decoded_blocks(sound, limit))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _decoded_blocks(sound: _Sound, limit: int | None) -> Iterator[np.ndarray]:
    """Mono float32 blocks at the rate that the header says; checks that as much comes as was promised."""
    done, rate = 0, sound.header.sample_rate
    for decoder in sound.sources:
        begin = done
        for mono in _one_rate(sound, decoder, limit):
            mono = mono if limit is None else mono[: limit - done]
            _check_finite(mono, sound.label, done)
            done += len(mono)
            yield mono
            if done == limit:
                return
        slack, promised = decoder.slack_s * rate, (decoder.header.frames or 0) * rate // decoder.header.sample_rate
        if done - begin < promised - slack:
            raise AudioError(
                f"{sound.label}: truncated or damaged: {done - begin} of {promised} frames could be read; {CONVERT}"
            )
        if done == begin:
            raise AudioError(f"{sound.label}: zero length, no samples could be read")
        if decoder.lost_s * rate > slack:
            line = f"{sound.label}: damaged: {decoder.lost_s:.2f} s of it could not be decoded"
            if sound.note is None:
                raise AudioError(f"{line}; {CONVERT}")
            sound.note(f"{line} and were left out")


def _one_rate(sound: _Sound, decoder: Any, limit: int | None) -> Iterator[np.ndarray]:
    """Mono blocks (samples,) at the rate of the sound, also where a part of it has another."""
    rate = sound.header.sample_rate
    limit = limit and -(-limit * decoder.header.sample_rate // rate)
    for own_rate, same in itertools.groupby(decoder.blocks(limit), lambda block: block[0]):
        yield from _resampled((_mono(block, sound) for _, block in same), own_rate, rate, sound.label)


@np.errstate(invalid="ignore")  # infinite samples are refused afterwards
def _mono(block: np.ndarray, sound: _Sound) -> np.ndarray:
    """The average of the channels of a block (samples, channels); the loudest where they cancel each other out."""
    if block.shape[1] == 1:
        return block[:, 0]
    # Averaged in float64: two channels at the float32 maximum would overflow on their way to the mean.
    # Rows of memory are added up much faster than pairs of neighbours.
    mono = block.T.astype(np.float64, order="C").mean(axis=0).astype(np.float32)
    every = slice(None, None, len(block) // 2_000 | 1)  # of a long block some samples show it as well
    powers = block[every].var(axis=0, dtype=np.float64)
    if sound.cancelled is None or len(block) >= _SHORT_BLOCK:
        known, left = sound.cancelled, block.shape[1] * mono[every].var(dtype=np.float64)
        sound.cancelled = bool(left < _CANCELLED * powers.mean())
        if sound.cancelled and not known and sound.note is not None:
            line = "its channels cancel each other out (one is inverted); the loudest is heard alone"
            sound.note(f"{sound.label}: {line}")
    return np.ascontiguousarray(block[:, int(powers.argmax())]) if sound.cancelled else mono


def _resampled(blocks: Iterator[np.ndarray], rate: int, target_rate: int, label: str) -> Iterator[np.ndarray]:
    if rate == target_rate:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        out = stream.resample_chunk(np.ascontiguousarray(block))
        _check_finite(out, label)
        yield out
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _check_finite(waveform: np.ndarray, label: str, first: int = 0) -> None:
    """`first`: index of the waveform's first sample in the file, used in error messages."""
    if not np.isfinite(waveform).all():
        where = int(np.argmin(np.isfinite(waveform)))
        raise AudioError(f"{label}: sample {first + where} is {waveform[where]}, not a number that sound can have")
    if (peak := np.abs(waveform).max(initial=0)) > _LOUDEST:
        raise AudioError(f"{label}: samples reach {peak:.3g}, far beyond full scale (1); is it damaged?")


def _label(source: Source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "these bytes"
    return str(getattr(source, "name", None) or "this stream")
