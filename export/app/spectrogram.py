"""The mel spectrogram that the model saw, as a picture: computed by the model's own MelSpec, drawn by us.

The colours are a PNG made with zlib alone, inside an SVG that has the axes.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

_COLOURS = np.array(
    [
        (0, 0, 4),
        (28, 16, 68),
        (79, 18, 123),
        (129, 37, 129),
        (181, 54, 122),
        (229, 80, 100),
        (251, 135, 97),
        (254, 194, 135),
        (252, 253, 191),
    ],
    float,
)
"""Dark to light with even steps of lightness, so that the picture reads in grey as well."""
_RANGE_DB = 80.0
_WIDTH, _HEIGHT = 660, 270
_LEFT, _TOP, _RIGHT, _BOTTOM = 74, 12, 10, 40
_HZ = (100, 200, 500, 1000, 2000, 3000, 4000, 8000)


def power_mel(waveform: np.ndarray, spec) -> np.ndarray:
    """Mel spectrogram (n_mels, n_frames) of a waveform (samples,), by the formulas of `kernels.spec.MelSpec`."""
    padded = np.pad(waveform, spec.pad)
    if spec.center:
        mode = {"reflect": "reflect", "constant": "constant", "replicate": "edge", "circular": "wrap"}[spec.pad_mode]
        padded = np.pad(padded, spec.n_fft // 2, mode=mode)
    window, edge = spec.window_array(), (spec.n_fft - spec.win_length) // 2
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.n_fft)[:: spec.hop_length]
    window = np.pad(window, (edge, spec.n_fft - spec.win_length - edge)) if len(window) < spec.n_fft else window
    if spec.normalized == "frame_length":
        window = window / np.sqrt(spec.n_fft)
    elif spec.normalized:
        window = window / np.sqrt(np.sum(window**2))
    return spec.filterbank() @ (np.abs(np.fft.rfft(frames * window)) ** spec.power).T


def picture(waveform: np.ndarray, spec, start_s: float = 0.0) -> str:
    """An SVG of the mel spectrogram of a waveform (samples,), brightest at its peak, 80 dB down to black."""
    mel = power_mel(waveform, spec)
    per_decade = 20.0 / spec.power
    level = per_decade * np.log10(np.maximum(mel, 1e-10))
    level -= level.max()
    shades = np.clip(255 * (1 + level / _RANGE_DB), 0, 255).astype(np.uint8)
    image = base64.b64encode(_png(shades[::-1])).decode()
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    seconds = len(waveform) / spec.sample_rate
    marks = []
    for hz, share in _frequency_marks(spec):
        y = _TOP + high * (1 - share)
        name = f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz"
        marks.append(f'<line x1="{_LEFT - 4}" x2="{_LEFT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text x="{_LEFT - 7}" y="{y + 5:.1f}" text-anchor="end">{name}</text>')
    for second in range(int(seconds) + 1):
        x = _LEFT + wide * second / seconds
        marks.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP + high}" y2="{_TOP + high + 4}"/>')
        anchor = "end" if second and second == int(seconds) else "middle"
        marks.append(f'<text x="{x:.1f}" y="{_TOP + high + 24}" text-anchor="{anchor}">{start_s + second:g} s</text>')
    told = (
        f"{spec.n_mels} bands from {spec.f_min:g} to {spec.f_max:g} Hz over {seconds:g} seconds from second "
        f"{start_s:g}; loudest near {_loudest_hz(mel, spec):.0f} Hz"
    )
    return (
        f'<svg class="tb-mel" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Mel spectrogram: {told}">'
        f"<title>Mel spectrogram</title><desc>{told}</desc>"
        f'<image href="data:image/png;base64,{image}" x="{_LEFT}" y="{_TOP}" width="{wide}" height="{high}" '
        f'preserveAspectRatio="none"/>{"".join(marks)}</svg>'
    )


def _loudest_hz(mel: np.ndarray, spec) -> float:
    filterbank = spec.filterbank()
    return float(filterbank[int(mel.sum(axis=1).argmax())].argmax() * spec.sample_rate / spec.n_fft)


def _frequency_marks(spec) -> list[tuple[int, float]]:
    """(Hz, share of the height from below) for the axis: where each frequency lies among the bands."""
    centres = spec.filterbank().argmax(axis=1) * spec.sample_rate / spec.n_fft
    marks, last = [], -1.0
    for hz in _HZ:
        if not centres[0] <= hz <= centres[-1] * 1.02:
            continue
        share = (float(np.interp(hz, centres, np.arange(len(centres)))) + 0.5) / len(centres)
        if share - last > 0.1:
            marks.append((hz, share))
            last = share
    return marks


def _png(shades: np.ndarray) -> bytes:
    """A PNG of shades (height, width) uint8 in our colours."""
    at = np.linspace(0, len(_COLOURS) - 1, 256)
    palette = np.stack([np.interp(at, np.arange(len(_COLOURS)), _COLOURS[:, i]) for i in range(3)], axis=1)
    height, width = shades.shape
    rows = np.pad(shades, ((0, 0), (1, 0))).tobytes()  # filter 0 before each row

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"PLTE", np.rint(palette).astype(np.uint8).tobytes())
        + chunk(b"IDAT", zlib.compress(rows, 6))
        + chunk(b"IEND", b"")
    )
