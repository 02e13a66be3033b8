"""Figures of `benchmark`, computed from its records; the terminal's table, the chapter and the story all read these.

A ratio is made of two timings of one run, where the contestants took turns, with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from triadbench.bench.report.sections import spread_badge

SINGLE, OFFLINE, LOAD = "benchmark single stream", "benchmark offline", "benchmark load"
FILES, PROCESS = "benchmark files", "benchmark process"
LEFT_OUT = tuple(f"{name} left out" for name in (SINGLE, OFFLINE, LOAD))
NAMES = (SINGLE, OFFLINE, LOAD, FILES, PROCESS, *LEFT_OUT)
BASELINE = "eager, torchaudio"
COMMAND = "python cli.py benchmark"
PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "p99.9": 99.9}


def statistics(samples: Sequence[float]) -> dict[str, float]:
    """`n`, `mean`, `min`, `max` and `PERCENTILES` (linear interpolation) of samples."""
    values = np.asarray(samples, np.float64)
    found = dict(zip(PERCENTILES, np.percentile(values, list(PERCENTILES.values())).tolist(), strict=True))
    return {
        "n": len(values),
        "mean": float(values.mean()),
        "min": float(values.min()),
        "max": float(values.max()),
    } | found


def rows(records: Sequence[dict]) -> list[dict]:
    """One row for every contestant, thread count and way of copying; CPU first, then few threads.

    Returns:
        rows of `format`, `precision`, `provider`, `threads`, `copies`, `name`; `single` (of `statistics`, ms, or None),
        `samples`, `first_ms`, `offline` ({batch size: clips a second, of the median call}), `best` (the largest of
        them, or None), `best_batch`, `over_eager`, `over_eager_offline` (times as fast as the baseline on the same
        device, batch 1 by medians and each at its best batch size; None where that was not timed in the same run),
        `worst_difference`, `agreement`, `limit`, `joules` ({batch: of a clip}), `energy_note`, `placement`, `badge`.
    """
    found: dict[tuple, dict] = {}
    for record in records:
        if record["name"] not in (SINGLE, OFFLINE) or not record["samples"]:
            continue
        given = record["parameters"]
        key = tuple(given[name] for name in ("format", "precision", "provider", "threads", "copies"))
        row = found.setdefault(key, _empty(key))
        error = record["error"] or {}
        row["worst_difference"] = _most(row["worst_difference"], error.get("worst_difference"))
        row["agreement"] = min(row["agreement"], error.get("agreement", 1.0))
        row["limit"] = error.get("limit")
        row["placement"] = record.get("placement") or row["placement"]
        row["energy_note"] = record.get("energy_note") or row["energy_note"]
        disturbed = bool(record.get("disturbed"))
        run = record["environment"].get("time")
        if record["name"] == SINGLE:
            row |= {"single": statistics(record["samples"]), "samples": record["samples"], "single_run": run}
            row |= {"first_ms": record["first_call"], "badge": spread_badge(record["samples"], disturbed)}
        else:
            batch = given["batch"]
            row["offline"][batch] = 1e3 * batch / float(np.median(record["samples"]))
            row["offline_runs"][batch], row["disturbed"][batch] = run, disturbed
            if record.get("energy_j") is not None:
                row["joules"][batch] = record["energy_j"] / record["clips"]
    order = sorted(found.values(), key=lambda row: (row["provider"] != "cpu", row["threads"], row["provider"]))
    for row in order:
        row["offline"] = dict(sorted(row["offline"].items()))
        if row["offline"]:
            row["best_batch"] = max(row["offline"], key=row["offline"].get)
            row["best"] = row["offline"][row["best_batch"]]
    for row in order:
        _compare(row, _baseline(order, row))
    return order


def _empty(key: tuple) -> dict:
    form, precision, provider, threads, copies = key
    name = form + ("" if precision == "fp32" else f", {precision}")
    name += ("" if provider == "cpu" else f", {provider}") + ("" if copies else ", no copies")
    return {
        "format": form,
        "precision": precision,
        "provider": provider,
        "threads": threads,
        "copies": copies,
        "name": name,
        "single": None,
        "samples": [],
        "first_ms": None,
        "single_run": None,
        "offline": {},
        "offline_runs": {},
        "disturbed": {},
        "best": None,
        "best_batch": None,
        "over_eager": None,
        "over_eager_offline": None,
        "worst_difference": None,
        "agreement": 1.0,
        "limit": None,
        "joules": {},
        "energy_note": None,
        "placement": None,
        "badge": "",
    }


def _most(a: float | None, b: float | None) -> float | None:
    return max((value for value in (a, b) if value is not None), default=None)


def _baseline(every: list[dict], row: dict) -> dict | None:
    """Eager PyTorch with torchaudio's mel on the same device, with as many threads and as many copies."""
    for other in every:
        alike = all(other[key] == row[key] for key in ("threads", "copies"))
        if other["format"] == BASELINE and alike and (other["provider"] == "cpu") == (row["provider"] == "cpu"):
            return other
    return None


def _compare(row: dict, baseline: dict | None) -> None:
    if baseline is None or baseline is row:
        return
    if row["single"] and baseline["single"] and row["single_run"] == baseline["single_run"]:
        row["over_eager"] = baseline["single"]["p50"] / row["single"]["p50"]
    if row["best"] and baseline["best"]:
        runs = row["offline_runs"][row["best_batch"]], baseline["offline_runs"][baseline["best_batch"]]
        if runs[0] == runs[1]:
            row["over_eager_offline"] = row["best"] / baseline["best"]


def loads(records: Sequence[dict]) -> list[dict]:
    """Fresh processes: `name`, `load_ms`, `first_ms`, `second_ms`, `memory_mb`, `batch_memory_mb` (medians),
    `gpu_memory_mb`, `batch`, `threads`, `bytes` (of the file), `n`, `badge`."""
    found = []
    for record in records:
        if record["name"] != LOAD or not record["samples"]:
            continue
        given, runs = record["parameters"], record["runs"]
        middle = lambda key, runs=runs: _median([run[key] for run in runs])  # noqa: E731
        key = (given["format"], given["precision"], given["provider"], given["threads"], True)
        found.append(
            {
                "name": _empty(key)["name"],
                "threads": given["threads"],
                "batch": given["batch"],
                "load_ms": _median(record["samples"]),
                "first_ms": middle("first_call_ms"),
                "second_ms": middle("second_call_ms"),
                "memory_mb": middle("memory_mb"),
                "batch_memory_mb": middle("batch_memory_mb"),
                "gpu_memory_mb": middle("gpu_memory_mb"),
                "bytes": record.get("bytes"),
                "n": len(runs),
                "badge": spread_badge(record["samples"], bool(record.get("disturbed"))),
            }
        )
    return found


def _median(values: Sequence[float | None]) -> float | None:
    return None if any(value is None for value in values) or not values else float(np.median(values))


def waits(records: Sequence[dict], name: str) -> list[dict]:
    """Of `FILES` or `PROCESS`: `what` ("infer", "eager loop"; or the command), `samples` (seconds), `median_s`,
    `first_s`, `files`, `threads`, `front_end`, `badge`, `run`."""
    found = []
    for record in records:
        if record["name"] != name or not record["samples"]:
            continue
        given = record["parameters"]
        found.append(
            {
                "what": given.get("way") or given["command"],
                "samples": record["samples"],
                "median_s": _median(record["samples"]),
                "first_s": record["first_call"],
                "files": given.get("files"),
                "threads": given.get("threads"),
                "front_end": record.get("front_end"),
                "run": record["environment"].get("time"),
                "badge": spread_badge(record["samples"], bool(record.get("disturbed"))),
            }
        )
    return found


def files_ratio(records: Sequence[dict]) -> tuple[dict, dict, float] | None:
    """(`infer`'s row, the eager loop's, how many times as fast) of the largest folder that one run timed both ways; the
    loop with the number of threads that suits it best."""
    found = waits(records, FILES)
    pairs = [
        (ours, loop, loop["median_s"] / ours["median_s"])
        for ours in found
        for loop in found
        if ours["what"] == "infer"
        and loop["what"].startswith("eager loop")
        and all(ours[key] == loop[key] for key in ("files", "threads", "run"))
    ]
    return max(pairs, key=lambda pair: (pair[0]["files"], -pair[2]), default=None)


def crossovers(every: Sequence[dict]) -> list[dict]:
    """For each GPU row: the least batch size from which on it gives more clips a second than every CPU row.

    Returns:
        dicts of `name`, `row`, `batch` (None: never, on what was measured), `cpu` (the best CPU row's name there).
    """
    cpu = [row for row in every if row["provider"] == "cpu" and row["offline"]]
    found = []
    for row in every:
        if row["provider"] == "cpu" or not row["offline"] or not cpu:
            continue
        first = None
        for batch in sorted(row["offline"], reverse=True):
            rivals = [other["offline"][batch] for other in cpu if batch in other["offline"]]
            if not rivals:
                continue
            if row["offline"][batch] <= max(rivals):
                break
            first = batch
        best = None if first is None else max(cpu, key=lambda other: other["offline"].get(first, 0.0))["name"]
        found.append({"name": row["name"], "row": row, "batch": first, "cpu": best})
    return found


def left_out(records: Sequence[dict]) -> list[tuple[str, str]]:
    """(contestant and where, reason), each once."""
    found, who = {}, ("format", "precision", "provider")
    timed = {tuple(r["parameters"][key] for key in who) for r in records if r["name"] in NAMES[:3] and r["samples"]}
    for record in records:
        if record["name"] in LEFT_OUT:
            given = record["parameters"]
            if given.get("threads") is None and tuple(given[key] for key in who) in timed:
                continue  # it was not there then, and is now
            key = (given["format"], given["precision"], given["provider"], given.get("threads"), True)
            at = "" if given.get("threads") is None else f", batch {given['batch']}"
            found[_empty(key)["name"] + at, str(record.get("reason", ""))] = None
    return list(found)


def text(records: Sequence[dict]) -> str:
    """The terminal's tables."""
    from triadbench.bench.analysis.summary import number
    from triadbench.core.commands.console import table

    head = [
        "format",
        "precision",
        "provider",
        "threads",
        "p50 ms",
        "p99 ms",
        "best clips/s",
        "at batch",
        "x eager",
        "worst difference",
        "",
    ]
    cells = []
    for row in rows(records):
        single = row["single"] or {}
        difference = row["worst_difference"]
        cells.append(
            [
                row["format"] + ("" if row["copies"] else ", no copies"),
                row["precision"],
                row["provider"],
                row["threads"],
                number(single.get("p50")),
                number(single.get("p99")),
                number(row["best"]),
                row["best_batch"],
                "1" if row["format"] == BASELINE else number(row["over_eager"]),
                "—"
                if difference is None
                else f"{difference:.1e}"
                + ("" if row["agreement"] == 1.0 else f", {100 * row['agreement']:.1f} % of the labels"),
                row["badge"],
            ]
        )
    parts = [table(head, cells)] if cells else []
    fresh = loads(records)
    if fresh:
        head = ["fresh process", "load ms", "first call ms", "memory MB", f"batch {fresh[0]['batch']} MB", "n", ""]
        cells = [
            [
                row["name"],
                number(row["load_ms"]),
                number(row["first_ms"]),
                number(row["memory_mb"]),
                number(row["batch_memory_mb"]),
                row["n"],
                row["badge"],
            ]
            for row in fresh
        ]
        parts.append(table(head, cells))
    ratio = files_ratio(records)
    if ratio:
        ours, loop, times = ratio
        parts.append(
            f"{ours['files']} files of 4 s: infer {number(ours['median_s'])} s, eager loop {number(loop['median_s'])} "
            f"s: {number(times)} times as fast"
        )
    parts += [
        f"python cli.py {row['what']}: {number(row['median_s'])} s, whole process, median of {len(row['samples'])}"
        + (f" ({row['badge']})" if row["badge"] else "")
        for row in waits(records, PROCESS)
    ]
    parts += [f"not measured: {name}: {reason}" for name, reason in left_out(records)]
    return "\n\n".join(parts[:2]) + "\n" + "\n".join(parts[2:])
