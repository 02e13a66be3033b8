"""The windows of a sound cover every sample once or twice, whatever blocks it comes in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.models.prediction import Scores
from triadbench.export.predict.bulk import WindowVotes, loudness, windows

HOP = CLIP_SAMPLES // 2


def expected_windows(n):
    """Starts of the windows of n samples: every half window, until all samples are covered."""
    starts = [0]
    while starts[-1] + CLIP_SAMPLES < n:
        starts.append(starts[-1] + HOP)
    return starts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3 * CLIP_SAMPLES), max_size=8))
def test_windows_cover_every_sample_whatever_the_blocks(sizes):
    n = sum(sizes)
    waveform = np.arange(1, n + 1, dtype=np.float32)  # exact up to 2^24
    blocks = np.split(waveform, np.cumsum(sizes)[:-1]) if sizes else []
    found = list(windows(blocks))
    starts = expected_windows(n)
    assert len(found) == len(starts)
    for window, start in zip(found, starts, strict=True):
        part = waveform[start : start + CLIP_SAMPLES]
        assert window.dtype == np.float32 and window.shape == (CLIP_SAMPLES,)
        assert np.array_equal(window[: len(part)], part) and not window[len(part) :].any()


def test_loudness_is_the_deviation_from_the_mean():
    batch = np.stack([np.full(CLIP_SAMPLES, 0.5), np.resize([0.75, 0.25], CLIP_SAMPLES)]).astype(np.float32)
    np.testing.assert_allclose(loudness(batch), [0, 0.25], atol=1e-7)


def joint(**chances):
    scores = np.full((12, 4), 1e-4, np.float32)
    for chord, chance in chances.items():
        scores[{"C": 4, "A": 1}[chord[0]], 1 if chord.endswith("m") else 0] = chance
    return scores / scores.sum()


def test_the_loud_windows_decide_and_silent_ones_do_not_count():
    votes = WindowVotes()
    list(votes.counted([np.zeros(40_000), np.zeros(8_000)]))
    scores = Scores(None, None, np.stack([joint(Am=0.9), joint(C=0.9), joint(Cm=0.9)]), np.array([False, False, True]))
    for row, share in enumerate((1.0, 3.0, 100.0)):
        votes.add(scores, row, share)
    answer = votes.result(2)
    assert (answer["chord"], answer["windows"], answer["duration_s"]) == ("C", 3, 3.0)
    assert answer["agreement"] == pytest.approx(0.75) and answer["alternatives"][0]["chord"] == "Am"


def test_nothing_but_silence():
    votes = WindowVotes()
    votes.add(Scores(None, None, joint(C=0.9)[None], np.array([True])), 0, 0.0)
    assert votes.result(3)["chord"] == "N" and votes.result(3)["agreement"] is None


def test_windows_vote_for_whole_chords_and_their_bass():
    chords, bass = np.zeros((3, 205), np.float32), np.zeros((3, 12), np.float32)
    c, seventh, e = 4 * 17, 4, 8
    chords[0, c + seventh], chords[1, c], chords[2, -1] = 1, 1, 1
    bass[:2, e] = 1
    votes = WindowVotes()
    scores = Scores(None, None, None, np.zeros(3, bool), chords, bass)
    for row, share in enumerate((3.0, 2.0, 1.0)):
        votes.add(scores, row, share)
    answer = votes.result(2)
    assert (answer["chord"], answer["label"], answer["name"], answer["bass"]) == ("C", "C:7/3", "C7/E", "E")
    assert (answer["agreement"], answer["label_confidence"]) == pytest.approx((0.5, 0.5))
    assert answer["confidence"] == pytest.approx(5 / 6)
    assert [other["label"] for other in answer["alternatives"]] == ["C:maj", "N"]
