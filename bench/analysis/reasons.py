"""Why the original's GPU was only twice as fast: bounds for its four guesses, and a model of its epochs.

It guessed at a laptop's GPU, transfers, background programs and heat, and measured none of them. The model says what a
clip costs in its pipeline on its laptop. The parts are measured, in the ladder's first rung; two factors are fitted, on
the published training times at batch size 32:

    on the CPU    c (reading + mel + forward + backward), and c (optimizer) a step
    on the GPU    c (reading) + l (mel + copy), and a step l (forward + backward + optimizer + waiting), or what the GPU
                  has to compute in it (the roofline's bound), whichever takes longer
    c             time of the laptop's CPU over that of the CPU on which the parts were measured
    l             time in which the laptop gives its GPU a piece of work (Python, driver) over that of the machine of
                  the measured GPU: clips and network are so small that the parts of its epoch are such times

A test has no backward pass and no optimizer. Times are in seconds.
"""

import functools
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from triadbench.bench.analysis import ladder, published
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.published import Setting
from triadbench.bench.analysis.summary import DEVICES, number, percent, select, span
from triadbench.core.constants import ALL_CLIPS, CLIP_SAMPLES, FULL_CLIPS

HOPED = 5.0
"""Times as fast as its CPU that the original expected its GPU to be."""
EPOCH = Setting("batch-size", "type", 32, FULL_CLIPS, "train")
"""The epoch that is explained."""
FINAL_S = {task: [epoch["elapsed_s"] for epoch in published.final_epochs(task)] for task in ("root", "type")}
"""Published seconds of the 30 epochs of each final training, each with its test."""
COPIED_GB = EPOCH.clips * (4 * CLIP_SAMPLES + 8) / 1e9
"""Sounds and labels of an epoch."""
BUS_S = COPIED_GB / 15.75
"""The least time of that on the laptop's bus, PCIe 3.0 x16: 16 lanes of 8 GT/s, 128 of 130 bits."""
_HOST = ("reading", "resampling", "idle")
_TESTED = (*_HOST, "mel", "copy", "forward", "synchronisation")


class Peak(NamedTuple):
    """Peaks of a device: its name, and rates of float32 arithmetic and of memory."""

    name: str
    gflop_per_s: float
    gb_per_s: float


LAPTOP_GPU = Peak("RTX 2070 Max-Q, published peaks", 5460.0, 384.0)
"""2,304 cores at 1,185 MHz, two operations a cycle (NVIDIA); 256 bits of GDDR6 at 12 Gb/s (TechPowerUp)."""


def network_work(phase: str, batch_size: int = 32) -> list[tuple[float, float]]:
    """(operations, bytes) a clip of every layer of the original's network, and of Adam, in "train" or "test".

    Layer by layer, as torch runs it, in float32. Forward reads input and weights and writes the output. Backward reads
    the output's gradient, the input (of a pooling: an index of 8 bytes an output) and the weights, and writes the
    gradients of both; the first layer's input has none. Operations are those of convolutions and products. Weights move
    once a batch, in Adam seven times.
    """
    import torch

    from triadbench.core.models.networks import OriginalNet

    work: list[tuple[float, float]] = []
    x, network, trains = torch.empty(1, 1, 64, 126, device="meta"), OriginalNet(12).to("meta"), phase == "train"
    for layer in (module for module in network.modules() if not list(module.children())):
        y, weights, gradient = layer(x), [parameter.numel() for parameter in layer.parameters()], bool(work)
        if not isinstance(layer, torch.nn.Flatten):  # which moves nothing
            kept = 2 * y.numel() if isinstance(layer, torch.nn.MaxPool2d) else x.numel()
            values = x.numel() + y.numel() + trains * (y.numel() + kept + gradient * x.numel())
            values += (1 + 2 * trains) * sum(weights) / batch_size
            products = y.numel() * weights[0] / weights[1] if weights else 0.0  # weights an output, by its bias
            work.append((2.0 * products * (1 + trains * (1 + gradient)), 4.0 * values))
        x = y
    adam = 7 * sum(parameter.numel() for parameter in network.parameters()) / batch_size
    return [*work, (0.0, 4.0 * adam)] if trains else work


@functools.cache
def bound_s(phase: str, peak: Peak, batch_size: int = 32) -> float:
    """The roofline's least time of a clip: layer by layer, arithmetic or memory, whichever takes longer."""
    work = network_work(phase, batch_size)
    return sum(max(flops / peak.gflop_per_s, moved / peak.gb_per_s) for flops, moved in work) / 1e9


def devices(records: Sequence[dict]) -> list[list[str]]:
    """Of the laptop's GPU, and of one machine's devices whose peaks were measured undisturbed: name, GFLOP/s, GB/s; in
    microseconds the bound of a training clip and what one takes there in the original pipeline; the first's share."""
    found = [(LAPTOP_GPU, seen_s("cuda") / EPOCH.clips)]
    roofs = mel_summary.roofs([record for record in records if not record.get("disturbed")])
    for device, name in DEVICES.items():
        threads = max((key[1] for key in roofs if key[0] == device), default=0)
        peaks = [roofs.get((device, threads, roof), 0.0) for roof in ("arithmetic", "memory")]
        if all(peaks) and (here := costs(records, device)):
            found.append((Peak(f"this {name}, measured", *peaks), sum(here.parts.values())))
    return [
        [peak.name, *map(number, (*peak[1:], 1e6 * bound, 1e6 * seen)), percent(bound / seen, 1)]
        for peak, seen in found
        for bound in [bound_s("train", peak)]
    ]


def seen_s(device: str, experiment: str = EPOCH.experiment) -> float:
    """Published seconds of `EPOCH`, which both experiments timed."""
    return published.seconds(EPOCH._replace(experiment=experiment), device) or 0.0


class Costs(NamedTuple):
    """A training clip in the original pipeline on one device: `parts` (a step's divided by its clips), steps a clip,
    and where that was measured."""

    parts: dict[str, float]
    steps: float
    place: str


def costs(records: Sequence[dict], device: str, machine: str = "") -> Costs | None:
    """Of the first rung of a machine's largest ladder; None where that has no undisturbed instrumented epoch."""
    rows = ladder.main_ladder(records, device)
    if not ladder.has_parts(rows) or rows[0]["badge"] == "disturbed":
        return None
    parts = {part: ms / 1e3 for part, ms in ladder.per_clip_ms(rows[0]).items()}
    steps = -(-rows[0]["clips"] // rows[0]["setting"]["batch size"]) / rows[0]["clips"]
    return Costs(parts, steps, " of ".join(filter(None, [ladder.place(rows[0]), machine])))


class Model(NamedTuple):
    """The original's epochs, of what its clips cost on a CPU and on a GPU, and the factors c and l."""

    cpu: Costs
    gpu: Costs
    factor: float
    launch: float

    def causes(self, setting: Setting, device: str) -> dict[str, float]:
        """Seconds of an epoch's phase by cause; they sum to all of it."""
        costs, factor = (self.cpu, self.factor) if device == "cpu" else (self.gpu, self.launch)
        a_step = -(-setting.clips // setting.batch_size) / costs.steps  # times what a clip bears of a step

        def spent(*parts: str, times: float = setting.clips, costs: Costs = costs, factor: float = factor) -> float:
            timed = [part for part in parts if setting.phase == "train" or part in _TESTED]
            return factor * times * sum(costs.parts.get(part, 0.0) for part in timed)

        waiting = spent("synchronisation", times=a_step)
        if device == "cpu":
            network = spent("forward", "backward") + spent("optimizer", times=a_step) + waiting
            return {"preparing clips": spent(*_HOST, "mel", "copy"), "the network": network}
        computing = setting.clips * bound_s(setting.phase, LAPTOP_GPU, setting.batch_size)
        launching = spent("forward", "backward", "optimizer", times=a_step) - computing  # beyond it: both go on at once
        return {
            "reading files": spent(*_HOST, costs=self.cpu, factor=self.factor),
            "launching mel": spent("mel"),
            "copies": spent("copy"),
            "launching the network": max(0.0, launching),
            "waiting for the loss": max(0.0, waiting + min(0.0, launching)),
            "computing the network": computing,
        }

    def epoch_s(self, setting: Setting, device: str) -> float:
        """Seconds of an epoch's phase."""
        return sum(self.causes(setting, device).values())

    def ratios(self, device: str, fitted: bool) -> list[float]:
        """Modelled over published time of every published trial of a device that is fitted, or that is not."""
        return [
            self.epoch_s(setting, device) / seconds
            for (setting, where), trials in published.load().items()
            if where == device and ((setting.phase, setting.batch_size) == ("train", 32)) == fitted
            for seconds in trials
        ]

    def errors(self) -> list[float]:
        """Absolute relative errors on the published trials that were not fitted."""
        return [abs(ratio - 1) for device in DEVICES for ratio in self.ratios(device, False)]

    def final_error(self) -> float:
        """Of its mean on the epochs of the final trainings, whose files (11 GB) the laptop's memory cannot keep."""
        phases = (EPOCH._replace(num_items=ALL_CLIPS, phase=phase) for phase in ("train", "test"))
        return sum(self.epoch_s(setting, "cuda") for setting in phases) / fmean(map(fmean, FINAL_S.values())) - 1


def fit(cpu: Costs, gpu: Costs) -> Model:
    """The factors with which modelled over published time is 1 on average over the batch-32 training rows."""
    from scipy.optimize import brentq

    factor = 1 / fmean(Model(cpu, gpu, 1.0, 0.0).ratios("cpu", True))
    too_long = lambda launch: fmean(Model(cpu, gpu, factor, launch).ratios("cuda", True)) - 1  # noqa: E731
    return Model(cpu, gpu, factor, brentq(too_long, 0.0, 1e3))


def transfers(records: Sequence[dict]) -> list[list[Any]]:
    """Of each rung that counted copies to the GPU: its name, and of an epoch clips, number of copies, MB, their seconds
    by the GPU's events, its own, and how many times as fast it would be at most if copies were free."""
    found = []
    for record in select(records, "ladder"):
        copies, row = record.get("copies"), ladder.epoch_row(record)
        if row["samples"] and copies and copies["seconds"]:
            moved, spent, epoch_s = copies["bytes"] / 1e6, copies["seconds"], row["median_s"]
            gain = epoch_s / (epoch_s - spent) if spent < epoch_s else None
            figures = [number(value) for value in (moved, spent, epoch_s, gain)]
            found.append([record["parameters"]["name"], row["clips"], copies["n"], *figures])
    return found


def trials(records: Sequence[dict]) -> list[dict[str, Any]]:
    """What `bench.monitor` saw of every trial (its GPU's fields as "gpu ..."), and the trial's `name`."""
    found, shown = [], ("name", "pipeline", "device", "task", "batch_size", "num_items")
    for record in records:
        parameters, watched = record["parameters"], record.get("monitor")
        if isinstance(watched, list) and parameters.get("phase") != "test":  # whose trials are those of its training
            name = ", ".join([record["name"], *(str(parameters[key]) for key in shown if key in parameters)])
            for number_of_trial, monitor in enumerate(filter(None, watched), 1):
                gpu = {f"gpu {key}": value for key, value in (monitor["gpu"] or {}).items()}
                found.append({**monitor, **gpu, "name": f"{name}, {number_of_trial}"})
    return found


CURVES = {
    "CPU clock, MHz": "cpu_mhz",
    "CPU temperature, °C": "cpu_temperature_c",
    "GPU clock, MHz": "gpu sm_mhz",
    "GPU temperature, °C": "gpu temperature_c",
    "GPU power, W": "gpu power_w",
}
"""What was sampled over a trial: name -> field of `trials`, [(second, value), ...] or None."""
_LOADS = {
    "other_cpu_percent": "a core",
    "steal_percent": "the processor (other machines of its host)",
    "gpu other_percent": "the GPU",
}


def watched_here(watched: Sequence[dict]) -> tuple[str, str]:
    """What other programs took in the trials of one machine; its clocks, temperatures and throttling."""
    if not watched:
        return "No trial was watched here yet.", ""
    seen = {key: [trial[key] for trial in watched if trial.get(key) is not None] for key in (*_LOADS, *CURVES.values())}
    load = ", ".join(f"{span(seen[key])} % of {words}" for key, words in _LOADS.items() if seen[key])
    warmth = []
    for name, key in CURVES.items():
        if curves := [[value for _, value in curve] for curve in seen[key]]:
            saved = max(1 - fmean(values) / max(values) for values in curves)
            most = f" (at its highest throughout, a trial is {percent(saved, 1)} shorter at most)" * ("clock" in name)
            warmth.append(f"{name}: {span((min(map(min, curves)), max(map(max, curves))), 4)}{most}.")
    if not seen["cpu_temperature_c"]:
        warmth.append(f"No temperature of the CPU: {watched[-1].get('cpu_temperature_reason')}.")
    if throttles := [trial["gpu throttle"] for trial in watched if trial["gpu"]]:
        warmth.append(f"The GPU was throttled by {', '.join(sorted(set().union(*throttles))) or 'nothing'}.")
    return f"In {len(watched)} trials watched here, others took {load}.", f"Here: {' '.join(warmth)}"
