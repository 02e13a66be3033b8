"""The commonest clip, a short 16-bit mono wav that needs no resampling, read in one go.

libsndfile takes several times as long to open such a file as to decode it, which is what a folder of 4-second clips
costs. Values are the same. Whatever is not plainly this kind of file, damage included, is left to core/audio/io.py.
"""

from __future__ import annotations

import os
import stat

import numpy as np

from triadbench.core.audio.header import HEADER_BYTES, parse_header


def read_plain(source: object, sample_rate: int, limit: int) -> np.ndarray | None:
    """The waveform (samples,) float32 in [-1, 1) of an undamaged mono 16-bit wav file.

    Args:
        source: a path; anything else is not read.
        sample_rate: in Hz, that the file must have.
        limit: most samples.

    Returns:
        None, and nothing was read from it, where the source is anything else.
    """
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source)[-4:].lower() == ".wav":
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
    if (
        header is None
        or header.offset is None
        or header.truncated
        or not header.frames
        or header.frames > limit
        or (header.subtype, header.channels, header.sample_rate) != ("PCM_16", 1, sample_rate)
    ):
        return None
    waveform = np.frombuffer(data, "<i2", header.frames, header.offset).astype(np.float32)
    waveform *= 1 / 32768
    return waveform
