"""What was found, in six sentences whose numbers are computed from one machine's records.

A sentence whose records are missing says which command makes them. `tell` returns the numbers beside the words, so
that a program reads what a person reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from triadbench.bench.analysis import experiments as experiment_numbers
from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis import pairing
from triadbench.bench.analysis import providers as providers_numbers
from triadbench.bench.analysis.gather import is_mel
from triadbench.bench.analysis.summary import number
from triadbench.bench.report.sections import BROKEN

LADDER = "python cli.py experiment ladder"
BATCH_SIZE = "python cli.py experiment batch-size"
MEL = "python cli.py profile --only mel"


def tell(records: Sequence[dict], has_gpu: bool) -> list[dict]:
    """Six sentences.

    Args:
        records: of one machine.
        has_gpu: whether that machine has a GPU, to say why GPU figures are missing.

    Returns:
        dicts of `key`, `text`, `numbers` (plain values; {} where nothing was measured) and `missing` (the command that
        makes the records, or None).
    """
    ladders = lambda: (  # noqa: E731
        ladder_numbers.main_ladder(records, "cpu"),
        ladder_numbers.main_ladder(records, "cuda"),
    )
    rows = lambda: experiment_numbers.ours(records)  # noqa: E731
    tellers: dict[str, Callable[[], dict]] = {
        "why": lambda: _why(*ladders()),
        "where": lambda: _where(*ladders()),
        "gain": lambda: _gain(ladders()[0], rows()),
        "mel": lambda: _mel([record for record in records if is_mel(record)]),
        "gpu": lambda: _gpu(rows(), ladders()[1], has_gpu),
        "providers": lambda: _providers(records),
    }
    return [_guarded(key, teller) for key, teller in tellers.items()]


def _guarded(key: str, teller: Callable[[], dict]) -> dict:
    try:
        return teller()
    except BROKEN as error:
        words = {
            "why": "the ladder",
            "where": "the ladder",
            "gain": "the pipelines",
            "mel": "mel",
            "gpu": "the GPU",
            "providers": "the exported files",
        }[key]
        reason = f"its records are not as they should be ({type(error).__name__}: {error})"
        return _sentence(key, f"Nothing can be said of {words}: {reason}.", {})


def _sentence(key: str, text: str, numbers: dict, missing: str | None = None) -> dict:
    return {"key": key, "text": text, "numbers": numbers, "missing": missing}


def _why(ladder: list[dict], gpu_ladder: list[dict]) -> dict:
    """Amdahl's bound on what a faster device can gain while the work on single clips stays."""
    from triadbench.bench.analysis import published

    least, most = published.ratio_range("train")
    train = published.Setting("batch-size", "type", 32, 8192, "train")
    test = published.clip_ms(train._replace(phase="test"), "cuda") / published.clip_ms(train, "cuda")
    numbers: dict = {"published_least": least, "published_most": most, "published_test_over_train": test}
    opening = (
        f"The original's GPU trained only {number(least)} to {number(most)} times as fast as its CPU, and by its "
        f"own figures testing a clip on the GPU took {100 * test:.0f} % of the time of training on it, though a test "
        "has no backward pass and no optimizer, which points at what the two share, the preparation of each clip"
    )
    rungs, device = (gpu_ladder, "GPU") if _has_parts(gpu_ladder) else (ladder, "CPU")
    if not _has_parts(rungs):
        return _sentence("why", f"{opening}; the parts of an epoch are not measured here yet.", numbers, LADDER)
    outside = ladder_numbers.share(rungs[0], ladder_numbers.PER_CLIP)
    numbers |= {"device": device, "share_outside_network": outside, "bound": 1 / outside if outside else None}
    told = (
        f"{opening}; on this machine's {device} the original pipeline spends {100 * outside:.0f} % of an epoch outside "
        "the network (reading, resampling, mel, copying, waiting)"
    )
    if outside:
        told += f", so that no device could gain more than {number(1 / outside, 2)} times by a faster network alone"
    return _sentence("why", told + ".", numbers)


def _where(ladder: list[dict], gpu_ladder: list[dict]) -> dict:
    rungs, device = (ladder, "CPU") if _has_parts(ladder) else (gpu_ladder, "GPU")
    if not _has_parts(rungs):
        return _sentence(
            "where", "Where a clip's time goes in the original pipeline is not measured here yet.", {}, LADDER
        )
    costs = ladder_numbers.per_clip_ms(rungs[0])
    total = sum(costs.values())
    named = sorted(((value, part) for part, value in costs.items() if value >= 0.005 * total), reverse=True)
    listed = ", ".join(f"{part} {number(value, 2)}" for value, part in named)
    return _sentence(
        "where",
        f"One training clip costs the original pipeline {number(total, 2)} ms on this machine's {device}"
        f"{_threads(rungs[0])}, in "
        f"milliseconds: {listed}.{_caveat(rungs[:1])}",
        {"device": device, "threads": rungs[0]["threads"], "total_ms": total, "parts_ms": costs},
    )


def _gain(ladder: list[dict], rows: list[dict]) -> dict:
    numbers: dict = {}
    told, used, notes = [], [], []
    timed = ladder_numbers.timed(ladder)
    if len(timed) > 1 and timed[0]["rung"] == 0:
        first, last = timed[0], timed[-1]
        judged = [row for row in ladder[1:] if row["passed"] is not None]
        numbers |= {
            "original_s": first["median_s"],
            "fast_s": last["median_s"],
            "ladder_ratio": last["over_original"],
            "clips": first["clips"],
            "rungs": len(ladder) - 1,
            "rungs_judged": len(judged),
            "rungs_passed": sum(r["passed"] for r in judged),
            "threads": first["threads"],
        }
        steps = max(timed[1:], key=lambda row: row["over_previous"] or 0.0)
        used = [first, last]
        short = _protocol(first["protocol"])
        told.append(
            f"rung by rung the fast pipeline takes an epoch of {first['clips']:,} clips{short} on this machine's CPU"
            f"{_threads(first)} from {number(first['median_s'])} s to {number(last['median_s'])} s, "
            f"{number(last['over_original'], 2)} times as fast, most of all by "
            f"“{steps['name']}”, and {numbers['rungs_passed']} of {len(judged)} rungs keep the loss curve within its "
            "tolerance"
        )
        numbers["best_rung"] = steps["name"]
        notes.append(pairing.note(row["code"] for row in timed))
    cpu = [row for row in rows if (row["phase"], row["device"]) == ("train", "cpu")]
    found = _most_threads(experiment_numbers.gains(cpu))
    if found:
        values = [gain["ratio"] for gain in found]
        used += [row for gain in found for row in gain["rows"]]
        numbers |= {
            "experiments_least": min(values),
            "experiments_most": max(values),
            "experiments": len(values),
            "experiments_threads": found[0]["threads"],
        }
        told.append(f"by the original's protocol{_threads(found[0])} it is {_by_protocol(found, 'times as fast')}")
        notes += [gain["note"] for gain in found]
    notes += experiment_numbers.apart(cpu)
    if not told:
        text = "What the fast pipeline gains is not measured here yet." + _notes(notes)
        return _sentence("gain", text, {}, LADDER)
    sentence = "; ".join(told)
    return _sentence("gain", sentence[0].upper() + sentence[1:] + "." + _caveat(used) + _notes(notes), numbers)


def _mel(records: list[dict]) -> dict:
    found = [
        duel
        for duel in mel_summary.duels([row for row in mel_summary.rows(records) if not row["disturbed"]])
        if duel["case"][3] == "cpu"
    ]
    if not found:
        return _sentence("mel", "Our mel kernel against torchaudio and its rivals is not measured here yet.", {}, MEL)
    most = max(duel["case"][2] for duel in found)
    found = [duel for duel in found if duel["case"][2] == most]
    eager = [duel["against_eager"] for duel in found if duel["against_eager"]]
    rival = [duel["against_rival"] for duel in found]
    names = ", ".join(dict.fromkeys(duel["rival"]["contestant"] for duel in found))
    numbers = {
        "threads": most,
        "cases": len(found),
        "rival_least": min(rival),
        "rival_most": max(rival),
        "rival_median": median(rival),
        "lost": sum(value < 1 for value in rival),
    }
    told = f"On {most} CPU thread{'s' if most > 1 else ''} our fastest mel kernel runs, over {len(found)} cases, at "
    if eager:
        numbers |= {"eager_least": min(eager), "eager_most": max(eager), "eager_median": median(eager)}
        told += f"{_span(eager)} times the speed of torchaudio (median {number(median(eager), 2)}) and at "
    told += f"{_span(rival)} times that of the best rival of each case (median {number(median(rival), 2)}; {names})"
    if numbers["lost"]:
        told += f", and loses {numbers['lost']} of them"
    return _sentence("mel", told + ".", numbers)


def _gpu(rows: list[dict], gpu_ladder: list[dict], has_gpu: bool) -> dict:
    told, used, notes, numbers = [], [], [], {}
    rows = [row for row in rows if row["phase"] == "train"]
    for pipeline in ("original", "fast"):
        found = _most_threads([r for r in experiment_numbers.ratios(rows) if r["pipeline"] == pipeline])
        if found:
            values = [ratio["ratio"] for ratio in found]
            numbers |= {
                f"{pipeline}_least": min(values),
                f"{pipeline}_most": max(values),
                f"{pipeline}_threads": found[0]["threads"],
            }
            used += [row for ratio in found for row in ratio["rows"]]
            times = _by_protocol(found, f"times as fast as the CPU{_threads(found[0])}")
            told.append(f"with the {pipeline} pipeline the GPU trains {times}")
            notes += [ratio["note"] for ratio in found]
    apart = experiment_numbers.apart(rows)
    notes += apart
    gpu_ladder = ladder_numbers.timed(gpu_ladder)
    if len(gpu_ladder) > 1 and gpu_ladder[0]["rung"] == 0:
        last = gpu_ladder[-1]
        numbers |= {
            "ladder_ratio": last["over_original"],
            "original_s": gpu_ladder[0]["median_s"],
            "fast_s": last["median_s"],
        }
        notes.append(pairing.note(row["code"] for row in gpu_ladder))
        told.append(
            f"on the GPU an epoch of {last['clips']:,} clips{_protocol(last['protocol'])} goes from "
            f"{number(gpu_ladder[0]['median_s'])} s to {number(last['median_s'])} s, "
            f"{number(last['over_original'], 2)} times as fast"
        )
    if told:
        sentence = "; ".join(told)
        caveats = _caveat([*used, *gpu_ladder]) + _notes(notes)
        return _sentence("gpu", sentence[0].upper() + sentence[1:] + "." + caveats, numbers)
    reason = "these records hold no GPU run" if has_gpu else "there was no GPU in this machine"
    if apart:
        reason = "CPU and GPU were measured, but not alike"
    return _sentence(
        "gpu", f"GPU: not measured: {reason}.{_notes(apart)}", {}, f"{LADDER} (on a machine with an NVIDIA GPU)"
    )


def _providers(records: Sequence[dict]) -> dict:
    """One clip a call on the CPU: the fastest file that takes raw audio, against eager PyTorch; and a folder."""
    found = [
        row
        for row in providers_numbers.rows(records)
        if row["over_eager"]
        and (row["provider"], row["precision"]) == ("cpu", "fp32")
        and row["format"].startswith("onnx")
    ]
    if not found:
        return _sentence(
            "providers",
            "What an answer of the exported files costs is not measured here yet.",
            {},
            providers_numbers.COMMAND,
        )
    best = max(found, key=lambda row: row["over_eager"])
    numbers = {
        "name": best["name"],
        "threads": best["threads"],
        "p50_ms": best["single"]["p50"],
        "p99_ms": best["single"]["p99"],
        "over_eager": best["over_eager"],
        "worst_difference": best["worst_difference"],
    }
    told = (
        f"One clip of 4 s is answered by “{best['name']}” in {number(best['single']['p50'])} ms (median, on "
        f"{best['threads']} CPU thread{'s' if best['threads'] > 1 else ''}), {number(best['over_eager'], 2)} times as "
        f"fast as by eager PyTorch with torchaudio's mel, with probabilities within {best['worst_difference']:.1e} of "
        "its"
    )
    used, ratio = [best], providers_numbers.files_ratio(records)
    if ratio:
        ours, loop, times = ratio
        used += [ours, loop]
        numbers |= {"files": ours["files"], "files_ratio": times, "infer_s": ours["median_s"]}
        told += (
            f"; a folder of {ours['files']:,} files by `infer` {number(times, 2)} times as fast as by a plain eager "
            "loop, with the same labels"
        )
    return _sentence("providers", told + "." + _caveat(used), numbers)


def _has_parts(ladder: list[dict]) -> bool:
    return bool(ladder) and ladder[0]["rung"] == 0 and sum(ladder[0]["parts"].values()) > 0


def _caveat(rows: list[dict]) -> str:
    """What the reader must know of the timings that a sentence stands on."""
    meanings = {
        "disturbed": "disturbed: other programs wanted the cores meanwhile",
        "unstable": "unstable: their middle half spans more than 20 % of the median",
    }
    found = {word: sum(row["badge"] == word for row in rows) for word in meanings}
    told = [
        f"{count} of these {len(rows)} timings {'is' if count == 1 else 'are'} {meanings[word]}"
        for word, count in found.items()
        if count
    ]
    return f" ({'; '.join(told)}.)" if told else ""


def _most_threads(pairs: list[dict]) -> list[dict]:
    """The pairs with most threads: a range over several thread counts would say nothing of either."""
    most = max((pair["threads"] or 0 for pair in pairs), default=0)
    return [pair for pair in pairs if (pair["threads"] or 0) == most]


def _by_protocol(pairs: list[dict], words: str) -> str:
    """The ratios of each protocol apart, as "2 to 3 times as fast (short: 1 epoch a trial, not 5)"."""
    told = []
    for short in dict.fromkeys(pair["short"] for pair in pairs):
        values = [pair["ratio"] for pair in pairs if pair["short"] == short]
        told.append(f"{_span(values)} {'times' if told else words}{_protocol(short)}")
    return " and ".join(told)


def _protocol(words: str) -> str:
    """How a run differs from the original's protocol, as its records say it: " (short: 1 epoch a trial, not 5)"."""
    return f" ({words})" if words not in ("", "full") else ""


def _threads(row: dict) -> str:
    told = pairing.told_threads(row["threads"])
    return f" with {told}" if told else ""


def _notes(notes: list[str]) -> str:
    return "".join(f" {note}" for note in dict.fromkeys(notes) if note)


def _span(values: list[float]) -> str:
    least, most = number(min(values), 2), number(max(values), 2)
    return least if least == most else f"{least} to {most}"
