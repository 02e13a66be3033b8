"""Reading and writing sound: any rate, depth and channel count in, 16 kHz mono float32 out.

Wav files of 16 bits, by far the most, are read and written here, and need no package; libsndfile decodes the rest (wav,
flac, ogg, mp3 and more), soxr resamples. The original study resampled and then averaged the
channels; both steps are linear, so averaging first gives the same waveform, and one channel is resampled, not eight.
A source is a path, the bytes of a file, or a binary file object such as standard input; `name` is what messages call
it. Whatever is wrong with a source is an `AudioError` of one line.
"""

import contextlib
import io
import os
import shutil
import stat
import struct
import tempfile
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from triadbench.core.audio.header import HEADER_BYTES, AudioHeader, parse_header, read_plain_wav, truncation
from triadbench.core.constants import CLIP_SAMPLES, CLIP_SECONDS, SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path, walk_files

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
STDIN = "-"
SAMPLE_RATE_LIMITS = (100, 1_000_000)
"""Rates outside are damage, not sound; without a limit a header of 1 Hz would ask for 16,000 samples per sample."""

_READ_VALUES = 1 << 20
"""Samples (all channels together) decoded at once, so that a header's promise cannot claim memory."""
_MARGIN_S = 1.0
"""Read beyond a clip's end, so that the resampling filter sees what follows it."""
_SPOOL_BYTES = 64 << 20
_UNKNOWN_FRAMES = 1 << 62
_WINDOW_BYTES = 65_536
_LOUDEST = 1e10
"""32-bit integers stored as floats reach 2^31; what is louder still is no sound, and its power overflows float32."""

Source = str | os.PathLike | bytes | IO[bytes]


class AudioError(UserError):
    """A sound that cannot be used, and why."""


class _Pcm16File:
    """The sound of a wav file of 16 bits, as soundfile would give it; `file` stands where the sound begins."""

    def __init__(self, file: IO[bytes], header: AudioHeader):
        self._file = file
        self.samplerate, self.channels, self.frames = header.sample_rate, header.channels, header.frames or 0
        self.format, self.subtype = header.format, header.subtype

    def read(self, frames: int, dtype: str, always_2d: bool) -> np.ndarray:
        data = self._file.read(2 * self.channels * frames)
        block = np.frombuffer(data, "<i2", len(data) // 2 // self.channels * self.channels).reshape(-1, self.channels)
        return block.astype(dtype) / 32768


class _CallbackFile:
    """A file for libsndfile's callbacks: damaged sounds make it seek before the start, and an exception raised there
    would be printed by the interpreter and lost. The file stays where it was, which libsndfile takes for an error."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with contextlib.suppress(ValueError, OSError, OverflowError):
            self._file.seek(offset, whence)
        return self._file.tell()


class _Sound(NamedTuple):
    """An open sound: `label` names it in messages, `frames` is the length that its header promises."""

    file: Any
    label: str
    frames: int | None


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
        return _decode(sound, None), sound.file.samplerate


def read_clip(source: Source, seconds: float | None = CLIP_SECONDS, *, name: str | None = None) -> np.ndarray:
    """Read a sound as the network takes it: 16 kHz mono, cut or right-padded with zeros to `seconds` (None: neither).

    Of a longer file only the start is decoded, so damage further back is not seen, unless the header tells.

    Returns:
        (round(seconds * 16000),) float32; (64000,) by default. Raises as `read_audio`.
    """
    with _open(source, name) as sound:
        rate = sound.file.samplerate
        limit = None if seconds is None else int(np.ceil((seconds + _MARGIN_S) * rate))
        waveform = resample(_decode(sound, limit), rate)
        _check_finite(waveform, sound.label)
    return waveform if seconds is None else fit(waveform, round(seconds * SAMPLE_RATE))


def iter_blocks(source: Source, block_seconds: float = 30.0, *, name: str | None = None) -> Iterator[np.ndarray]:
    """Read a sound of any length in blocks, in bounded memory. Joined, they are what `read_clip(source, None)` returns.

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
    with _open(source, name) as sound:
        waiting: list[np.ndarray] = []
        n_waiting = 0
        for block in _resampled(_decoded_blocks(sound, None), sound):
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
        file = sound.file
        return AudioHeader(file.samplerate, file.channels, sound.frames, file.format, file.subtype)


def check_header(prefix: bytes, size: int, name: str) -> AudioHeader | None:
    """Judge a file of `size` bytes by its first bytes alone, or None where they do not settle it (`read_header` does).

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
def _open(source: Source, name: str | None) -> Iterator[_Sound]:
    label = name or _label(source)
    with contextlib.ExitStack() as stack:
        file, native = _as_file(source, label, stack)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size == 0:
            raise AudioError(f"{label}: the file is empty (0 bytes)")
        header = parse_header(file.read(HEADER_BYTES), size)
        if header is None:
            file.seek(0)
            head = file.read(_WINDOW_BYTES)
            file.seek(max(0, size - _WINDOW_BYTES - 512))
            cut = truncation(head, file.read(), size)
        else:
            cut = header.truncated
        if cut:
            raise AudioError(f"{label}: truncated: {cut}")
        if header is not None and header.subtype == "PCM_16" and header.format == "WAV" and header.offset is not None:
            file.seek(header.offset)
            sound: Any = _Pcm16File(file, header)
        else:
            file.seek(0)
            sound = _libsndfile(native if native is not None else _CallbackFile(file), label, stack)
        frames = sound.frames if 0 <= sound.frames < _UNKNOWN_FRAMES else None
        if header is not None and header.format == "FLAC":
            frames = header.frames
        _check_header(None, frames, sound.samplerate, label)
        yield _Sound(sound, label, frames)


def _libsndfile(source: str | bytes | _CallbackFile, label: str, stack: contextlib.ExitStack) -> Any:
    """An open `soundfile.SoundFile`; libsndfile reads a path by itself, an object through calls back into Python."""
    import soundfile

    try:
        sound = stack.enter_context(soundfile.SoundFile(source))
    except (soundfile.SoundFileError, TypeError) as error:
        raise AudioError(f"{label}: not a sound file that can be read ({_reason(error)})") from error
    sound.seekable = lambda: False  # soundfile would seek after each block, and fail where no length is stated
    return sound


def _as_file(source: Source, label: str, stack: contextlib.ExitStack) -> tuple[IO[bytes], str | bytes | None]:
    """A seekable file of the source, and its path where libsndfile can open that itself."""
    if isinstance(source, bytes | bytearray | memoryview):
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
    return (file, _native(source)) if stat.S_ISREG(mode) else (_seekable(file, label, stack), None)


def _native(path: str | os.PathLike) -> str | bytes:
    """A path for soundfile, which refuses names with bytes that are no UTF-8 unless it is given the bytes."""
    return os.fspath(path) if os.name == "nt" else os.fsencode(path)


def _seekable(file: IO[bytes], label: str, stack: contextlib.ExitStack) -> IO[bytes]:
    try:
        if file.seekable():
            return file
        spool = stack.enter_context(tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES))
        shutil.copyfileobj(file, spool, 1 << 20)
    except OSError as error:
        raise AudioError(f"{label}: cannot be read ({error.strerror or error})") from error
    return spool


def _check_header(cut: str | None, frames: int | None, sample_rate: int, label: str) -> None:
    if cut:
        raise AudioError(f"{label}: truncated: {cut}")
    low, high = SAMPLE_RATE_LIMITS
    if not low <= sample_rate <= high:
        raise AudioError(f"{label}: its sample rate, {sample_rate} Hz, is outside {low} to {high} Hz; damaged header?")
    if frames == 0:
        raise AudioError(f"{label}: zero length, the file holds no samples")


def _decode(sound: _Sound, limit: int | None) -> np.ndarray:
    """Mono float32 (samples,) of the first `limit` frames, or of all."""
    blocks = list(_decoded_blocks(sound, limit))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _decoded_blocks(sound: _Sound, limit: int | None) -> Iterator[np.ndarray]:
    """Mono float32 blocks at the file's own rate; checks that as much comes as was promised."""
    file = sound.file
    size = max(1, _READ_VALUES // file.channels)
    end = sound.frames if limit is None else min(limit, sound.frames or limit)
    done = 0
    while end is None or done < end:
        try:
            block = file.read(size if end is None else min(size, end - done), dtype="float32", always_2d=True)
        except RuntimeError as error:  # soundfile's errors are such
            raise AudioError(f"{sound.label}: damaged or truncated after {done} frames ({_reason(error)})") from error
        if len(block) == 0:
            break
        # Averaged in float64: two channels at the float32 maximum would overflow on their way to the mean.
        mono = block[:, 0] if file.channels == 1 else block.mean(axis=1, dtype=np.float64).astype(np.float32)
        _check_finite(mono, sound.label, done)
        done += len(block)
        yield mono
    if done == 0:
        raise AudioError(f"{sound.label}: zero length, no samples could be read")
    if sound.frames is not None and end is not None and done < end:
        raise AudioError(f"{sound.label}: truncated: {done} of {sound.frames} frames could be read")


def _resampled(blocks: Iterator[np.ndarray], sound: _Sound) -> Iterator[np.ndarray]:
    if sound.file.samplerate == SAMPLE_RATE:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(sound.file.samplerate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for block in blocks:
        out = stream.resample_chunk(np.ascontiguousarray(block))
        _check_finite(out, sound.label)
        yield out
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _check_finite(waveform: np.ndarray, label: str, first: int = 0) -> None:
    """`first`: index of the waveform's first sample in the file, used in error messages."""
    if not np.isfinite(waveform).all():
        where = int(np.argmin(np.isfinite(waveform)))
        raise AudioError(f"{label}: sample {first + where} is {waveform[where]}, not a number that sound can have")
    if (peak := np.abs(waveform).max(initial=0)) > _LOUDEST:
        raise AudioError(f"{label}: samples reach {peak:.3g}, far beyond full scale (1); is it damaged?")


def _reason(error: Exception) -> str:
    return str(getattr(error, "error_string", None) or error).strip().rstrip(".")


def _label(source: Source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "these bytes"
    return str(getattr(source, "name", None) or "this stream")
