"""The chroma template names clean chords wherever in the clip they are, and is a fair rival."""

import numpy as np
import pytest

from tests.core.toys import all_names, chord, close_position, frequency
from triadbench.core.models import chroma_template as baseline
from triadbench.core.models.chords import TYPES
from triadbench.core.models.chroma_template import HIGH_MIDI, LOW_MIDI, pitch_magnitudes, predict


def rich(notes, partials=6, seconds=2.2, rate=16_000):
    """Decaying notes with overtones, as of strings."""
    t = np.arange(round(seconds * rate)) / rate
    wave = sum(
        np.sin(2 * np.pi * frequency(note) * k * t) / k
        for note in notes
        for k in range(1, partials + 1)
        if frequency(note) * k < 0.45 * rate
    )
    return (0.05 * wave * np.exp(-t)).astype(np.float32)


def answers(waveforms, **options):
    types, roots = predict(np.stack(waveforms), **options)
    assert types.shape == (len(waveforms), 4) and roots.shape == (len(waveforms), 12)
    return list(zip(roots.argmax(1).tolist(), types.argmax(1).tolist(), strict=True))


LABELS = [(name.root, name.type) for name in all_names()]


@pytest.mark.parametrize("octave", [3, 4, 5])
def test_all_chords_with_overtones(octave):
    assert answers([rich(close_position(root, kind, octave)) for root, kind in LABELS]) == LABELS


def test_all_chords_of_sines():
    assert answers([chord(root, kind) for root, kind in LABELS]) == LABELS


def test_inversions():
    for up in (1, 2):
        sounds = [
            rich([n + 12 * (i < up) for i, n in enumerate(close_position(root, kind, 4))]) for root, kind in LABELS
        ]
        right = [
            a[1] == b[1] and (a[0] == b[0] or b[1] == TYPES.index("augmented"))
            for a, b in zip(answers(sounds), LABELS, strict=True)
        ]
        assert np.mean(right) > 0.9


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100])
def test_other_rates(sample_rate):
    sounds = [rich(close_position(root, kind, 4), 4, rate=sample_rate) for root, kind in LABELS[::5]]
    assert answers(sounds, sample_rate=sample_rate) == LABELS[::5]


def test_a_note_too_many_counts_against_a_chord():
    """Of C, E, G and A flat, the one that is quieter is the one that the chord lacks."""
    for quiet, answer in ((68, (4, 0)), (67, (4, 3))):
        sound = rich([60, 64, 67, 68], 1) - 0.97 * rich([quiet], 1)
        assert answers([sound]) == [answer]


def test_the_loudest_two_seconds_are_heard():
    quiet = 0.05 * rich(close_position(0, 0, 4), seconds=6)
    late = np.concatenate([quiet, rich(close_position(6, 1, 4), seconds=2), quiet])
    assert answers([late]) == [(6, 1)]


@pytest.mark.parametrize("seconds", [0.001, 0.5, 1.99, 2.0])
def test_short_sounds(seconds):
    types, roots = predict(rich([60, 64, 67], seconds=seconds)[None])
    assert np.isfinite(types).all() and np.isfinite(roots).all()


def test_silence_is_finite_and_even():
    types, roots = predict(np.zeros((2, 64_000), np.float32))
    assert np.ptp(types) == 0 and np.isfinite(roots).all()
    assert not pitch_magnitudes(np.zeros((1, 64_000), np.float32)).any()


def test_gain_and_company_do_not_matter():
    sounds = np.stack([rich([60, 64, 67]), 1e-3 * rich([60, 64, 67]), rich([61, 64, 68])])
    types, roots = predict(sounds)
    assert np.allclose(types[0], types[1], atol=1e-5) and np.allclose(roots[0], roots[1], atol=1e-5)
    for k in range(3):
        assert np.allclose(types[k], predict(sounds[k])[0]) and np.allclose(roots[k], predict(sounds[k])[1])


@pytest.mark.parametrize("midi", [LOW_MIDI, 48, 60, 71, 84, HIGH_MIDI])
def test_pitch_magnitudes_of_a_sine(midi):
    magnitudes = pitch_magnitudes(rich([midi], partials=1)[None])[0]
    assert len(magnitudes) == HIGH_MIDI - LOW_MIDI + 1
    assert magnitudes.argmax() == midi - LOW_MIDI and magnitudes.max() == 1
    apart = np.abs(np.arange(LOW_MIDI, HIGH_MIDI + 1) - midi) > 1
    assert magnitudes[apart].max() < 0.35


def test_overtones_are_taken_for_what_they_are(monkeypatch):
    """Low notes with many overtones: where those count as notes, a quarter of the types is taken for another."""
    sounds = [rich(close_position(root, kind, 2), 12) for root, kind in LABELS]

    def share_right():
        return np.mean([a[1] == b[1] for a, b in zip(answers(sounds), LABELS, strict=True)])

    assert share_right() == 1
    monkeypatch.setattr(baseline, "_OVERTONES", {})
    assert share_right() < 0.9
