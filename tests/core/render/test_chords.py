"""A rendered clip sounds the chord of its name, as its style says, and depends on nothing but seed and number.

Every voicing spells its chord: the right pitch classes, and the right note in the bass.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import scipy.signal

from tests.core.toys import all_names, close_position, pitch_of, sine_bank, sounding
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.data.dataset import Clip
from triadbench.core.data.splits import grouped_split
from triadbench.core.errors import UserError
from triadbench.core.models import chroma_template as baseline
from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES, VOICINGS, ClipName
from triadbench.core.render import chords as render
from triadbench.core.render.chords import STYLES, PlannedClip, Renderer, Style, chord_notes, plan, root_midi
from triadbench.core.render.note_banks import NoteBank

RATE = 16_000
STILL = replace(STYLES["dry"], hands_ms=(0, 0), level_db=(-6, -6))
"""Nothing varies but velocity and hold."""


@pytest.fixture(scope="module")
def bank():
    return sine_bank()


@pytest.fixture(autouse=True)
def few_filters(monkeypatch):
    """A handful of rooms in place of a hundred, which take seconds to draw."""
    monkeypatch.setattr(render, "_FILTERS", 8)
    render._filters.cache_clear()
    yield
    render._filters.cache_clear()


def clips_of(names):
    return [PlannedClip(index, name, 0, index) for index, name in enumerate(names)]


def rendered(bank, names, style=STILL, seed=0):
    renderer = Renderer([bank], style, seed)
    return [renderer.clip(planned) for planned in clips_of(names)]


@pytest.fixture
def strokes(monkeypatch):
    """What is asked of the mixer: dictionaries of note, gain, start and step, one a note."""
    log = []

    def record(out, note, gain, start, step, release, decay):
        log.append(
            {"note": int(note[0]), "gain": float(gain) * 32768, "start": start, "step": step, "release": release}
        )

    monkeypatch.setattr(render, "mix_note", record)
    return log


def numbered_bank(low, high, family="piano"):
    """Notes that say their number, to be heard by `strokes`."""
    notes = np.repeat(np.arange(low, high + 1, dtype=np.int16), 3).reshape(-1, 3, 1)
    return NoteBank("numbers", "by hand", family, low, high, low, notes, np.ones((len(notes), 3), np.float32))


# --- plan ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voicings", [("root",), ("root", "inv1", "open")])
def test_labels_are_balanced(voicings):
    n = 2 * 432 * len(voicings)
    clips = plan(n, [numbered_bank(36, 96)], seed=1, voicings=voicings)
    names = [clip.name for clip in clips]
    assert len(clips) == n and [clip.index for clip in clips] == list(range(n))
    for key, size in (("root", 12), ("type", 4), ("octave", 3), ("volume", 3), ("voicing", len(voicings))):
        assert set(Counter(getattr(name, key) for name in names).values()) == {n // size}, key
    assert len({name.format() for name in names}) == n
    assert {name.example for name in names} == {0, 1}
    # Shuffled: a set of few clips must not hold the first keys alone.
    assert len({(name.root, name.type) for name in names[:96]}) > 36 and len({name.octave for name in names[:96]}) == 3


def test_counts_differ_by_one_at_most_where_they_do_not_divide():
    counts = Counter(
        (c.name.root, c.name.type, c.name.octave, c.name.volume) for c in plan(500, [numbered_bank(36, 96)], seed=2)
    )
    assert len(counts) == 432 and set(counts.values()) == {1, 2}


def test_variants_follow_one_another_and_share_recording_and_instrument():
    clips = plan(100, [numbered_bank(36, 96)] * 5, seed=1, variants=10)
    for recording in range(10):
        group = clips[10 * recording : 10 * recording + 10]
        assert {clip.recording for clip in group} == {recording} and len({clip.bank for clip in group}) == 1
        assert len({replace(clip.name, example=0) for clip in group}) == 1
        assert [clip.name.example for clip in group] == list(range(10))
    assert len({clip.bank for clip in clips}) > 1


def test_a_grouped_split_keeps_variants_together():
    clips = plan(400, [numbered_bank(36, 96)], seed=1, variants=4)
    train, test, left_out = grouped_split(
        [Clip(c.name, f"{c.name.format()}.wav", f"0-{c.recording}") for c in clips], 0.3
    )
    sides = [{clips[i].recording for i in side} for side in (train, test)]
    assert not len(left_out) and not sides[0] & sides[1] and len(train) + len(test) == 400


def test_seed_decides():
    draw = lambda seed: plan(60, [numbered_bank(36, 96)] * 3, seed=seed)  # noqa: E731
    assert draw(1) == draw(1) != draw(2)


def test_instruments_play_as_often_as_their_weights_and_only_in_their_range():
    wide, narrow = numbered_bank(36, 96), numbered_bank(60, 79)
    clips = plan(1200, [wide, wide, narrow], seed=0, weights=[3, 1, 4], octaves=(3, 4))
    counts = Counter((clip.name.octave, clip.bank) for clip in clips)
    assert counts[3, 2] == 0
    assert counts[3, 0] / 600 == pytest.approx(3 / 4, abs=0.05)
    assert counts[4, 2] / 600 == pytest.approx(4 / 8, abs=0.05)


def test_voicings_by_weight():
    clips = plan(2000, [numbered_bank(36, 96)], seed=0, voicings=None, voicing_weights=(2, 1, 1, 0, 4))
    counts = Counter(clip.name.voicing for clip in clips)
    assert counts["open"] == 0 and counts["doubled"] / 2000 == pytest.approx(0.5, abs=0.05)
    assert len({clip.name.format() for clip in clips}) == 2000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voicings": ("root", "closed")}, "unknown voicing closed; choose from root, inv1, inv2, open, doubled"),
        ({"n": 0}, "a set of 0 clips with 1 variants each: both must be at least 1"),
        ({"variants": 0}, "both must be at least 1"),
        ({"octaves": (4, 7)}, "octave 7: none of the instruments plays there"),
    ],
)
def test_what_cannot_be_planned(options, message):
    with pytest.raises(UserError, match=message):
        plan(**{"n": 10, "banks": [numbered_bank(36, 96)], "seed": 0, **options})


# --- the chord sounds ------------------------------------------------------------------------------------------------


def test_every_chord_sounds_its_notes_and_no_others(bank):
    names = all_names(octave=4, volume="p")
    for name, sound in zip(names, rendered(bank, names), strict=True):
        # The quiet layer is a pure sine; where the draw took the next one, its third partial is heard too.
        heard = sounding(sound[:32_000])
        notes = set(close_position(name.root, name.type, 4))
        assert heard - {note + 19 for note in notes} == notes, name


@pytest.mark.parametrize("voicing", VOICINGS)
@pytest.mark.parametrize("family", ["piano", "guitar"])
def test_every_voicing_is_mixed_from_its_own_pitch_classes(family, voicing, strokes):
    bank = numbered_bank(36, 96, family)
    for name, _ in zip(all_names(octave=4, voicing=voicing), range(48), strict=True):
        strokes.clear()
        rendered(bank, [name], seed=name.root)
        notes = sorted(stroke["note"] for stroke in strokes)
        wanted = [(name.root + 8 + step) % 12 for step in TYPE_INTERVALS[name.type]]
        assert {note % 12 for note in notes} == set(wanted)
        assert notes[0] % 12 == wanted[{"inv1": 1, "inv2": 2}.get(voicing, 0)]


def test_a_template_hears_the_chords(bank):
    names = all_names(octave=4)
    types, roots = baseline.predict(np.stack(rendered(bank, names, STYLES["clean"])))
    assert types.argmax(1).tolist() == [name.type for name in names]
    assert roots.argmax(1).tolist() == [name.root for name in names]


@pytest.mark.parametrize("voicing", VOICINGS)
@pytest.mark.parametrize("low", [60, 55])
def test_an_instrument_of_narrow_range_still_plays_whole_chords(low, voicing, strokes):
    bank = numbered_bank(low, 79)  # no more than root position needs
    for name in all_names(octave=4, voicing=voicing):
        for seed in range(6):
            strokes.clear()
            rendered(bank, [name], seed=seed)
            notes = {stroke["note"] for stroke in strokes}
            assert min(notes) >= low and max(notes) <= 79
            assert {note % 12 for note in notes} == {(name.root + 8 + step) % 12 for step in TYPE_INTERVALS[name.type]}
            if voicing in ("root", "open", "doubled"):
                assert min(notes) % 12 == root_midi(name.root, 4) % 12


# --- determinism -----------------------------------------------------------------------------------------------------


def test_a_clip_depends_on_seed_and_number_alone(bank):
    planned = plan(6, [bank], seed=4)
    first, other = (Renderer([bank], STYLES["wild"], seed) for seed in (4, 5))
    clips = [first.clip(each) for each in planned]
    render._filters.cache_clear()
    for each in reversed(planned):
        again = Renderer([bank], STYLES["wild"], 4).clip(each)
        assert np.array_equal(again, clips[each.index])
        assert not np.array_equal(other.clip(each), again)
    assert len({clip.tobytes() for clip in clips}) == 6


def test_the_seed_decides_about_the_recording_too(strokes):
    starts = []
    for seed in (0, 1):
        strokes.clear()
        rendered(numbered_bank(36, 96), all_names()[:2], Style(hands_ms=(0, 0)), seed)
        starts.append({stroke["start"] for stroke in strokes})
    assert len(starts[0] | starts[1]) == 4


def test_variants_are_the_same_hands_recorded_anew(strokes):
    renderer = Renderer([numbered_bank(36, 96)], STYLES["clean"], 0)
    variants = plan(3, renderer.banks, seed=0, variants=2)
    played = []
    for planned in variants:
        strokes.clear()
        renderer.clip(planned)
        first = strokes[0]["start"]
        played.append([(s["note"], s["gain"], s["step"], round(s["start"] - first, 6)) for s in strokes])
        played[-1].append(first)
    assert played[0][:-1] == played[1][:-1] != played[2][:-1]
    assert played[0][-1] != played[1][-1]


# --- styles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_level_is_in_the_range_of_the_style_and_never_over_full_scale(style, bank):
    low, high = STYLES[style].level_db
    levels = []
    for sound in rendered(bank, all_names()[:20], STYLES[style]):
        assert sound.dtype == np.float32 and sound.shape == (CLIP_SAMPLES,) and np.isfinite(sound).all()
        levels.append(20 * np.log10(np.abs(sound).max()))
    assert low - 1e-3 <= min(levels) and max(levels) <= min(high, 0) + 1e-3
    assert np.ptp(levels) > 0.6 * (high - low)


def test_onset_lies_in_its_range(strokes):
    bank = numbered_bank(36, 96)
    rendered(bank, all_names() * 4, Style(hands_ms=(0, 0)))
    starts = np.array([stroke["start"] for stroke in strokes]) / 16
    assert 0 <= starts.min() < 10 and 390 < starts.max() <= 400


def test_silence_comes_before_the_onset_and_sound_right_after(bank):
    sound = rendered(bank, [ClipName(0, 0, 4, "f")], replace(STILL, onset_ms=(250, 250)))[0]
    assert not sound[: 4000 - 1].any() and np.abs(sound[4000:4080]).max() > 0.05


def test_a_late_clip_begins_inside_the_chord(strokes):
    rendered(numbered_bank(36, 96), all_names(), replace(STILL, late_ms=(50, 1200), late_probability=0.5))
    starts = np.array([stroke["start"] for stroke in strokes])[::3] / 16
    assert 15 <= (starts < 0).sum() <= 33
    assert starts.min() >= -1200 and (starts[starts < 0] <= -50).all()


def test_hands_spread_the_keys(strokes):
    rendered(numbered_bank(36, 96), all_names(), replace(STILL, hands_ms=(25, 25)))
    starts = np.array([stroke["start"] for stroke in strokes]).reshape(-1, 3) / 16
    assert starts.min() >= 0 and starts.max() <= 25 and np.median(np.ptp(starts, axis=1)) > 5


def test_a_guitar_is_strummed_evenly_mostly_downwards(strokes):
    names = all_names()
    rendered(numbered_bank(36, 96, "guitar"), names, replace(STILL, strum_ms=(60, 60)))
    starts = np.array([stroke["start"] for stroke in strokes]).reshape(-1, 3) / 16
    assert {tuple(np.rint(row)) for row in starts} == {(0, 30, 60), (60, 30, 0)}
    down = np.sum(starts[:, 0] < starts[:, 2])
    assert 0.5 < down / 48 < 0.9


def test_keys_are_released_after_three_seconds(bank):
    for sound in rendered(bank, all_names()[:6], STILL):
        level = lambda start, end, x=sound: np.sqrt(np.mean(x[int(start * RATE) : int(end * RATE)] ** 2))  # noqa: E731
        assert level(3.9, 4.0) < 0.02 * level(2.6, 2.8)
        assert level(2.6, 2.8) > 0.1 * level(0.2, 0.4)


def test_tuning(bank):
    sound = rendered(bank, [ClipName(1, 0, 4, "p")], replace(STILL, tuning_cents=(20, 20)))[0]
    for note in close_position(1, 0, 4):
        assert pitch_of(sound[:40_000], note) == pytest.approx(note + 0.20, abs=0.01)


def test_single_notes_are_detuned_apart(strokes):
    rendered(numbered_bank(36, 96), all_names(), replace(STILL, note_cents=5.0))
    cents = 1200 * np.log2([stroke["step"] for stroke in strokes])
    assert np.std(cents) == pytest.approx(5, rel=0.2) and abs(np.mean(cents)) < 1.5


def test_volume_is_velocity(strokes):
    gains = {}
    for volume in "pmf":
        strokes.clear()
        rendered(numbered_bank(36, 96), all_names(volume=volume))
        gains[volume] = np.mean([stroke["gain"] for stroke in strokes])
    # Each layer is near the velocity it was recorded with, so gains stay near 1; it is the layer that changes.
    assert all(0.7 < gain < 1.4 for gain in gains.values())


def test_louder_is_brighter(bank):
    def brightness(volume):
        sound = np.stack(rendered(bank, all_names(octave=4, volume=volume)[::5]))
        power = np.abs(np.fft.rfft(sound[:, :32_000], axis=1)) ** 2
        return power[:, 2000:].sum() / power.sum()  # from 1 kHz up: the third partials

    assert brightness("f") > 1.5 * brightness("m") > 3 * brightness("p")


@pytest.mark.parametrize("snr_db", [8.0, 25.0])
def test_signal_to_noise_ratio(bank, snr_db):
    names = all_names()[:6]
    for clean, noisy in zip(
        rendered(bank, names),
        rendered(bank, names, replace(STILL, noise_probability=1.0, snr_db=(snr_db, snr_db))),
        strict=True,
    ):
        signal = clean * np.dot(clean, noisy) / np.dot(clean, clean)
        measured = 10 * np.log10(np.sum(signal**2) / np.sum((noisy - signal) ** 2))
        assert measured == pytest.approx(snr_db, abs=0.4)


@pytest.mark.parametrize("rt60_s", [0.3, 0.6])
def test_a_room_dies_as_fast_as_asked(bank, rt60_s):
    style = replace(STILL, room_probability=1.0, rt60_s=(rt60_s, rt60_s), direct_db=(-6, -6))
    click = np.zeros(CLIP_SAMPLES, dtype=np.float32)
    click[0] = 1
    renderer = Renderer([bank], style, 0)
    for seed in range(5):
        response = renderer._record(click, np.random.default_rng(seed))[1:]
        energy = np.cumsum(response[::-1].astype(float) ** 2)[::-1]
        level = 10 * np.log10(energy / energy[0] + 1e-30)
        inside = np.flatnonzero((level < -5) & (level > -25))
        assert -60 / np.polyfit(inside / RATE, level[inside], 1)[0] == pytest.approx(rt60_s, rel=0.25)


def test_probabilities_of_room_and_tone(bank):
    click = np.zeros(CLIP_SAMPLES, dtype=np.float32)
    click[0] = 1

    def share_changed(**options):
        renderer = Renderer([bank], replace(STILL, **options), 0)
        outs = [renderer._record(click, np.random.default_rng(seed)) for seed in range(120)]
        return np.mean([not np.array_equal(out, click) for out in outs])

    assert share_changed() == 0
    assert share_changed(room_probability=0.4) == pytest.approx(0.4, abs=0.12)
    assert share_changed(tone_db=9.0) == pytest.approx(0.5, abs=0.12)
    assert share_changed(tone_db=9.0, room_probability=1.0) == 1


def test_the_amplifier_adds_partials(bank):
    name = [ClipName(4, 0, 4, "p")]
    clean, driven = (rendered(bank, name, replace(STILL, amp_probability=p))[0] for p in (0.0, 1.0))
    assert len(sounding(clean[:32_000], 0.02)) <= 6 < len(sounding(driven[:32_000], 0.02))


# --- the mixer -------------------------------------------------------------------------------------------------------


def mixed(note, start=0.0, step=1.0, gain=1.0, release=1e9, decay=1.0, samples=200):
    out = np.zeros(samples, dtype=np.float32)
    render.mix_note(out, note, gain / 32768, float(start), float(step), float(release), float(decay))
    return out


RAMP = np.arange(1, 101, dtype=np.int16) * 100


@pytest.mark.parametrize(("start", "first"), [(0, 0), (40, 0), (-30, 30)])
def test_a_note_on_a_whole_sample_is_copied(start, first):
    out = mixed(RAMP, start, gain=0.5)
    at = max(start, 0)
    wanted = RAMP[first:98] * 0.5 / 32768  # the cubic needs two samples beyond
    assert np.allclose(out[at : at + len(wanted)], wanted, rtol=1e-6)
    assert not out[:at].any() and not out[at + len(wanted) :].any()


def test_nothing_sounds_before_a_note_that_starts_between_samples():
    out = mixed(RAMP[::-1], 40.25)
    assert not out[:41].any() and out[41] > 0


def test_a_note_is_added():
    out = np.ones(200, dtype=np.float32)
    render.mix_note(out, RAMP, 1 / 32768, 0.0, 1.0, 1e9, 1.0)
    assert np.allclose(out - 1, mixed(RAMP), atol=1e-6)


@pytest.mark.parametrize(
    ("start", "step"), [(10.25, 1.0), (0.0, 2 ** (28 / 1200)), (3.7, 2 ** (-50 / 1200)), (-20.5, 1.01)]
)
def test_between_samples_a_sine_stays_a_sine(start, step):
    omega = 2 * np.pi * 440 / RATE
    note = np.rint(30_000 * np.sin(omega * np.arange(4000))).astype(np.int16)
    out = mixed(note, start, step, samples=3000)
    first = int(np.ceil(max(start, 0))) + 2
    wanted = 30_000 / 32768 * np.sin(omega * step * (np.arange(3000) - start))
    # Catmull-Rom errs by about omega^3 / 24 of the amplitude, and 16 bits by 2^-16.
    assert np.abs(out - wanted)[first:].max() < 1e-3


def test_a_released_note_dies_by_the_factor_asked_for():
    note = np.full(400, 10_000, dtype=np.int16)
    out = mixed(note, release=100, decay=0.9)
    assert np.allclose(out[1:101], 10_000 / 32768)
    assert np.allclose(out[101:140], 10_000 / 32768 * 0.9 ** np.arange(1, 40), rtol=1e-4)


def test_noise_is_of_every_colour(bank):
    slopes = set()
    for sound in rendered(bank, all_names()[:24], replace(STILL, noise_probability=1.0, snr_db=(-20, -20))):
        frequencies, power = scipy.signal.welch(sound, RATE, nperseg=1024)
        inside = (frequencies > 100) & (frequencies < 7000)
        slopes.add(round(np.polyfit(np.log(frequencies[inside]), np.log(power[inside]), 1)[0]))
    assert {-2, -1, 0, 1} == slopes


BASS = {"root": 0, "inv1": 1, "inv2": 2, "open": 0, "doubled": 0, "guitar": 0}
C, A_FLAT, A = ROOTS.index("C"), ROOTS.index("Ab"), ROOTS.index("A")


def draws(voicing, root=C, kind=0, octave=4, n=60):
    return [chord_notes(root, kind, octave, voicing, np.random.default_rng(seed)) for seed in range(n)]


@pytest.mark.parametrize(("root", "octave", "midi"), [(C, 4, 60), (A, 4, 69), (A_FLAT, 4, 68), (C, 3, 48), (A, 0, 21)])
def test_octave_four_starts_at_middle_c(root, octave, midi):
    assert root_midi(root, octave) == midi


@pytest.mark.parametrize("kind", range(4), ids=TYPES)
@pytest.mark.parametrize("voicing", BASS)
def test_pitch_classes_and_bass(voicing, kind):
    for root in range(12):
        wanted = [(root + 8 + step) % 12 for step in TYPE_INTERVALS[kind]]
        for notes in draws(voicing, root, kind, n=20):
            assert {note % 12 for note in notes} == set(wanted)
            assert notes == sorted(set(notes)) and all(type(note) is int for note in notes)
            assert notes[0] % 12 == wanted[BASS[voicing]]


@pytest.mark.parametrize(
    ("voicing", "notes"), [("root", [60, 64, 67]), ("inv1", [64, 67, 72]), ("inv2", [67, 72, 76])], ids=lambda v: str(v)
)
def test_c_major(voicing, notes):
    assert draws(voicing, n=1) == [notes]


def test_open_is_wider_than_an_octave_in_three_ways():
    assert {tuple(notes) for notes in draws("open")} == {(60, 67, 76), (48, 64, 67), (60, 76, 79)}


def test_doubled_adds_one_to_three_notes():
    assert {len(notes) for notes in draws("doubled")} == {4, 5, 6}
    assert all({60, 64, 67} < set(notes) for notes in draws("doubled"))


def test_guitar_shapes_have_four_to_six_strings_from_the_root_up():
    drawn = {tuple(notes) for notes in draws("guitar")}
    assert (60, 67, 72, 76, 79, 84) in drawn  # the E shape
    assert len(drawn) == 5 and {len(notes) for notes in drawn} == {4, 5, 6} and {notes[0] for notes in drawn} == {60}
