"""Every number of the findings is that of the records; what is missing or broken is said, with the command that helps."""

from __future__ import annotations

from statistics import fmean, median

import pytest

from tests.bench import report_records as made
from triadbench.bench.analysis import findings, ladder


def tell(records: list[dict], has_gpu: bool = False) -> dict[str, dict]:
    return {finding["key"]: finding for finding in findings.tell(records, has_gpu)}


def samples(records: list[dict], name: str, **parameters) -> list[list[float]]:
    """Of the records with these parameters, straight from the list."""
    return [r["samples"] for r in records if r["name"] == name and parameters.items() <= r["parameters"].items()]


def test_why_is_the_published_range_and_the_share_outside_the_network():
    records = made.everything()
    parts = records[0]["parts"]
    outside = sum(parts[part] for part in ("reading", "resampling", "mel", "copy", "synchronisation", "idle"))
    share = outside / sum(parts.values())
    why = tell(records)["why"]
    assert why["numbers"]["share_outside_network"] == pytest.approx(share)
    assert why["numbers"]["bound"] == pytest.approx(1 / share)
    published = why["numbers"]["published_least"], why["numbers"]["published_most"]
    assert published == pytest.approx((1.99, 2.27), abs=5e-3)
    assert f"{100 * share:.0f} % of an epoch" in why["text"] and "1.99 to 2.27" in why["text"]
    assert why["numbers"]["device"] == "CPU" and tell(made.everything("G"))["why"]["numbers"]["device"] == "GPU"


def test_where_is_the_first_rungs_parts_over_its_clips():
    first = made.ladder(made.environment())[0]
    where = tell(made.everything())["where"]
    for part, value in first["parts"].items():
        share = value / first["instrumented_s"]
        assert where["numbers"]["parts_ms"][part] == pytest.approx(1e3 * share * median(first["samples"]) / 5734)
    assert where["numbers"]["total_ms"] == pytest.approx(1e3 * median(first["samples"]) / 5734)
    assert f"backward {where['numbers']['parts_ms']['backward']:.1f}" in where["text"]
    on_gpu = tell(made.ladder(made.environment("G"), "cuda"))["where"]
    assert on_gpu["numbers"]["device"] == "GPU" and "On the GPU" in on_gpu["text"]


def test_clips_of_an_epoch_are_the_split_where_a_record_does_not_say_them():
    records = made.ladder(made.environment())
    for record in records:
        del record["n_clips"]
        record["parameters"]["num_items"] = 1428  # of which 1,000 train
    share = records[0]["parts"]["mel"] / records[0]["instrumented_s"]
    mel_ms = tell(records)["where"]["numbers"]["parts_ms"]["mel"]
    assert mel_ms == pytest.approx(share * median(records[0]["samples"]))


def test_gain_is_first_over_last_rung_and_the_experiments_ratios():
    records = made.everything()
    rungs = [median(values) for values in samples(records, "ladder")]
    ratios = []
    for name in ("experiment batch-size", "experiment data-size"):
        original = samples(records, name, pipeline="original", phase="train")
        fast = samples(records, name, pipeline="fast", phase="train")
        ratios += [fmean(a) / fmean(b) for a, b in zip(original, fast, strict=True)]
    numbers = tell(records)["gain"]["numbers"]
    assert numbers["ladder_ratio"] == pytest.approx(rungs[0] / rungs[-1])
    assert (numbers["original_s"], numbers["fast_s"]) == pytest.approx((rungs[0], rungs[-1]))
    assert (numbers["rungs"], numbers["rungs_judged"], numbers["rungs_passed"]) == (6, 6, 5)
    best = max(zip(rungs, rungs[1:], made.RUNGS[1:], strict=False), key=lambda step: step[0] / step[1])
    assert numbers["best_rung"] == best[2]
    assert (numbers["experiments_least"], numbers["experiments_most"]) == pytest.approx((min(ratios), max(ratios)))


def test_a_sentence_on_doubtful_timings_says_so():
    records = made.ladder(made.environment())
    assert "disturbed" not in tell(records)["gain"]["text"]
    records[0]["disturbed"] = True
    records[0]["parameters"]["protocol"] = "short: 8 clips"
    records[-1]["samples"] = [1.0, 2.0, 4.0, 8.0]
    text = tell(records)["gain"]["text"]
    assert "1 of these 2 timings is disturbed" in text and "(short: 8 clips)" in text
    assert "1 of these 2 timings is unstable" in text
    assert "1 of these 1 timings is disturbed" in tell(records)["where"]["text"]


def test_mel_is_ours_against_torchaudio_and_the_best_rival_with_most_threads():
    records = made.everything()

    def at(name, spec, batch):
        return median(samples(records, "mel", contestant=name, spec=spec, batch=batch, threads=2)[0])

    eager, rival = [], []
    for spec in ("ORIGINAL", "CHORD"):
        for batch in (1, 64):
            ours = at("ours: numba", spec, batch)
            eager.append(at("torchaudio eager", spec, batch) / ours)
            rival.append(min(at("torchaudio eager", spec, batch), at("librosa", spec, batch)) / ours)
    numbers = tell(records)["mel"]["numbers"]
    assert (numbers["eager_least"], numbers["eager_most"]) == pytest.approx((min(eager), max(eager)))
    assert (numbers["rival_least"], numbers["rival_most"]) == pytest.approx((min(rival), max(rival)))
    assert (numbers["threads"], numbers["cases"], numbers["lost"]) == (2, 4, 0)


def test_a_lost_mel_case_is_said():
    records = made.mel(made.environment())
    for record in records:
        if record["parameters"].get("contestant") == "librosa" and record["parameters"]["batch"] == 1:
            record["samples"] = [value / 1000 for value in record["samples"]]
    mel = tell(records)["mel"]
    assert mel["numbers"]["lost"] == 2 and "in 2 of them it is slower" in mel["text"]


def test_disturbed_mel_timings_conclude_nothing():
    records = made.mel(made.environment())
    for record in records:
        record["disturbed"] = True
    assert tell(records)["mel"]["missing"] == findings.MEL


def test_gpu_rows_are_ratios_of_means_or_not_measured():
    records = made.everything("Test GPU", scale=0.1)
    ratios = [
        fmean(cpu) / fmean(gpu)
        for name in ("experiment batch-size", "experiment data-size")
        for cpu, gpu in zip(
            samples(records, name, pipeline="fast", phase="train", device="cpu"),
            samples(records, name, pipeline="fast", phase="train", device="cuda"),
            strict=True,
        )
    ]
    rungs = [median(values) for values in samples(records, "ladder", device="cuda")]
    numbers = tell(records, has_gpu=True)["gpu"]["numbers"]
    assert (numbers["fast_least"], numbers["fast_most"]) == pytest.approx((min(ratios), max(ratios)))
    assert numbers["ladder_ratio"] == pytest.approx(rungs[0] / rungs[-1])
    for has_gpu, reason in ((False, "there was no GPU in this machine"), (True, "these records hold no GPU run")):
        absent = tell(made.everything(), has_gpu)["gpu"]
        assert absent["numbers"] == {} and "experiment ladder" in absent["missing"]
        assert absent["text"] == f"GPU: not measured: {reason}."


def test_without_records_every_sentence_names_its_command():
    commands = {key: finding["missing"] for key, finding in tell([]).items()}
    gpu = f"{findings.LADDER} (on a machine with an NVIDIA GPU)"
    ladder_command, providers_command = findings.LADDER, "python cli.py benchmark"
    assert commands == dict.fromkeys(("why", "where", "gain"), ladder_command) | {
        "mel": findings.MEL,
        "gpu": gpu,
        "providers": providers_command,
    }


def test_broken_records_are_told_and_the_other_sentences_stand():
    records = made.everything()
    del records[0]["parameters"]["name"]
    told = tell(records)
    for key, subject in (("why", "the ladder"), ("where", "the ladder"), ("gain", "the pipelines")):
        assert told[key]["text"].startswith(f"Nothing can be said of {subject}: its records are not as they should be")
        assert told[key]["numbers"] == {} and "KeyError: 'name'" in told[key]["text"]
    assert told["mel"]["numbers"]["cases"] == 4


def test_a_ladder_without_parts_explains_nothing():
    records = made.ladder(made.environment())
    for record in records:
        record["parts"] = None
    assert tell(records)["why"]["missing"] == findings.LADDER == tell(records)["where"]["missing"]
    assert tell(records)["gain"]["numbers"]["rungs"] == 6 and len(ladder.sentences(records)) == 1
