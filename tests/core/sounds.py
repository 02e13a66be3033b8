"""Sounds and data sets for the tests, made on the spot."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np

NAMES = ("piano_3_Af_d_m_45.wav", "piano_4_Cn_j_f_00.wav", "piano_5_Gs_M_p_7.wav", "shred___Bf_n__012.wav")


def tone(samples=64_000, rate=16_000, frequency=220.0, level=0.5, channels=1, seed=0):
    """A sine with a little noise, float64 (samples, channels); another seed gives another sound."""
    noise = np.random.default_rng(seed).standard_normal((samples, channels)) * 0.01
    return level * np.sin(2 * np.pi * frequency * np.arange(samples) / rate)[:, None] + noise


def encode(waveform, rate=16_000, format="WAV", subtype="PCM_16"):
    """The bytes of a sound file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def short_wav(seed=0, samples=400):
    return encode(tone(samples, seed=seed))


def make_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def make_zip(path: Path, files: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def manifest(recordings: dict[str, str | None]) -> bytes:
    entries = ({"file": name, "recording": recording, "gain_db": -3} for name, recording in recordings.items())
    return "\n".join(map(json.dumps, entries)).encode()
