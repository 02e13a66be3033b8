"""Figures and sentences of `benchmark`, from its records: for the terminal, the chapter and the findings.

A ratio is made of two timings of one run, where the contestants took turns, with the same number of threads.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from triadbench.bench.analysis import pairing
from triadbench.bench.analysis.summary import badge, disturbance, number, scientific
from triadbench.core.commands.console import table

Row = dict[str, Any]

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
    percentiles = dict(zip(PERCENTILES, np.percentile(values, list(PERCENTILES.values())).tolist(), strict=True))
    ends = {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}
    return {"n": len(values)} | ends | percentiles


def rows(records: Sequence[dict]) -> list[Row]:
    """One row for every contestant, thread count and way of copying; CPU first, then few threads.

    Returns:
        rows of `format`, `precision`, `provider`, `threads`, `copies`, `name`; `single` (of `statistics`, ms, or None),
        `samples`, `first_ms`, `offline` ({batch size: clips a second, of the median call}), `best` (the largest of
        them, or None), `best_batch`, `over_eager`, `over_eager_offline` (times as fast as the baseline on the same
        device, batch 1 by medians and each at its best batch size; None where that was not timed in the same run, or
        other programs disturbed one of the two),
        `worst_difference`, `agreement`, `limit`, `joules` ({batch: of a clip}), `energy_note`, `placement`, `badge`.
    """
    contestants: dict[tuple, Row] = {}
    for record in records:
        if record["name"] not in (SINGLE, OFFLINE) or not record["samples"]:
            continue
        parameters, error = record["parameters"], record["error"] or {}
        key = (*_contestant(record), parameters["threads"], parameters["copies"])
        row = contestants.setdefault(key, _new_row(*key))
        differences = [row["worst_difference"], error.get("worst_difference")]
        row["worst_difference"] = max((value for value in differences if value is not None), default=None)
        row["agreement"] = min(row["agreement"], error.get("agreement", 1.0))
        row["limit"] = error.get("limit")
        for name in ("placement", "energy_note"):
            row[name] = record.get(name) or row[name]
        run = record["environment"].get("time")
        if record["name"] == SINGLE:
            row |= {"single": statistics(record["samples"]), "samples": record["samples"], "single_run": run}
            row |= {"first_ms": record["first_call"], "badge": badge(record)}
        else:
            batch = parameters["batch"]
            row["offline"][batch] = 1e3 * batch / float(np.median(record["samples"]))
            row["offline_runs"][batch], row["disturbed"][batch] = run, bool(record.get("disturbed"))
            if record.get("energy_j") is not None:
                row["joules"][batch] = record["energy_j"] / record["clips"]
    order = sorted(contestants.values(), key=lambda row: (row["provider"] != "cpu", row["threads"], row["provider"]))
    for row in order:
        row["offline"] = dict(sorted(row["offline"].items()))
        row["best_batch"] = max(row["offline"], key=row["offline"].get, default=None)
        row["best"] = row["offline"].get(row["best_batch"])
    baselines = {_circumstances(row): row for row in reversed(order) if row["format"] == BASELINE}
    for row in order:
        _compare(row, baselines.get(_circumstances(row)))
    return order


def _contestant(record: dict) -> tuple[str, str, str]:
    parameters = record["parameters"]
    return parameters["format"], parameters["precision"], parameters["provider"]


def _name(form: str, precision: str, provider: str, copies: bool = True) -> str:
    details = [word for word, usual in ((precision, "fp32"), (provider, "cpu")) if word != usual]
    return ", ".join([form, *details, *([] if copies else ["no copies"])])


def _new_row(form: str, precision: str, provider: str, threads: int, copies: bool) -> Row:
    row: Row = {"format": form, "precision": precision, "provider": provider, "threads": threads, "copies": copies}
    row |= dict.fromkeys(("single", "first_ms", "single_run", "best", "best_batch", "over_eager", "over_eager_offline"))
    row |= dict.fromkeys(("worst_difference", "limit", "energy_note", "placement"))
    row |= {name: {} for name in ("offline", "offline_runs", "disturbed", "joules")}
    return row | {"name": _name(form, precision, provider, copies), "samples": [], "agreement": 1.0, "badge": ""}


def _circumstances(row: Row) -> tuple[int, bool, bool]:
    """What a contestant shares with its baseline: threads, copies, and whether it is on the CPU."""
    return row["threads"], row["copies"], row["provider"] == "cpu"


def _compare(row: Row, baseline: Row | None) -> None:
    if baseline is None or baseline is row:
        return
    quiet = "disturbed" not in (row["badge"], baseline["badge"])
    if quiet and row["single"] and baseline["single"] and row["single_run"] == baseline["single_run"]:
        row["over_eager"] = baseline["single"]["p50"] / row["single"]["p50"]
    if row["best"] and baseline["best"]:
        runs = row["offline_runs"][row["best_batch"]], baseline["offline_runs"][baseline["best_batch"]]
        if runs[0] == runs[1] and not any(one["disturbed"][one["best_batch"]] for one in (row, baseline)):
            row["over_eager_offline"] = row["best"] / baseline["best"]


def loads(records: Sequence[dict]) -> list[Row]:
    """Fresh processes: `name`, `load_ms`, `first_ms`, `second_ms`, `memory_mb`, `batch_memory_mb` (medians),
    `gpu_memory_mb`, `batch`, `threads`, `bytes` (of the file), `n`, `badge`."""
    measured = {"first_ms": "first_call_ms", "second_ms": "second_call_ms", "memory_mb": "memory_mb"}
    measured |= {"batch_memory_mb": "batch_memory_mb", "gpu_memory_mb": "gpu_memory_mb"}
    processes = []
    for record in records:
        if record["name"] == LOAD and record["samples"]:
            row = {"name": _name(*_contestant(record)), "load_ms": _median(record["samples"]), "badge": badge(record)}
            row |= {"bytes": record.get("bytes"), "n": len(record["runs"])}
            row |= {key: record["parameters"][key] for key in ("threads", "batch")}
            row |= {name: _median([run[field] for run in record["runs"]]) for name, field in measured.items()}
            processes.append(row)
    return processes


def _median(values: Sequence[Any]) -> float | None:
    return None if any(value is None for value in values) or not values else float(np.median(values))


def waits(records: Sequence[dict], name: str) -> list[Row]:
    """Of `FILES` or `PROCESS`: `what` ("infer", "eager loop"; or the command), `label` (with files and threads),
    `samples` (seconds), `median_s`, `first_s`, `files`, `threads`, `front_end`, `badge`, `run`."""
    rows = []
    for record in records:
        if record["name"] == name and record["samples"]:
            parameters, samples = record["parameters"], record["samples"]
            what, files, threads = (parameters.get(key) for key in ("way", "files", "threads"))
            row = {"what": what or parameters["command"], "files": files, "threads": threads, "samples": samples}
            row["label"] = row["what"] + ("" if files is None else f", {files} files, {pairing.threads_text(threads)}")
            row |= {"median_s": _median(samples), "first_s": record["first_call"], "badge": badge(record)}
            rows.append(row | {"front_end": record.get("front_end"), "run": record["environment"].get("time")})
    return rows


def files_ratio(records: Sequence[dict]) -> tuple[Row, Row, float] | None:
    """(`infer`'s row, the eager loop's, how many times as fast) of the largest folder that one run timed both ways; the
    loop with the number of threads that suits it best."""
    ways = waits(records, FILES)
    pairs = [
        (ours, loop, loop["median_s"] / ours["median_s"])
        for ours in (row for row in ways if row["what"] == "infer")
        for loop in (row for row in ways if row["what"].startswith("eager loop"))
        if all(ours[key] == loop[key] for key in ("files", "threads", "run"))
        and "disturbed" not in (ours["badge"], loop["badge"])
    ]
    return max(pairs, key=lambda pair: (pair[0]["files"], -pair[2]), default=None)


def crossovers(every: Sequence[Row]) -> list[Row]:
    """For each GPU row: the least batch size from which on it gives more clips a second than every CPU row.

    Returns:
        dicts of `name`, `row`, `batch` (None: never, on what was measured), `cpu` (the best CPU row's name there).
    """
    cpu = [row for row in every if row["provider"] == "cpu" and row["offline"]]
    crossings = []
    for row in every:
        if row["provider"] == "cpu" or not row["offline"] or not cpu:
            continue
        first = None
        for batch in sorted(row["offline"], reverse=True):
            rivals = [other["offline"][batch] for other in cpu if batch in other["offline"]]
            if rivals and row["offline"][batch] <= max(rivals):
                break
            first = batch if rivals else first
        best = None if first is None else max(cpu, key=lambda other: other["offline"].get(first, 0.0))["name"]
        crossings.append({"name": row["name"], "row": row, "batch": first, "cpu": best})
    return crossings


def left_out(records: Sequence[dict]) -> list[tuple[str, str]]:
    """(contestant and where, reason), each once."""
    timed = {_contestant(record) for record in records if record["name"] in NAMES[:3] and record["samples"]}
    reasons: dict[tuple[str, str], None] = {}
    for record in records:
        if record["name"] in LEFT_OUT:
            parameters = record["parameters"]
            everywhere = parameters.get("threads") is None
            if everywhere and _contestant(record) in timed:
                continue  # it was not there then, and is now
            where = "" if everywhere else f", batch {parameters['batch']}"
            reasons[_name(*_contestant(record)) + where, str(record.get("reason", ""))] = None
    return list(reasons)


def difference(row: Row) -> str:
    """The error that stands beside a speed-up, with the share of equal labels where some differ."""
    labels = "" if row["agreement"] == 1.0 else f", {100 * row['agreement']:.1f} % of the labels"
    return scientific(row["worst_difference"]) + (labels if row["worst_difference"] is not None else "")


def single_sentence(row: Row) -> str:
    """One clip a call: a contestant against eager PyTorch."""
    return (
        f"One clip a call on the CPU with {pairing.threads_text(row['threads'])}: “{row['name']}” takes "
        f"{number(row['single']['p50'])} ms (median; 99 % within {number(row['single']['p99'])} ms), "
        f"{number(row['over_eager'], 2)} times as fast as eager PyTorch with torchaudio's mel; its probabilities "
        f"differ by at most {row['worst_difference']:.1e}."
    )


def files_sentence(ratio: tuple[Row, Row, float]) -> str:
    """A folder of files: `infer` against an eager loop; `ratio` as of `files_ratio`."""
    ours, loop, times = ratio
    return (
        f"A folder of {ours['files']:,} files: infer takes {number(ours['median_s'])} s and is {number(times, 2)} "
        f"times as fast as a plain eager loop ({number(loop['median_s'])} s), with the same labels."
    )


def sentences(records: Sequence[dict]) -> list[str]:
    """What the records say."""
    every = rows(records)
    lines = disturbance([record for record in records if record["samples"]])
    for threads in sorted({row["threads"] for row in every}):
        here = [row for row in every if (row["threads"], row["provider"], row["precision"]) == (threads, "cpu", "fp32")]
        if single := [row for row in here if row["over_eager"]]:
            best = max(single, key=lambda row: row["over_eager"])
            lines.append(single_sentence(best))
        if offline := [row for row in here if row["over_eager_offline"]]:
            best = max(offline, key=lambda row: row["best"])
            lines.append(
                f"Many clips on the CPU with {pairing.threads_text(threads)}: “{best['name']}” takes "
                f"{number(best['best'])} clips a second at batch {best['best_batch']}, "
                f"{number(best['over_eager_offline'])} times as many as eager PyTorch at its best batch."
            )
    if ratio := files_ratio(records):
        lines.append(files_sentence(ratio))
    else:
        alone = [row for row in waits(records, FILES) if row["what"] == "infer"]
        lines += [f"A folder of {row['files']:,} files: infer takes {number(row['median_s'])} s." for row in alone[-1:]]
    lines += [
        f"python cli.py {row['what']} takes {number(row['median_s'])} s as a whole process (median of "
        f"{len(row['samples'])}){': ' + row['badge'] if row['badge'] else ''}."
        for row in waits(records, PROCESS)
    ]
    crossings = crossovers(every)
    for crossing in crossings:
        where = f"faster than every CPU contestant from batch {crossing['batch']} on (there {crossing['cpu']})"
        never = "at no batch size that was measured faster than the CPU"
        lines.append(f"{crossing['name']}: {never if crossing['batch'] is None else where}.")
    return lines if crossings else [*lines, "GPU: not measured, and so no crossover between CPU and GPU."]


def over_eager(row: Row, key: str = "over_eager") -> str:
    """A contestant's speed-up over the baseline, which is 1 by definition."""
    return "1" if row["format"] == BASELINE else number(row[key])


def text(records: Sequence[dict]) -> str:
    """The terminal's tables, the sentences, and what was not measured."""
    cells = [
        [
            row["format"] + ("" if row["copies"] else ", no copies"),
            *(row[name] for name in ("precision", "provider", "threads")),
            *(number((row["single"] or {}).get(name)) for name in ("p50", "p99")),
            *(number(row["best"]), row["best_batch"], over_eager(row), difference(row), row["badge"]),
        ]
        for row in rows(records)
    ]
    head = "format|precision|provider|threads|p50 ms|p99 ms|best clips/s|at batch|x eager|worst difference|".split("|")
    parts = [table(head, cells)] if cells else []
    if processes := loads(records):
        batch = f"batch {processes[0]['batch']} MB"
        figures = ("load_ms", "first_ms", "memory_mb", "batch_memory_mb")
        cells = [[row["name"], *(number(row[key]) for key in figures), row["n"], row["badge"]] for row in processes]
        parts.append(table(["fresh process", "load ms", "first call ms", "memory MB", batch, "n", ""], cells))
    missing = [f"not measured: {name}: {reason}" for name, reason in left_out(records)]
    return "\n\n".join([*parts, "\n".join([*(f"- {line}" for line in sentences(records)), *missing])])
