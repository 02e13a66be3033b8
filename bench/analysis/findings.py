"""What was found, in six sentences whose numbers are computed from one machine's records.

A sentence whose records are missing says which command makes them. The numbers are returned beside the words, so that a
program reads what a person reads.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

from triadbench.bench.analysis import experiments, ladder, pairing, providers, published
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.gather import is_mel
from triadbench.bench.analysis.summary import DEVICES, number, span

Row = dict[str, Any]

LADDER = "python cli.py experiment ladder"
MEL = "python cli.py profile --only mel"
MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError)
"""What computing raises on records that lack a field or hold another kind of value: files come from anywhere."""


def tell(records: Sequence[dict], has_gpu: bool) -> list[Row]:
    """Six sentences on the records of one machine; `has_gpu` says why GPU figures are missing.

    Returns:
        dicts of `key`, `text`, `numbers` (plain values; {} where nothing was measured) and `missing` (the command that
        makes the records, or None).
    """
    tellers: dict[str, tuple[str, Callable[[Sequence[dict]], Finding]]]
    tellers = {"why": ("the ladder", _why), "where": ("the ladder", _where), "gain": ("the pipelines", _gain)}
    tellers |= {"mel": ("mel", _mel), "gpu": ("the GPU", functools.partial(_gpu, has_gpu=has_gpu))}
    tellers["providers"] = ("the exported files", _providers)
    findings = []
    for key, (subject, teller) in tellers.items():
        try:
            text, numbers, missing = teller(records)
        except MALFORMED as error:
            reason = f"its records are not as they should be ({type(error).__name__}: {error})"
            text, numbers, missing = f"Nothing can be said of {subject}: {reason}.", {}, None
        findings.append({"key": key, "text": text, "numbers": numbers, "missing": missing})
    return findings


Finding = tuple[str, dict[str, Any], str | None]
"""Text, numbers, and the command that makes the records where they are missing."""


def _why(records: Sequence[dict]) -> Finding:
    """Amdahl's bound on what a faster device can gain while the work on single clips stays."""
    least, most = published.ratio_range("train")
    numbers: dict[str, Any] = {"published_least": least, "published_most": most}
    numbers["published_test_over_train"] = published.test_over_train("cuda")
    opening = f"The original's GPU trained only {number(least)} to {number(most)} times as fast as its CPU."
    opening += f" {published.hint()}"
    for device in ("cuda", "cpu"):
        rows = ladder.main_ladder(records, device)
        if ladder.has_parts(rows) and rows[0]["badge"] != "disturbed":
            outside, bound = 1 - ladder.share(rows[0], ladder.NETWORK), ladder.bound(rows[0])
            numbers |= {"device": DEVICES[device], "share_outside_network": outside, "bound": bound}
            return f"{opening} {ladder.bound_sentence(rows[0])}", numbers, None
    return f"{opening} The parts of an epoch are not measured here yet.", numbers, LADDER


def _where(records: Sequence[dict]) -> Finding:
    for device, name in DEVICES.items():
        rows = ladder.main_ladder(records, device)
        if ladder.has_parts(rows):
            costs = ladder.per_clip_ms(rows[0])
            numbers = {"device": name, "threads": rows[0]["threads"], "parts_ms": costs}
            numbers["total_ms"] = sum(costs.values())
            return ladder.split_sentence(rows[0]) + _caveats(rows[:1]), numbers, None
    return "Where a clip's time goes in the original pipeline is not measured here yet.", {}, LADDER


def _gain(records: Sequence[dict]) -> Finding:
    text, used, notes = [], [], []
    numbers: dict[str, Any] = {}
    rows = ladder.main_ladder(records, "cpu")
    if ladder.is_complete(rows):
        times = ladder.timed(rows)
        verdicts = [row["passed"] for row in rows[1:] if row["passed"] is not None]
        numbers = _ladder_numbers(times) | {key: times[0][key] for key in ("clips", "threads")}
        numbers |= {"rungs": len(rows) - 1, "rungs_judged": len(verdicts), "rungs_passed": sum(verdicts)}
        numbers["best_rung"] = max(times[1:], key=lambda row: row["over_previous"] or 0.0)["name"]
        text.append(ladder.gain_sentence(rows))
        used += [times[0], times[-1]]
        notes.append(pairing.note(row["code"] for row in times))
    trials = [row for row in experiments.ours(records) if (row["phase"], row["device"]) == ("train", "cpu")]
    if gains := _most_threads(pairing.undisturbed(experiments.gains(trials))):
        ratios = [gain["ratio"] for gain in gains]
        numbers |= _range("experiments", ratios)
        numbers |= {"experiments": len(ratios), "experiments_threads": gains[0]["threads"]}
        text.append(f"By the original's protocol{_threads(gains[0])} it is {_by_protocol(gains, 'times as fast')}.")
        used += [row for gain in gains for row in gain["rows"]]
        notes += [gain["note"] for gain in gains]
    notes += experiments.unpaired(trials)
    if not text:
        return "What the fast pipeline gains is not measured here yet." + _notes(notes), {}, LADDER
    return " ".join(text) + _caveats(used) + _notes(notes), numbers, None


def _range(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_least": min(values), f"{name}_most": max(values)}


def _ladder_numbers(times: Sequence[Row]) -> dict[str, float]:
    first, last = times[0], times[-1]
    return {"original_s": first["median_s"], "fast_s": last["median_s"], "ladder_ratio": last["over_original"]}


def _mel(records: Sequence[dict]) -> Finding:
    rows = mel_summary.rows([record for record in records if is_mel(record)])
    duels = mel_summary.duels([row for row in rows if not row["disturbed"]])
    # On the CPU where it was timed there, else on the GPU.
    duels = [duel for duel in duels if duel["case"].device == "cpu"] or duels
    if not duels:
        return "Our mel kernel against torchaudio and its rivals is not measured here yet.", {}, MEL
    threads = max(duel["case"][2] for duel in duels)
    duels = [duel for duel in duels if duel["case"][2] == threads]
    ratios = {
        "eager": [duel["against_eager"] for duel in duels if duel["against_eager"]],
        "rival": [duel["against_rival"] for duel in duels],
    }
    on_gpu = duels[0]["case"].device == "cuda"
    where = "On the GPU" if on_gpu else f"With {pairing.threads_text(threads)} of the CPU"
    numbers = {
        "threads": threads,
        "device": "GPU" if on_gpu else "CPU",
        "cases": len(duels),
        "lost": sum(ratio < 1 for ratio in ratios["rival"]),
    }
    for name, values in ratios.items():
        if values:
            numbers |= _range(name, values) | {f"{name}_median": median(values)}
    rivals = ", ".join(dict.fromkeys(duel["rival"]["contestant"] for duel in duels))
    eager = f"{span(ratios['eager'])} times as fast as torchaudio (median {{}}) and " if ratios["eager"] else ""
    eager = eager.format(number(numbers.get("eager_median"), 2))
    text = (
        f"{where} our fastest mel kernel is, over {len(duels)} cases, {eager}"
        f"{span(ratios['rival'])} times as fast as the best rival of each case (median "
        f"{number(numbers['rival_median'], 2)}; {rivals})"
    )
    lost = f"; in {numbers['lost']} of them it is slower" if numbers["lost"] else ""
    return f"{text}{lost}.", numbers, None


def _gpu(records: Sequence[dict], has_gpu: bool) -> Finding:
    text, used, notes = [], [], []
    numbers: dict[str, Any] = {}
    trials = [row for row in experiments.ours(records) if row["phase"] == "train"]
    for pipeline in ("original", "fast"):
        pairs = pairing.undisturbed(experiments.ratios(trials))
        ratios = _most_threads([ratio for ratio in pairs if ratio["pipeline"] == pipeline])
        if ratios:
            numbers |= _range(pipeline, [ratio["ratio"] for ratio in ratios])
            numbers[f"{pipeline}_threads"] = ratios[0]["threads"]
            times = _by_protocol(ratios, f"times as fast as the CPU{_threads(ratios[0])}")
            text.append(f"With the {pipeline} pipeline the GPU trains {times}.")
            used += [row for ratio in ratios for row in ratio["rows"]]
            notes += [ratio["note"] for ratio in ratios]
    unpaired = experiments.unpaired(trials)
    notes += unpaired
    rows = ladder.main_ladder(records, "cuda")
    if ladder.is_complete(rows):
        numbers |= _ladder_numbers(ladder.timed(rows))
        text.append(ladder.gain_sentence(rows))
        used += ladder.timed(rows)
        notes.append(pairing.note(row["code"] for row in ladder.timed(rows)))
    if text:
        return " ".join(text) + _caveats(used) + _notes(notes), numbers, None
    reason = "these records hold no GPU run" if has_gpu else "there was no GPU in this machine"
    if unpaired:
        reason = "CPU and GPU were measured, but not alike"
    return f"GPU: not measured: {reason}.{_notes(unpaired)}", {}, f"{LADDER} (on a machine with an NVIDIA GPU)"


def _providers(records: Sequence[dict]) -> Finding:
    """One clip a call on the CPU: the fastest file that takes raw audio, against eager PyTorch; and a folder."""
    rows = [row for row in providers.rows(records) if (row["provider"], row["precision"]) == ("cpu", "fp32")]
    rows = [row for row in rows if row["over_eager"] and row["format"].startswith("onnx")]
    if not rows:
        return "What a prediction of the exported files costs is not measured here yet.", {}, providers.COMMAND
    best = max(rows, key=lambda row: row["over_eager"])
    numbers = {key: best[key] for key in ("name", "threads", "over_eager", "worst_difference")}
    numbers |= {"p50_ms": best["single"]["p50"], "p99_ms": best["single"]["p99"]}
    text, used = providers.single_sentence(best), [best]
    if ratio := providers.files_ratio(records):
        ours, loop, times = ratio
        used += [ours, loop]
        numbers |= {"files": ours["files"], "files_ratio": times, "infer_s": ours["median_s"]}
        text += f" {providers.files_sentence(ratio)}"
    return text + _caveats(used), numbers, None


def _caveats(rows: Sequence[Row]) -> str:
    """What the reader must know of the timings that a sentence stands on."""
    meanings = {
        "disturbed": "disturbed: other programs used the processor meanwhile",
        "unstable": "unstable: the middle half of their samples spans more than 20 % of the median",
    }
    caveats = [
        f"{count} of these {len(rows)} timings {'is' if count == 1 else 'are'} {meaning}"
        for word, meaning in meanings.items()
        if (count := sum(row["badge"] == word for row in rows))
    ]
    return f" ({'; '.join(caveats)}.)" if caveats else ""


def _most_threads(pairs: list[Row]) -> list[Row]:
    """The pairs with most threads: a range over several thread counts would say nothing of either."""
    most = max((pair["threads"] or 0 for pair in pairs), default=0)
    return [pair for pair in pairs if (pair["threads"] or 0) == most]


def _by_protocol(pairs: Sequence[Row], words: str) -> str:
    """The ratios of each protocol apart, as "2 to 3 times as fast (short: 1 epoch a trial, not 5)"."""
    ranges: list[str] = []
    for short in dict.fromkeys(pair["short"] for pair in pairs):
        ratios = span(pair["ratio"] for pair in pairs if pair["short"] == short)
        ranges.append(f"{ratios} {'times' if ranges else words}{f' ({short})' if short else ''}")
    return " and ".join(ranges)


def _threads(row: Row) -> str:
    threads = pairing.threads_text(row["threads"])
    return f" with {threads}" if threads else ""


def _notes(notes: Iterable[str]) -> str:
    return "".join(f" {note}" for note in dict.fromkeys(notes) if note)
