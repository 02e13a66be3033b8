"""Sound files as users have them: damaged ones, odd ones that can be heard, and silence."""

import wave

import numpy as np

from tests.core.toys import chord

C_MAJOR, A_MINOR = (4, 0), (1, 1)


def pcm(path, sound, rate=16_000, width=2, channels=1):
    """A wav by the standard library, which knows no more than PCM."""
    scaled = np.rint(np.repeat(sound[:, None], channels, axis=1) * (2 ** (8 * width - 1) - 1)).astype("<i8")
    data = (scaled + 128).astype("u1").tobytes() if width == 1 else scaled.astype("<i4").tobytes()
    if width == 3:
        data = b"".join(data[i : i + 3] for i in range(0, len(data), 4))
    elif width == 2:
        data = scaled.astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(data)


def truncated(path):
    pcm(path, chord(*C_MAJOR))
    path.write_bytes(path.read_bytes()[:50_000])


def encoded(path, sound, subtype="PCM_16"):
    import soundfile

    soundfile.write(path, sound, 16_000, subtype=subtype)


def nan(path):
    sound = chord(*C_MAJOR)
    sound[30_000] = np.nan
    encoded(path, sound, "FLOAT")


BAD = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty (0 bytes)"),
    "truncated": (truncated, "truncated"),
    "zero length": (lambda path: encoded(path, np.zeros(0)), "zero length"),
    "nan": (nan, "sample 30000 is nan"),
    "text": (lambda path: path.write_text("la la la\n" * 100), "not a sound file that can be read"),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "not a sound file that can be read"),
    "missing": (lambda path: None, "does not exist"),
    "empty folder": (lambda path: path.mkdir(), "no audio file in this folder"),
    "folder of other files": (
        lambda path: (path.mkdir(), (path / "x.txt").write_text("x")),
        "no audio file in this folder",
    ),
}
ODD = {
    "8 bit": lambda path: pcm(path, chord(*C_MAJOR), width=1),
    "24 bit": lambda path: pcm(path, chord(*C_MAJOR), width=3),
    "32 bit": lambda path: pcm(path, chord(*C_MAJOR), width=4),
    "float": lambda path: encoded(path, chord(*C_MAJOR), "FLOAT"),
    "double": lambda path: encoded(path, chord(*C_MAJOR), "DOUBLE"),
    "8 channels": lambda path: pcm(path, chord(*C_MAJOR), channels=8),
    "1 kHz": lambda path: pcm(path, chord(*C_MAJOR, octave=3, rate=1_000), 1_000),
    "192 kHz": lambda path: pcm(path, chord(*C_MAJOR, rate=192_000), 192_000),
    "70 s": lambda path: pcm(path, np.tile(chord(*C_MAJOR, rate=8_000), 18)[: 70 * 8_000], 8_000),
    "0.4 s": lambda path: pcm(path, chord(*C_MAJOR)[:6_400]),
}
SILENT = {
    "zeros": np.zeros(64_000),
    "offset": np.full(50_000, 0.3),
    "last bit": np.resize([0, 1 / 32768, 0, -1 / 32768], 64_000),
    "one sample": np.array([0.4]),
}
