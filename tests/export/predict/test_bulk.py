"""Any sound file gets its chord whatever its rate, width and channels; silence gets none; one bad file stops no other."""

import io
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile

from tests.core.toys import chord, save_original, template_net
from tests.export.fakes import Fake
from triadbench.core.audio.io import AudioError
from triadbench.core.errors import UserError
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.predictor import Predictor
from triadbench.export.predict import bulk as infer
from triadbench.export.predict.bulk import infer_files
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.kernels.spec import CHORD

CLIP_SAMPLES = 64_000
HOP = CLIP_SAMPLES // 2
C_MAJOR, C_MINOR, E_MAJOR, A_MINOR = (4, 0), (4, 1), (8, 0), (1, 1)
FORMATS = soundfile.available_formats()


@pytest.fixture(scope="module")
def predictor():
    predictor = Predictor(Checkpoint(template_net(), "chordnet", "both", CHORD))
    predictor.info = predictor.checkpoint
    return predictor


@pytest.fixture
def hear(predictor, tmp_path):
    """The result for one sound, written as asked."""

    def run(waveform, rate=16_000, name="x.wav", alternatives=3, **options):
        soundfile.write(tmp_path / name, waveform, rate, **options)
        [result] = infer_files(predictor, [tmp_path / name], alternatives)
        assert result["file"] == str(tmp_path / name)
        return result

    return run


# --- the answer ------------------------------------------------------------------------------------------------------


def test_result(hear):
    result = hear(chord(*C_MINOR))
    assert list(result) == [
        "file",
        "duration_s",
        "windows",
        "agreement",
        "chord",
        "type",
        "root",
        "name",
        "label",
        "bass",
        "confidence",
        "type_confidence",
        "root_confidence",
        "label_confidence",
        "alternatives",
    ]
    assert (result["chord"], result["type"], result["root"]) == ("Cm", "minor", "C")
    assert (result["duration_s"], result["windows"], result["agreement"]) == (4.0, 1, 1.0)
    assert 0.9 < result["confidence"] <= 1 and len(result["alternatives"]) == 3
    assert len(hear(chord(*C_MINOR), alternatives=1)["alternatives"]) == 1


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_rates(hear, rate):
    result = hear(chord(*C_MINOR, rate=rate), rate)
    assert (result["chord"], result["duration_s"]) == ("Cm", 4.0)


def test_a_rate_too_low_for_the_chord_is_still_answered(hear):
    result = hear(chord(*C_MINOR, octave=3, rate=1_000), 1_000)  # up to 196 Hz
    assert (result["chord"], result["duration_s"]) == ("Cm", 4.0)


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels(hear, channels):
    shares = np.linspace(0.2, 1, channels)
    assert hear(chord(*C_MINOR)[:, None] * shares)["chord"] == "Cm"


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "PCM_32"),
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("WAV", "ULAW"),
        ("WAVEX", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("FLAC", "PCM_24"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_formats(hear, format, subtype):
    if format not in FORMATS or not soundfile.check_format(format, subtype):
        pytest.skip(f"this libsndfile ({soundfile.__libsndfile_version__}) does not write {format} {subtype}")
    rate = 48_000
    result = hear(chord(*C_MINOR, rate=rate), rate, f"x.{format.lower()}", format=format, subtype=subtype)
    assert result["chord"] == "Cm" and result["duration_s"] == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize("gain", [1e-3, 1.0, 1.6, 50.0])
def test_levels_beyond_full_scale_too(hear, gain):
    assert hear(gain * chord(*E_MAJOR), subtype="FLOAT")["chord"] == "E"


# --- silence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.001, 1, 4, 11])
@pytest.mark.parametrize("kind", ["zeros", "DC", "dither"])
def test_silence_is_no_chord(hear, kind, seconds):
    n = round(16_000 * seconds)
    sound = {
        "zeros": np.zeros(n),
        "DC": np.full(n, 0.25),
        "dither": np.random.default_rng(0).integers(-1, 2, n) / 32768,
    }[kind]
    result = hear(sound)
    assert (result["chord"], result["type"], result["confidence"], result["agreement"]) == ("N", None, None, None)
    assert result["alternatives"] == [] and result["windows"] >= 1


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("seconds", [0.5, 3, 4, 6.5])
def test_an_offset_is_silence_at_any_rate_and_length(hear, rate, seconds):
    assert hear(np.full(round(rate * seconds), 0.25), rate)["chord"] == "N"


def test_a_click_is_no_chord(hear):
    sound = np.zeros(48_000)
    sound[20_000] = 0.9
    assert hear(sound)["chord"] == "N"


def test_a_short_chord_is_one(hear):
    sound = np.zeros(64_000)
    sound[20_000:24_000] = chord(*C_MAJOR)[:4_000]
    assert hear(sound)["chord"] == "C"


def test_silence_around_a_chord_is_not_counted(hear):
    sound = np.concatenate([np.zeros(200_000), chord(*C_MAJOR), np.zeros(200_000)])
    result = hear(sound)
    assert result["chord"] == "C" and result["agreement"] == pytest.approx(1)


# --- lengths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "windows"),
    [
        (1, 1),
        (100, 1),
        (HOP, 1),
        (CLIP_SAMPLES, 1),
        (CLIP_SAMPLES + 1, 2),
        (CLIP_SAMPLES + HOP, 2),
        (CLIP_SAMPLES + HOP + 1, 3),
    ],
)
def test_lengths(hear, samples, windows):
    result = hear(np.resize(chord(*C_MAJOR), samples))
    assert (result["windows"], result["duration_s"]) == (windows, round(samples / 16_000, 3))
    if samples > 10_000:
        assert result["chord"] == "C"


def test_one_sample_at_a_high_rate(hear):
    assert hear(np.array([0.5]), 192_000)["chord"] == "N"


def test_seventy_seconds_of_two_chords(hear):
    longer, shorter = (np.tile(chord(*which), count) for which, count in ((A_MINOR, 12), (C_MAJOR, 6)))
    result = hear(np.concatenate([longer[: 46 * 16_000], shorter]))
    assert (result["chord"], result["duration_s"], result["windows"]) == ("Am", 70.0, 34)
    assert 0.5 < result["agreement"] < 0.8


def test_a_louder_chord_counts_for_more(hear):
    result = hear(np.concatenate([np.tile(0.02 * chord(*A_MINOR), 5), np.tile(chord(*C_MAJOR), 3)]))
    assert result["chord"] == "C" and result["agreement"] > 0.8


def test_agreement_is_that_with_the_chord_that_is_named(hear):
    result = hear(np.tile(np.concatenate([chord(*C_MINOR), chord(*C_MINOR), chord(*E_MAJOR)]), 2))
    assert result["chord"] == "Cm" and 0.5 < result["agreement"] < 0.9


def test_memory_does_not_grow_with_the_length(predictor, tmp_path, monkeypatch):
    sizes, read = [], []

    def watched(waveforms):
        sizes.append((len(waveforms), sum(read)))
        return predictor(waveforms)

    def counted(*args, **kwargs):
        for block in inner(*args, **kwargs):
            read.append(len(block))
            yield block

    inner = infer.iter_blocks
    monkeypatch.setattr(infer, "iter_blocks", counted)
    monkeypatch.setattr(infer, "_BLOCK_S", 5.0)
    watched.info = predictor.info
    soundfile.write(tmp_path / "x.wav", np.tile(chord(*C_MAJOR, seconds=1, rate=4_000), 120), 4_000)
    [result] = infer_files(watched, [tmp_path / "x.wav"])
    assert result["windows"] == 59 and [size for size, _ in sizes] == [16, 16, 16, 11]
    assert all(seen <= (16 * (i + 1) + 1) * HOP + 5 * 16_000 for i, (_, seen) in enumerate(sizes))


# --- files -----------------------------------------------------------------------------------------------------------


def test_one_bad_file_does_not_stop_the_others(predictor, tmp_path):
    soundfile.write(tmp_path / "a.wav", chord(*C_MAJOR), 16_000)
    soundfile.write(tmp_path / "c.wav", chord(*A_MINOR), 16_000)
    (tmp_path / "b.wav").write_text("not a sound")
    (tmp_path / "empty").mkdir()
    files = [tmp_path / name for name in ("a.wav", "b.wav", "missing.wav", "empty", "c.wav")]
    results = list(infer_files(predictor, files))
    assert [result.get("chord") for result in results] == ["C", None, None, None, "Am"]
    assert [result["file"] for result in results] == [str(file) for file in files]
    assert "b.wav: not a sound file" in results[1]["error"] and "missing.wav does not exist" in results[2]["error"]
    assert (
        "empty: no audio file in this folder (looked for .wav, .flac, .ogg, .mp3, .m4a and others)"
        in results[3]["error"]
    )
    assert all(set(result) == {"file", "error"} for result in results[1:4])


def test_damage_far_into_a_file_is_an_error_and_no_half_answer(predictor, tmp_path):
    soundfile.write(tmp_path / "x.flac", np.tile(chord(*C_MAJOR), 20), 16_000)
    whole = (tmp_path / "x.flac").read_bytes()
    (tmp_path / "x.flac").write_bytes(whole[: len(whole) * 2 // 3])
    [result] = infer_files(predictor, [tmp_path / "x.flac"])
    assert set(result) == {"file", "error"} and "truncated" in result["error"]


def test_results_come_one_by_one(predictor, tmp_path):
    soundfile.write(tmp_path / "a.wav", chord(*C_MAJOR), 16_000)

    def files():
        yield tmp_path / "a.wav"
        pytest.fail("asked for the second before the first was answered")

    assert next(infer_files(predictor, files(), workers=2))["chord"] == "C"


def test_a_model_of_one_task_is_refused(tmp_path):
    predictor = ChordPredictor(save_original(tmp_path / "m.safetensors", "root"), "torch")
    with pytest.raises(UserError, match="this model answers for the root only, a chord needs the type network as well"):
        next(infer_files(predictor, []))


def test_a_pipe_is_read(predictor, tmp_path):
    soundfile.write(tmp_path / "a.wav", chord(*C_MAJOR), 16_000)
    process = subprocess.Popen(["cat", str(tmp_path / "a.wav")], stdout=subprocess.PIPE)
    with process:
        [result] = infer_files(predictor, [f"/dev/fd/{process.stdout.fileno()}"])
    assert result["chord"] == "C"


# --- sources ---------------------------------------------------------------------------------------------------------


class Stdin:
    def __init__(self, data, terminal=False):
        self.buffer, self._terminal = io.BytesIO(data), terminal

    def isatty(self):
        return self._terminal


def test_standard_input(predictor, monkeypatch):
    buffer = io.BytesIO()
    soundfile.write(buffer, chord(*A_MINOR, rate=44_100), 44_100, format="FLAC")
    monkeypatch.setattr(sys, "stdin", Stdin(buffer.getvalue()))
    [result] = infer_files(predictor, ["-"])
    assert (result["file"], result["chord"]) == ("-", "Am")
    monkeypatch.setattr(sys, "stdin", Stdin(b""))
    [result] = infer_files(predictor, ["-"])
    assert result == {"file": "-", "error": "standard input: the file is empty (0 bytes)"}


@pytest.mark.parametrize("stdin", [None, Stdin(b"", terminal=True)])
def test_no_standard_input(monkeypatch, stdin):
    monkeypatch.setattr(sys, "stdin", stdin)
    [result] = infer_files(Fake(), ["-"])
    assert result["error"].startswith("standard input: no sound comes from there")


def test_an_unreadable_folder_is_an_error(monkeypatch, tmp_path):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    [result] = infer_files(Fake(), [tmp_path])
    assert result["error"] == f"{tmp_path}: cannot be read (Permission denied)"


def test_an_error_of_several_lines_becomes_one(monkeypatch):
    def failing(*args, **kwargs):
        raise AudioError("x.wav: first\n  second")

    monkeypatch.setattr(infer, "iter_blocks", failing)
    [result] = infer_files(Fake(), ["x.wav"])
    assert result["error"] == "x.wav: first second"


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_hour_is_heard_in_the_memory_of_ten_minutes(tmp_path):
    peaks = []
    for seconds in (600, 3600):
        soundfile.write(tmp_path / "x.wav", np.resize(chord(*C_MAJOR, rate=8000), 8000 * seconds), 8000)
        tracemalloc.start()
        [result] = infer_files(Fake(), [tmp_path / "x.wav"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (result["duration_s"], result["windows"]) == (3600.0, 1799)
    assert peaks[1] < 1.1 * peaks[0] + 1e6
