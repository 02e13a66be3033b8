"""Small made-up record files that cover every chapter of the report, for its tests."""

from __future__ import annotations

import json
import random
from pathlib import Path

from triadbench.bench import records

PARTS = ("reading", "resampling", "mel", "copy", "forward", "backward", "optimizer", "synchronisation", "idle")
RUNGS = ("original", "packed clips", "mel once a batch", "prefetch", "channels-last", "pool before ReLU", "no waiting")


def environment(gpu: str | None = None, cpu: str = "Test CPU") -> dict:
    return {
        "time": "2026-11-22T20:00:00+00:00",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "triadbench": "0.1",
        "python": "3.11.2",
        "versions": {"torch": "2.11.0", "plotly": "6.0"},
        "os": "Linux",
        "cpu": cpu,
        "cpu_features": ["avx2", "fma"],
        "cores_physical": 2,
        "cores_logical": 2,
        "cores_usable": 2,
        "ram_gb": 25.3,
        "torch_threads": 2,
        "omp_wait_policy": None,
        "gpu": gpu,
        "gpu_driver": gpu and "580.1",
        "code": "c0de",
    }


def ladder(env: dict, device: str = "cpu", scale: float = 1.0, seed: int = 0) -> list[dict]:
    draw, made = random.Random(seed), []
    seconds = [76.0, 64.0, 52.0, 50.5, 38.0, 30.0, 31.0]
    losses = [1.4 - 0.0004 * step + 0.01 * draw.random() for step in range(179)]
    for rung, (name, middle) in enumerate(zip(RUNGS, seconds, strict=True)):
        shares = [6, 0.4, 10 if rung < 2 else 1, 0.5, 20, 30, 3, 0.6, 0.5]
        total = scale * middle * 1.05
        made.append(
            records.make(
                "ladder",
                parameters={
                    "rung": rung,
                    "name": name,
                    "switches": {"packed": rung > 0, "mel": "batch" if rung > 1 else "clip"},
                    "device": device,
                    "task": "type",
                    "batch_size": 32,
                    "num_items": 8192,
                },
                unit="s",
                seeds=[0, 1, 2],
                samples=[scale * middle * (1 + 0.02 * draw.random()) for _ in range(3)],
                first_call=scale * middle * 1.2,
                environment=env,
                n_clips=5734,
                losses_of_seeds=[[loss + 0.01 for loss in losses]] if rung == 0 else [],
                parts={part: total * share / sum(shares) for part, share in zip(PARTS, shares, strict=True)},
                instrumented_s=total,
                losses=[loss + 1e-4 * rung * draw.random() for loss in losses],
                spread_of_seeds=0.02 if rung != 4 else 1e-9,
                sentence=f"What {name} changes, and why it is faster.",
            )
        )
    return made


def experiments(env: dict, devices: tuple[str, ...] = ("cpu",), scale: float = 1.0) -> list[dict]:
    draw, made = random.Random(1), []
    settings = [
        ("experiment batch-size", task, batch, 8192) for task in ("type", "root") for batch in (32, 64, 128, 256)
    ]
    settings += [("experiment data-size", "type", 32, clips) for clips in (4096, 8192, 16384)]
    for name, task, batch, clips in settings:
        for device in devices:
            for pipeline, gain in (("original", 1.0), ("fast", 4.0)):
                for phase, part in (("train", 1.0), ("test", 0.3)):
                    middle = scale * 70 * part * clips / 8192 / gain / (20 if device == "cuda" else 1)
                    made.append(
                        records.make(
                            name,
                            parameters={
                                "experiment": name.split()[1],
                                "task": task,
                                "batch_size": batch,
                                "num_items": clips,
                                "device": device,
                                "pipeline": pipeline,
                                "phase": phase,
                                "epochs": 1,
                                "trials": 3,
                                "protocol": "short: 1 epoch, 3 trials",
                            },
                            unit="s",
                            samples=[middle * (1 + 0.04 * draw.random()) for _ in range(3)],
                            first_call=middle * 1.3,
                            environment=env,
                        )
                    )
    return made


def mel(env: dict) -> list[dict]:
    draw, made = random.Random(2), []
    contestants = {"ours: numba": (True, 0.2), "torchaudio eager": (False, 1.0), "librosa": (False, 2.0)}
    for spec in ("ORIGINAL", "CHORD"):
        for batch in (1, 64):
            for threads in (1, 2):
                for name, (ours, slowness) in contestants.items():
                    middle = slowness * batch * (2 if spec == "CHORD" else 1) / threads
                    made.append(
                        records.make(
                            "mel",
                            parameters={
                                "contestant": name,
                                "ours": ours,
                                "spec": spec,
                                "batch": batch,
                                "threads": threads,
                                "device": "cpu",
                                "dtype": "float32",
                                "seed": 13,
                            },
                            unit="ms",
                            samples=[middle * (1 + 0.1 * draw.random()) for _ in range(5)],
                            first_call=middle * 9,
                            environment=env,
                            effort="full",
                            prepare_ms=1.0,
                            first_in_process=batch == 1 and threads == 1,
                            what="a contestant",
                            versions={"numpy": "2"},
                            error={
                                "reference": "float64",
                                "rms_relative": 1e-7,
                                "peak_relative": 2e-7,
                                "tilted_log": 1e-3,
                                "tolerance": 1e-4,
                                "tolerance_reason": "float32",
                            },
                            threads_by="torch",
                            calls_per_sample=1,
                            other_cores=0.0,
                            disturbed=False,
                            clips=batch,
                            audio_s=4.0 * batch,
                            flops=3e6 * batch,
                            bytes_moved=288_256 * batch,
                        )
                    )
    for threads in (1, 2):
        for roof, more in (("memory", {"bytes_moved": 2e8}), ("arithmetic", {"flops": 7e9})):
            made.append(
                records.make(
                    "mel roof",
                    parameters={"roof": roof, "threads": threads, "device": "cpu"},
                    unit="ms",
                    samples=[15.0, 16.0],
                    environment=env,
                    effort="full",
                    **more,
                )
            )
    return made


def everything(gpu: str | None = None, scale: float = 1.0) -> list[dict]:
    env = environment(gpu, "Test CPU" if gpu is None else "Other CPU")
    made = [*ladder(env, scale=scale), *mel(env), *experiments(env, ("cpu", "cuda") if gpu else ("cpu",), scale)]
    if gpu:
        made += ladder(env, "cuda", scale / 30, seed=3)
    made.append(records.make("novelty", parameters={"a": 1}, unit="ms", samples=[1.0, 2.0], environment=env))
    return made


def write(made: list[dict], path: Path) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in made), encoding="utf-8")
    return path
