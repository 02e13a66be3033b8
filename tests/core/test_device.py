"""A device is named or refused in a line; memory left is the least of what the system and the control groups leave."""

import pytest
import torch

from triadbench.core import device
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError


def test_cpu():
    assert torch_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["graphics", "cuda:x", "", "meta", "mps"])
def test_other_names(name):
    with pytest.raises(UserError, match=f"device '{name}'.*; choose cpu or cuda"):
        torch_device(name)


def test_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        UserError, match="device cuda: torch finds no CUDA GPU here; check the driver with nvidia-smi, or use cpu"
    ):
        torch_device("cuda")


def test_a_gpu_too_far(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert torch_device("cuda:0").index == 0 and torch_device("cuda").type == "cuda"
    with pytest.raises(UserError, match="device 'cuda:1': torch finds 1 CUDA GPU here, counted from 0"):
        torch_device("cuda:1")


def group(folder, limit, used, inactive=0, active=0, v1=False):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    prefix = "total_" if v1 else ""
    (folder / "memory.stat").write_text(f"anon 1\n{prefix}inactive_file {inactive}\n{prefix}active_file {active}\n")


def confined(tmp_path, line):
    (tmp_path / "own").write_text(f"{line}\n")
    return device.confined_bytes(tmp_path / "groups", tmp_path / "own")


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
    assert device.confined_bytes(tmp_path, tmp_path / "none") is None
    assert confined(tmp_path, "3:cpu:/x") is None


def test_a_group_that_is_nearly_full_is_what_is_available(monkeypatch):
    monkeypatch.setattr(device, "confined_bytes", lambda: 12)
    assert device.available_bytes("cpu") == 12
    monkeypatch.setattr(device, "confined_bytes", lambda: None)
    assert device.available_bytes("cpu") > 1e6
