"""Small made-up records of `benchmark`, for tests of its figures and of its page."""

from __future__ import annotations

import numpy as np

from tests.bench import report_records as made
from triadbench.bench import records
from triadbench.bench.analysis.providers import BASELINE


def record(name: str, form: str, samples, batch=1, threads=2, provider="cpu", copies=True, env=None, **more) -> dict:
    """Of one contestant; `samples` in ms."""
    error = {"reference": "PyTorch", "worst_difference": 1.25e-7, "agreement": 1.0, "limit": 1e-5}
    return records.make(
        name,
        parameters={
            "format": form,
            "precision": "fp32",
            "provider": provider,
            "threads": threads,
            "batch": batch,
            "copies": copies,
        },
        unit="ms",
        samples=samples,
        first_call=77.7,
        error=error,
        environment=env or made.environment(),
        clips=batch * len(samples),
        disturbed=False,
        **more,
    )


def everything(gpu: str | None = None) -> list[dict]:
    """A contestant and the baseline with one and two threads; with a GPU's name, a contestant on it too."""
    draw, env = np.random.default_rng(3), made.environment(gpu)
    found = []
    for form, slow in (("onnx, clip by clip", 2.0), (BASELINE, 6.0)):
        for threads in (1, 2):
            found.append(
                record("benchmark single stream", form, slow * (1 + draw.random(1024) ** 8), threads=threads, env=env)
            )
            for batch in (1, 8, 64):
                times = slow * batch * (1 + 0.01 * draw.random(5))
                found.append(record("benchmark offline", form, times, batch=batch, threads=threads, env=env))
    if gpu:
        for batch in (1, 8, 64):
            found.append(
                record(
                    "benchmark offline",
                    "onnx, whole batch",
                    [10 + 0.01 * batch] * 3,
                    batch=batch,
                    provider="cuda",
                    env=env,
                    energy_j=3.0 * batch,
                )
            )
    runs = [
        {
            "load_ms": 123.0,
            "first_call_ms": 9.87,
            "second_call_ms": 3.21,
            "memory_mb": 36.5,
            "batch_memory_mb": 101.5,
            "gpu_memory_mb": None,
        }
    ]
    found.append(
        record(
            "benchmark load", "onnx, clip by clip", [123.0], batch=64, threads=1, env=env, runs=runs, bytes=2_904_502
        )
    )
    for way, samples in (
        ("infer", [1.11, 1.12, 1.13]),
        ("eager loop", [9.6, 9.8, 9.9]),
        ("eager loop, one thread", [6.6, 6.72, 6.9]),
    ):
        found.append(
            records.make(
                "benchmark files",
                parameters={"way": way, "files": 512, "threads": 2},
                unit="s",
                samples=samples,
                first_call=2.22,
                environment=env,
                disturbed=False,
            )
        )
    for command, seconds in (("infer clip.wav", 0.432), ("--help", 0.111)):
        found.append(
            records.make(
                "benchmark process",
                parameters={"command": command},
                unit="s",
                samples=[seconds] * 7,
                first_call=0.9,
                environment=env,
                disturbed=False,
            )
        )
    found.append(
        records.make(
            "benchmark single stream left out",
            unit="ms",
            samples=[],
            environment=env,
            reason="no <GPU>",
            parameters={"format": "torchscript", "precision": "fp32", "provider": "cuda", "batch": 1},
        )
    )
    return found
