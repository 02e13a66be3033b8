"""Generated chords are what their names say, the same for a seed, and a data set as it is read everywhere else."""

import numpy as np
import torch

from triadbench.bench.gpu import clips
from triadbench.core.data.dataset import open_dataset
from triadbench.core.models.chords import ClipName
from triadbench.core.models.predictor import Predictor


def test_names_hold_every_chord_equally_often_and_no_root_that_cannot_be_told():
    names = clips.clip_names(960)
    counts = np.zeros((12, 4), int)
    for name in names:
        counts[name.root, name.type] += 1
    assert (counts == 20).all()
    assert {name.octave for name in names} == {3, 4, 5} and {name.voicing for name in names} == {"root", "inv1", "inv2"}
    assert {name.volume for name in names} == set("pmf") and all(name.root_is_defined for name in names)
    assert len({name.format() for name in names}) == 960
    assert clips.clip_names(50) == names[:50] != clips.clip_names(50, seed=14)


def test_notes_lie_where_they_are_written():
    c_minor = ClipName(root=4, type=1, octave=4)
    assert clips._notes(c_minor) == [60, 63, 67]
    assert clips._notes(ClipName(root=4, type=1, octave=4, voicing="inv2")) == [72, 75, 67]
    assert clips._notes(ClipName(root=0, type=0, octave=3)) == [56, 60, 63]


def test_the_shipped_model_names_them():
    names = clips.clip_names(96)
    (waveforms,) = clips.make_chunks(names, "cpu")
    assert waveforms.shape == (96, 64_000) and waveforms.abs().max() <= 1 and waveforms.abs().amax(1).min() > 0.05
    joint = Predictor.load()(waveforms.numpy()).joint
    roots, types = np.divmod(joint.reshape(96, 48).argmax(1), 4)
    assert np.mean(types == [name.type for name in names]) > 0.9
    assert np.mean(roots == [name.root for name in names]) > 0.9


def test_chunks_are_the_same_clips_for_a_seed(monkeypatch):
    monkeypatch.setattr(clips, "_CHUNK", 4)
    names = clips.clip_names(6)
    first, again = (torch.cat(list(clips.make_chunks(names, "cpu"))) for _ in range(2))
    assert first.shape == (6, 64_000) and torch.equal(first, again)
    assert not torch.equal(first[:1], next(clips.make_chunks(names[:1], "cpu", seed=14)))
    assert len({tuple(clip[1000:1010].tolist()) for clip in first}) == 6


def test_files_open_as_the_data_set(tmp_path):
    dataset = open_dataset(clips.write_wavs(6, tmp_path / "clips", "cpu"))
    assert len(dataset) == 6 and not dataset.skipped
    names = {name.format(): row for row, name in enumerate(clips.clip_names(6))}
    (waveforms,) = clips.make_chunks(clips.clip_names(6), "cpu")
    for index, clip in enumerate(dataset.clips):
        row = names[clip.name.format()]
        assert np.abs(dataset.read(index) - waveforms[row].numpy()).max() < 1e-4
    types, roots = dataset.labels()
    assert [*zip(roots, types, strict=True)] == [(clip.name.root, clip.name.type) for clip in dataset.clips]
