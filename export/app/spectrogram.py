"""The mel spectrogram that the model saw, as a picture: a PNG in our colours, and the marks of its axes."""

import base64
import io

import numpy as np

from triadbench.kernels import mel_reference
from triadbench.kernels.spec import MelSpec

_COLOURS = "#000004 #1c1044 #4f127b #812581 #b5367a #e55064 #fb8761 #fec287 #fcfdbf".split()
"""Dark to light with even steps of lightness, so that the picture reads in grey as well."""
_RANGE_DB = 80.0
_HZ = (100, 200, 500, 1000, 2000, 3000, 4000, 8000)


def describe(waveform: np.ndarray, spec: MelSpec, start_s: float) -> dict:
    """The picture of a waveform (samples,) that begins at `start_s`, as the template "spectrogram" takes it.

    Returns:
        {"png" (base64), "words", "frequencies": [(label, share of the height from below)], "seconds": [(label, share
        of the width)]}; the picture is brightest at its peak, and black 80 dB below.
    """
    filterbank = spec.filterbank()
    mel = mel_reference.mel_spectrogram(waveform, spec, filterbank=filterbank)
    level_db = 20.0 / spec.power * np.log10(np.maximum(mel, 1e-10))
    shades = np.clip(255 * (1 + (level_db - level_db.max()) / _RANGE_DB), 0, 255).astype(np.uint8)
    centres_hz = filterbank.argmax(axis=1) * spec.sample_rate / spec.n_fft
    seconds = len(waveform) / spec.sample_rate
    return {
        "png": base64.b64encode(_png(shades[::-1])).decode(),
        "words": f"{spec.n_mels} bands from {spec.f_min:g} to {spec.f_max:g} Hz over {seconds:g} seconds from second "
        f"{start_s:g}; loudest near {centres_hz[mel.sum(axis=1).argmax()]:.0f} Hz",
        "frequencies": _frequency_marks(centres_hz),
        "seconds": [(f"{start_s + second:g} s", second / seconds) for second in range(int(seconds) + 1)],
    }


def _frequency_marks(centres_hz: np.ndarray) -> list[tuple[str, float]]:
    """Where each frequency lies among the bands with these centres; those too near the one before are left out."""
    marks: list[tuple[str, float]] = []
    for hz in _HZ:
        share = float(np.interp(hz, centres_hz, np.arange(len(centres_hz))) + 0.5) / len(centres_hz)
        inside = centres_hz[0] <= hz <= centres_hz[-1] * 1.02
        if inside and (not marks or share - marks[-1][1] > 0.1):
            marks.append((f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz", share))
    return marks


def _png(shades: np.ndarray) -> bytes:
    """A PNG of shades (height, width) uint8 in our colours."""
    from PIL import Image  # Gradio brings it

    anchors = np.array([list(bytes.fromhex(colour[1:])) for colour in _COLOURS])
    positions = np.linspace(0, len(anchors) - 1, 256)
    palette = np.stack([np.interp(positions, np.arange(len(anchors)), channel) for channel in anchors.T], axis=1)
    image = Image.fromarray(np.ascontiguousarray(shades))
    image.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
