"""The stage "mel": our kernel beside torchaudio, a cuFFT pipeline and one dense product, by calls and by graph replays.

Groups of contestants in the order of their weight; each group's records are in the file before the next begins. What
the time does not suffice for has a record with the reason.
"""

import dataclasses
import time
import traceback
from statistics import median

from triadbench.bench import records
from triadbench.bench.gpu import mel_before
from triadbench.bench.gpu.context import Context, gpu_state
from triadbench.bench.mel import measure, own_backends, rivals
from triadbench.bench.mel import records as mel_records
from triadbench.bench.mel.records import Group, Store
from triadbench.kernels import SPECS

_CASES = [("ORIGINAL", 512), ("ORIGINAL", 64), ("ORIGINAL", 1)]
_CASES += [(spec, batch) for batch in (512, 64) for spec in ("CHORD", "WHISPER")]
_CASES += [("ORIGINAL", 8), ("ORIGINAL", 2048)]
_INT16_BATCHES: tuple[int, ...] = (512, 64, 1, 8, 2048)
_COMPILED = (("ORIGINAL", 512), ("ORIGINAL", 64), ("CHORD", 512), ("WHISPER", 512))
_COMPILED_NAME = "torchaudio compiled"
_COMPILE_S, _COMPILE_AGAIN_S = 40.0, 15.0  # that compiling may take, the first time with importing the compiler
_GROUP_S, _TIMING_S = 10.0, 4.0  # that a group may take before one is known, and its timing at most


def run(context: Context) -> str:
    """Measure; the line says what our fastest takes for a clip. RuntimeError where one of ours or a group fails."""
    every, names = rivals.all_rivals(), (*rivals.GRAPHED, *(["ours: numba"] if context.rehearse else []))
    contestants = {name: rival for name, rival in every.items() if (rival.graph_of or name) in names}
    contestants |= mel_before.contestants()
    groups, environment = _groups(context), mel_records.environment(contestants)
    store = Store(context.records, environment, context.effort, fresh=True)
    effort = measure.Effort(context.effort, budget_s=context.left_s(), clips_compared=64)
    if context.rehearse:
        effort = dataclasses.replace(measure.SMOKE, name=context.effort, clips_compared=1)
    run = measure.Run(store, contestants, effort, groups)
    run.add_roofs(groups[0].threads, context.device)
    longest_s, compile_s = 1.0 if context.rehearse else _GROUP_S, _COMPILE_S
    for done, group in enumerate(groups):
        began, left_s, skip = time.monotonic(), context.left_s(), {}
        if left_s < longest_s:
            store.add(run.left_out(group, "all", "the time of the stage was over"))
            continue
        compiles = (group.spec, group.batch) in _COMPILED and group.dtype == "float32"
        if not compiles:
            skip[_COMPILED_NAME] = "not compiled for every case: each costs seconds before its first call"
        elif left_s < longest_s + compile_s:
            skip[_COMPILED_NAME] = "no time left to compile"
        else:
            compile_s = _COMPILE_AGAIN_S
        before = gpu_state()
        try:
            results = run.measure_group(group, min(_TIMING_S, left_s / 2 / (len(groups) - done)), skip)
        except Exception as error:  # no memory, say: the other groups are measured all the same
            traceback.print_exc()
            results = [run.left_out(group, "all", f"failed: {records.reason_of(error)}")]
        states = {"gpu_before": before, "gpu_after": gpu_state()}
        store.add(*(record | states for record in results))
        if done and skip and not context.rehearse:
            longest_s = max(longest_s, 1.5 * (time.monotonic() - began))
    if context.device == "cuda" and context.left_s() > _COMPILE_S:  # the model of our kernel beside its times
        for task in own_backends.static_tasks(store, [(spec, "sm_90") for spec in SPECS]):
            task()
    return _line(store, groups, context.device)


def _groups(context: Context) -> list[Group]:
    """The most important first, as the time may end."""
    cases, int16_batches = _CASES, _INT16_BATCHES
    if context.rehearse:
        cases, int16_batches = [("ORIGINAL", 1), ("ORIGINAL", 2), ("CHORD", 1)], (1, 2)
    # One thread: what other processes do on the other cores disturbs neither a GPU nor a rehearsal.
    groups = [Group(spec, batch, 1, context.device) for spec, batch in cases]
    return groups + [Group("ORIGINAL", batch, 1, context.device, "int16") for batch in int16_batches]


def _line(store: Store, groups: list[Group], device: str) -> str:
    timed, gaps = store.find("mel"), store.find("mel left out")
    broken = {gap["parameters"]["contestant"]: gap["reason"] for gap in gaps}
    broken = {name: why for name, why in broken.items() if why.startswith(("wrong", "failed"))}
    ours = [f"{name}: {why}" for name, why in broken.items() if name.startswith(("ours", "all"))]
    if not timed or device == "cuda" and not store.find("mel", contestant="ours: cuda"):
        names = [(gap["parameters"]["contestant"], gap["reason"]) for gap in gaps]
        ours += dict.fromkeys(f"{name}: {why}" for name, why in names if name in ("ours: cuda", "all"))
    if ours:
        raise RuntimeError("; ".join(dict.fromkeys(ours)))
    cases = dict.fromkeys(tuple(record["parameters"][name] for name in Group._fields) for record in timed)
    case = Group(*next(iter(cases)))
    found = store.find("mel", **case._asdict())
    clip_us = {r["parameters"]["contestant"]: 1e3 * median(r["samples"]) / case.batch for r in found}
    how = rivals.GRAPH if any(name.endswith(rivals.GRAPH) for name in clip_us) else ""
    ours = [name for name in clip_us if name.startswith("ours") and ", before" not in name]
    mine = min((name for name in ours if name.endswith(how)), key=lambda name: clip_us[name])
    line = f"{case.spec} {case.batch}: {clip_us[mine]:.3g} us a clip ({mine})"
    for name in (name + how for name in ("torchaudio eager", _COMPILED_NAME)):
        line += f", {clip_us[name] / clip_us[mine]:.3g} x {name}" if name in clip_us else ""
    line += f"; {len(cases)} of {len(groups)} cases measured"
    return line + (f"; wrong or failed: {', '.join(broken)}" if broken else "")
