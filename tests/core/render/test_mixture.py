"""The training mixture: labels say what sounds, every kind is there, and a clip depends on seed and number alone."""

import numpy as np
import pytest

from tests.core.toys import RATE, frequency, sine_bank
from triadbench.core.constants import CLIP_SAMPLES, CLIP_SECONDS
from triadbench.core.models.chords import root_pitch_class
from triadbench.core.models.targets import parse_label
from triadbench.core.models.vocabulary import N_QUALITIES, NO_CHORD_CLASS, QUALITIES
from triadbench.core.render.mixture import KINDS, MixtureRenderer, harte_label, plan_mixture


@pytest.fixture(scope="module")
def banks():
    return [sine_bank(), sine_bank("guitar", 40, 88)]


@pytest.fixture(scope="module")
def planned(banks):
    return plan_mixture(600, banks, seed=3)


def test_labels_say_which_notes_sound(planned):
    for clip in planned:
        index, bass = parse_label(clip.label)
        if clip.kind == "negative":
            assert index == NO_CHORD_CLASS and not clip.notes
            continue
        root, quality = root_pitch_class(index // N_QUALITIES), QUALITIES[index % N_QUALITIES]
        tones = {(root + step) % 12 for step in quality.semitones}
        sounding_tones = {note % 12 for note in clip.notes}
        missing = tones - sounding_tones
        assert sounding_tones <= tones and missing <= {(root + 7) % 12} and (not missing or len(tones) == 4), clip
        assert bass == min(clip.notes) % 12
        assert harte_label(root, index % N_QUALITIES, bass) == clip.label


def test_every_kind_and_quality_is_there_and_guitars_are_fingered(planned, banks):
    assert {clip.kind for clip in planned} == set(KINDS)
    assert {parse_label(clip.label)[0] % N_QUALITIES for clip in planned if clip.notes} == set(range(N_QUALITIES))
    assert {clip.bank for clip in planned if clip.kind == "guitar"} == {1}
    for clip in planned:
        if clip.notes:
            assert banks[clip.bank].low <= min(clip.notes) and max(clip.notes) <= banks[clip.bank].high


def test_a_set_is_the_beginning_of_a_longer_one(planned, banks):
    assert plan_mixture(50, banks, seed=3) == planned[:50]
    assert plan_mixture(50, banks, seed=4) != planned[:50]


def test_a_clip_is_its_notes(planned, banks):
    renderer = MixtureRenderer(banks, 3)
    heard, others = [], []
    for clip in [clip for clip in planned if clip.kind == "chord"][:20]:
        sound = renderer.clip(clip)
        assert sound.waveform.shape == (CLIP_SAMPLES,) and np.abs(sound.waveform).max() <= 1
        assert 0 <= sound.start_s < sound.end_s <= CLIP_SECONDS
        for note in clip.notes:
            if not {note - 1, note + 1} & set(clip.notes):
                heard.append(_stands_out(sound.waveform, note))
                others += [_stands_out(sound.waveform, note + step) for step in (-1, 1)]
    assert np.mean(heard) > 0.75 and np.mean(others) < 0.1  # drums, a voice or noise hide some


def _stands_out(waveform, note):
    """Whether a note is three times as strong as both of its neighbours; the tuning may be a third of a semitone off."""
    power = np.square(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))))
    semitones = 12 * np.log2(np.maximum(np.arange(len(power)), 1) * RATE / len(waveform) / frequency(note))
    below, at, above = (power[np.abs(semitones - step) < 0.45].max() for step in (-1, 0, 1))
    return at > 3 * max(below, above)


def test_a_clip_does_not_depend_on_those_before_it(planned, banks):
    one = MixtureRenderer(banks, 3).clip(planned[7])
    renderer = MixtureRenderer(banks, 3)
    renderer.clip(planned[2])
    assert np.array_equal(renderer.clip(planned[7]).waveform, one.waveform)
    assert not np.array_equal(MixtureRenderer(banks, 4).clip(planned[7]).waveform, one.waveform)


def test_sound_without_chord_holds_for_the_whole_clip(planned, banks):
    renderer = MixtureRenderer(banks, 3)
    for clip in [clip for clip in planned if clip.kind == "negative"][:12]:
        sound = renderer.clip(clip)
        assert (sound.start_s, sound.end_s) == (0.0, CLIP_SECONDS)
        assert np.isfinite(sound.waveform).all() and np.abs(sound.waveform).max() > 0.01
