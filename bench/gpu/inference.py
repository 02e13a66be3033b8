"""What does an answer cost on the GPU, in PyTorch and ONNX Runtime, beside this machine's CPU; and does the shipped
model's card tell the truth: `infer clip.wav --provider cuda`?"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import time
from statistics import median
from typing import Any

from triadbench.bench import machine, records
from triadbench.bench.gpu.clips import write_wavs
from triadbench.bench.gpu.context import Context
from triadbench.bench.providers import plan as plans
from triadbench.bench.providers import run as benchmark
from triadbench.bench.providers.contestants import BASELINE, FORMATS
from triadbench.core.constants import usable_cores
from triadbench.core.data.dataset import open_dataset
from triadbench.core.files import PACKAGE
from triadbench.core.models.prediction import name_chord
from triadbench.core.models.predictor import Predictor
from triadbench.export.predict.providers import why_unavailable

COMMAND = "gpu command"
_ON_CPU = {(BASELINE, "fp32"), ("onnx, clip by clip", "fp32")}
_REHEARSED = _ON_CPU | {(name, "fp32") for name, form in FORMATS.items() if "cuda" in form.providers}
_PROCESSES = 3


def run(context: Context) -> str:
    """The command, then the contestants. Raises RuntimeError where the command fails or a contestant is wrong."""
    line, failed = _command(context)
    effort = plans.SMOKE if context.rehearse else plans.GPU
    plan = plans.make_plan(effort, threads=[1 if context.rehearse else usable_cores()], parts=("single", "offline"))
    on_cpu = _REHEARSED if context.rehearse else _ON_CPU
    chosen = [one for one in plan.contestants if one.device == "cuda" or (one.format, one.precision) in on_cpu]
    plan = dataclasses.replace(plan, contestants=tuple(chosen))
    # A group that has begun goes on; the rest of the time is for that.
    options: dict[str, Any] = {"seconds": 0.8 * context.left_s(), "note": functools.partial(print, flush=True)}
    results, wrong = benchmark.measure(context.records, plan, effort, **options)
    offline = [one for one in results if one["name"] == "benchmark offline" and one["samples"]]
    rates = {}
    for case, samples in ((one["parameters"], one["samples"]) for one in offline):
        if case["provider"] == context.device:
            rates[f"{case['format']}, batch {case['batch']}"] = 1e3 * case["batch"] / median(samples)
    if best := max(rates, key=rates.__getitem__, default=None):
        line = f"{best}: {rates[best]:,.0f} clips a second; {line}"
    if failed or wrong:
        raise RuntimeError("; ".join([*wrong, line]))
    return line


def _command(context: Context) -> tuple[str, bool]:
    """What the summary says of the card's command, and whether it failed."""
    wavs = write_wavs(1, context.scratch / "clip", "cpu")
    (path,) = wavs.iterdir()
    command = f"infer clip.wav --provider {context.device}"
    parameters = {"command": command}
    if context.device != "cpu" and (reason := why_unavailable(context.device)):
        context.add(COMMAND, parameters, reason=reason)
        return f"{command} is unproven: {reason}", False
    chords = Predictor.load()(open_dataset(wavs).read_many([0])).chords
    assert chords is not None, "the shipped model names chords"
    expected, seconds = name_chord(chords[0])["chord"], []
    process = [sys.executable, str(PACKAGE / "cli.py"), "infer", str(path), "--provider", context.device, "--json"]
    try:
        for _ in range(1 if context.rehearse else _PROCESSES):
            begun = time.perf_counter()
            (answer,) = json.loads(machine.run_process(process, timeout_s=max(1.0, context.left_s() / 2)))["results"]
            seconds.append(time.perf_counter() - begun)
            if answer["chord"] != expected:
                raise machine.ProcessError(f"it answers {answer['chord']}, and PyTorch {expected}")
    except (machine.ProcessError, ValueError, KeyError) as error:
        context.add(COMMAND, parameters, reason=f"failed: {records.reason_of(error)}")
        return f"{command} failed: {records.reason_of(error)}", True
    first, *others = seconds
    checked = {"reference": "PyTorch", "other_labels": 0}
    context.add(COMMAND, parameters, others or seconds, first_call=first, error=checked, chord=expected)
    return f"{command} answers {expected}, as PyTorch does, in {min(seconds):.1f} s", False
