"""A GPU for tests: what asks torch for "cuda" is computed on the CPU, and a CUDA graph replays the operators it saw."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

CACHE_BYTES = 400_000


class OnCpu(TorchFunctionMode):
    """Takes "cuda" for "cpu"."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        args = [_cpu(value) for value in args]
        return function(*args, **{name: _cpu(value) for name, value in (kwargs or {}).items()})


def _cpu(value):
    is_gpu = isinstance(value, str | torch.device) and str(value).startswith("cuda")
    return type(value)("cpu") if is_gpu else value


class Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result


class Graph:
    """torch.cuda.CUDAGraph: a replay computes every operator anew, into the memory of the first time."""

    replays = 0

    def __init__(self) -> None:
        self.recorder = Recorder()

    def replay(self) -> None:
        Graph.replays += 1
        with torch.inference_mode():
            for function, args, kwargs, result in self.recorder.calls:
                again = function(*args, **kwargs)
                for old, new in zip(tree_flatten(result)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        return 1e3 * (end.at - self.at)


@contextlib.contextmanager
def capturing(graph: Graph):
    with graph.recorder:
        yield


def install(monkeypatch, stack: contextlib.ExitStack) -> None:
    """From now on, until `stack` closes."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    properties = SimpleNamespace(L2_cache_size=CACHE_BYTES)
    fakes = {
        "is_available": lambda: True,
        "get_device_name": lambda device=None: "Test GPU",
        "get_device_properties": lambda device: properties,
        "synchronize": lambda device=None: None,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda side: contextlib.nullcontext(),
        "CUDAGraph": Graph,
        "graph": capturing,
        "Event": Event,
    }
    for name, fake in fakes.items():
        assert hasattr(torch.cuda, name), name
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr("triadbench.bench.machine._gpu_driver", lambda: "1.0")
    stack.enter_context(OnCpu())
