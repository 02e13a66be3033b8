"""The ladder's figures and sentences, from its records: for the terminal, the chapter, the findings and the pictures.

A share is a part's seconds over those of the instrumented epoch. Seconds and milliseconds of a part are that share of
the median epoch, which has no instruments: the clock makes an epoch longer, so only shares are taken from it.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

from triadbench.bench.analysis import pairing, published
from triadbench.bench.analysis.summary import DEVICES, badge, number, percent
from triadbench.core.commands.console import table
from triadbench.core.constants import EPOCH_PARTS, FULL_CLIPS
from triadbench.core.data.splits import split_sizes

Row = dict[str, Any]
Case = tuple[Any, ...]

NAMES = ("ladder", "ladder left out")
"""Records of a rung that was timed, and of one that failed its check and was not."""
PREPARING = ("reading", "resampling", "mel", "copy")
NETWORK = ("forward", "backward", "optimizer")
_SETTING = {"task": "task", "batch_size": "batch size", "num_items": "clips"}


def case_of(record: dict) -> Case:
    """(device, task, batch size, clips, threads): only epochs that share these are compared."""
    return (*(record["parameters"].get(name) for name in ("device", *_SETTING)), pairing.threads(record))


def case_order(case: Case) -> tuple:
    """Sorts cases: CPU first, then the largest set, then most threads."""
    return case[0] != "cpu", -(case[3] or 0), -(case[4] or 0), str(case)


def case_title(case: Case) -> str:
    """As "CPU: type network, batch 32, 8,192 clips, 2 threads"."""
    device, task, batch_size, num_items, threads = case
    clips = f"{num_items:,}" if isinstance(num_items, int) else num_items
    name = DEVICES.get(device, device)
    title = f"{name}: {task} network, batch {batch_size}, {clips} clips"
    return title if threads is None else f"{title}, {pairing.threads_text(threads)}"


def epoch_row(record: dict) -> Row:
    """What a record says of a pipeline's epochs.

    Returns:
        `samples` (seconds an epoch), `median_s`, `least_s`, `most_s` (None without samples), `first_s` (first epoch),
        `parts` (seconds of the instrumented epoch, in the order of `EPOCH_PARTS`), `instrumented_s`, `clips` (of an
        epoch), `device`, `threads`, `code` (of `pairing.code`), `badge`.
    """
    parameters, parts, samples = record["parameters"], record.get("parts") or {}, record["samples"]
    clips = record.get("n_clips") or parameters.get("n_clips") or split_sizes(parameters["num_items"])[0]
    row = {"samples": samples, "median_s": median(samples) if samples else None, "first_s": record["first_call"]}
    row |= {"least_s": min(samples, default=None), "most_s": max(samples, default=None), "clips": round(clips)}
    row["parts"] = {part: float(parts[part]) for part in (*EPOCH_PARTS, *parts) if part in parts}
    row |= {"instrumented_s": record.get("instrumented_s"), "device": parameters.get("device")}
    return row | {"threads": pairing.threads(record), "code": pairing.code(record), "badge": badge(record)}


def shares(row: Row) -> dict[str, float]:
    """Each part's share of the instrumented epoch, 0 to 1."""
    total = sum(row["parts"].values()) or 1.0
    return {part: seconds / total for part, seconds in row["parts"].items()}


def share(row: Row, parts: Sequence[str]) -> float:
    """The share of several parts together."""
    return sum(shares(row).get(part, 0.0) for part in parts)


def split_s(row: Row) -> dict[str, float]:
    """Seconds of the median epoch in each part."""
    return {part: row["median_s"] * part_share for part, part_share in shares(row).items()}


def per_clip_ms(row: Row) -> dict[str, float]:
    """Milliseconds of one clip in each part."""
    return {part: 1e3 * seconds / row["clips"] for part, seconds in split_s(row).items()}


def ladders(records: Sequence[dict]) -> dict[Case, list[Row]]:
    """The rungs of each case, from the original up; of two records of a rung the later one counts.

    Returns:
        case -> rows of `epoch_row` with `rung`, `name`, `sentence`, `protocol`, `setting` (task, batch size, clips),
        `mel` ("clip", "batch", ...), `over_original`, `over_previous` (times as fast, by medians; None where other
        programs disturbed one of the two), `losses`,
        `losses_of_seeds` (of the original with other seeds), `seeds`, `spread_of_seeds`, `tolerance`,
        `worst_difference` (from the original's losses), `passed` (None where it cannot be told), `disturbed_epochs`.
        `samples` is empty for a rung that failed its check.
    """
    cases: dict[Case, dict[int, dict]] = {}
    for record in records:
        if record["name"] in NAMES and (record["samples"] or record["name"] != "ladder"):
            cases.setdefault(case_of(record), {})[record["parameters"]["rung"]] = record
    return {case: _rows([rungs for _, rungs in sorted(cases[case].items())]) for case in sorted(cases, key=case_order)}


def _rows(records: list[dict]) -> list[Row]:
    # Where the original itself is missing nothing can be said "over the original".
    original = records[0] if records[0]["parameters"]["rung"] == 0 and records[0]["samples"] else None
    reference_s = previous_s = None  # of disturbed epochs nothing is said
    rows: list[Row] = []
    for record in records:
        parameters, row = record["parameters"], epoch_row(record)
        row |= {name: record.get(name) or [] for name in ("losses", "losses_of_seeds", "seeds")}
        middle_s = None if row["badge"] == "disturbed" else row["median_s"]
        reference_s = middle_s if record is original else reference_s
        tolerance = record.get("tolerance", record.get("spread_of_seeds"))
        worst = record.get("max_difference")
        if worst is None and original:
            worst = _largest_difference(record.get("losses"), original.get("losses"))
        passed = None if worst is None or tolerance is None else worst <= tolerance
        row |= {"rung": parameters["rung"], "name": parameters["name"], "sentence": record.get("sentence") or ""}
        row |= {
            "protocol": parameters.get("protocol") or "full",
            "setting": {words: parameters.get(name) for name, words in _SETTING.items()},
            "mel": (parameters.get("switches") or {}).get("mel"),
            "over_original": reference_s / middle_s if reference_s and middle_s else None,
            "over_previous": previous_s / middle_s if previous_s and middle_s else None,
            "disturbed_epochs": record.get("disturbed_epochs") or {},
            # What was left out failed, whatever the curves look like.
            "passed": record["name"] == "ladder" and record.get("passes", passed),
        }
        row |= {"spread_of_seeds": record.get("spread_of_seeds"), "tolerance": tolerance, "worst_difference": worst}
        previous_s = middle_s if row["samples"] else previous_s
        rows.append(row)
    return rows


def _largest_difference(losses: Sequence[float] | None, reference: Sequence[float] | None) -> float | None:
    """None where the two curves cannot be laid over each other."""
    if not losses or not reference or len(losses) != len(reference):
        return None
    return max(abs(a - b) for a, b in zip(losses, reference, strict=True))


def timed(rows: Sequence[Row]) -> list[Row]:
    """The rungs that have times."""
    return [row for row in rows if row["samples"]]


def is_complete(rows: Sequence[Row]) -> bool:
    """Whether the original and another rung were timed, so that the gain can be told."""
    return len(timed(rows)) > 1 and timed(rows)[0]["rung"] == 0


def has_parts(rows: Sequence[Row]) -> bool:
    """Whether the original has an instrumented epoch."""
    return bool(rows) and rows[0]["rung"] == 0 and bool(rows[0]["samples"]) and sum(rows[0]["parts"].values()) > 0


def main_ladder(records: Sequence[dict], device: str) -> list[Row]:
    """The rungs of the largest ladder of a device ("cpu" or "cuda"), complete ones first; or nothing."""
    of_device = [rows for case, rows in ladders(records).items() if str(case[0]).split(":")[0] == device]
    return next((rows for rows in of_device if is_complete(rows)), (of_device or [[]])[0])


def place(row: Row) -> str:
    """As "CPU with 2 threads"."""
    threads = pairing.threads_text(row["threads"])
    return f"{DEVICES.get(row['device'], row['device'])}{f' with {threads}' if threads else ''}"


def split_sentence(original: Row) -> str:
    """Where a clip's milliseconds and an epoch's seconds go."""
    costs = per_clip_ms(original)
    total = sum(costs.values())
    parts = sorted(((value, part) for part, value in costs.items() if value >= 0.005 * total), reverse=True)
    preparing, network = share(original, PREPARING), share(original, NETWORK)
    return (
        f"On the {place(original)}, one training clip costs the original pipeline {number(total, 2)} ms: "
        f"{', '.join(f'{part} {number(value, 2)}' for value, part in parts)}. Preparing clips one by one takes "
        f"{percent(preparing)} of an epoch (reading {percent(share(original, ['reading']))}, mel "
        f"{percent(share(original, ['mel']))}), the network {percent(network)}, waiting "
        f"{percent(1 - preparing - network)}."
    )


def bound(original: Row) -> float | None:
    """How many times as fast an epoch would be if its network took no time; None where all of it is the network."""
    outside = 1 - share(original, NETWORK)
    return 1 / outside if outside > 1e-9 else None


def bound_sentence(original: Row) -> str:
    """What a faster network alone can gain."""
    limit = bound(original)
    most = f"at most {number(limit, 2)} times as fast" if limit else "infinitely fast"
    return (
        f"On the {place(original)}, {percent(1 - share(original, NETWORK))} of an epoch of the original pipeline is "
        f"spent outside the network, clip by clip: with a network that took no time it would be {most}."
    )


def gain_sentence(rows: Sequence[Row]) -> str:
    """How much faster the last rung is than the original, and which rungs save most."""
    times = timed(rows)
    first, last = times[0], times[-1]
    saved = {
        row["name"]: 1e3 * (before["median_s"] - row["median_s"]) / first["clips"]
        for before, row in zip(times, times[1:], strict=False)
        if row["over_previous"]
    }
    most = [name for name in sorted(saved, key=lambda name: -saved[name])[:3] if saved[name] > 0]
    savings = ", ".join(f"“{name}” ({number(saved[name])} ms a clip)" for name in most)
    checked = [row for row in rows[1:] if row["passed"] is not None]
    protocol = "" if first["protocol"] == "full" else f" ({first['protocol']})"
    seconds = f"{number(first['median_s'])} s to {number(last['median_s'])} s"
    changes = f"On the {place(first)}, {len(times) - 1} changes"
    epoch, kept = f"an epoch of {first['clips']:,} clips{protocol}", sum(row["passed"] for row in checked)
    told = f"{changes} took {epoch} from {seconds}, but other programs disturbed that, and nothing is concluded"
    if last["over_original"]:
        told = f"{changes} make {epoch} {number(last['over_original'], 2)} times as fast ({seconds})"
        told += f"; most of the saving comes from {savings}" if savings else ""
    return f"{told}; {kept} of {len(checked)} rungs keep the loss curve within its tolerance."


def sentences(records: Sequence[dict]) -> list[str]:
    """Why the original's GPU was only about twice as fast, as far as the records can say: of the largest ladders."""
    cpu, gpu = (main_ladder(records, device) for device in DEVICES)
    lines = []
    for rows in (cpu, gpu):
        lines += [split_sentence(rows[0])] if has_parts(rows) else []
        lines += [gain_sentence(rows)] if is_complete(rows) else []
    if has_parts(cpu) and has_parts(gpu) and "disturbed" not in (cpu[0]["badge"], gpu[0]["badge"]):
        return lines + _cpu_and_gpu(timed(cpu), timed(gpu))
    alone = has_parts(cpu) and not gpu and cpu[0]["badge"] != "disturbed"
    return lines + ([f"{bound_sentence(cpu[0])} (GPU: not measured.)"] if alone else [])


def explain(records: Sequence[dict]) -> list[str]:
    """`sentences`, and what the published figures say, for the terminal and its JSON."""
    return [*lines, published.hint()] if (lines := sentences(records)) else []


def _cpu_and_gpu(cpu: list[Row], gpu: list[Row]) -> list[str]:
    here, there = (row["setting"] | {"threads": row["threads"]} for row in (cpu[0], gpu[0]))
    if unlike := [f"{name} {value} and {there[name]}" for name, value in here.items() if value != there[name]]:
        reason = f"they were measured with different {', '.join(unlike)}"
        return [f"The CPU's and the GPU's ladder are not compared: {reason}."]
    preparing, network = (
        [row["median_s"] * share(row, parts) for row in (cpu[0], gpu[0])] for parts in (PREPARING, NETWORK)
    )
    cpu_s, gpu_s = cpu[0]["median_s"], gpu[0]["median_s"]
    lines = [
        f"With the original pipeline the GPU is {number(cpu_s / gpu_s, 2)} times as fast as the CPU: its network runs "
        f"{_times(*network)} as fast, but preparing clips only {_times(*preparing)}, and that is "
        f"{percent(preparing[1] / gpu_s)} of its epoch.",
        "Had the network and the waiting taken no time, the original pipeline's GPU would still be only "
        f"{_times(cpu_s, preparing[1])} as fast as the CPU.",
    ]
    batched = next((row for row in gpu if row["mel"] == "batch"), None)
    alone_us = 1e3 * per_clip_ms(gpu[0]).get("mel", 0.0)
    if batched and alone_us > 0:
        together_us = 1e3 * per_clip_ms(batched).get("mel", 0.0)
        lines.append(
            f"The GPU's mel takes {number(alone_us)} us a clip when clips come one by one and {number(together_us)} us "
            f"in batches: {percent(1 - together_us / alone_us)} of it was launching small kernels, not arithmetic."
        )
    note = pairing.note(row["code"] for row in (cpu[0], gpu[0], cpu[-1], gpu[-1]))
    if "disturbed" in (cpu[-1]["badge"], gpu[-1]["badge"]):
        return lines
    fast = _times(cpu[-1]["median_s"], gpu[-1]["median_s"])
    return [*lines, *([note] if note else []), f"With the fast pipeline the GPU is {fast} as fast as the CPU."]


def _times(slow_s: float, quick_s: float) -> str:
    return f"{number(slow_s / quick_s, 2)} times" if quick_s > 0 else "infinitely many times"


def text(records: Sequence[dict]) -> str:
    """The terminal's version: a table of times and one of parts for each device, failed rungs, and the sentences."""
    ladders_of_devices = [rows for device in DEVICES if (rows := main_ladder(records, device))]
    failed = [
        f"{row['name']}: left out, its loss differs by {row['worst_difference']:.3g} from the original's; "
        f"{row['tolerance']:.3g} is allowed"
        for rows in ladders_of_devices
        for row in rows
        if not row["samples"]
    ]
    bullets = [f"- {line}" for line in explain(records)]
    return "\n\n".join([*map(_tables, ladders_of_devices), *failed, "\n".join(bullets)])


def _tables(rows: list[Row]) -> str:
    first, rows = rows[0], timed(rows)
    times = [
        [
            row["name"],
            f"{row['median_s']:.3f}",
            f"{1e3 * row['median_s'] / row['clips']:.3f}",
            f"{row['median_s'] / row['clips'] * split_sizes(FULL_CLIPS)[0]:.2f}",
            f"{row['over_original']:.2f}x" if row["over_original"] else None,
            f"{row['over_previous'] or 1:.2f}x" if row["over_previous"] or not row["rung"] else None,
            f"{row['first_s']:.3f}",
            f"{row['worst_difference']:.1e}",
            f"{row['instrumented_s'] / row['median_s']:.2f}x",
        ]
        for row in rows
    ]
    headers = "rung|epoch s|ms a clip|s of 8,192|over original|over last|first s|loss differs|instrumented".split("|")
    setting, device = first["setting"], DEVICES[first["device"]]
    disturbed = [
        f"{row['name']} ({' and '.join(kinds)})"
        for row in rows
        if (kinds := [f"{len(epochs)} {kind}" for kind, epochs in row["disturbed_epochs"].items() if epochs])
    ]
    return "\n".join(
        [
            f"{device}, {setting['task']}, batch {setting['batch size']}, {setting['clips']:,} clips of which "
            f"{first['clips']:,} train; protocol {first['protocol']}; s of 8,192: extrapolated by the clip",
            table(headers, times),
            f"Losses of {len(first['losses'])} steps may differ by {first['tolerance']:.3g}: the spread of "
            f"{len(first['seeds'])} seeds of the original pipeline ({first['spread_of_seeds']:.3g}), or half of what a "
            "doubled learning rate changes.",
            *([f"Other programs used the processor during epochs of {', '.join(disturbed)}."] if disturbed else []),
            "",
            table(
                ["% of an epoch", *EPOCH_PARTS],
                [[row["name"], *(f"{100 * share(row, [part]):.1f}" for part in EPOCH_PARTS)] for row in rows],
            ),
        ]
    )
