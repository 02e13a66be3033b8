"""Figures of the original's two experiments: our trials from records, and its published ones beside them."""

import itertools
from collections.abc import Hashable, Sequence
from statistics import fmean
from typing import Any

from triadbench.bench.analysis import pairing, published
from triadbench.bench.analysis.published import Setting
from triadbench.bench.analysis.summary import DEVICES, badge
from triadbench.core.commands.console import table

Row = dict[str, Any]

NAMES = {"experiment batch-size": "batch_size", "experiment data-size": "num_items"}
"""Record name -> the parameter that its experiment varies."""
PIPELINES = ("original", "fast")
THEIRS = "the original, 2024"


def published_rows() -> list[Row]:
    """The original's 220 trials as rows like those of `ours`, one a setting and device."""
    unknown = {"first_s": None, "threads": None, "code": (None, None), "badge": ""}
    trials = published.load().items()
    return [_row(setting, device, THEIRS, list(samples)) | unknown for (setting, device), samples in trials]


def ours(records: Sequence[dict]) -> list[Row]:
    """A row for each setting, device, pipeline, number of threads and protocol; of two records the later one counts.

    Returns:
        `experiment` ("batch-size" or "data-size"), `task`, `batch_size`, `num_items`, `phase`, `device`, `pipeline`,
        `samples` (mean epoch seconds of each kept trial), `mean_s`, `first_s` (the dropped trial), `short` (the
        protocol in words where it is not the original's), `threads`, `protocol` (what two rows must share to be
        compared), `code` (of `pairing.code`), `badge`.
    """
    rows: dict[Hashable, Row] = {}
    for record in records:
        if record["name"] in NAMES and record["samples"]:
            parameters, experiment = record["parameters"], record["name"].removeprefix("experiment ")
            setting = Setting(experiment, *(parameters[name] for name in Setting._fields[1:]))
            protocol = (str(parameters.get("protocol") or "full"), parameters.get("trials"), parameters.get("epochs"))
            row = _row(setting, parameters["device"], parameters["pipeline"], record["samples"], protocol)
            row |= {"first_s": record["first_call"], "badge": badge(record)}
            row |= {"threads": pairing.threads(record), "code": pairing.code(record)}
            rows[setting, row["device"], row["pipeline"], row["threads"], protocol] = row
    return list(rows.values())


def _row(
    setting: Setting, device: str, pipeline: str, samples: list[float], protocol: tuple = ("full", None, None)
) -> Row:
    row = setting._asdict() | {"device": device, "pipeline": pipeline, "samples": samples, "mean_s": fmean(samples)}
    return row | {"short": "" if protocol[0] == "full" else protocol[0], "protocol": protocol}


def who(pipeline: str) -> str:
    """Whose pipeline a row is of, in words."""
    return pipeline if pipeline == THEIRS else f"ours, {pipeline} pipeline"


def setting(row: Row) -> Setting:
    """What two devices or two pipelines must share to be compared."""
    return Setting(*(row[name] for name in Setting._fields))


def shown(rows: Sequence[Row]) -> list[Row]:
    """One row of each setting, device and pipeline: the whole protocol before others, then most threads, then last."""
    ranked = sorted(rows, key=lambda row: (not row["short"], row["threads"] or 0))
    return list({(setting(row), row["device"], row["pipeline"]): row for row in ranked}.values())


def ratios(rows: Sequence[Row]) -> list[Row]:
    """CPU time over GPU time of each setting and pipeline that both measured alike (see `bench.analysis.pairing`).

    Returns:
        the CPU's rows with `ratio` (of means), `each` (trial by trial, in their order), `rows` (the two) and `note`
        (where their code differs, else "").
    """
    return [_compared(cpu, gpu) for cpu, gpu in _pairs(rows, "device", ("cpu", "cuda"))]


def gains(rows: Sequence[Row]) -> list[Row]:
    """How many times as fast the fast pipeline is as the original, as `ratios`: the original pipeline's rows."""
    return [_compared(original, fast) for original, fast in _pairs(rows, "pipeline", PIPELINES)]


def _compared(slow: Row, quick: Row) -> Row:
    return slow | {
        "ratio": slow["mean_s"] / quick["mean_s"],
        "each": [a / b for a, b in zip(slow["samples"], quick["samples"], strict=False)],
        "rows": [slow, quick],
        "note": pairing.note([slow["code"], quick["code"]]),
    }


def unpaired(rows: Sequence[Row]) -> list[str]:
    """A sentence for each comparison that has both sides and no pair measured alike."""
    sentences = []
    for name, sides, words in (
        ("pipeline", PIPELINES, "the original and the fast pipeline"),
        ("device", ("cpu", "cuda"), "CPU and GPU"),
    ):
        places = [{_place(row, name) for row in rows if row[name] == side} for side in sides]
        lone = len((places[0] & places[1]) - {_place(pair[0], name) for pair in _pairs(rows, name, sides)})
        if lone:
            sentences.append(
                f"Not compared: {words} at {lone} setting{'s' * (lone > 1)}, measured with different threads or by "
                "different protocols."
            )
    return sentences


def _place(row: Row, name: str) -> tuple[Setting, str]:
    """The setting, and the device or the pipeline: the one that is not compared."""
    return setting(row), row["device" if name == "pipeline" else "pipeline"]


def _alike(row: Row, name: str) -> tuple:
    """What two rows that differ in `name` must share to be compared; the protocol is last."""
    return *_place(row, name), row["threads"], row["protocol"]


def _pairs(rows: Sequence[Row], name: str, sides: tuple[str, str]) -> list[tuple[Row, Row]]:
    """Rows that differ in `name` alone; no short run of what the same threads measured by the whole protocol."""
    others = {_alike(row, name): row for row in rows if row[name] == sides[1]}
    pairs = [(row, others[_alike(row, name)]) for row in rows if row[name] == sides[0] and _alike(row, name) in others]
    whole = {_alike(row, name)[:-1] for row, _ in pairs if not row["short"]}
    return [pair for pair in pairs if not pair[0]["short"] or _alike(pair[0], name)[:-1] not in whole]


def beside_published(records: Sequence[dict]) -> list[Row]:
    """One row a setting of one machine's records, our figures beside the original's.

    Returns:
        The setting's fields, `short`, `disturbed`, `seconds`: {(device, pipeline): mean of the kept trials},
        `fast_over_original`: {device: how many times as fast}, `gpu_over_cpu`: {pipeline: ...}, `published`: {device:
        seconds}, `published_ratio`: its GPU over its CPU, or None. What was not measured is not in the dicts.
    """
    rows = ours(records)
    settings = []
    for key in dict.fromkeys(map(setting, rows)):
        here = [row for row in rows if setting(row) == key]
        theirs = {device: published.seconds(key, device) for device in DEVICES}
        settings.append(
            key._asdict()
            | {
                "short": here[-1]["short"],
                "disturbed": any(row["badge"] == "disturbed" for row in here),
                "seconds": {(row["device"], row["pipeline"]): row["mean_s"] for row in here},
                "fast_over_original": {gain["device"]: gain["ratio"] for gain in gains(here)},
                "gpu_over_cpu": {ratio["pipeline"]: ratio["ratio"] for ratio in ratios(here)},
                "published": {device: value for device, value in theirs.items() if value is not None},
                "published_ratio": published.gpu_over_cpu(key),
            }
        )
    return sorted(settings, key=lambda row: (row["task"], row["phase"] != "train", row["num_items"], row["batch_size"]))


def _clip_ms(row: Row, device: str, pipeline: str) -> float | None:
    """Milliseconds a clip of the phase of a row of `beside_published`."""
    seconds = row["seconds"].get((device, pipeline))
    return seconds and 1e3 * seconds / setting(row).clips


def missing(records: Sequence[dict]) -> list[str]:
    """What of a begun experiment's full protocol was not measured on the devices that it was begun on, a line each."""
    rows, lines = ours(records), []
    for experiment in dict.fromkeys(row["experiment"] for row in rows):
        mine, varied = [row for row in rows if row["experiment"] == experiment], NAMES[f"experiment {experiment}"]
        done = {(setting(row), row["device"], row["pipeline"]) for row in mine if not row["short"]}
        places = [(d, p) for d in DEVICES for p in PIPELINES if any(row["device"] == d for row in mine)]
        for device, pipeline in places if done else ():
            full = sorted(at for at, _ in published.load() if (at.experiment, at.phase) == (experiment, "train"))
            lacking = [at for at in dict.fromkeys(full) if (at, device, pipeline) not in done]
            groups = itertools.groupby(lacking, lambda at: at.task)
            if names := [f"{t} {', '.join(str(getattr(at, varied)) for at in group)}" for t, group in groups]:
                lines.append(f"{experiment}, {DEVICES[device]}, {pipeline} pipeline: {'; '.join(names)}")
    return lines


def text(records: Sequence[dict]) -> str:
    """The terminal's table: seconds an epoch by device and pipeline, our ratios, and the original's figures."""
    rows = beside_published(records)
    if not rows:
        return "no figures"
    varied = NAMES[f"experiment {rows[0]['experiment']}"]
    columns: dict[str, list] = {"task": [row["task"] for row in rows], "phase": [row["phase"] for row in rows]}
    for name, title in {"experiment": "experiment", "batch_size": "batch size", "num_items": "clips"}.items():
        # The experiment's own variable always, and whatever else is not the same in every row.
        if name == varied or len({row[name] for row in rows}) > 1:
            columns[title] = [row[name] for row in rows]
    places = [(device, pipeline) for device in DEVICES for pipeline in PIPELINES]
    theirs = [row["published_ratio"] for row in rows]
    figures: dict[str, list] = {f"{DEVICES[d]} {p} s": [row["seconds"].get((d, p)) for row in rows] for d, p in places}
    figures |= {f"original/fast {DEVICES[d]}": [row["fast_over_original"].get(d) for row in rows] for d in DEVICES}
    figures |= {f"GPU/CPU {p}": [row["gpu_over_cpu"].get(p) for row in rows] for p in PIPELINES}
    figures |= {f"published {DEVICES[d]} s": [row["published"].get(d) for row in rows] for d in DEVICES}
    short = any(row["short"] for row in rows)
    if short:  # seconds of other numbers of clips are not comparable: milliseconds a clip are
        figures |= {f"{DEVICES[d]} {p} ms a clip": [_clip_ms(row, d, p) for row in rows] for d, p in places}
        near = {d: [published.clip_ms(published.nearest(setting(row)), d) for row in rows] for d in DEVICES}
        figures |= {f"published {DEVICES[d]} ms a clip": near[d] for d in DEVICES}
    for title, values in (figures | {"published GPU/CPU": theirs}).items():
        if any(value is not None for value in values):
            form = "{:.3f}" if title.endswith((" s", " clip")) else "{:.2f}x"
            columns[title] = [None if value is None else form.format(value) for value in values]
    notes = [f"Protocol {short or 'full'}." for short in dict.fromkeys(row["short"] for row in rows)]
    notes.append("Seconds of an epoch's part, the mean of the kept trials.")
    if any(theirs) or short:
        notes.append("Published: the original's own figures, on another machine (i7-10750H, RTX 2070 Max-Q).")
    if short:
        notes.append("A clip's published time is that of 8,192 clips at the nearest batch size.")
    notes += published.ERRORS if any(row["task"] == "type" for row in rows) else ()
    if lost := sum(not record["samples"] for record in records if record["name"] in NAMES):
        notes.append(f"Missing: {lost} figures, of which other work disturbed every trial.")
    notes += [f"Missing of the original's protocol: {line}." for line in missing(records)]
    if not any(device == "cuda" for row in rows for device, _ in row["seconds"]):
        notes.append("GPU: not measured.")
    if any(row["disturbed"] for row in rows):
        notes.append("Other programs used the processor meanwhile: ratios hold better than seconds.")
    return table(list(columns), list(zip(*columns.values(), strict=True))) + "\n" + "\n".join(notes)
