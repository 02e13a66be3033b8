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
from triadbench.core.data.splits import split_sizes

HOPED = 5.0
"""Times as fast as its CPU that the original expected its GPU to be."""
EPOCH = Setting("batch-size", "type", 32, FULL_CLIPS, "train")
"""The epoch that is explained."""
TASKS = ("root", "type")
PCIE_GB_PER_S = 15.75
"""Peak of PCIe 3.0 x16, the laptop's bus: 16 lanes of 8 GT/s, 128 of 130 bits."""
PREPARING = ("reading files", "launching mel")
_HOST = ("reading", "resampling", "idle")
_CLIP = (*_HOST, "mel", "copy")
_TESTED = (*_CLIP, "forward", "synchronisation")


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
    for layer in network.modules():
        if list(layer.children()):
            continue
        y = layer(x)
        if not isinstance(layer, torch.nn.Flatten):  # which moves nothing
            gradient, weights = bool(work), [parameter.numel() for parameter in layer.parameters()]
            kept = 2 * y.numel() if isinstance(layer, torch.nn.MaxPool2d) else x.numel()
            values = x.numel() + y.numel() + trains * (y.numel() + kept + gradient * x.numel())
            values += (1 + 2 * trains) * sum(weights) / batch_size
            products = y.numel() * weights[0] / weights[1] if weights else 0.0  # weights an output, by its bias
            work.append((2.0 * products * (1 + trains * (1 + gradient)), 4.0 * values))
        x = y
    n_weights = sum(parameter.numel() for parameter in network.parameters())
    return [*work, (0.0, 4.0 * 7 * n_weights / batch_size)] if trains else work


@functools.cache
def bound_s(phase: str, peak: Peak, batch_size: int = 32) -> float:
    """The roofline's least time of a clip: layer by layer, arithmetic or memory, whichever takes longer."""
    work = network_work(phase, batch_size)
    return sum(max(flops / peak.gflop_per_s, moved / peak.gb_per_s) for flops, moved in work) / 1e9


def devices(records: Sequence[dict]) -> list[dict[str, Any]]:
    """The bounds of the laptop's GPU and of one machine's devices, by their undisturbed measured peaks: `peak`; of a
    clip `train_s` and `test_s`; `seen_s`, what a training clip takes there in the original pipeline, or None."""
    found: list[dict[str, Any]] = [{"peak": LAPTOP_GPU, "seen_s": seen_s("cuda") / n_clips(EPOCH)}]
    roofs = mel_summary.roofs([record for record in records if not record.get("disturbed")])
    for device, name in DEVICES.items():
        threads = max((key[1] for key in roofs if key[0] == device), default=0)
        flops, moved = (roofs.get((device, threads, roof)) for roof in ("arithmetic", "memory"))
        row = ladder.main_ladder(records, device)[:1]
        if flops and moved:
            seen = row[0]["median_s"] / row[0]["clips"] if row and row[0]["samples"] else None
            found.append({"peak": Peak(f"this {name}, measured", flops, moved), "seen_s": seen})
    return [row | {f"{phase}_s": bound_s(phase, row["peak"]) for phase in ("train", "test")} for row in found]


def seen_s(device: str, experiment: str = EPOCH.experiment) -> float:
    """Published seconds of `EPOCH`, which both experiments timed."""
    return published.seconds(EPOCH._replace(experiment=experiment), device) or 0.0


def n_clips(setting: Setting) -> int:
    """Clips of a setting's phase: 5,735 or 2,457 of 8,192."""
    return split_sizes(setting.num_items)[setting.phase == "test"]


class Costs(NamedTuple):
    """A training clip in the original pipeline on one device: `parts` (a step's divided by its clips), steps a clip,
    and where that was measured."""

    parts: dict[str, float]
    steps: float
    place: str


def costs(records: Sequence[dict], device: str, machine: str = "") -> Costs | None:
    """Of the first rung of a machine's largest ladder; None where it has no instrumented epoch."""
    rows = ladder.main_ladder(records, device)
    if not ladder.has_parts(rows):
        return None
    parts = {part: ms / 1e3 for part, ms in ladder.per_clip_ms(rows[0]).items()}
    steps = -(-rows[0]["clips"] // rows[0]["setting"]["batch size"]) / rows[0]["clips"]
    return Costs(parts, steps, " of ".join(filter(None, [ladder.place(rows[0]), machine])))


class Model(NamedTuple):
    """The original's epochs; `gpu` and `launch` (the factor l) are None without a GPU's ladder."""

    cpu: Costs
    gpu: Costs | None
    factor: float = 1.0
    launch: float | None = None

    def causes(self, setting: Setting, device: str) -> dict[str, float]:
        """Seconds of an epoch's phase by cause; they sum to all of it."""
        measured, clips = self.cpu if device == "cpu" else self.gpu, n_clips(setting)
        assert measured is not None, "without a GPU's ladder there is no model of the GPU"
        parts = {part: s for part, s in measured.parts.items() if setting.phase == "train" or part in _TESTED}
        prepared = {part: clips * parts.pop(part, 0.0) for part in _CLIP}
        n_steps = -(-clips // setting.batch_size) / measured.steps  # as many as clips, at the measured batch size
        if device == "cpu":
            a_step = n_steps * sum(parts.pop(part, 0.0) for part in ("optimizer", "synchronisation"))
            network = clips * sum(parts.values()) + a_step
            return {"preparing clips": self.factor * sum(prepared.values()), "the network": self.factor * network}
        launch = self.launch or 0.0
        waiting = launch * n_steps * parts.pop("synchronisation", 0.0)
        launching = launch * n_steps * sum(parts.values())
        must = clips * bound_s(setting.phase, LAPTOP_GPU, setting.batch_size)
        beyond = max(0.0, launching - must)  # the GPU computes while Python launches what follows
        return {
            "reading files": self.factor * clips * sum(self.cpu.parts.get(part, 0.0) for part in _HOST),
            "launching mel": launch * prepared["mel"],
            "copies": launch * prepared["copy"],
            "launching the network": beyond,
            "waiting for the loss": max(0.0, launching + waiting - must) - beyond,
            "computing the network": must,
        }

    def epoch_s(self, setting: Setting, device: str) -> float:
        """Seconds of an epoch's phase."""
        return sum(self.causes(setting, device).values())


def published_rows(device: str, fitted: bool) -> list[tuple[Setting, float]]:
    """(setting, seconds) of every published trial of a device, on which the factors are fitted or not."""
    table = {setting: trials for (setting, where), trials in published.load().items() if where == device}
    used = {setting: (setting.phase, setting.batch_size) == ("train", 32) for setting in table}
    return [(setting, seconds) for setting in table if used[setting] == fitted for seconds in table[setting]]


def fit(cpu: Costs, gpu: Costs | None) -> Model:
    """The factors with which modelled over published time is 1 on average over the batch-32 training rows."""

    def ratio(model: Model, device: str) -> float:
        return fmean(model.epoch_s(setting, device) / seconds for setting, seconds in published_rows(device, True))

    factor = 1 / ratio(Model(cpu, gpu), "cpu")
    low, high = 0.0, 1e3
    for _ in range(60 if gpu else 0):  # bisection: an epoch grows with the factor
        middle = (low + high) / 2
        low, high = (low, middle) if ratio(Model(cpu, gpu, factor, middle), "cuda") > 1 else (middle, high)
    return Model(cpu, gpu, factor, low if gpu else None)


def errors(model: Model) -> dict[str, dict[str, float]]:
    """Published rows, in words -> `n` of them and the model's absolute relative error on them, `mean` and `worst`.

    "all not fitted" leaves out the final trainings, whose files (11 GB) the laptop's memory cannot keep.
    """
    groups: dict[str, list[float]] = {}
    for device in DEVICES if model.gpu else ("cpu",):
        for fitted in (True, False):
            for setting, seconds in published_rows(device, fitted):
                words = f"{DEVICES[device]}, {setting.phase}{', fitted' * fitted}"
                groups.setdefault(words, []).append(abs(model.epoch_s(setting, device) / seconds - 1))
    groups["all not fitted"] = [error for words in groups if "fitted" not in words for error in groups[words]]
    if model.gpu:
        final = [EPOCH._replace(num_items=ALL_CLIPS, phase=phase) for phase in ("train", "test")]
        epoch_s, name = sum(model.epoch_s(setting, "cuda") for setting in final), "epochs of the final trainings"
        groups[name] = [abs(epoch_s / seconds - 1) for task in TASKS for seconds in final_s(task)]
    return {words: {"n": len(found), "mean": fmean(found), "worst": max(found)} for words, found in groups.items()}


def final_s(task: str) -> list[float]:
    """Published seconds of the 30 epochs of a final training, each with its test."""
    return [epoch["elapsed_s"] for epoch in published.final_epochs(task)]


def transfers(records: Sequence[dict]) -> list[dict[str, Any]]:
    """Copies to the GPU in an epoch of each rung that counted some: `copies` of its record (`n`, `bytes`, and `seconds`
    by the GPU's events) with `name`, `clips`, `epoch_s` and `gain`: times as fast at most, were they free, or None."""
    found = []
    for record in select(records, "ladder"):
        copies = record.get("copies")
        if record["samples"] and copies and copies["bytes"]:
            row, spent = ladder.epoch_row(record), copies["seconds"] or 0.0
            gain = row["median_s"] / (row["median_s"] - spent) if 0 < spent < row["median_s"] else None
            line = {"name": record["parameters"]["name"], "clips": row["clips"], "epoch_s": row["median_s"]}
            found.append({**line, **copies, "gain": gain})
    return found


def trials(records: Sequence[dict]) -> list[dict[str, Any]]:
    """The field `monitor` (of `bench.monitor`) of every trial that has one, and the trial's `name`."""
    found, shown = [], ("name", "pipeline", "device", "task", "batch_size", "num_items")
    for record in records:
        if record["parameters"].get("phase") != "test":  # whose trials are those of its training
            words = [record["name"], *(str(record["parameters"][key]) for key in shown if key in record["parameters"])]
            monitors = record.get("monitor") or []
            watched = [monitor for monitor in (monitors if isinstance(monitors, list) else [monitors]) if monitor]
            found += [{**monitor, "name": f"{', '.join(words)}, {n}"} for n, monitor in enumerate(watched, 1)]
    return found


CURVES = {
    "CPU clock, MHz": lambda trial: trial["cpu_mhz"],
    "CPU temperature, °C": lambda trial: trial["cpu_temperature_c"],
    "GPU clock, MHz": lambda trial: trial["gpu"] and trial["gpu"]["sm_mhz"],
    "GPU temperature, °C": lambda trial: trial["gpu"] and trial["gpu"]["temperature_c"],
    "GPU power, W": lambda trial: trial["gpu"] and trial["gpu"]["power_w"],
}
"""What was sampled over a trial: name -> [(second, value), ...] of a trial, or None."""


def watched_here(watched: Sequence[dict]) -> tuple[str, str]:
    """What other programs took in the trials of one machine; its clocks, temperatures and throttling."""
    if not watched:
        return ("No trial was watched here yet.",) * 2
    gpus = [trial["gpu"] for trial in watched if trial["gpu"]]
    loads = {"a core": [trial["other_cpu_percent"] for trial in watched]}
    loads["the processor (other machines of its host)"] = [trial["steal_percent"] for trial in watched]
    loads["the GPU"] = [gpu["other_percent"] for gpu in gpus if gpu["other_percent"] is not None]
    load = ", ".join(f"{span(values)} % of {words}" for words, values in loads.items() if values)
    warmth = []
    for name, curve_of in CURVES.items():
        curves = [[value for _, value in curve] for trial in watched if (curve := curve_of(trial))]
        if curves:
            gain = max(max(values) / fmean(values) - 1 for values in curves)
            most = f" (at its highest throughout, a trial is {percent(gain, 1)} shorter at most)" * ("clock" in name)
            warmth.append(f"{name}: {span((min(map(min, curves)), max(map(max, curves))), 4)}{most}.")
    missing = {str(trial.get("cpu_temperature_reason")) for trial in watched if not trial["cpu_temperature_c"]}
    warmth += [f"No temperature of the CPU: {reason}." for reason in sorted(missing)]
    throttled = ", ".join(sorted({name for gpu in gpus for name in gpu["throttle"]})) or "nothing"
    warmth += [f"The GPU was throttled by {throttled}."] if gpus else []
    return f"In {len(watched)} trials watched here, others took {load}.", f"Here: {' '.join(warmth)}"


def verdict(model: Model) -> str:
    """The chapter's first sentence."""
    causes = model.causes(EPOCH, "cuda" if model.gpu else "cpu")
    share = {cause: seconds / sum(causes.values()) for cause, seconds in causes.items()}
    if model.gpu is None:
        prepared = share["preparing clips"]
        most = f"a GPU that prepares them no faster trains at most {number(1 / prepared, 2)} times as fast"
        return f"Preparing clips one by one took {percent(prepared)} of the original's CPU epoch: {most}."
    return (
        "None of its four guesses explains it: preparing clips one by one on one thread took "
        f"{percent(sum(share[cause] for cause in PREPARING))} of the original's GPU epoch, copying them at most "
        f"{percent(share['copies'])}, computing the network some {percent(share['computing the network'])}."
    )


def story(model: Model) -> str:
    """From 5 times hoped for to 2 times seen, in one paragraph."""
    cpu, gpu = map(seen_s, DEVICES)
    of = {cause: f"{number(seconds, 2)} s" for cause, seconds in model.causes(EPOCH, "cpu").items()}
    start = (
        f"An epoch of {n_clips(EPOCH):,} clips took the original's CPU {number(cpu)} s: about {of['preparing clips']} "
        f"to prepare clips and {of['the network']} for the network. Its GPU was hoped to be {HOPED:g} times as fast "
        f"({number(cpu / HOPED, 2)} s) and took {number(gpu, 2)} s."
    )
    if model.gpu is None:
        return f"{start} Where those went is open: none of these records is of a GPU's ladder."
    of = {cause: f"{number(seconds, 2)} s" for cause, seconds in model.causes(EPOCH, "cuda").items()}
    return (
        f"{start} To compute the network it needs {of['computing the network']}. The rest is one Python thread that "
        f"serves one clip after the other: it reads the file ({of['reading files']}), copies the sound to the GPU "
        f"({of['copies']}) and starts the small kernels of the mel ({of['launching mel']}); then, batch by batch, it "
        f"starts the kernels of the network (another {of['launching the network']}) and waits for the loss "
        f"({of['waiting for the loss']}). Meanwhile the GPU idles."
    )


def guesses(model: Model, watched: Sequence[dict]) -> list[tuple[str, str, str, str]]:
    """(guess, its share of the original's GPU epoch, GPU over CPU without it, what was measured), and what it was."""
    causes = model.causes(EPOCH, "cuda") if model.gpu else {}
    gpu = sum(causes.values()) or seen_s("cuda")
    n, (flops, moved) = n_clips(EPOCH), (sum(work) / 1e6 for work in zip(*network_work("train"), strict=True))
    must, n_bytes = n * bound_s("train", LAPTOP_GPU), n * (4 * CLIP_SAMPLES + 8)
    bus, network = n_bytes / PCIE_GB_PER_S / 1e9, [s for cause, s in causes.items() if "network" in cause]
    once, again = (seen_s("cuda", experiment) for experiment in published.EXPERIMENTS.values())
    slower = {task: fmean(final_s(task)[-5:]) / fmean(final_s(task)[:5]) - 1 for task in TASKS}
    changes = " and ".join(f"{100 * value:+.0f} % ({task})" for task, value in slower.items())
    load, warmth = watched_here(watched)
    texts = {
        "a laptop's GPU": f"A training clip needs {number(flops)} million operations and {number(moved)} MB of memory "
        f"traffic: {number(1e6 * must / n, 2)} microseconds at its peaks. Starting the kernels takes longer.",
        "transfers": f"{number(n_bytes / 1e9)} GB an epoch, {number(bus, 2)} s at the peak of the laptop's bus. "
        "The calls, and joining clips to batches, take longer.",
        "background programs": "The one setting that the original timed twice took "
        f"{percent(again / once - 1, 1)} longer the second time. {load}",
        "heat": "After two hours of load, five epochs of its final trainings took "
        f"{changes} against the first five. {warmth}",
    }
    spent = [(must, sum(network) or None), (bus, causes.get("copies")), (0.0, again - once)]
    spent.append((0.0, gpu * max(slower.values())))
    if causes:
        texts["what it was"] = "One clip at a time on one thread: "
        texts["what it was"] += ", ".join(f"{cause} {number(causes[cause], 2)} s" for cause in PREPARING) + "."
        spent.append((sum(causes[cause] for cause in PREPARING),) * 2)
    lines = []
    for (guess, text), (least, most) in zip(texts.items(), spent, strict=True):
        share = f"{number(100 * least / gpu, 2)} % or more"
        share = share if most is None else f"{span((100 * least / gpu, 100 * most / gpu))} %"
        lines.append((guess, share, number(seen_s("cpu") / (gpu - (most or least))), text))
    return lines
