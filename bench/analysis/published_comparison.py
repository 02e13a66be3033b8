"""Our figures beside the original's, with the ratios of both, from records."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from triadbench.bench.analysis import published
from triadbench.bench.study.protocol import DEVICES, PIPELINES
from triadbench.core.commands.console import table

NAMES = {"cpu": "CPU", "cuda": "GPU"}
_SETTINGS = {"experiment": "experiment", "batch_size": "batch size", "num_items": "clips"}


def beside(records: Sequence[dict]) -> list[dict]:
    """One row a setting and phase of records "experiment batch-size" and "experiment data-size" of one machine.

    Returns:
        The setting's fields (`experiment`, `task`, `batch_size`, `num_items`, `phase`), `protocol`,
        `seconds`: {(device, pipeline): mean of the kept trials}, `spread`: {...: (largest - smallest) / mean},
        `fast_over_original`: {device: how many times as fast}, `gpu_over_cpu`: {pipeline: ...},
        `published`: {device: seconds}, `published_ratio`: its GPU over its CPU, and
        `ours_over_published`: {(device, pipeline): its seconds over ours}. What was not measured is not in the dicts,
        or None. Of two records of one figure the later one counts.
    """
    rows: dict[published.Setting, dict] = {}
    for record in records:
        given = record["parameters"]
        if not record["name"].startswith("experiment "):
            continue
        fields = (given[name] for name in published.Setting._fields)
        setting = published.Setting(*fields)
        row = rows.setdefault(setting, {"seconds": {}, "spread": {}, "disturbed": False})
        mean = fmean(record["samples"])
        row["seconds"][given["device"], given["pipeline"]] = mean
        row["spread"][given["device"], given["pipeline"]] = (max(record["samples"]) - min(record["samples"])) / mean
        row["disturbed"] |= bool(record.get("disturbed"))
        row["protocol"] = given["protocol"]
    for setting, row in rows.items():
        seconds = row["seconds"]
        row["fast_over_original"] = _ratios(seconds, [((d, "original"), (d, "fast"), d) for d in DEVICES])
        row["gpu_over_cpu"] = _ratios(seconds, [(("cpu", p), ("cuda", p), p) for p in PIPELINES])
        theirs = {device: published.seconds(setting, device) for device in DEVICES}
        row["published"] = {device: value for device, value in theirs.items() if value is not None}
        row["published_ratio"] = published.gpu_over_cpu(setting)
        row["ours_over_published"] = {
            key: row["published"][key[0]] / value for key, value in seconds.items() if key[0] in row["published"]
        }
    found = [{**setting._asdict(), **row} for setting, row in rows.items()]
    return sorted(found, key=lambda row: (row["task"], row["phase"] != "train", row["num_items"], row["batch_size"]))


def text(records: Sequence[dict]) -> str:
    """The terminal's tables: seconds an epoch by device and pipeline, our ratios, and the original's figures."""
    rows = beside(records)
    if not rows:
        return "no figures"
    # The experiment's own variable always, and whatever else is not the same in every row.
    own = "batch_size" if rows[0]["experiment"] == "batch-size" else "num_items"
    settings = {name: title for name, title in _SETTINGS.items() if name == own or len({r[name] for r in rows}) > 1}
    columns = [key for device in DEVICES for p in PIPELINES if (key := (device, p)) in _keys(rows, "seconds")]
    faster = [device for device in DEVICES if device in _keys(rows, "fast_over_original")]
    over_cpu = [pipeline for pipeline in PIPELINES if pipeline in _keys(rows, "gpu_over_cpu")]
    theirs = [device for device in DEVICES if device in _keys(rows, "published")]
    headers = [
        "task",
        "phase",
        *settings.values(),
        *(f"{NAMES[device]} {pipeline} s" for device, pipeline in columns),
        *(f"fast/original {NAMES[device]}" for device in faster),
        *(f"GPU/CPU {pipeline}" for pipeline in over_cpu),
        *(f"published {NAMES[device]} s" for device in theirs),
        *(["published GPU/CPU"] if theirs else []),
    ]
    lines = [
        [
            row["task"],
            row["phase"],
            *(row[name] for name in settings),
            *(_seconds(row["seconds"].get(key)) for key in columns),
            *(_times(row["fast_over_original"].get(device)) for device in faster),
            *(_times(row["gpu_over_cpu"].get(pipeline)) for pipeline in over_cpu),
            *(_seconds(row["published"].get(device)) for device in theirs),
            *([_times(row["published_ratio"])] if theirs else []),
        ]
        for row in rows
    ]
    notes = [f"Protocol {protocol}." for protocol in dict.fromkeys(row["protocol"] for row in rows)]
    notes.append("Seconds of an epoch's part, the mean of the kept trials.")
    if not theirs:
        notes.append("The original measured none of these settings, so nothing stands beside them.")
    else:
        notes.append("Published: the original's own figures, on another machine (i7-10750H, RTX 2070 Max-Q).")
    if "cuda" not in {device for device, _ in columns}:
        notes.append("GPU: not measured.")
    if any(row["disturbed"] for row in rows):
        notes.append("Other programs used the processor meanwhile: ratios hold better than seconds.")
    return table(headers, lines) + "\n" + "\n".join(notes)


def _ratios(seconds: dict, pairs) -> dict:
    return {name: seconds[slow] / seconds[quick] for slow, quick, name in pairs if slow in seconds and quick in seconds}


def _keys(rows: Sequence[dict], name: str) -> set:
    return {key for row in rows for key in row[name]}


def _seconds(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _times(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}x"
