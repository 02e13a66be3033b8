"""Figures and sentences of the mel profile, computed from its records; the terminal and the page both read these."""

from __future__ import annotations

from statistics import median

from triadbench.bench.analysis.summary import badge, number
from triadbench.core.timing import Timing

EAGER = "torchaudio eager"


def rows(records: list[dict]) -> list[dict]:
    """One row a timing.

    Returns:
        for each "mel" record: `contestant`, `ours`, `spec`, `batch`, `threads`, `device`, `p50_ms`, `p90_ms`, `p99_ms`,
        `n`, `spread`, `unstable`, `disturbed`, `clips_per_s`, `real_time_factor`, `gb_per_s`, `gflop_per_s`,
        `share_of_memory`, `share_of_arithmetic` (of the measured roofs), `intensity` (operations a byte),
        `rms_relative`, `peak_relative`, `tilted_log`, `first_call_ms` (with preparing), `first_in_process`,
        `against_eager` (times as fast), None where it cannot be known.
    """
    roof = roofs(records)
    made = []
    for record in select(records, "mel"):
        given, timed = record["parameters"], Timing.from_samples(0.0, record["samples"])
        seconds = timed.p50_ms / 1e3
        gb_per_s, gflop_per_s = record["bytes_moved"] / seconds / 1e9, record["flops"] / seconds / 1e9
        at = (given["device"], given["threads"])
        memory, arithmetic = (roof.get((*at, name)) for name in ("memory", "arithmetic"))
        made.append(
            {key: given[key] for key in ("contestant", "ours", "spec", "batch", "threads", "device")}
            | {key: getattr(timed, key) for key in ("p50_ms", "p90_ms", "p99_ms", "n", "spread", "unstable")}
            | {
                "disturbed": record["disturbed"],
                "clips_per_s": record["clips"] / seconds,
                "real_time_factor": record["audio_s"] / seconds,
                "gb_per_s": gb_per_s,
                "gflop_per_s": gflop_per_s,
                "share_of_memory": gb_per_s / memory if memory else None,
                "share_of_arithmetic": gflop_per_s / arithmetic if arithmetic else None,
                "intensity": record["flops"] / record["bytes_moved"],
                **{key: record["error"][key] for key in ("rms_relative", "peak_relative", "tilted_log")},
                "first_call_ms": record["prepare_ms"] + record["first_call"],
                "first_in_process": record["first_in_process"],
            }
        )
    eager = {_case(row): row["p50_ms"] for row in made if row["contestant"] == EAGER}
    for row in made:
        row["against_eager"] = eager[_case(row)] / row["p50_ms"] if _case(row) in eager else None
    return made


def _case(row: dict) -> tuple:
    return row["spec"], row["batch"], row["threads"], row["device"]


def select(records: list[dict], name: str) -> list[dict]:
    """The records of one name."""
    return [record for record in records if record["name"] == name]


def roofs(records: list[dict]) -> dict[tuple[str, int, str], float]:
    """(device, threads, roof) -> the best sample's rate: GFLOP/s for "arithmetic", GB/s for the rest."""
    found = {}
    for record in select(records, "mel roof"):
        given, work = record["parameters"], record.get("flops") or record["bytes_moved"]
        found[given["device"], given["threads"], given["roof"]] = work / min(record["samples"]) / 1e6
    return found


def left_out(records: list[dict]) -> list[dict]:
    """Every contestant that was not timed somewhere: `contestant`, `reason`, `cases`, the latter as text."""
    grouped: dict[tuple[str, str, str], list[dict]] = {}
    for record in select(records, "mel left out"):
        given = record["parameters"]
        # The seconds of a prediction differ from case to case; the reason is one.
        kind = "one call would take" if record["reason"].startswith("one call would") else record["reason"]
        grouped.setdefault((given["contestant"], given["device"], kind), []).append(record)
    every = {_case(record["parameters"]) for record in records if "contestant" in record["parameters"]}
    made = []
    for (contestant, device, kind), found in grouped.items():
        cases = [_case(record["parameters"]) for record in found]
        everywhere = len(cases) == sum(case[3] == device for case in every)
        named = sorted(
            {f"{spec} x{batch}" for spec, batch, _, _ in cases}, key=lambda name: (name.split(" x")[0], name)
        )
        reason = found[0]["reason"] if kind == found[0]["reason"] else "one call would take too long for the time given"
        made.append(
            {
                "contestant": contestant,
                "device": device,
                "reason": reason,
                "cases": "all" if everywhere else ", ".join(named),
            }
        )
    return made


def findings(records: list[dict]) -> list[str]:
    """What the numbers say, in sentences. Nothing is concluded from a disturbed timing; that it was, is said."""
    every = rows(records)
    if not every:
        return ["Nothing is measured yet."]
    quiet = [row for row in every if not row["disturbed"]]
    return [
        *_disturbance(every, records),
        *_against(quiet),
        *_errors(every),
        *_roof(quiet, records),
        *_starts(records),
        *_steadiness(quiet),
        *_absent(records),
    ]


def duels(made: list[dict]) -> list[dict]:
    """For each case our fastest against torchaudio eager and against the fastest rival.

    Returns:
        `case` (spec, batch, threads, device), `ours` and `rival` (rows), `against_eager`, `against_rival`.
    """
    found = []
    for case in dict.fromkeys(_case(row) for row in made):
        here = [row for row in made if _case(row) == case]
        ours = min((row for row in here if row["ours"]), key=_p50, default=None)
        rival = min((row for row in here if not row["ours"]), key=_p50, default=None)
        if ours and rival:
            found.append(
                {
                    "case": case,
                    "ours": ours,
                    "rival": rival,
                    "against_eager": ours["against_eager"],
                    "against_rival": rival["p50_ms"] / ours["p50_ms"],
                }
            )
    return found


def _p50(row: dict) -> float:
    return row["p50_ms"]


def threads_text(case: tuple) -> str:
    """The case's place in words: "2 threads", or "GPU"."""
    return "GPU" if case[3] == "cuda" else f"{case[2]} thread" + ("s" if case[2] > 1 else "")


def _against(quiet: list[dict]) -> list[str]:
    made, found = [], duels(quiet)
    for device in dict.fromkeys(duel["case"][3] for duel in found):
        for spec in dict.fromkeys(duel["case"][0] for duel in found):
            mine = [duel for duel in found if duel["case"][0] == spec and duel["case"][3] == device]
            if not mine:
                continue
            most = max(duel["case"][2] for duel in mine)
            parts = []
            for duel in (duel for duel in mine if duel["case"][2] == most):
                eager = duel["against_eager"]
                against = f"{number(eager, 2)} times torchaudio eager, " if eager else ""
                parts.append(
                    f"batch {duel['case'][1]}: {against}{number(duel['against_rival'], 2)} times the best rival "
                    f"({duel['rival']['contestant']})"
                )
            names = ", ".join(dict.fromkeys(duel["ours"]["contestant"] for duel in mine if duel["case"][2] == most))
            made.append(f"{spec}, {threads_text(('', 0, most, device))}, {names} runs at " + "; ".join(parts) + ".")
    return made


def _errors(made: list[dict]) -> list[str]:
    ours = [row for row in made if row["ours"] and row["contestant"] not in ("ours: reference", "ours: torchaudio")]
    eager = [row for row in made if row["contestant"] == EAGER]
    if not ours or not eager:
        return []
    worst = lambda found, key: max((row[key] for row in found if row[key] is not None), default=None)  # noqa: E731
    sentence = (
        f"Against float64 our fast backends are off by {worst(ours, 'rms_relative'):.1e} at most (relative RMS), "
        f"torchaudio by {worst(eager, 'rms_relative'):.1e}"
    )
    tilts = worst(ours, "tilted_log"), worst(eager, "tilted_log")
    if None not in tilts:
        sentence += f"; on tones that fall by 80 dB the worst log mel is off by {tilts[0]:.1e} and {tilts[1]:.1e}"
    return [sentence + "."]


def _roof(quiet: list[dict], records: list[dict]) -> list[str]:
    best = max((row for row in quiet if row["ours"] and row["device"] == "cpu"), key=_share, default=None)
    if best is None or best["share_of_memory"] is None or best["share_of_arithmetic"] is None:
        return []
    rival = max((r for r in quiet if not r["ours"] and _case(r) == _case(best)), key=_share, default=None)
    ends = f"; there the best rival reaches {100 * _share(rival):.0f} %" if rival else ""
    roof = "arithmetic" if best["share_of_arithmetic"] >= best["share_of_memory"] else "memory"
    return [
        f"Nearest to the roof is {best['contestant']} with {best['spec']}, batch {best['batch']}, "
        f"{threads_text(_case(best))}: {100 * _share(best):.0f} % of the measured {roof} peak{ends}."
    ]


def _share(row: dict) -> float:
    return max(row["share_of_memory"] or 0.0, row["share_of_arithmetic"] or 0.0)


def _starts(records: list[dict]) -> list[str]:
    found = {
        r["parameters"]["backend"]: median(r["samples"]) for r in select(records, "mel warm start") if r["samples"]
    }
    if not found:
        return []
    times = ", ".join(f"{name} {number(value / 1e3, 2)} s" for name, value in found.items())
    return [f"A fresh process has its first mel this long after importing torch: {times}."]


def _disturbance(made: list[dict], records: list[dict]) -> list[str]:
    loads = [record["other_cores"] for record in select(records, "mel") if record["disturbed"]]
    if not loads:
        return []
    return [
        f"{len(loads)} of {len(made)} timings are disturbed: other processes used {number(min(loads), 2)} to "
        f"{number(max(loads), 2)} cores meanwhile. Nothing is concluded from them; run again on an idle machine."
    ]


def _steadiness(quiet: list[dict]) -> list[str]:
    unsteady = sum(row["unstable"] for row in quiet)
    if not unsteady:
        return []
    return [
        f"{unsteady} of {len(quiet)} timings are unstable: the middle half of their samples spans more than 20 % of "
        "the median."
    ]


def _absent(records: list[dict]) -> list[str]:
    missing = dict.fromkeys(e["contestant"] for e in left_out(records) if e["reason"].startswith("not installed"))
    wrong = dict.fromkeys(e["contestant"] for e in left_out(records) if e["reason"].startswith(("wrong", "failed")))
    made = [f"Not installed: {', '.join(missing)}."] if missing else []
    made += [f"Wrong or failed, so not timed: {', '.join(wrong)}."] if wrong else []
    if records and records[0]["environment"]["gpu"] is None:
        made.append("GPU: not measured: no GPU on this machine; the CUDA kernel is analysed as the compiler left it.")
    return made


def text(result: dict) -> str:
    """The terminal's table, what was left out, and the sentences."""
    from triadbench.core.commands.console import table

    headers = [
        "case",
        "contestant",
        "median ms",
        "spread",
        "clips/s",
        "x real time",
        "GFLOP/s",
        "RMS error",
        "x eager",
        "",
    ]
    cells = [
        [
            f"{row['spec']} x{row['batch']}, {threads_text(_case(row))}",
            row["contestant"],
            number(row["p50_ms"]),
            f"{100 * row['spread']:.0f} %",
            number(row["clips_per_s"]),
            number(row["real_time_factor"]),
            number(row["gflop_per_s"]),
            f"{row['rms_relative']:.0e}",
            number(row["against_eager"], 2),
            badge(row),
        ]
        for row in sorted(result["measurements"], key=lambda row: (*_case(row), _p50(row)))
    ]
    gaps = [f"- {gap['contestant']} ({gap['device']}, {gap['cases']}): {gap['reason']}" for gap in result["left_out"]]
    parts = [table(headers, cells), ""]
    if gaps:
        parts += ["Not timed:", *gaps, ""]
    return "\n".join([*parts, *(f"- {sentence}" for sentence in result["findings"]), "", f"Page: {result['page']}"])
