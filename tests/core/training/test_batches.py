"""Features that do not fit are refused, and files are read without soundfile as with it."""

import io

import numpy as np
import pytest
import torch

from tests.core.sounds import encode, tone
from tests.core.toys import write_pack
from triadbench.core.data.dataset import open_dataset
from triadbench.core.errors import UserError
from triadbench.core.training import batches
from triadbench.core.training.batches import FEATURE_BYTES, check_features, features_fit, make_source
from triadbench.core.training.settings import fast_pipeline


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
