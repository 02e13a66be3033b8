"""Figures and sentences of the mel profile, computed from its records; the terminal and the page both read these."""

from operator import itemgetter
from statistics import median
from typing import NamedTuple

from triadbench.bench.analysis.summary import badge, disturbance, number, percent, select, span, steadiness
from triadbench.core.commands.console import table
from triadbench.core.timing import Timing
from triadbench.kernels.gpu import cost_model

EAGER = "torchaudio eager"
_CUDA = "ours: cuda"
_FORMER = "ours: cuda, before"
"""Our kernel before the present one: measured for comparison, it is neither ours nor anybody's rival."""
SLOW_BACKENDS = ("ours: reference", "ours: torchaudio")


class Case(NamedTuple):
    """What the contestants that are compared have in common."""

    spec: str
    batch: int
    threads: int
    device: str
    dtype: str = "float32"

    @property
    def place(self) -> str:
        """Where it ran, as "2 threads" or "GPU"."""
        return "GPU" if self.device == "cuda" else f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def samples(self) -> str:
        """Their format where it is not float32, as " int16"."""
        return "" if self.dtype == "float32" else f" {self.dtype}"

    @property
    def label(self) -> str:
        """As "ORIGINAL x64, 2 threads", or "ORIGINAL x64 int16, GPU"."""
        return f"{self.spec} x{self.batch}{self.samples}, {self.place}"


def case(fields: dict) -> Case:
    """The case of a row or of a record's parameters."""
    return Case(*(fields[name] for name in Case._fields if name in fields))


def rows(records: list[dict]) -> list[dict]:
    """One row a timing.

    Returns:
        for each "mel" record: `contestant`, `ours`, `former`, `spec`, `batch`, `threads`, `device`, `dtype`, `p50_ms`,
        `p90_ms`, `p99_ms`, `n`, `spread`, `unstable`, `disturbed`, `badge`, `clips_per_s`, `real_time_factor`,
        `gb_per_s`, `gflop_per_s`, `share_of_memory`, `share_of_arithmetic` (of the roofs), `roof_ms` (moving the least
        bytes at the memory's roof), `intensity` (operations a byte), `rms_relative`, `peak_relative`, `tilted_log`,
        `approximate` (it computes other values), `graph_of` (the contestant whose calls a CUDA graph replays, or ""),
        `first_call_ms` (with preparing), `first_in_process`, `against_eager` (times as fast as torchaudio eager; graph
        replays are compared with graph replays), None where it cannot be known or other programs disturbed one of both.
    """
    roof = roofs(records)
    timings = []
    for record in select(records, "mel"):
        parameters, timed = record["parameters"], Timing.from_samples(0.0, record["samples"])
        seconds = timed.p50_ms / 1e3
        gb_per_s, gflop_per_s = record["bytes_moved"] / seconds / 1e9, record["flops"] / seconds / 1e9
        memory, arithmetic = (
            roof.get((parameters["device"], parameters["threads"], name)) for name in ("memory", "arithmetic")
        )
        timings.append(
            {"contestant": parameters["contestant"], "former": (former := parameters["contestant"].startswith(_FORMER))}
            | {"ours": parameters["ours"] and not former}
            | case(parameters)._asdict()
            | {"approximate": record.get("approximate", False), "graph_of": record.get("graph_of", "")}
            | {key: getattr(timed, key) for key in ("p50_ms", "p90_ms", "p99_ms", "n", "spread", "unstable")}
            | {key: record["error"][key] for key in ("rms_relative", "peak_relative", "tilted_log")}
            | {
                "disturbed": record["disturbed"],
                "badge": badge(record) or ("other values" if record.get("approximate") else ""),
                "gb_per_s": gb_per_s,
                "gflop_per_s": gflop_per_s,
            }
            | {
                "clips_per_s": record["clips"] / seconds,
                "real_time_factor": record["audio_s"] / seconds,
                "share_of_memory": gb_per_s / memory if memory else None,
                "share_of_arithmetic": gflop_per_s / arithmetic if arithmetic else None,
                "roof_ms": record["bytes_moved"] / memory / 1e6 if memory else None,
                "intensity": record["flops"] / record["bytes_moved"],
                "first_call_ms": record["prepare_ms"] + record["first_call"],
                "first_in_process": record["first_in_process"],
            }
        )
    eagers = [row for row in timings if EAGER in (row["contestant"], row["graph_of"])]
    eager = {(case(row), bool(row["graph_of"])): row["p50_ms"] for row in eagers if not row["disturbed"]}
    for row in timings:
        here = None if row["disturbed"] else eager.get((case(row), bool(row["graph_of"])))
        row["against_eager"] = here / row["p50_ms"] if here else None
    return timings


def roofs(records: list[dict]) -> dict[tuple[str, int, str], float]:
    """(device, threads, roof) -> the best sample's rate: GFLOP/s for "arithmetic", GB/s for the rest."""
    rates = {}
    for record in select(records, "mel roof"):
        parameters, work = record["parameters"], record.get("flops") or record["bytes_moved"]
        key = parameters["device"], parameters["threads"], parameters["roof"]
        rates[key] = work / min(record["samples"]) / 1e6
    return rates


def left_out(records: list[dict]) -> list[dict]:
    """Every contestant that was not timed somewhere: `contestant`, `device`, `reason`, and `cases` as text."""
    too_slow = "one call would take too long for the time given"
    grouped: dict[tuple[str, str, str], list[Case]] = {}
    for record in select(records, "mel left out"):
        parameters = record["parameters"]
        # The seconds of a prediction differ from case to case; the reason is one.
        reason = too_slow if record["reason"].startswith("one call would") else record["reason"]
        grouped.setdefault((parameters["contestant"], parameters["device"], reason), []).append(case(parameters))
    every = {case(record["parameters"]) for record in records if "contestant" in record["parameters"]}
    entries = []
    for (contestant, device, reason), cases in grouped.items():
        names = ", ".join(dict.fromkeys(f"{one.spec} x{one.batch}{one.samples}" for one in sorted(cases)))
        where = "all" if len(cases) == sum(one.device == device for one in every) else names
        entries.append({"contestant": contestant, "device": device, "reason": reason, "cases": where})
    return entries


def findings(records: list[dict]) -> list[str]:
    """What the numbers say, in sentences. Nothing is concluded from a disturbed timing; that it was, is said."""
    timed = select(records, "mel")
    if not timed:
        return ["Nothing is measured yet."]
    undisturbed = [record for record in timed if not record["disturbed"]]
    every = rows(records)
    quiet = [row for row in every if not row["disturbed"]]
    return [
        *disturbance(timed),
        *_ours_against_rivals(quiet),
        *_other_values(quiet),
        *_batching(quiet),
        *_errors(every),
        *_roofs(quiet, records),
        *_starts(records),
        *steadiness(undisturbed),
        *_absent(records),
    ]


def duels(timings: list[dict]) -> list[dict]:
    """For each case our fastest against torchaudio eager and against the fastest rival that computes the same values.

    Graph replays where there are some of both sides: the device's time, free of what a call costs the CPU.

    Returns:
        `case`, `ours` and `rival` (rows), `against_eager`, `against_rival` (times as fast; None where disturbed).
    """
    pairs = []
    for here in dict.fromkeys(map(case, timings)):
        exact = [row for row in timings if case(row) == here and not row["approximate"] | row["former"]]
        graphs = [row for row in exact if row["graph_of"]]
        both = {row["ours"] for row in graphs} == {True, False}
        in_order = sorted(graphs if both else exact, key=itemgetter("p50_ms"))
        ours, rival = (next((row for row in in_order if row["ours"] == mine), None) for mine in (True, False))
        if ours and rival:
            disturbed = ours["disturbed"] or rival["disturbed"]
            ratios = {"against_rival": None if disturbed else rival["p50_ms"] / ours["p50_ms"]}
            ratios["against_eager"] = ours["against_eager"]
            pairs.append({"case": here, "ours": ours, "rival": rival, **ratios})
    return pairs


def on_gpu(timings: list[dict]) -> list[tuple[Case, str, dict | None, dict | None]]:
    """(case, contestant, row by graph replays, row by calls), one of the rows perhaps None; a case's fastest first."""
    found: dict[tuple[Case, str], dict[bool, dict]] = {}
    for row in (row for row in timings if row["device"] == "cuda"):
        key = case(row), row["graph_of"] or row["contestant"]
        found.setdefault(key, {})[bool(row["graph_of"])] = row
    cases = list(dict.fromkeys(here for here, _ in found))
    entries = [(*key, both.get(True), both.get(False)) for key, both in found.items()]
    return sorted(entries, key=lambda entry: (cases.index(entry[0]), (entry[2] or entry[3] or {})["p50_ms"]))


def modelled(records: list[dict]) -> list[dict]:
    """What the cost model says of our CUDA kernel, a row a spec: `predict`'s fields with `spec`, the phases with their
    `conflicts`, `worst_conflicts`, and `measured_ns` with its `case`, None where no GPU has been measured."""
    measured: dict[str, tuple[float, Case]] = {}
    for here, contestant, graph, call in on_gpu(rows(records)):
        best = graph or call
        most = measured.get(here.spec)
        if contestant == _CUDA and best and here.dtype == "float32" and (not most or most[1].batch < here.batch):
            measured[here.spec] = 1e6 * best["p50_ms"] / here.batch, here
    found = {}
    for record in select(records, "mel cuda static"):
        if work := (record.get("analysis") or {}).get("cost"):
            spec, result = record["parameters"]["spec"], cost_model.predict(work)
            for phase, counted in zip(result["phases"], work["phases"], strict=True):
                phase["conflicts"] = counted["conflicts"]
            ns, where = measured.get(spec, (None, None))
            warps = record["analysis"]["blocks_per_sm"] * -(-record["analysis"]["threads_per_block"] // 32)
            result["expected"] = cost_model.predict(work, cost_model.H100_BOOSTED, warps)["expected"]
            worst = work["worst_conflicts"]
            found[spec] = {"spec": spec, **result, "worst_conflicts": worst, "measured_ns": ns, "case": where}
    return list(found.values())


def _ours_against_rivals(quiet: list[dict]) -> list[str]:
    sentences = []
    pairs = duels(quiet)
    for here in dict.fromkeys(duel["case"]._replace(batch=0, threads=0) for duel in pairs):
        mine = [duel for duel in pairs if duel["case"]._replace(batch=0, threads=0) == here]
        most = max(duel["case"].threads for duel in mine)
        mine = sorted((duel for duel in mine if duel["case"].threads == most), key=lambda duel: duel["case"])
        parts = [
            f"batch {duel['case'].batch}: "
            + (f"{number(duel['against_eager'], 2)} times torchaudio eager, " if duel["against_eager"] else "")
            + f"{number(duel['against_rival'], 2)} times the best rival ({duel['rival']['contestant']})"
            for duel in mine
        ]
        names = ", ".join(dict.fromkeys(duel["ours"]["contestant"] for duel in mine))
        sentences.append(f"{here.spec}{here.samples}, {mine[0]['case'].place}, {names} runs at {'; '.join(parts)}.")
    return sentences


def _other_values(timings: list[dict]) -> list[str]:
    """What computes something else has its error beside its speed, and no rank."""
    sentences = []
    for name in dict.fromkeys(row["graph_of"] or row["contestant"] for row in timings if row["approximate"]):
        mine = [row for row in timings if name in (row["contestant"], row["graph_of"])]
        speeds = [row["against_eager"] for row in mine if row["against_eager"]]
        errors = span(row["rms_relative"] for row in mine)
        speed = f", at {span(speeds)} times the speed of torchaudio eager" if speeds else ""
        sentences.append(f"{name} gives other values, off by {errors} of the mel (relative RMS){speed}.")
    return sentences


def _batching(quiet: list[dict]) -> list[str]:
    """What torchaudio's mel costs clip by clip, as the original study worked, and in the largest batch."""
    eager = [row for row in quiet if row["contestant"] == EAGER and row["device"] == "cpu"]
    sentences = []
    for spec in dict.fromkeys(row["spec"] for row in eager):
        most = max(row["threads"] for row in eager if row["spec"] == spec)
        clip_ms = {
            row["batch"]: row["p50_ms"] / row["batch"] for row in eager if (row["spec"], row["threads"]) == (spec, most)
        }
        batch = max(clip_ms)
        if len(clip_ms) < 2 or 1 not in clip_ms:
            continue
        alone, together = clip_ms[1], clip_ms[batch]
        verdict = "batching changes little on this CPU."
        if alone > 1.1 * together:
            verdict = f"clip by clip, as the original study worked, costs {alone / together:.2f} times as much."
        elif together > 1.1 * alone:
            verdict = f"the large batch costs {together / alone:.2f} times as much a clip."
        sentences.append(
            f"One clip's {spec} mel takes torchaudio {number(alone)} ms alone and {number(together)} ms a clip in a "
            f"batch of {batch}: {verdict}"
        )
    return sentences


def _errors(timings: list[dict]) -> list[str]:
    ours = [row for row in timings if row["ours"] and row["contestant"] not in SLOW_BACKENDS]
    eager = [row for row in timings if row["contestant"] == EAGER]
    if not ours or not eager:
        return []

    def worst(key: str) -> list[float | None]:
        return [max((row[key] for row in side if row[key] is not None), default=None) for side in (ours, eager)]

    our_error, their_error = worst("rms_relative")
    sentence = (
        f"Against float64 our fast backends are off by {our_error:.1e} at most (relative RMS), torchaudio by "
        f"{their_error:.1e}"
    )
    our_error, their_error = worst("tilted_log")
    if our_error is not None and their_error is not None:
        sentence += f"; on tones that fall by 80 dB the worst log mel is off by {our_error:.1e} and {their_error:.1e}"
    return [sentence + "."]


def _roofs(quiet: list[dict], records: list[dict]) -> list[str]:
    rates, sentences = roofs([record for record in records if not record.get("disturbed")]), []
    threads = max((count for device, count, _ in rates if device == "cpu"), default=0)
    arithmetic, memory = (rates.get(("cpu", threads, name)) for name in ("arithmetic", "memory"))
    if arithmetic and memory:
        sentences.append(
            f"This machine's best float32 matrix product ran at {number(arithmetic)} GFLOP/s and its best copy at "
            f"{number(memory)} GB/s, so work below {number(arithmetic / memory)} operations a byte waits for memory."
        )
    best = max((row for row in quiet if row["ours"] and row["device"] == "cpu"), key=_share, default=None)
    if best is None or best["share_of_memory"] is None or best["share_of_arithmetic"] is None:
        return sentences
    rivals = (row for row in quiet if not row["ours"] and not row["approximate"] and case(row) == case(best))
    rival = max(rivals, key=_share, default=None)
    of_rival = f"; there the best rival reaches {percent(_share(rival))}" if rival else ""
    roof = "arithmetic" if best["share_of_arithmetic"] >= best["share_of_memory"] else "memory"
    return [
        *sentences,
        f"Nearest to the roof is {best['contestant']} with {best['spec']}, batch {best['batch']}, {case(best).place}: "
        f"{percent(_share(best))} of the measured {roof} peak{of_rival}.",
    ]


def _share(row: dict) -> float:
    return max(row["share_of_memory"] or 0.0, row["share_of_arithmetic"] or 0.0)


def _starts(records: list[dict]) -> list[str]:
    times = ", ".join(
        f"{record['parameters']['backend']} {number(median(record['samples']) / 1e3, 2)} s"
        for record in select(records, "mel warm start")
        if record["samples"]
    )
    return [f"A fresh process has its first mel this long after importing torch: {times}."] if times else []


def _absent(records: list[dict]) -> list[str]:
    gaps = left_out(records)
    sentences = []
    titles = {"Not installed": ("not installed",), "Wrong or failed, so not timed": ("wrong", "failed")}
    for title, beginnings in titles.items():
        names = dict.fromkeys(gap["contestant"] for gap in gaps if gap["reason"].startswith(beginnings))
        sentences += [f"{title}: {', '.join(names)}."] if names else []
    if records[0]["environment"]["gpu"] is None:
        analysed = any(record.get("analysis") for record in select(records, "mel cuda static"))
        more = "; the CUDA kernel is analysed as the compiler left it" if analysed else ""
        sentences.append(f"GPU: not measured: no GPU on this machine{more}.")
    return sentences


def text(result: dict) -> str:
    """The terminal's table, what was left out, and the sentences."""
    cells = [
        [
            *(case(row).label, row["contestant"], number(row["p50_ms"]), percent(row["spread"])),
            *(number(row[key]) for key in ("clips_per_s", "real_time_factor", "gflop_per_s")),
            *(f"{row['rms_relative']:.0e}", number(row["against_eager"], 2), row["badge"]),
        ]
        for row in sorted(result["measurements"], key=lambda row: (case(row), row["p50_ms"]))
    ]
    headers = "case|contestant|median ms|spread|clips/s|x real time|GFLOP/s|RMS error|x eager|".split("|")
    gaps = [f"- {gap['contestant']} ({gap['device']}, {gap['cases']}): {gap['reason']}" for gap in result["left_out"]]
    lines = [table(headers, cells), ""]
    if gaps:
        lines += ["Not timed:", *gaps, ""]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in result["findings"]), "", f"Page: {result['page']}"])
