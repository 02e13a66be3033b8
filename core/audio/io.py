"""Reading and writing sound: any rate, depth and channel count in, 16 kHz mono float32 out.

libsndfile decodes (wav, flac, ogg, mp3 and more), soxr resamples. The original study resampled and then averaged the
channels; both steps are linear, so averaging first gives the same waveform, and one channel is resampled, not eight.
A source is a path, the bytes of a file, or a binary file object such as standard input; `name` is what messages call
it. Whatever is wrong with a source is an `AudioError` of one line.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile

from triadbench.core.audio.header import HEADER_BYTES, AudioHeader, parse_header, truncation
from triadbench.core.audio.plain_wav import read_plain
from triadbench.core.constants import CLIP_SAMPLES, CLIP_SECONDS, SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
SAMPLE_RATE_LIMITS = (100, 1_000_000)
"""Rates outside are damage, not sound; without a limit a header of 1 Hz would ask for 16,000 samples per sample."""

_READ_VALUES = 1 << 20
"""Samples (all channels together) decoded at once, so that a header's promise cannot claim memory."""
_MARGIN_S = 1.0
"""Read beyond a clip's end, so that the resampling filter sees what follows it."""
_SPOOL_BYTES = 64 << 20
_UNKNOWN_FRAMES = 1 << 62
_WINDOW_BYTES = 65_536

Source = str | os.PathLike | bytes | BinaryIO


class AudioError(UserError):
    """A sound that cannot be used, and why."""


class _Forward(soundfile.SoundFile):
    """Read from start to end only: soundfile would seek after each block, and fail where no length is stated."""

    def seekable(self) -> bool:
        return False


class _Patient:
    """A file for libsndfile's callbacks: damaged sounds make it seek before the start, and an exception raised there
    would be printed by the interpreter and lost. The file stays where it was, which libsndfile takes for an error."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with contextlib.suppress(ValueError, OSError, OverflowError):
            self._file.seek(offset, whence)
        return self._file.tell()


@dataclass(frozen=True)
class _Opened:
    sound: soundfile.SoundFile
    label: str
    promised: int | None

    @property
    def sample_rate(self) -> int:
        return self.sound.samplerate


def read_audio(source: Source, *, name: str | None = None) -> tuple[np.ndarray, int]:
    """Read a whole sound at its own rate.

    Returns:
        waveform: (samples,) float32, channels averaged; full scale of integer files is [-1, 1).
        sample_rate: in Hz, the file's own.

    Raises:
        AudioError: missing, folder, empty, zero-length, truncated, not sound, or with NaN or infinite samples.
    """
    with _open(source, name) as opened:
        return _decode(opened, None), opened.sample_rate


def read_clip(source: Source, seconds: float | None = CLIP_SECONDS, *, name: str | None = None) -> np.ndarray:
    """Read a sound as the network wants it: 16 kHz mono, cut or right-padded with zeros to `seconds`.

    With `seconds=None` the whole sound is returned as long as it is. Of a longer file only the start is decoded, so
    damage further back is not seen (a wav that ends too early is: its header tells).

    Returns:
        (round(seconds * 16000),) float32; (64000,) by default.

    Raises:
        AudioError: as `read_audio`.
    """
    with _open(source, name) as opened:
        limit = None if seconds is None else int(np.ceil((seconds + _MARGIN_S) * opened.sample_rate))
        waveform = resample(_decode(opened, limit), opened.sample_rate)
        _check_finite(waveform, opened.label)
    return waveform if seconds is None else fit(waveform, round(seconds * SAMPLE_RATE))


def iter_blocks(source: Source, block_seconds: float = 30.0, *, name: str | None = None) -> Iterator[np.ndarray]:
    """Read a sound of any length in blocks, in bounded memory.

    Yields:
        (round(block_seconds * 16000),) float32 at 16 kHz; the last block is shorter. Joined, they are what
        `read_clip(source, None)` returns.

    Raises:
        AudioError: as `read_audio`; blocks before the damage have been yielded by then.
    """
    size = round(block_seconds * SAMPLE_RATE)
    if size < 1:
        raise ValueError(f"block_seconds={block_seconds} must be at least one sample (1/{SAMPLE_RATE} s)")
    plain = read_plain(source, SAMPLE_RATE, size)
    if plain is not None:
        yield plain
        return
    with _open(source, name) as opened:
        waiting: list[np.ndarray] = []
        n_waiting = 0
        for piece in _resampled(_decoded_blocks(opened, None), opened):
            waiting.append(piece)
            n_waiting += len(piece)
            while n_waiting >= size:
                joined = np.concatenate(waiting)
                yield joined[:size].copy()
                waiting = [joined[size:]]
                n_waiting -= size
        if n_waiting:
            yield np.concatenate(waiting)


def read_header(source: Source, *, name: str | None = None) -> AudioHeader:
    """What a sound says of itself, without decoding it.

    Raises:
        AudioError: missing, empty, zero-length, truncated or not sound, as far as a header shows.
    """
    with _open(source, name) as opened:
        sound = opened.sound
        return AudioHeader(sound.samplerate, sound.channels, opened.promised, sound.format, sound.subtype)


def check_header(prefix: bytes, size: int, name: str) -> AudioHeader | None:
    """Judge a file of `size` bytes by its first bytes alone: the cheap check of a whole data set.

    Returns:
        the header, or None where the first bytes do not settle it (then `read_header` does).

    Raises:
        AudioError: empty, truncated, zero-length, or a rate that no sound has.
    """
    if size == 0:
        raise AudioError(f"{name}: the file is empty (0 bytes)")
    header = parse_header(prefix, size)
    if header is not None:
        _check_header(header.truncated, header.frames, header.sample_rate, name)
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
    """Write a waveform (samples,) or (samples, channels) as 16-bit PCM; the file appears whole or not at all.

    Values are clipped to [-1, 1]: a peak of 1.2 is written as full scale, so scale before writing.

    Raises:
        AudioError: NaN or infinite values.
        UserError: the place cannot be written.
    """
    samples = to_int16(waveform)
    with atomic_path(path) as temporary:
        try:
            soundfile.write(_native(temporary), samples, sample_rate, subtype="PCM_16", format="WAV")
        except soundfile.SoundFileError as error:
            raise UserError(f"{path}: cannot write this sound ({_reason(error)})") from error


@contextlib.contextmanager
def _open(source: Source, name: str | None) -> Iterator[_Opened]:
    label = name or _label(source)
    with contextlib.ExitStack() as stack:
        file, native = _as_file(source, label, stack)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size == 0:
            raise AudioError(f"{label}: the file is empty (0 bytes)")
        header = parse_header(file.read(HEADER_BYTES), size)
        cut = header.truncated if header is not None else _tail_truncation(file, size)
        if cut:
            raise AudioError(f"{label}: truncated: {cut}")
        file.seek(0)
        try:
            # libsndfile reads a path by itself, a Python object through calls back into Python.
            sound = stack.enter_context(_Forward(native if native is not None else _Patient(file)))
        except (soundfile.SoundFileError, TypeError) as error:
            raise AudioError(f"{label}: not a sound file that can be read ({_reason(error)})") from error
        promised = sound.frames if 0 <= sound.frames < _UNKNOWN_FRAMES else None
        if header is not None and header.format == "FLAC":
            promised = header.frames
        _check_header(None, promised, sound.samplerate, label)
        yield _Opened(sound, label, promised)


def _as_file(source: Source, label: str, stack: contextlib.ExitStack) -> tuple[BinaryIO, str | bytes | None]:
    """A seekable file of the source, and its path where libsndfile can open that itself."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return io.BytesIO(source), None
    if not isinstance(source, (str, os.PathLike)):
        return _seekable(source, label, stack), None
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISDIR(mode):
            raise AudioError(f"{label} is a folder, not a sound file")
        file = stack.enter_context(open(source, "rb"))
    except FileNotFoundError as error:
        raise AudioError(f"{label} does not exist") from error
    except (OSError, ValueError) as error:
        raise AudioError(f"{label}: cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if not stat.S_ISREG(mode):
        return _seekable(file, label, stack), None
    return file, _native(source)


def _native(path: str | os.PathLike) -> str | bytes:
    """A path for soundfile, which refuses names with bytes that are no UTF-8 unless it is given the bytes."""
    return os.fspath(path) if os.name == "nt" else os.fsencode(path)


def _seekable(file: BinaryIO, label: str, stack: contextlib.ExitStack) -> BinaryIO:
    try:
        if file.seekable():
            return file
        spool = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES))
        shutil.copyfileobj(file, spool, 1 << 20)
    except OSError as error:
        raise AudioError(f"{label}: cannot be read ({error.strerror or error})") from error
    return spool


def _tail_truncation(file: BinaryIO, size: int) -> str | None:
    file.seek(0)
    head = file.read(_WINDOW_BYTES)
    file.seek(max(0, size - _WINDOW_BYTES - 512))
    return truncation(head, file.read(), size)


def _check_header(cut: str | None, frames: int | None, sample_rate: int, label: str) -> None:
    if cut:
        raise AudioError(f"{label}: truncated: {cut}")
    low, high = SAMPLE_RATE_LIMITS
    if not low <= sample_rate <= high:
        raise AudioError(f"{label}: its sample rate, {sample_rate} Hz, is outside {low} to {high} Hz; damaged header?")
    if frames == 0:
        raise AudioError(f"{label}: zero length, the file holds no samples")


def _decode(opened: _Opened, limit: int | None) -> np.ndarray:
    """Mono float32 (samples,) of the first `limit` frames, or of all."""
    pieces = list(_decoded_blocks(opened, limit))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _decoded_blocks(opened: _Opened, limit: int | None) -> Iterator[np.ndarray]:
    """Mono float32 pieces at the file's own rate; checks that as much comes as was promised."""
    sound = opened.sound
    block = max(1, _READ_VALUES // sound.channels)
    wanted = opened.promised if limit is None else min(limit, opened.promised or limit)
    done = 0
    while wanted is None or done < wanted:
        count = block if wanted is None else min(block, wanted - done)
        try:
            piece = sound.read(count, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioError(f"{opened.label}: damaged or truncated after {done} frames ({_reason(error)})") from error
        if len(piece) == 0:
            break
        mono = piece[:, 0] if sound.channels == 1 else _average(piece)
        _check_finite(mono, opened.label, done)
        done += len(piece)
        yield mono
    if done == 0:
        raise AudioError(f"{opened.label}: zero length, no samples could be read")
    if opened.promised is not None and done < wanted:
        raise AudioError(f"{opened.label}: truncated: {done} of {opened.promised} frames could be read")


def _average(frames: np.ndarray) -> np.ndarray:
    # In float64, so that two channels at the float32 maximum do not overflow on their way to the mean.
    return frames.mean(axis=1, dtype=np.float64).astype(np.float32)


def _resampled(pieces: Iterator[np.ndarray], opened: _Opened) -> Iterator[np.ndarray]:
    if opened.sample_rate == SAMPLE_RATE:
        yield from pieces
        return
    import soxr

    stream = soxr.ResampleStream(opened.sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for piece in pieces:
        out = stream.resample_chunk(np.ascontiguousarray(piece))
        _check_finite(out, opened.label)
        yield out
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


_LOUDEST = 1e10
"""32-bit integers stored as floats reach 2^31; what is louder still is no sound, and its power overflows float32."""


def _check_finite(waveform: np.ndarray, label: str, first: int = 0) -> None:
    """`first` is the number of its first sample, of which the message counts on."""
    if not np.isfinite(waveform).all():
        where = int(np.flatnonzero(~np.isfinite(waveform))[0])
        raise AudioError(f"{label}: sample {first + where} is {waveform[where]}, not a number that sound can have")
    if len(waveform) and np.abs(waveform).max() > _LOUDEST:
        raise AudioError(
            f"{label}: samples reach {np.abs(waveform).max():.3g}, far beyond full scale (1); is it damaged?"
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", None) or error).strip().rstrip(".")


def _label(source: Source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "these bytes"
    return str(getattr(source, "name", None) or "this stream")
