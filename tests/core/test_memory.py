"""Memory that is left: the least of what the system and the control groups leave; features that do not fit refused."""

from __future__ import annotations

import pytest
import torch

from tests.core.toys import write_pack
from triadbench.core import memory
from triadbench.core.errors import UserError
from triadbench.core.training.batches import FEATURE_BYTES, check_features, features_fit, make_source
from triadbench.core.training.pipeline import fast_pipeline


def group(folder, limit, used, inactive=0, active=0, v1=False):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    prefix = "total_" if v1 else ""
    (folder / "memory.stat").write_text(f"anon 1\n{prefix}inactive_file {inactive}\n{prefix}active_file {active}\n")


def confined(tmp_path, line):
    (tmp_path / "own").write_text(f"{line}\n")
    return memory.confined_bytes(tmp_path / "groups", tmp_path / "own")


def test_the_tightest_group_above_counts(tmp_path):
    group(tmp_path / "groups/job", 1000, 300)
    group(tmp_path / "groups/job/step", 900, 100, inactive=20, active=30)
    assert confined(tmp_path, "0::/job/step") == 700
    group(tmp_path / "groups/job", "max", 300)
    assert confined(tmp_path, "0::/job/step") == 850, "pages of files are given up"
    group(tmp_path / "groups/job/step", 900, 1000)
    assert confined(tmp_path, "0::/job/step") == 0


def test_a_container_sees_its_own_group_at_the_top(tmp_path):
    group(tmp_path / "groups", 1000, 300)
    assert confined(tmp_path, "0::/hosts/name/of/it") == 700


def test_version_1(tmp_path):
    group(tmp_path / "groups/memory", 1000, 300, inactive=50, active=1, v1=True)
    assert confined(tmp_path, "4:cpu,memory:/docker/x") == 751
    group(tmp_path / "groups/memory", 0x7FFFFFFFFFFFF000, 300, v1=True)
    assert confined(tmp_path, "4:memory:/docker/x") is None


def test_no_groups(tmp_path):
    assert memory.confined_bytes(tmp_path, tmp_path / "none") is None
    assert confined(tmp_path, "3:cpu:/x") is None


def test_a_group_that_is_nearly_full_is_what_is_available(monkeypatch):
    monkeypatch.setattr(memory, "confined_bytes", lambda: 12)
    assert memory.available_bytes("cpu") == 12
    monkeypatch.setattr(memory, "confined_bytes", lambda: None)
    assert memory.available_bytes("cpu") > 1e6


def test_features_that_do_not_fit_are_refused_with_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 8 * FEATURE_BYTES)
    assert features_fit(4, "cpu") and not features_fit(5, "cpu")
    check_features(2, "cpu", copies=2)
    with pytest.raises(UserError, match="of 2 clips, kept 3 times, take 0.000194 GB, and this machine has 0.000258 GB"):
        check_features(2, "cpu", copies=3)
    with pytest.raises(UserError, match="the GPU has .* 60 %; use switch mel=batch or a smaller set"):
        check_features(5, "cuda")
    dataset_path = write_pack(tmp_path / "x.pack", 12)
    from triadbench.core.data.dataset import open_dataset

    source = make_source(open_dataset(dataset_path), "type", fast_pipeline("cpu"), torch.device("cpu"))
    with pytest.raises(UserError, match="the features of 12 clips take"):
        source.prepare()
