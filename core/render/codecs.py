"""What a lossy codec leaves of a sound."""

import io

import av
import numpy as np

from triadbench.core.audio.io import read_clip, to_int16
from triadbench.core.constants import SAMPLE_RATE

CODECS = {"libopus": ("ogg", 16, 48), "libmp3lame": ("mp3", 24, 64), "aac": ("mp4", 24, 64)}
"""FFmpeg's encoders: the container of each, and a range of kbit/s for one channel at 16 kHz."""


def lossy(waveform: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A clip (64000,) encoded and decoded by a codec that `rng` draws, in place: float32 (64000,)."""
    name = str(rng.choice(list(CODECS)))
    container, low, high = CODECS[name]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(name, rate=SAMPLE_RATE, layout="mono")
        stream.bit_rate = 1000 * int(rng.integers(low, high + 1))
        frame = av.AudioFrame.from_ndarray(to_int16(waveform)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0  # encoders then state their delay, which decoders cut off
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    return read_clip(file.getvalue(), name=name)
