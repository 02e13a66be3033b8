"""Short plain wav files are read in one go, to the same values as libsndfile's; all others are left to it."""

import os

import numpy as np
import pytest
import soundfile

from tests.core.sounds import encode, tone
from triadbench.core.audio import io as audio
from triadbench.core.audio.header import read_plain_wav

RATE = 16_000


def write(path, samples=64_000, rate=RATE, channels=1, subtype="PCM_16", format="WAV"):
    path.write_bytes(encode(tone(samples, rate, channels=channels), rate, format, subtype))
    return path


def after_notes(path):
    """A wav with a chunk of notes before its sound."""
    wav = encode(tone(500))
    notes = b"LIST" + (300).to_bytes(4, "little") + bytes(300)
    size = (len(wav) - 8 + len(notes)).to_bytes(4, "little")
    path.write_bytes(b"RIFF" + size + wav[8:36] + notes + wav[36:])
    return path


PLAIN = {
    "a clip": write,
    "one sample": lambda path: write(path, 1),
    "extensible": lambda path: write(path, format="WAVEX"),
    "notes before the sound": after_notes,
}


@pytest.mark.parametrize("kind", PLAIN)
def test_the_same_values_as_libsndfile(tmp_path, kind):
    path = PLAIN[kind](tmp_path / "x.WAV")
    expected, rate = soundfile.read(path, dtype="float32")
    found = read_plain_wav(path, RATE, 64_000)
    assert rate == RATE and found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_full_scale(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.array([-32768, 0, 32767], np.int16), RATE)
    np.testing.assert_array_equal(read_plain_wav(tmp_path / "x.wav", RATE, 10), np.float32([-1, 0, 32767 / 32768]))


OTHERS = {
    "two joined": lambda path: path.write_bytes(2 * encode(tone(1000))),
    "another rate": lambda path: write(path, 1000, rate=8000),
    "two channels": lambda path: write(path, 1000, channels=2),
    "24 bits": lambda path: write(path, 1000, subtype="PCM_24"),
    "floats": lambda path: write(path, 1000, subtype="FLOAT"),
    "too long": lambda path: write(path, 64_001),
    "flac under the name of a wav": lambda path: write(path, format="FLAC"),
    "truncated": lambda path: path.write_bytes(encode(tone(64_000))[:-1]),
    "no samples": lambda path: path.write_bytes(encode(tone(0))),
    "text": lambda path: path.write_text("la la la"),
    "empty": lambda path: path.write_bytes(b""),
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_others_are_left_alone(tmp_path, kind):
    OTHERS[kind](tmp_path / "x.wav")
    assert read_plain_wav(tmp_path / "x.wav", RATE, 64_000) is None


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
def test_a_pipe_is_not_even_opened(tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    assert read_plain_wav(tmp_path / "x.wav", RATE, 64_000) is None  # opened, it would wait for a writer


@pytest.mark.parametrize("source", [b"RIFF", None, "no\0path.wav"])
def test_other_sources(source):
    assert read_plain_wav(source, RATE, 64_000) is None


def test_blocks_of_a_plain_file_take_the_short_way(tmp_path, monkeypatch):
    path = write(tmp_path / "x.wav")
    expected = np.concatenate(list(audio.iter_blocks(path, 1.0)))
    monkeypatch.setattr(audio, "_open", lambda *_: pytest.fail("went the long way"))
    [found] = audio.iter_blocks(path)
    np.testing.assert_array_equal(found, expected)
