"""What FFmpeg makes of a sound file, through PyAV: blocks of float32, and the reason where it makes nothing.

FFmpeg is kept from what a sound file has no business with: other files, addresses, and the pictures of a film.
"""

import codecs
import contextlib
import io
import itertools
from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from triadbench.core.audio.header import (
    BLOCK_VALUES,
    CONVERT,
    AudioError,
    AudioHeader,
    FilePart,
    mp3_promise,
    truncation,
)

_FORMATS = (
    "wav,w64,aiff,caf,au,flac,ogg,mp3,aac,loas,mov,matroska,asf,xwma,avi,flv,mpegts,mpeg,ac3,eac3,dts,truehd,mlp,amr,"
    "ape,wv,tta,tak,mpc,mpc8,rm,oma,voc,iff,nistsphere,ircam,dsf,qcp,shn,avr,pvf,wve,paf"
)
"""FFmpeg's names of files that hold their sound. Playlists, which name other files or addresses, are not read."""
_STATED = {"wav", "w64", "aiff", "caf", "au", "flac", "ogg", "mov", "matroska", "asf", "ape", "wv", "tta"}
"""Formats whose length is no estimate (and mp3, where its first frame says so)."""
_SLACK_S, _LOSSLESS_SLACK_S = 0.25, 0.002
"""How far a sound may fall short of the stated length: by a few packets, which encoders add and players cut off."""
_MOST_HOLES = 1000
_FOREIGN = {
    b"<": "it is a web page or XML; was it downloaded without signing in?",
    b"#extm3u": "it is a playlist; give the files that it names",
    b"[playlist]": "it is a playlist; give the files that it names",
    b"ffconcat": "it is a playlist; give the files that it names",
    b"mthd": "it is MIDI, which holds notes and no sound; render it, as with fluidsynth",
    b"%pdf": "it is a PDF",
    b"pk\3\4": "it is a zip; unpack it",
    b"\x89png": "it is a picture",
    b"\xff\xd8\xff": "it is a picture",
    b"gif8": "it is a picture",
    b"rifx": "it is a big-endian wav; `sox FILE out.wav` makes one of it that can be read",
}
"""Files that got the name of a sound, by their first bytes in lower case."""
ERRORS = (av.FFmpegError, ValueError, RuntimeError, ArithmeticError, LookupError, MemoryError, OSError)
"""What PyAV raises where a file is damaged: FFmpeg's errors, and Python's for values that fit nowhere."""


class Decoder:
    """The sound of a file.

    Attributes:
        header: what the file says of itself. slack_s: how much may be missing without a word.
        lost_s: how much could not be decoded, so far.
    """

    def __init__(
        self, file: FilePart, head: bytes, header: AudioHeader | None, label: str, stack: contextlib.ExitStack
    ):
        """`head`: first bytes of the file; `header`: what they say, None if that is not known; `label`: its name in
        messages; `stack` closes what is opened. AudioError: no sound, or the file does not hold what it promises."""
        self._file, self._label, self.lost_s = file, label, 0.0
        text = _text(head)
        start = (head if text is None else text.encode()).lstrip(b"\xef\xbb\xbf \r\n\t").lower()
        if foreign := next((what for signature, what in _FOREIGN.items() if start.startswith(signature)), None):
            raise AudioError(f"{label}: not a sound file that can be read ({foreign})")
        size = file.seek(0, io.SEEK_END)
        states_length, damage = False, truncation(head, size)
        if head[:3] == b"ID3" or head[:1] == b"\xff":
            states_length, damage = mp3_promise(file)
        if damage:
            raise AudioError(f"{label}: {damage}; copy it again, or {CONVERT}")
        file.seek(0)
        self._container, self._stream = container, stream = self._open(head, stack)
        context, kind = stream.codec_context, container.format.name.split(",")[0]
        self.slack_s = _SLACK_S
        if context.codec.lossless and not context.codec.lossy:
            self.slack_s = _LOSSLESS_SLACK_S
            context.options = {"err_detect": "crccheck+explode"}
        if kind == "caf" and context.name == "alac":  # FFmpeg cuts off its padding twice, or counts it as sound
            context.options |= {"flags2": "+skip_manual"}
            self.slack_s = context.frame_size / context.sample_rate
        seconds: Any = None
        if kind in _STATED or states_length:
            if stream.duration is not None:
                seconds = stream.duration * stream.time_base
            elif container.duration is not None and len(container.streams) == 1:
                seconds = container.duration / 1e6
            if seconds is not None and kind in ("matroska", "asf"):  # they state when it ends
                seconds -= max(0, stream.start_time or 0) * stream.time_base
        rate, frames = context.sample_rate, None if seconds is None else round(seconds * context.sample_rate)
        subtype = context.codec.canonical_name.upper()
        self.header = header or AudioHeader(rate, context.layout.nb_channels, frames, kind.upper(), subtype)

    def blocks(self, limit: int | None) -> Iterator[tuple[int, np.ndarray]]:
        """Rate and (frames, channels) float32, full scale [-1, 1); no longer than what holds `limit` frames."""
        try:
            # Where sounds were joined, rate and channels may change on the way.
            for (rate, channels, _), frames in itertools.groupby(self._frames(), _kind):
                size = min(limit or BLOCK_VALUES, BLOCK_VALUES // channels)
                waiting: list[np.ndarray] = []
                n_waiting = 0
                for frame in frames:
                    waiting.append(_samples(frame))
                    n_waiting += len(waiting[-1])
                    if n_waiting >= size:
                        yield rate, np.concatenate(waiting)
                        waiting, n_waiting = [], 0
                if waiting:
                    yield rate, np.concatenate(waiting)
        except ERRORS as error:
            raise self._file.failure or AudioError(f"{self._label}: damaged ({reason(error)}); {CONVERT}") from error
        self._container.close()
        if self._file.failure:
            raise self._file.failure

    def _open(self, head: bytes, stack: contextlib.ExitStack) -> tuple[Any, Any]:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "", "max_streams": "100"}
        not_read = f"{self._label}: not a sound file that can be read"
        try:
            container = stack.enter_context(av.open(self._file, metadata_errors="replace", options=options))
            stream = container.streams.best("audio")
        except ERRORS as error:
            what = "it is text" if _text(head) is not None else f"{reason(error)}; {CONVERT}"
            what = f"it ends after {len(head)} bytes" if len(head) < 12 else what
            raise self._file.failure or AudioError(f"{not_read} ({what})") from error
        if stream is None or stream.codec_context is None:
            kinds = " and ".join(sorted({each.type for each in container.streams})) or "nothing"
            what = f"it holds {kinds}, no sound" if stream is None else f"its coding is not known; {CONVERT}"
            raise self._file.failure or AudioError(f"{not_read} ({what})")
        return container, stream

    def _frames(self) -> Iterator[Any]:
        end: Any = None
        for holes in range(_MOST_HOLES):
            try:
                for packet in self._container.demux(self._stream):
                    length = packet.duration or 0
                    if packet.pts is not None:
                        if holes and end is not None:
                            self.lost_s += float(max(0, packet.pts - end) * packet.time_base)
                        end = packet.pts + length
                    try:
                        yield from packet.decode()
                    except av.FFmpegError:  # players pass over it too
                        self.lost_s += float(length * packet.time_base) or _LOSSLESS_SLACK_S
                return
            except BlockingIOError:  # a hole in a television stream: what follows is asked for again
                continue
        raise AudioError(f"{self._label}: damaged in more than {_MOST_HOLES} places; {CONVERT}")


def reason(error: Exception) -> str:
    """What a library says of a damaged file, to stand within a sentence."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__).strip().rstrip(".")


def _kind(frame: Any) -> tuple:
    return frame.sample_rate, frame.layout.nb_channels, frame.format.name


def _samples(frame: Any) -> np.ndarray:
    """(samples, channels) float32 of a decoded frame."""
    channels, is_planar = frame.layout.nb_channels, frame.format.is_planar
    # PyAV has no array of 64 bits, and reads beyond the list of planes where it has no end: FFmpeg's holds eight.
    if frame.format.name.startswith("s64") or (is_planar and channels >= 8):
        [frame] = av.AudioResampler("dbl").resample(frame)
        is_planar = False
    values = frame.to_ndarray().T if is_planar else frame.to_ndarray().reshape(-1, channels)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype.kind == "i":
        return values.astype(np.float32) * np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
    with np.errstate(over="ignore"):  # infinite then, which is refused
        return values.astype(np.float32, copy=False)


def _text(head: bytes) -> str | None:
    """The first words of a file that is text, else None."""
    coding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        text = codecs.getincrementaldecoder(coding)().decode(head[:512])
    except UnicodeDecodeError:
        return None
    return text if "".join(text.split()).replace("\ufeff", "").isprintable() else None
