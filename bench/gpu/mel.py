"""The stage "mel": our kernel beside torchaudio, a cuFFT pipeline and one dense product, by calls and by graph replays.

Groups of contestants in the order of their weight; each group's records are in the file before the next begins. What
the time does not suffice for has a record with the reason.
"""

import dataclasses
import time
from typing import Any

from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.summary import number
from triadbench.bench.gpu.context import Context, gpu_state
from triadbench.bench.mel import measure, rivals
from triadbench.bench.mel import records as mel_records
from triadbench.bench.mel.records import Group, Store
from triadbench.core.constants import usable_cores

_NAMES = ("ours: cuda", "ours: matmul", "torchaudio eager", "torchaudio compiled", "torch by hand", "MelT", "MelT TF32")
_CASES = [("ORIGINAL", 512), ("ORIGINAL", 64), ("ORIGINAL", 1)]
_CASES += [(spec, batch) for batch in (512, 64) for spec in ("CHORD", "WHISPER")] + [
    ("ORIGINAL", 8),
    ("ORIGINAL", 2048),
]
_INT16_BATCHES: tuple[int, ...] = (512, 64, 1, 8, 2048)
_COMPILED = (("ORIGINAL", 512), ("ORIGINAL", 64), ("CHORD", 512), ("WHISPER", 512))
_COMPILED_NAME = "torchaudio compiled"
_COMPILE_S = 40.0  # what compiling may take once, and importing the compiler
_GROUP_S, _TIMING_S = 10.0, 4.0  # that a group may take before one is known, and its timing at most


def run(context: Context) -> str:
    """Measure; the line says what our fastest takes for a clip. RuntimeError where one of ours is wrong or fails."""
    names = (*_NAMES, *(name + rivals.GRAPH for name in _NAMES), *(("ours: numba",) if context.rehearse else ()))
    contestants = {name: rival for name, rival in rivals.all_rivals().items() if name in names}
    groups, environment = _groups(context), mel_records.environment(contestants)
    store = Store(context.records, environment, context.effort, fresh=True)
    effort = measure.Effort(context.effort, budget_s=context.left_s(), clips_compared=64)
    if context.rehearse:
        effort = dataclasses.replace(measure.SMOKE, name=context.effort, clips_compared=1)
    run = measure.Run(store, contestants, effort, groups)
    run.add_roofs(groups[0].threads, context.device)
    longest_s = 1.0 if context.rehearse else _GROUP_S
    for done, group in enumerate(groups):
        began, left_s, skip = time.monotonic(), context.left_s(), {}
        if left_s < longest_s:
            store.add(run.left_out(group, "all", "the time of the stage was over"))
            continue
        compiles = (group.spec, group.batch) in _COMPILED and group.dtype == "float32"
        if not compiles:
            skip[_COMPILED_NAME] = "not compiled for every case: each costs seconds before its first call"
        elif left_s < longest_s + _COMPILE_S:
            skip[_COMPILED_NAME] = "no time left to compile"
        before = gpu_state()
        results = run.measure_group(group, min(_TIMING_S, left_s / 2 / (len(groups) - done)), skip)
        states = {"gpu_before": before, "gpu_after": gpu_state()}
        store.add(*(record | states for record in results))
        if done and skip and not context.rehearse:
            longest_s = max(longest_s, 1.5 * (time.monotonic() - began))
    return _line(store, groups, context.device)


def _groups(context: Context) -> list[Group]:
    """The most important first, as the time may end."""
    cases, int16_batches = _CASES, _INT16_BATCHES
    if context.rehearse:
        cases, int16_batches = [("ORIGINAL", 1), ("ORIGINAL", 2), ("CHORD", 1)], (1, 2)
    # One thread in a rehearsal: several wait for each other wherever other processes keep a core.
    place: dict[str, Any] = {"threads": 1 if context.rehearse else usable_cores(), "device": context.device}
    groups = [Group(spec, batch, **place) for spec, batch in cases]
    return groups + [Group("ORIGINAL", batch, dtype="int16", **place) for batch in int16_batches]


def _line(store: Store, groups: list[Group], device: str) -> str:
    timed, gaps = store.find("mel"), store.find("mel left out")
    broken = [gap for gap in gaps if gap["reason"].startswith(("wrong", "failed"))]
    ours = {gap["parameters"]["contestant"]: gap["reason"] for gap in broken}
    ours = {name: reason for name, reason in ours.items() if name.startswith("ours")}
    if device == "cuda" and not store.find("mel", contestant="ours: cuda"):
        ours["ours: cuda"] = next(g["reason"] for g in gaps if g["parameters"]["contestant"] == "ours: cuda")
    if ours:
        raise RuntimeError("; ".join(f"{name}: {reason}" for name, reason in ours.items()))
    rows = mel_summary.rows(timed)
    duel = mel_summary.duels(rows)[0]
    mine, here = duel["ours"], [row for row in rows if mel_summary.case(row) == duel["case"]]
    how = "graph replays" if mine["graph_of"] else "calls"
    line = (
        f"{duel['case'].label}: {mine['contestant']} {number(1e3 * mine['p50_ms'] / mine['batch'])} us a clip by {how}"
    )
    for name in (mel_summary.EAGER, _COMPILED_NAME):
        for row in here:
            if name == (row["graph_of"] if mine["graph_of"] else row["contestant"]):
                line += f", {number(row['p50_ms'] / mine['p50_ms'], 2)} x {name}"
    measured = {mel_summary.case(row) for row in rows}
    line += f"; {len(measured)} of {len(groups)} cases measured"
    names = dict.fromkeys(gap["parameters"]["contestant"] for gap in broken)
    return line + (f"; wrong or failed: {', '.join(names)}" if names else "")
