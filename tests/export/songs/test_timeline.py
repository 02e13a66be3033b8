"""The chords of a song come back at their times, whatever its length; noise and silence are N; memory is bounded."""

import io
import itertools

import numpy as np
import pytest
import soundfile

from tests.core.toys import in_key
from tests.export.instruments import play
from triadbench.core.audio.io import AudioError
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ROOTS, TYPES
from triadbench.core.models.prediction import Scores
from triadbench.core.models.spelling import harte, read_chord
from triadbench.core.models.targets import parse_label
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.export.songs import timeline
from triadbench.export.songs.onsets import RATE as ONSET_RATE
from triadbench.export.songs.onsets import OnsetCurve, onsets
from triadbench.export.songs.timeline import Settings, find_timeline, viterbi

RATE = 16_000
C = ROOTS.index("C")


def wav(waveform, rate=RATE, subtype="FLOAT"):
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV", subtype=subtype)
    file.seek(0)
    return file


@pytest.fixture(scope="module")
def predictor():
    return ChordPredictor(threads=1)


@pytest.fixture(scope="module")
def song():
    return play("Ab Em Bdim Faug Cm D Gb Bm Edim C Dbaug Fm")


class Fake:
    """Names C major, or the chord given, in every window; keeps the windows."""

    class info:
        task, samples = "both", None

    def __init__(self, answer=C * 4):
        self.answer, self.shapes, self.heard, self.warmed = answer, [], [], False

    def warm_kernel(self):
        self.warmed = True

    def __call__(self, waveforms):
        self.shapes.append(waveforms.shape)
        self.heard.append(waveforms)
        joint = np.full((len(waveforms), 48), 0.001, np.float32)
        joint[:, self.answer] = 0.953
        silent = np.abs(waveforms).max(axis=1) < 1e-4
        return Scores(None, None, joint.reshape(-1, 12, 4), silent)


# --- songs -----------------------------------------------------------------------------------------------------------


def recall(result, chords):
    """Share of time with the right chord."""
    grid = np.arange(0, chords[-1][1], 0.01)
    heard = [(s.start_s, s.end_s, s.chord) for s in result.segments]
    named, true = (
        [read_chord(rows[k][2]) for k in np.searchsorted([row[0] for row in rows], grid, "right") - 1]
        for rows in (heard, chords)
    )
    return np.mean([a == b for a, b in zip(named, true, strict=True)])


def test_a_song_comes_back(predictor, song):
    chords, waveform = song
    result = find_timeline(wav(waveform), predictor)
    assert recall(result, chords) >= 0.9
    changes = np.array([s.start_s for s in result.segments[1:]])
    assert max(np.abs(changes - start).min() for start, *_ in chords[1:]) <= 0.15
    assert result.duration_s == pytest.approx(chords[-1][1], abs=1e-4)


def test_what_a_timeline_promises(predictor, song):
    result = find_timeline(wav(song[1]), predictor)
    assert result.segments[0].start_s == 0 and result.segments[-1].end_s == result.duration_s
    for before, after in itertools.pairwise(result.segments):
        assert before.end_s == after.start_s and before.chord != after.chord
    for segment, numeral in zip(result.segments, result.roman, strict=True):
        assert segment.end_s > segment.start_s
        parts = (segment.root, segment.type, segment.confidence, numeral)
        assert (segment.chord == "N") == (parts == (None,) * 4)
        assert segment.chord == "N" or 0 < segment.confidence <= 1
        assert segment.name == segment.chord and segment.label == harte(segment.name) and segment.bass is None
        assert segment.chord == "N" or 0 < segment.label_confidence <= segment.confidence
    assert result.tempo_bpm and (60 < result.tempo_bpm < 200)
    assert result.as_dict()["segments"][0]["roman"] is None and result.settings["window_s"] == 0.5


@pytest.mark.parametrize(
    ("symbols", "key", "named"), [("A E Gbm D", "A major", "F#m"), ("Db Bbm F# Ab", "Db major", "Gb")]
)
def test_a_song_is_spelled_for_its_key(predictor, symbols, key, named):
    chords, waveform = play(3 * f"{symbols} ")
    result = find_timeline(wav(waveform), predictor)
    assert result.key == key and recall(result, chords) >= 0.9
    assert named in {segment.chord for segment in result.segments}
    for segment in result.segments:
        assert segment.chord == in_key(segment.chord, result.key)
        parts = None if segment.root is None else (ROOTS.index(segment.root), TYPES.index(segment.type), None)
        assert read_chord(segment.chord) == parts
    assert {chord for entry in result.progressions for chord in entry["chords"]} <= {s.chord for s in result.segments}


@pytest.mark.parametrize("gain", [0.003, 1.4])
def test_loudness_changes_no_chord(predictor, song, gain):
    chords, waveform = song
    assert recall(find_timeline(wav(gain * waveform), predictor), chords) >= 0.9


def test_other_rates_and_channels(predictor, song):
    import soxr

    chords, waveform = song
    stereo = np.stack([soxr.resample(waveform, RATE, 44_100)] * 2, axis=1)
    assert recall(find_timeline(wav(stereo, 44_100, "PCM_16"), predictor), chords) >= 0.9


# --- no chord --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "waveform", [np.zeros(3 * RATE), np.full(3 * RATE, 0.25), np.zeros(10)], ids=["zeros", "offset", "10 samples"]
)
def test_silence_is_no_chord(predictor, waveform):
    result = find_timeline(wav(waveform), predictor)
    assert [(s.start_s, s.chord) for s in result.segments] == [(0, "N")]
    assert (result.key, result.key_confidence, result.tempo_bpm, result.roman, result.progressions) == (
        None,
        None,
        None,
        [None],
        [],
    )


def test_no_sliver_at_the_end(predictor):
    time = np.arange(64_003) / 16_000  # sounds to its last sample, three after the last whole frame
    partials = (np.sin(2 * np.pi * k * f * time) / k for f in (261.6, 329.6, 392.0) for k in range(1, 5))
    waveform = (0.08 * sum(partials)).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, waveform, 16_000, format="WAV")
    file.seek(0)
    segments = find_timeline(file, predictor).segments
    assert all(segment.end_s - segment.start_s > 0.009 for segment in segments)
    assert segments[-1].end_s == 64_003 / 16_000 and segments[-1].chord == "C"


def test_noise_after_a_chord_is_no_chord(predictor):
    chords, waveform = play("C Am F G", silence_s=0)
    hiss = 0.003 * np.random.default_rng(0).standard_normal(len(waveform) + 4 * RATE)
    hiss[: len(waveform)] += waveform
    last = find_timeline(wav(hiss), predictor).segments[-1]
    assert last.chord == "N" and last.start_s == pytest.approx(chords[-1][1], abs=0.5)


def test_silence_in_the_middle_is_found_at_its_time():
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4 * RATE) / RATE)
    tone[2 * RATE : 3 * RATE] = 0
    result = find_timeline(wav(tone), Fake())
    assert [s.chord for s in result.segments] == ["C", "N", "C"]
    assert [s.start_s for s in result.segments[1:]] == pytest.approx([2, 3], abs=0.11)


# --- all chords ------------------------------------------------------------------------------------------------------


class Scripted(Fake):
    """Hears what a window's first half says by how loud it is: chord and bass of `script`, by amplitude in tenths."""

    def __init__(self, *script):
        super().__init__()
        self.script = dict(enumerate(script, 2))

    def __call__(self, waveforms):
        loud = np.rint(10 * np.median(np.abs(waveforms[:, :4000]), axis=1)).astype(int)
        chords, bass = np.full((len(loud), 205), 0.05 / 204, np.float32), np.full((len(loud), 12), 1 / 12, np.float32)
        for row, tenths in enumerate(loud):
            label, *lowest = self.script.get(tenths, ("N",))
            chords[row, parse_label(label)[0]] = 0.95
            for name in lowest:
                bass[row] = 0.9 * np.eye(12)[ROOTS.index(name)]
        joint = np.full((len(loud), 12, 4), 1 / 48, np.float32)
        return Scores(None, None, joint, np.zeros(len(loud), bool), chords, bass)


def square(n, seconds=3):
    """As many stretches as a script has entries, of amplitudes 0.2, 0.3, ..."""
    t = np.arange(seconds * RATE) / RATE
    return np.concatenate([k / 10 * np.sign(np.sin(2 * np.pi * 200 * t + 1e-3)) for k in range(2, n + 2)])


def test_sevenths_suspensions_and_basses_are_named():
    script = ("C:maj", "E"), ("A:min7",), ("D:sus4",), ("G:7", "F"), ("G:5", "C"), ("C:maj7", "D")
    result = find_timeline(wav(square(6)), Scripted(*script))
    assert [s.name for s in result.segments] == ["C/E", "Am7", "Dsus4", "G7/F", "G5", "Cmaj7"]
    assert [s.label for s in result.segments] == ["C:maj/3", "A:min7", "D:sus4", "G:7/b7", "G:5", "C:maj7"]
    assert [s.chord for s in result.segments] == ["C", "Am", None, "G", None, "C"]
    assert [s.bass for s in result.segments] == ["E", None, None, "F", None, None]
    assert [s.start_s for s in result.segments] == pytest.approx([0, 3, 6, 9, 12, 15], abs=0.3)
    assert result.key == "C major" and result.roman == ["I/3", "vi7", "IIsus4", "V7/b7", "V5", "Imaj7"]
    for segment in result.segments:
        assert 0.8 < segment.label_confidence <= segment.confidence <= 1
        assert (segment.type is None) == (segment.root is None) == (segment.chord is None)


def test_notes_and_what_is_no_chord_are_n():
    result = find_timeline(wav(square(4)), Scripted(("C:maj",), ("C:1",), ("F:maj",), ("N",)))
    assert [s.name for s in result.segments] == ["C", "N", "F", "N"]
    assert all(
        (s.chord, s.label, s.confidence, s.label_confidence) == ("N", "N", None, None) for s in result.segments[1::2]
    )
    both = Scripted(("C:maj",), ("C:1",))
    heard = both(np.full((1, 8000), 0.3, np.float32))
    heard.chords[:] = 0
    heard.chords[0, [parse_label(label)[0] for label in ("C:1", "G:1", "N")]] = 0.3  # none of them beats C alone
    heard.chords[0, parse_label("C:maj")[0]] = 0.1
    logs = timeline._logs(heard.chords, Settings())
    assert logs[0].argmax() == 204 and logs[0, 204] == pytest.approx(np.log(0.9 + Settings().floor))


@pytest.mark.parametrize("meter", [4, 3])
def test_changes_fall_on_beats_and_tell_the_bars(meter):
    beat, bars = 0.63, 24
    t, late = np.arange(round(bars * meter * beat * RATE)) / RATE, 0.2  # seconds that chords are late
    chord = (np.maximum(t - late, 0) // (meter * beat)).astype(int) % 4
    click = np.random.default_rng(0).standard_normal(len(t)) * np.exp(-80 * (t % beat))
    click[(t // beat).astype(int) % (2 * meter) == meter] = 0  # no onset where every other bar begins
    waveform = (chord + 2) / 10 * np.sign(np.sin(2 * np.pi * 200 * t + 1e-3)) + 0.5 * click
    script = ("C:maj",), ("A:min",), ("F:maj",), ("G:maj",)
    result = find_timeline(wav(waveform), Scripted(*script))
    assert [s.name for s in result.segments] == ["C", "Am", "F", "G"] * (bars // 4)
    assert [s.start_s for s in result.segments] == pytest.approx(np.arange(bars) * meter * beat, abs=0.03)
    assert result.meter == meter and result.tempo_bpm == pytest.approx(60 / beat, rel=0.01)
    beats = result.as_dict()["beats"]
    assert [time for time, _ in beats[-40:]] == pytest.approx(
        beat * np.arange(bars * meter - 40, bars * meter), abs=0.03
    )
    assert all(place == round(time / beat) % meter + 1 for time, place in beats)


def test_a_recording_without_a_beat_or_changes(predictor):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(12 * RATE) / RATE)
    result = find_timeline(wav(tone), Fake())
    assert (result.tempo_bpm, result.meter, result.beats) == (None, None, [])
    struck = tone * np.exp(-6 * (np.arange(12 * RATE) / RATE % 0.6))
    result = find_timeline(wav(struck), Fake())
    assert result.meter is None and len(result.beats) == 20 and {place for _, place in result.beats} == {None}
    result = find_timeline(wav(struck), Scripted())  # hears no chord
    assert (result.tempo_bpm, result.meter, result.beats) == (None, None, [])


def test_confidence_is_calibrated():
    low, mean, high = (timeline._sureness(share) for share in (0.0, 0.5, 1.0))
    assert (low, high) == (0, 1) and mean == pytest.approx(0.75)


def test_triads_alone_have_no_other_names(song):
    result = find_timeline(wav(song[1]), ChordPredictor(threads=1, triads=True))
    assert recall(result, song[0]) >= 0.9
    assert all(s.name == s.chord and s.label_confidence == s.confidence for s in result.segments)


def test_a_model_of_triads_names_nothing_else_in_what_it_does_not_know():
    class Unsure(Fake):
        def __call__(self, waveforms):
            joint = np.eye(48, dtype=np.float32)[np.arange(len(waveforms)) * 17 % 48]
            return Scores(None, None, joint.reshape(-1, 12, 4), np.zeros(len(waveforms), bool))

    noise = np.random.default_rng(0).standard_normal(10 * RATE) / 9
    assert all(segment.chord == segment.name for segment in find_timeline(wav(noise), Unsure()).segments)


def test_what_is_kept_of_a_frame_is_bounded():
    frames = timeline._score_frames(wav(square(4, 10)), Scripted(("C:maj",)), None, None, None, Settings())
    kept = sum(values.nbytes for values in frames if isinstance(values, np.ndarray))
    assert len(frames.silent) == 400 and kept / 400 < 680
    blocks = list(timeline._log_likelihoods(frames._replace(levels_db=np.zeros(400)), Settings()))
    assert sum(map(len, blocks)) == 400 and max(map(len, blocks)) <= timeline._FRAMES_AT_ONCE


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 1599, 1600, 1601, 40_000, 5 * RATE + 77])
@pytest.mark.parametrize("block", [977, 16_000])
def test_windows_do_not_depend_on_the_blocks(samples, block):
    window, hop, lead = 8000, 1600, 1920
    waveform = np.arange(1, samples + 1, dtype=np.float32)
    blocks = (waveform[k : k + block] for k in range(0, samples, block))
    batches = list(timeline._windows(blocks, window, hop, lead, 4))
    assert max(map(len, batches)) <= 4
    result = np.concatenate(batches)
    assert len(result) == -(-samples // hop)
    padded = np.concatenate([np.zeros(lead - hop // 2), waveform, np.zeros(2 * window)])
    assert all(np.array_equal(row, padded[k * hop : k * hop + window]) for k, row in enumerate(result))


def test_no_more_than_a_batch_at_once_and_progress_to_the_end(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(95 * RATE), RATE)
    fake, reports = Fake(), []
    result = find_timeline(path, fake, progress=lambda done, total: reports.append((done, total)))
    assert max(n for n, _ in fake.shapes) <= Settings().batch
    assert sum(n for n, m in fake.shapes if m == 8000) == 950
    assert sum(n for n, m in fake.shapes if m == 16_000) == pytest.approx(475, abs=10)
    assert {m for _, m in fake.shapes} == {8000, 16_000} and fake.warmed
    assert reports == sorted(reports) and reports[-1] == (95, 95) and result.duration_s == 95


def test_onset_curve_does_not_depend_on_the_blocks():
    waveform = np.random.default_rng(1).standard_normal(3 * RATE).astype(np.float32)
    whole, parts = OnsetCurve(), OnsetCurve()
    whole.add(waveform)
    for k in range(0, len(waveform), 1001):
        parts.add(waveform[k : k + 1001])
    assert np.allclose(whole.curve(), parts.curve(), atol=1e-6) and len(whole.curve()) == pytest.approx(300, abs=5)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_onsets_of_struck_tones():
    t = np.arange(12 * RATE) / RATE
    beat = 60 / 96
    waveform = sum(
        0.3 * np.sin(2 * np.pi * 330 * t) * np.exp(-8 * (t - s)) * (t >= s) for s in np.arange(0.5, 12, beat)
    )
    curve = OnsetCurve()
    curve.add(waveform.astype(np.float32))
    times, strengths = onsets(curve.curve())
    strong = times[strengths > 0.5]
    assert strong == pytest.approx(np.arange(0.5, 12, beat), abs=0.02)


def test_nothing_begins_in_silence():
    curve = OnsetCurve()
    curve.add(np.zeros(20 * RATE, np.float32))
    assert len(onsets(curve.curve())[0]) == 0 and ONSET_RATE == 100


@pytest.mark.parametrize(("frames", "states"), [(6, 3), (3, 8), (3, 9), (3, 17)])
def test_viterbi_is_the_best_of_all_paths(frames, states):
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, costs = rng.normal(size=(frames, states)), rng.uniform(0, 2, frames)
        more = 0.7 * (np.arange(states) == states - 1)

        def value(path, scores=scores, costs=costs, more=more):
            changed = sum(costs[k] + more[path[k]] for k in range(1, frames) if path[k] != path[k - 1])
            return sum(scores[k, s] for k, s in enumerate(path)) - changed

        best = max(itertools.product(range(states), repeat=frames), key=value)
        assert viterbi(scores, costs, 0.7).tolist() == list(best)


# --- errors ----------------------------------------------------------------------------------------------------------


def nan_wave():
    waveform = np.zeros(RATE, np.float32)
    waveform[500] = np.nan
    return wav(waveform)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda: io.BytesIO(b""), "empty"),
        (lambda: wav(np.zeros(0)), "zero length"),
        (nan_wave, "sample 500 is nan"),
        (lambda: io.BytesIO(b"no sound at all" * 100), "not a sound file"),
        (lambda: io.BytesIO(wav(np.zeros(RATE)).read()[:9000]), "truncated"),
        (lambda: "missing.mp3", "missing.mp3 does not exist"),
    ],
    ids=["empty", "no samples", "nan", "text", "cut", "missing"],
)
def test_bad_files(source, words):
    with pytest.raises(AudioError, match=words):
        find_timeline(source(), Fake())


def test_a_model_of_one_task_cannot():
    fake = Fake()
    fake.info = type("info", (), {"task": "type", "samples": None})
    with pytest.raises(UserError, match="answers for the type only, a chord needs the root network"):
        find_timeline(wav(np.zeros(RATE)), fake)


def test_a_model_of_one_length_hears_each_window_and_zeros_after_it():
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE).astype(np.float32)
    free, fixed = Fake(), Fake()
    fixed.info = type("info", (), {"task": "both", "samples": 64_000})
    assert find_timeline(wav(sound), fixed).segments == find_timeline(wav(sound), free).segments
    assert {shape[1] for shape in fixed.shapes} == {64_000} and {shape[1] for shape in free.shapes} == {8000, 16_000}
    for padded, window in zip(fixed.heard, free.heard, strict=True):
        assert np.array_equal(padded[:, : window.shape[1]], window) and not padded[:, window.shape[1] :].any()
