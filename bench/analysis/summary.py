"""Numbers and sentences computed from records; the terminal and the page both read these."""

from __future__ import annotations

from statistics import median

from triadbench.core.timing import Timing


def row(record: dict, peak: float | None) -> dict:
    """One record as figures.

    Args:
        record: of unit "ms".
        peak: the machine's measured float32 peak, GFLOP/s, or None.

    Returns:
        `name`, `case` (short label), `parameters`, `p50_ms`, `p90_ms`, `p99_ms`, `n`, `spread`, `unstable`,
        `disturbed`, `other_cores`, `first_call_ms`, `throughput_clips_per_s`, `real_time_factor` (seconds of audio a
        second), `gflop_per_s`, `share_of_peak`, `peak_relative_error`, `rms_relative_error`; None where it does not
        apply.
    """
    timed = Timing.from_samples(0.0, record["samples"])
    seconds = timed.p50_ms / 1e3
    per_second = lambda amount: amount / seconds if amount is not None and seconds > 0 else None  # noqa: E731
    flops = per_second(record.get("flops"))
    error = record["error"] or {}
    given = record["parameters"]
    return {
        "name": record["name"],
        "case": case(record),
        "parameters": record["parameters"],
        "p50_ms": timed.p50_ms,
        "p90_ms": timed.p90_ms,
        "p99_ms": timed.p99_ms,
        "n": timed.n,
        "spread": timed.spread,
        "unstable": timed.unstable,
        "disturbed": record.get("disturbed", False),
        "other_cores": record.get("other_cores"),
        "first_call_ms": record["first_call"],
        "throughput_clips_per_s": per_second(record.get("clips")),
        "real_time_factor": per_second(record.get("audio_s")),
        "gflop_per_s": None if flops is None else flops / 1e9,
        # Our own mel does fewer operations than the formula counts, so its share would mean nothing.
        "share_of_peak": None if flops is None or not peak or given.get("backend") == "ours" else flops / 1e9 / peak,
        "peak_relative_error": error.get("peak_relative"),
        "rms_relative_error": error.get("rms_relative"),
    }


def case(record: dict) -> str:
    """A label for one record, as "CHORD x64 torchaudio"."""
    given = record["parameters"]
    parts = [given.get("network") or given.get("spec")]
    if "batch" in given:
        parts.append(f"x{given['batch']}")
    parts.append(given.get("part") or given.get("backend"))
    return " ".join(part for part in parts if part) or record["name"]


def select(records: list[dict], name: str, **parameters: object) -> list[dict]:
    """The records of one name whose parameters have these values."""
    return [
        record
        for record in records
        if record["name"] == name and all(record["parameters"].get(key) == value for key, value in parameters.items())
    ]


def peak_gflop_per_s(records: list[dict]) -> float | None:
    """The best matrix product's float32 rate."""
    return max((r["flops"] / min(r["samples"]) / 1e6 for r in select(records, "peak matmul")), default=None)


def peak_gb_per_s(records: list[dict]) -> float | None:
    """The best copy's rate, read plus write."""
    return max((r["bytes_moved"] / min(r["samples"]) / 1e6 for r in select(records, "peak copy")), default=None)


def findings(records: list[dict]) -> list[str]:
    """What the numbers say, in sentences. Nothing is concluded from a disturbed timing; that it was, is said."""
    quiet = [record for record in records if not record.get("disturbed", False)]
    sentences = [*_peaks(quiet), *_batching(quiet), *_drop_in(quiet), *_share_of_peak(quiet)]
    for network in dict.fromkeys(r["parameters"].get("network") for r in select(quiet, "training step")):
        sentences += _step(quiet, network)
    return [*_disturbance(records), *sentences, *_steadiness(quiet), *not_measured(records)]


def _disturbance(records: list[dict]) -> list[str]:
    loads = [record["other_cores"] for record in records if record.get("disturbed", False)]
    if not loads:
        return []
    cores = records[0]["environment"]["cores_logical"]
    return [
        f"{len(loads)} of {len(records)} timings are disturbed: other processes used {number(min(loads), 2)} to "
        f"{number(max(loads), 2)} of {cores} cores meanwhile. Such medians can be wrong by a hundred times, even "
        "without spread, and nothing is concluded from them; run again on an idle machine."
    ]


def _p50(records: list[dict]) -> float | None:
    return median(records[0]["samples"]) if records else None


def _peaks(records: list[dict]) -> list[str]:
    gflop, gigabytes = peak_gflop_per_s(records), peak_gb_per_s(records)
    if gflop is None or gigabytes is None:
        return []
    return [
        f"This machine's best float32 matrix product ran at {number(gflop)} GFLOP/s and its best copy at "
        f"{number(gigabytes)} GB/s, so work below {number(gflop / gigabytes)} operations a byte waits for memory."
    ]


def _batching(records: list[dict]) -> list[str]:
    made = []
    for spec in ("ORIGINAL", "CHORD"):
        timed = {r["parameters"]["batch"]: r for r in select(records, "mel", spec=spec, backend="torchaudio")}
        if len(timed) < 2 or 1 not in timed:
            continue
        batch = max(timed)
        alone, together = _p50([timed[1]]), _p50([timed[batch]]) / batch
        costs = (
            f"One clip's {spec} mel takes torchaudio {number(alone)} ms alone and {number(together)} ms a clip "
            f"in a batch of {batch}: "
        )
        if alone > 1.1 * together:
            made.append(
                f"{costs}clip by clip, as the original study worked, costs {alone / together:.2f} times as much."
            )
        elif together > 1.1 * alone:
            made.append(costs + f"the large batch costs {together / alone:.2f} times as much a clip.")
        else:
            made.append(costs + "batching changes little on this CPU.")
    return made


def _drop_in(records: list[dict]) -> list[str]:
    ratios, backends = [], set()
    for record in select(records, "mel", backend="ours"):
        given = record["parameters"]
        theirs = select(records, "mel", spec=given["spec"], batch=given["batch"], backend="torchaudio")
        if theirs:
            ratios.append(_p50(theirs) / _p50([record]))
            backends.add(record.get("runs_on", "unknown"))
    if not ratios:
        return []
    return [
        f"Our drop-in mel (backend {', '.join(sorted(backends))}) is {number(min(ratios), 2)} to "
        f"{number(max(ratios), 2)} times as fast as torchaudio's."
    ]


def _share_of_peak(records: list[dict]) -> list[str]:
    peak = peak_gflop_per_s(records)
    shares = {
        kind: [figures["share_of_peak"] for r in chosen if (figures := row(r, peak))["share_of_peak"]]
        # Our own mel does fewer operations than the formula counts, so its share would mean nothing.
        for kind, chosen in (
            ("mel", select(records, "mel", backend="torchaudio")),
            ("forward", select(records, "forward")),
        )
    }
    if not all(shares.values()):
        return []
    mel, forward = (f"{100 * min(s):.0f} to {100 * max(s):.0f} %" for s in shares.values())
    return [f"torchaudio's mels reach {mel} of the matrix product's rate, the networks' forward passes {forward}."]


def _step(records: list[dict], network: str) -> list[str]:
    parts = {r["parameters"]["part"]: _p50([r]) for r in select(records, "training step", network=network)}
    total = sum(parts.values())
    if not total:
        return []
    clips = select(records, "training step", network=network)[0]["parameters"]["batch"]
    shares = ", ".join(f"{part} {100 * value / total:.0f} %" for part, value in parts.items())
    largest = max(parts, key=parts.get)
    return [
        f"A training step of {network} on {clips} clips takes {number(total)} ms ({shares}); the most is {largest}."
    ]


def _steadiness(records: list[dict]) -> list[str]:
    rows = [row(record, None) for record in records]
    unsteady = sum(figures["unstable"] for figures in rows)
    if not rows:
        return []
    if not unsteady:
        return [f"All {len(rows)} timings are steady: the middle half of the samples lies within 20 % of the median."]
    return [
        f"{unsteady} of {len(rows)} timings are unstable (the middle half of the samples spans more than 20 % of the "
        "median), as on a machine that is busy with other work: trust ratios more than times, and run again."
    ]


def not_measured(records: list[dict]) -> list[str]:
    """What this profile leaves out, and why."""
    if not records:
        return ["Nothing is measured yet."]
    gpu = records[0]["environment"]["gpu"]
    reason = "no GPU on this machine" if gpu is None else f"the quick profile does not use the {gpu} yet"
    return [
        f"GPU: not measured: {reason}.",
        "Not part of this: reading of files, the data loader (see the lines), exported models.",
    ]


def badge(figures: dict) -> str:
    """The warning that belongs beside a figure, or nothing."""
    return "disturbed" if figures["disturbed"] else "unstable" if figures["unstable"] else ""


def number(value: float | None, digits: int = 3) -> str:
    """A figure with `digits` significant digits and no exponent, as "1,230" or "0.0456"; None is an em dash."""
    if value is None:
        return "—"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - _exponent(value))
    return f"{round(value, digits - 1 - _exponent(value)):,.{decimals}f}"


def _exponent(value: float) -> int:
    return int(f"{abs(value):e}".partition("e")[2])


def text(rows: list[dict], sentences: list[str]) -> str:
    """The terminal's table and the sentences."""
    from triadbench.core.commands.console import table

    headers = ["", "case", "median ms", "spread", "first ms", "clips/s", "x real time", "% of peak", "error", ""]
    cells = [
        [
            figures["name"],
            figures["case"] if figures["case"] != figures["name"] else "",
            number(figures["p50_ms"]),
            f"{100 * figures['spread']:.0f} %",
            number(figures["first_call_ms"]),
            number(figures["throughput_clips_per_s"]),
            number(figures["real_time_factor"]),
            "—" if figures["share_of_peak"] is None else f"{100 * figures['share_of_peak']:.0f}",
            "—" if figures["peak_relative_error"] is None else f"{figures['peak_relative_error']:.0e}",
            badge(figures),
        ]
        for figures in rows
    ]
    return "\n".join([table(headers, cells), "", *(f"- {sentence}" for sentence in sentences)])
