"""A degraded set: every clip once, under its name, the same bytes for the same seed, and worse than its source."""

import json

import numpy as np
import pytest

from tests.core.sounds import NAMES, encode, make_folder, tone
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.degrade import degrade_set
from triadbench.core.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    clips = {name: encode(tone(64_000, 16_000)) for name in NAMES[:2]}
    return make_folder(tmp_path_factory.mktemp("degrade") / "set", clips)


def test_every_clip_is_degraded_once_and_keeps_its_name(source, tmp_path):
    calls = []
    result = degrade_set(source, tmp_path / "a", seed=3, progress=lambda *numbers: calls.append(numbers))
    assert result["n"] == 2 and result["skipped"] == [] and result["seed"] == 3 and calls == [(1, 2), (2, 2)]
    before, after = open_dataset(source), open_dataset(tmp_path / "a")
    assert [clip.member for clip in after.clips] == [clip.member for clip in before.clips]
    for index in range(2):
        clean, degraded = before.read(index), after.read(index)
        assert degraded.shape == clean.shape and np.abs(degraded).max() > 0.01
        assert abs(np.corrcoef(clean, degraded)[0, 1]) < 0.99
    meta = json.loads((tmp_path / "a" / "meta.json").read_text())
    assert meta["source"] == {"degraded": source.name, "seed": 3}


def test_the_seed_decides_every_byte(source, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        degrade_set(source, tmp_path / name, seed=seed)
    clips = [(tmp_path / name / "clips.npy").read_bytes() for name in "abc"]
    assert clips[0] == clips[1] != clips[2]


def test_a_set_without_a_readable_clip_is_refused(source, tmp_path):
    folder = make_folder(tmp_path / "set", {NAMES[0]: encode(tone(64_000, 16_000))})
    dataset = open_dataset(folder)
    (folder / dataset.clips[0].member).write_bytes(b"")
    with pytest.raises(UserError, match="no clip found"):
        degrade_set(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
