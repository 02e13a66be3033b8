"""A device is named or refused in a line, never replaced by another."""

import pytest
import torch

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
