"""Where torch computes, by name, and how much memory is left there."""

from pathlib import Path

import torch

from triadbench.core import system
from triadbench.core.errors import UserError

_CGROUP, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def torch_device(name: str) -> torch.device:
    """The device "cpu", "cuda" or "cuda:N". Raises UserError for another name, or a GPU that is not there."""
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


def available_bytes(device: torch.device | str) -> int:
    """Bytes to be had without pushing anything out; on a CPU less where a container or batch job confines us."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    left, available = confined_bytes(), system.memory_bytes()[1]
    return available if left is None else min(available, left)


def confined_bytes(root: Path = _CGROUP, own: Path = _OWN) -> int | None:
    """Bytes that the control groups of this process still allow; None where none limits it, or none are here.

    Pages of files count as free: they are given up when memory is wanted. Control groups are mounted at `root`, and
    those of this process listed in `own`.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return None
    left: list[int] = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":  # version 2
            top, names = root, ("memory.max", "memory.current", "inactive_file", "active_file")
        elif "memory" in controllers.split(","):
            top = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file")
        else:
            continue
        # Every group above limits too. In a container the name may be the host's, and only the top is to be seen.
        place = top / name.strip("/")
        for folder in (place, *place.parents):
            left += _left(folder, *names)
            if folder == top:
                break
    return max(0, min(left)) if left else None


def _left(folder: Path, limit: str, usage: str, *reclaimable: str) -> list[int]:
    """[bytes left in one group], or [] where it has no limit."""
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    if not most.isdigit() or int(most) >= 1 << 60:  # "max", or what version 1 writes for no limit
        return []
    return [int(most) - used + sum(int(stat.get(name, 0)) for name in reclaimable)]
