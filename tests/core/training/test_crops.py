"""A step's crops are of one length, hold what they are labelled with, and follow from seed and epoch alone."""

import numpy as np
import pytest

from triadbench.core.data.excerpts import Entry
from triadbench.core.training.crops import LEAD_S, LENGTHS, SONG_SHARE, CropDrawer

SONG = [(0.0, 0.2, "X"), (0.2, 1.0, "A:min"), (1.0, 3.0, "D:min"), (3.0, 4.0, "E:7")]
ENTRIES = [
    *(Entry("triad", f"c{k}", [(0.0, 0.5, "N"), (0.5, 2.5, "C:maj"), (2.5, 4.0, "N")]) for k in range(300)),
    *(Entry("song-own", f"s{k // 4}", SONG) for k in range(40)),
    Entry("song-own", "unknown", [(0.0, 3.9, "X"), (3.9, 4.0, "C:maj")]),
    Entry("negative", "unknown too", [(0.0, 4.0, "X")]),
]


def steps_of(entries, seed=0, epoch=0, batch_size=10):
    drawer = CropDrawer(entries)
    return drawer, drawer.epoch(np.flatnonzero(drawer.usable), batch_size, seed, epoch)


def flat(steps):
    return [(crops.samples, *(part.tolist() for part in crops[:3])) for crops in steps]


def test_an_epoch_is_every_isolated_clip_once_and_songs_in_short_windows():
    drawer, steps = steps_of(ENTRIES)
    assert not drawer.usable[-2:].any() and drawer.usable[:-2].all() and drawer.labels[1] == "C:maj"
    rows = np.concatenate([crops.rows for crops in steps])
    assert sorted(rows[rows < 300]) == list(range(300))
    counts = np.bincount(rows[rows >= 300] - 300)
    assert len(counts) == 40 and np.ptp(counts) <= 1  # a deck: none again before all have been drawn
    for crops in steps[:-1]:
        assert sum(crops.rows >= 300) == (round(SONG_SHARE * 10) if crops.samples <= 16_000 else 0)
        assert len(crops.rows) == 10 and crops.samples / 16_000 in LENGTHS
    seconds = [crops.samples / 16_000 for _ in range(8) for crops in steps_of(ENTRIES, seed=_)[1]]
    for length, share in LENGTHS.items():
        assert np.mean([s == length for s in seconds]) == pytest.approx(share, abs=0.08)


def test_a_crop_lies_in_its_row_and_is_labelled_by_what_sounds_there():
    for seed in range(3):
        drawer, steps = steps_of(ENTRIES, seed)
        for crops in steps:
            assert crops.starts.min() >= 0 and (crops.starts + crops.samples).max() <= 64_000
            for row, start, label in zip(crops.rows, crops.starts / 16_000, crops.labels, strict=True):
                seconds, label = crops.samples / 16_000, drawer.labels[label]
                if row < 300:
                    assert label == "C:maj"
                    assert seconds == 4 or (
                        start >= 0.5 - LEAD_S - 1e-4
                        and min(start + seconds, 2.5) - max(start, 0.5) > 0.49 * seconds - LEAD_S
                    )
                else:
                    [(begin, end)] = [(a, b) for a, b, name in SONG if name == label]
                    assert begin - 1e-4 <= start + LEAD_S <= end - 0.15 + 1e-4


def test_draws_follow_from_seed_and_epoch():
    once, again, other, later = (flat(steps_of(ENTRIES, *key)[1]) for key in ((1, 2), (1, 2), (2, 2), (1, 3)))
    assert once == again and once != other and once != later


def test_a_set_of_songs_alone():
    drawer, steps = steps_of(ENTRIES[300:])
    assert sorted(np.concatenate([crops.rows for crops in steps])) == list(range(40))
    assert {crops.samples for crops in steps} <= {8_000, 16_000}


def test_a_step_of_one_crop_is_a_clip():
    _, steps = steps_of(ENTRIES[290:340], batch_size=1)
    assert sorted(int(row) for crops in steps for row in crops.rows) == list(range(10))


def test_what_is_measured_is_heard_once_and_clips_whole():
    drawer = CropDrawer(ENTRIES)
    rows = np.flatnonzero(drawer.usable)
    parts = drawer.whole(rows, seed=3)
    assert np.concatenate([crops.rows for crops in parts]).tolist() == rows.tolist() and len(parts) == 4
    assert [crops.samples for crops in parts] == [64_000] * 3 + [16_000] and not parts[0].starts.any()
    assert flat(parts) == flat(drawer.whole(rows, seed=3)) != flat(drawer.whole(rows, seed=4))
