"""Where torch computes, by name."""

import torch

from triadbench.core.errors import UserError


def torch_device(name: str) -> torch.device:
    """The device "cpu", "cuda" or "cuda:N"; UserError: another name, or a GPU that is not there."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"unknown device {name!r}; choose cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r} is not supported; choose cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: torch finds no CUDA GPU here; check the driver with nvidia-smi, or use cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device {name!r}: torch finds {torch.cuda.device_count()} CUDA GPU here, counted from 0")
    return device
