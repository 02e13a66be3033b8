"""Joules of an NVIDIA GPU, from its own counter through NVML (the package nvidia-ml-py), where that can be had."""

from __future__ import annotations

from collections.abc import Callable


def meter(device: str) -> tuple[Callable[[], float | None], str | None]:
    """(joules that the GPU has used so far, None), or (a function that returns None, why it is not measured).

    The counter is of the whole board, idle power included, and moves every 20 to 100 ms: short blocks say nothing.
    """
    if device == "cpu":
        return _nothing, "the energy of CPUs is not measured"
    try:
        import pynvml
    except ImportError:
        return _nothing, "not measured: pynvml is not installed (pip install nvidia-ml-py)"
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        return _nothing, f"not measured: {error}"
    return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, None


def _nothing() -> None:
    return None
