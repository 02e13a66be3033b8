"""Features are the mel spectrograms of the clips, row for row, and a cache is used only for what it was made of."""

import io
import os

import numpy as np
import pytest
import torch

from tests.core.sounds import encode, tone
from tests.core.toys import write_pack, write_set
from triadbench.core.data.dataset import open_dataset
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ClipName
from triadbench.core.training import batches
from triadbench.core.training.batches import FEATURE_BYTES, check_features, features_fit, features_of, make_source
from triadbench.core.training.settings import fast_pipeline
from triadbench.kernels import MelSpectrogram
from triadbench.kernels.spec import CHORD, ORIGINAL

NAMES = [ClipName(root, kind, 5, "m") for root, kind in ((0, 0), (4, 1), (7, 2))]


@pytest.fixture
def clips(tmp_path):
    return open_dataset(write_set(tmp_path / "set", NAMES))


@pytest.fixture
def pack(tmp_path):
    return open_dataset(write_pack(tmp_path / "pack", 4))


def direct(dataset, spec, log):
    transform = MelSpectrogram.from_spec(spec, log=log)
    return np.stack([transform(torch.from_numpy(dataset.read(i)[None]))[0].numpy() for i in range(len(dataset))])


def test_log_mel_in_half_precision(clips, monkeypatch):
    monkeypatch.setattr(batches, "_FEATURE_BATCH", 2)  # the last batch is a shorter one
    out = features_of(clips, CHORD, log=True)
    wanted = direct(clips, CHORD, True)
    assert out.dtype == np.float16 and out.shape == wanted.shape == (3, 192, 63)
    # Half a unit in the last place of float16, 2^-11 of the value, and of values up to 24.
    assert np.abs(out - wanted).max() <= 24 * 2**-11 and np.ptp(wanted) > 10


def test_power_mel_in_single_precision(clips):
    out = features_of(clips, ORIGINAL, log=False)
    assert out.dtype == np.float32 and out.shape == (3, 64, 126)
    assert np.allclose(out, direct(clips, ORIGINAL, False), rtol=1e-4) and out.max() > 100


def test_progress(clips, monkeypatch):
    monkeypatch.setattr(batches, "_FEATURE_BATCH", 2)
    counts = []
    features_of(clips, CHORD, log=True, progress=lambda done, total: counts.append((done, total)))
    assert counts == [(2, 3), (3, 3)]


def forbid(monkeypatch, dataset):
    monkeypatch.setattr(dataset, "read_many", lambda rows: pytest.fail("computed again"))


@pytest.mark.parametrize("kind", ["clips", "pack"])
def test_a_cache_is_found_again(kind, request, tmp_path, monkeypatch):
    dataset = request.getfixturevalue(kind)
    first = np.array(features_of(dataset, CHORD, log=True, cache=tmp_path / "cache"))
    assert np.array_equal(first, features_of(dataset, CHORD, log=True))
    again = open_dataset(dataset.path)
    forbid(monkeypatch, again)
    cached = features_of(again, CHORD, log=True, cache=tmp_path / "cache")
    assert isinstance(cached, np.memmap) and np.array_equal(cached, first)


def test_other_settings_and_other_data_are_not_taken_from_the_cache(clips, pack, tmp_path):
    for dataset, spec, log in (
        (clips, CHORD, True),
        (clips, CHORD, False),
        (clips, ORIGINAL, True),
        (pack, CHORD, True),
    ):
        out = features_of(dataset, spec, log=log, cache=tmp_path / "cache")
        assert np.allclose(out, direct(dataset, spec, log), rtol=1e-3, atol=0.02)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 4


def test_a_pack_or_folder_made_anew_at_the_same_place_is_not_taken_from_the_cache(tmp_path):
    for kind in ("folder", "pack"):
        path, seen = tmp_path / kind, []
        for seed in (0, 1):
            if kind == "pack":
                write_pack(path, 2, seed=0)
                rows = np.load(path / "clips.npy", mmap_mode="r+")
                rows[:] = rows // (seed + 1)
                rows.flush()
            else:
                write_set(path, [ClipName(seed * 3, 0, 5, "m")])
                (path / f"{ClipName(seed * 3, 0, 5, 'm').format()}.wav").rename(path / "piano_5_An_j_m_00.wav")
            stamp = 1_700_000_000 + seed
            for file in path.iterdir():
                os.utime(file, (stamp, stamp))
            seen.append(np.array(features_of(open_dataset(path), CHORD, log=True, cache=tmp_path / "cache")))
            for file in path.iterdir():
                file.unlink()
        assert not np.array_equal(*seen), kind


def test_an_interrupted_computation_leaves_no_cache(clips, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features_of(clips, CHORD, log=True, cache=tmp_path / "cache", progress=interrupt)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "of the first version"])
@pytest.mark.parametrize("content", [b"", b"text", None], ids=["empty", "text", "cut"])
def test_a_damaged_cache_says_that_deleting_it_helps(content, sealed, clips, tmp_path):
    features_of(clips, CHORD, log=True, cache=tmp_path / "cache")
    [path] = (tmp_path / "cache").glob("*.npy")
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    if not sealed:
        path.with_suffix(".sha256").unlink()
    with pytest.raises(UserError, match="a damaged cache .*; delete it, and it is made again"):
        features_of(clips, CHORD, log=True, cache=tmp_path / "cache")


def test_a_flipped_bit_of_a_cache_is_noticed(clips, tmp_path):
    first = np.array(features_of(clips, CHORD, log=True, cache=tmp_path / "cache"))
    [path] = (tmp_path / "cache").glob("*.npy")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="a damaged cache .its SHA-256 is another.; delete it, and it is made again"):
        features_of(clips, CHORD, log=True, cache=tmp_path / "cache")
    path.unlink()
    assert np.array_equal(features_of(clips, CHORD, log=True, cache=tmp_path / "cache"), first)


def test_a_cache_of_another_shape(clips, tmp_path):
    features_of(clips, CHORD, log=True, cache=tmp_path / "cache")
    [path] = (tmp_path / "cache").glob("*.npy")
    path.with_suffix(".sha256").unlink()
    np.save(path, np.zeros((3, 2), np.float16))
    with pytest.raises(UserError, match="a cache of another shape; delete it"):
        features_of(clips, CHORD, log=True, cache=tmp_path / "cache")


def test_a_clip_that_cannot_be_read(clips):
    (clips.path / clips.clips[1].member).write_bytes(b"gone bad")
    with pytest.raises(UserError, match="piano_5_.*not a sound file"):
        features_of(clips, CHORD, log=True)


def test_features_that_do_not_fit_are_refused_with_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "available_bytes", lambda device: 8 * FEATURE_BYTES)
    assert features_fit(4, "cpu") and not features_fit(5, "cpu")
    check_features(2, "cpu", copies=2)
    with pytest.raises(UserError, match="of 2 clips, kept 3 times, take 0.000194 GB, and this machine has 0.000258 GB"):
        check_features(2, "cpu", copies=3)
    with pytest.raises(UserError, match="the GPU has .* 60 %; use switch mel=batch or a smaller set"):
        check_features(5, "cuda")
    dataset = open_dataset(write_pack(tmp_path / "x.pack", 12))
    source = make_source(dataset, "type", fast_pipeline("cpu"), torch.device("cpu"))
    with pytest.raises(UserError, match="the features of 12 clips take"):
        source.prepare()


@pytest.mark.parametrize("channels", [1, 2])
def test_the_standard_library_reads_the_sound_that_soundfile_reads(channels, tmp_path):
    path = tmp_path / "x.wav"
    path.write_bytes(encode(tone(1001, 44_100, channels=channels), 44_100))
    for file in (lambda: str(path), lambda: io.BytesIO(path.read_bytes())):
        (ours, rate), (theirs, other_rate) = batches._wave_read(file()), batches._soundfile_read(file())
        assert rate == other_rate and ours.dtype == theirs.dtype and np.array_equal(ours, theirs)


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "ULAW"])
def test_what_the_standard_library_does_not_read(subtype, tmp_path):
    (tmp_path / "x.wav").write_bytes(encode(tone(1001), subtype=subtype))
    with pytest.raises(
        UserError, match="x.wav: without soundfile only wav of 16 bits is read .*pip install .triadbench.study"
    ):
        batches._wave_read(str(tmp_path / "x.wav"))
