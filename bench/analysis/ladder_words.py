"""The ladder in words: where the original's time went, what each rung saved, and why its GPU was only twice as fast.

Every number is computed from "ladder" records of one machine and from the original's published figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from triadbench.bench.analysis import pairing, published
from triadbench.bench.analysis.published_comparison import NAMES
from triadbench.bench.study.ladder import FULL_CLIPS
from triadbench.core.commands.console import table
from triadbench.core.constants import EPOCH_PARTS

_PREPARING = ("reading", "resampling", "mel", "copy")
_NETWORK = ("forward", "backward", "optimizer")
_SHARED = {"task": "task", "batch size": "batch_size", "clips": "num_items"}
"""What a CPU's and a GPU's ladder must share to be compared, beside the threads: name -> parameter."""


def ladder_of(records: Sequence[dict], device: str) -> list[dict]:
    """The rungs of a device, lowest first; of two records of a rung the later one counts."""
    rungs = {
        r["parameters"]["rung"]: r for r in records if r["name"] == "ladder" and r["parameters"]["device"] == device
    }
    return [rungs[number] for number in sorted(rungs)]


def seconds(record: dict) -> float:
    """Median seconds of a rung's timed epochs, without instruments."""
    return median(record["samples"])


def shares(record: dict) -> dict[str, float]:
    """Each part's share of the instrumented epoch (0-1), and `preparing`, `network`, `waiting`, their sums.

    Preparing is reading, resampling, mel and copy; the network is forward, backward and optimizer; waiting the rest.
    """
    total = sum(record["parts"].values())
    found = {part: record["parts"].get(part, 0.0) / total for part in EPOCH_PARTS}
    sums = {"preparing": sum(found[p] for p in _PREPARING), "network": sum(found[p] for p in _NETWORK)}
    return {**found, **sums, "waiting": 1 - sum(sums.values())}


def split_seconds(record: dict) -> dict[str, float]:
    """Parts in seconds of an epoch without instruments: the shares of the instrumented one, of the median."""
    return {name: share * seconds(record) for name, share in shares(record).items()}


def why(records: Sequence[dict]) -> list[str]:
    """Sentences that answer why the original saw 2x, as far as the records can: with no GPU, the CPU's part."""
    found = []
    ladders = {device: rungs for device in ("cpu", "cuda") if (rungs := ladder_of(records, device))}
    for device, rungs in ladders.items():
        found += _of_device(device, rungs)
    if len(ladders) == 2:
        differs = _differences(ladders["cpu"][0], ladders["cuda"][0])
        found += [_apart(differs)] if differs else _of_both(ladders["cpu"], ladders["cuda"])
    elif "cpu" in ladders:
        found.append(_bound(ladders["cpu"][0]))
    return [*found, published.hint()] if found else []


def _of_device(device: str, rungs: list[dict]) -> list[str]:
    first, last, name = rungs[0], rungs[-1], NAMES[device]
    part = shares(first)
    sentences = [
        f"On the {name}, the original pipeline spends {_percent(part['preparing'])} of an epoch on preparing clips "
        f"one by one (reading {_percent(part['reading'])}, mel {_percent(part['mel'])}), "
        f"{_percent(part['network'])} in the network and {_percent(part['waiting'])} waiting."
    ]
    if len(rungs) > 1 and first["parameters"]["rung"] == 0:
        saved = {
            rung["parameters"]["name"]: seconds(before) - seconds(rung)
            for before, rung in zip(rungs, rungs[1:], strict=False)
        }
        whole = seconds(first) - seconds(last)
        most = sorted(saved, key=saved.get, reverse=True)[:3]
        a_clip = 1e3 / first["n_clips"]
        gains = ", ".join(f"{rung} ({saved[rung] * a_clip:.2f} ms a clip)" for rung in most if saved[rung] > 0)
        if whole > 0:
            sentences.append(
                f"On the {name}, {len(rungs) - 1} changes make an epoch {seconds(first) / seconds(last):.1f} times as "
                f"fast ({1e3 * seconds(first) / first['n_clips']:.2f} ms to "
                f"{1e3 * seconds(last) / last['n_clips']:.2f} ms a clip); most of the saving comes from {gains}."
            )
    return sentences


def _bound(first: dict) -> str:
    network = shares(first)["network"]
    return (
        f"With everything but the network left as it is, a device on which the network took no time at all would make "
        f"this original epoch only {1 / (1 - network):.1f} times as fast: the rest is done clip by clip by one thread. "
        "(GPU: not measured.)"
    )


def _differences(cpu: dict, gpu: dict) -> list[str]:
    """What keeps two ladders from being divided by one another, as "threads 2 and 8"."""
    both = [
        {name: record["parameters"].get(key) for name, key in _SHARED.items()} | {"threads": pairing.threads(record)}
        for record in (cpu, gpu)
    ]
    return [f"{name} {both[0][name]} and {both[1][name]}" for name in both[0] if both[0][name] != both[1][name]]


def _apart(differs: list[str]) -> str:
    return f"The CPU's and the GPU's ladder are not compared: they were measured with different {', '.join(differs)}."


def _of_both(cpu: list[dict], gpu: list[dict]) -> list[str]:
    slow, quick = split_seconds(cpu[0]), split_seconds(gpu[0])
    whole = seconds(cpu[0]) / seconds(gpu[0])
    sentences = [
        f"With the original pipeline the GPU is {whole:.1f} times as fast as the CPU: its network runs "
        f"{_ratio(slow['network'], quick['network'])} as fast, but preparing clips only "
        f"{_ratio(slow['preparing'], quick['preparing'])}, and that is "
        f"{_percent(quick['preparing'] / seconds(gpu[0]))} of its epoch.",
        f"Had the network and the waiting taken no time, the original pipeline's GPU would still be only "
        f"{seconds(cpu[0]) / quick['preparing']:.1f} times as fast as the CPU.",
    ]
    batched = next((rung for rung in gpu if rung["parameters"]["switches"]["mel"] == "batch"), None)
    if batched and quick["mel"] > 0:
        together = split_seconds(batched)["mel"]
        sentences.append(
            f"The GPU's mel takes {1e6 * quick['mel'] / gpu[0]['n_clips']:.0f} us a clip when clips come one by one "
            f"and {1e6 * together / batched['n_clips']:.1f} us in batches: {_percent(1 - together / quick['mel'])} of "
            "it was launching small kernels, not arithmetic."
        )
    mixed = pairing.note(pairing.code(record) for record in (cpu[0], gpu[0], cpu[-1], gpu[-1]))
    sentences += [mixed] if mixed else []
    last = seconds(cpu[-1]) / seconds(gpu[-1])
    return [*sentences, f"With the fast pipeline the GPU is {last:.0f} times as fast as the CPU."]


def text(records: Sequence[dict], failed: Sequence[dict] = ()) -> str:
    """The terminal's version: a table of times and one of parts for each device, and the sentences."""
    pages = []
    for device in ("cpu", "cuda"):
        rungs = ladder_of(records, device)
        if rungs:
            pages.append(_tables(device, rungs))
    pages += [
        f"{record['parameters']['name']}: left out, its loss differs by {record['max_difference']:.3g} from the "
        f"original's; {record['tolerance']:.3g} is allowed"
        for record in failed
    ]
    return "\n\n".join([*pages, "\n".join(f"- {sentence}" for sentence in why(records))])


def _tables(device: str, rungs: list[dict]) -> str:
    given, first = rungs[0]["parameters"], rungs[0]
    times = [
        [
            rung["parameters"]["name"],
            f"{seconds(rung):.3f}",
            f"{1e3 * seconds(rung) / rung['n_clips']:.3f}",
            f"{seconds(rung) / rung['n_clips'] * int(0.7 * FULL_CLIPS):.2f}",
            f"{seconds(first) / seconds(rung):.2f}x",
            f"{seconds(before) / seconds(rung):.2f}x",
            f"{rung['first_call']:.3f}",
            f"{rung['max_difference']:.1e}",
            f"{rung['overhead']:.2f}x",
        ]
        for before, rung in zip([first, *rungs], rungs, strict=False)
    ]
    parts = [
        [rung["parameters"]["name"], *(f"{100 * shares(rung)[part]:.1f}" for part in EPOCH_PARTS)] for rung in rungs
    ]
    headers = [
        "rung",
        "epoch s",
        "ms a clip",
        "s of 8,192",
        "over original",
        "over last",
        "first s",
        "loss differs",
        "instrumented",
    ]
    return "\n".join(
        [
            f"{NAMES[device]}, {given['task']}, batch {given['batch_size']}, {given['num_items']:,} clips of which "
            f"{first['n_clips']:,} train; protocol {given['protocol']}; s of 8,192: extrapolated by the clip",
            table(headers, times),
            f"Losses of {len(first['losses'])} steps may differ by {first['tolerance']:.3g}: the spread of "
            f"{len(first['seeds'])} seeds of the original pipeline ({first['spread_of_seeds']:.3g}), or half of what a "
            "doubled learning rate changes.",
            *_disturbed(rungs),
            "",
            table(["% of an epoch", *EPOCH_PARTS], parts),
        ]
    )


def _disturbed(rungs: list[dict]) -> list[str]:
    """A line on the epochs during which other programs used the processor, or none."""
    found = []
    for rung in rungs:
        epochs = rung.get("disturbed_epochs") or {}
        kinds = [f"{len(epochs[kind])} {kind}" for kind in ("timed", "instrumented") if epochs.get(kind)]
        if kinds:
            found.append(f"{rung['parameters']['name']} ({' and '.join(kinds)})")
    if not found:
        return []
    return [f"Other programs used the processor during epochs of {', '.join(found)}."]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _ratio(slow: float, quick: float) -> str:
    return f"{slow / quick:.1f} times" if quick > 0 else "in no time"
