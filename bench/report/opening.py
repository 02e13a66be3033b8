"""The first screen of a report: the answer in a sentence, three figures, one picture, from what the story found."""

from collections.abc import Iterator, Sequence
from typing import Any

from triadbench.bench.analysis import experiments, gather, ladder
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.summary import badge, number, percent, span
from triadbench.bench.report import experiments_page, ladder_page, mel_page
from triadbench.bench.report.figures import Figure
from triadbench.bench.report.page import Opening

HEIGHT = 400
"""Of an opening's picture, in pixels: with the rest it fits a desktop's screen."""


def of_story(records: Sequence[dict], sentences: Sequence[dict]) -> Opening:
    """What one machine's records answer; `sentences` as of `bench.analysis.findings.tell`."""
    numbers = {sentence["key"]: sentence["numbers"] for sentence in sentences}
    label, picture = _picture(records)
    picture[0].update_layout(height=min(HEIGHT, picture[0].layout.height))
    return Opening(_verdict(numbers, records), list(_figures(numbers))[:3], picture, label)


def nothing_concluded(records: Sequence[dict]) -> str:
    """The verdict where no undisturbed pair of timings answers."""
    timings = [record for record in records if record["samples"]]
    disturbed = sum(badge(record) == "disturbed" for record in timings)
    if disturbed:
        return f"Nothing is concluded: other programs disturbed {disturbed:,} of {len(timings):,} timings."
    return "Nothing is concluded: no two timings here can be compared."


def mel_figures(records: Sequence[dict]) -> list[tuple[str, str]]:
    """Our kernel over torchaudio and over the best rival: medians over the undisturbed cases."""
    duels = mel_summary.duels([row for row in mel_summary.rows(list(records)) if not row["disturbed"]])
    figures = []
    for key, other in (("against_eager", "torchaudio"), ("against_rival", "the best rival")):
        if ratios := [duel[key] for duel in duels if duel[key]]:
            middle = sorted(ratios)[len(ratios) // 2]
            words = f"our mel kernel over {other} ({span(ratios)} in {len(ratios)} cases)"
            figures.append((f"{number(middle, 2)} ×", words))
    return figures


def _verdict(numbers: dict[str, dict[str, Any]], records: Sequence[dict]) -> str:
    why, gain, mel = numbers["why"], numbers["gain"], numbers["mel"]
    if why.get("device") == "GPU":
        share = percent(1 - why["share_outside_network"])
        return f"The GPU mostly waits: the network takes {share} of an epoch of the original pipeline."
    if ratio := gain.get("ladder_ratio") or gain.get("experiments_most"):
        return f"The same training runs {number(ratio, 2)} times as fast on the same CPU; no GPU was measured."
    if ratio := mel.get("rival_median"):
        return f"Our mel kernel is {number(ratio, 2)} times as fast as the best rival."
    return nothing_concluded(records) if records else "Nothing is measured here yet: these are the original's figures."


def _figures(numbers: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    why, gain, gpu, mel, files = (numbers[key] for key in ("why", "gain", "gpu", "mel", "providers"))
    if gpu.get("ladder_ratio"):
        yield f"{number(gpu['ladder_ratio'], 2)} ×", "an epoch on the GPU: the fast pipeline over the original"
    if gain.get("ladder_ratio"):
        yield f"{number(gain['ladder_ratio'], 2)} ×", "an epoch on the CPU: the fast pipeline over the original"
    if mel.get("eager_median"):
        yield f"{number(mel['eager_median'], 2)} ×", f"our mel kernel over torchaudio on the {mel['device']}, median"
    if files.get("over_eager"):
        yield f"{number(files['over_eager'], 2)} ×", "naming one clip: the exported file over PyTorch"
    if why.get("published_least"):
        published = span((why["published_least"], why["published_most"]))
        yield f"{published} ×", "the original's GPU over its CPU, as published in 2024"
        yield percent(why["published_test_over_train"]), "of a training clip's time is what a test clip takes there"
    if why.get("bound"):
        yield f"{number(why['bound'], 2)} ×", "at most, with a network that takes no time"


def _picture(records: Sequence[dict]) -> tuple[str, Figure]:
    for device in ("cuda", "cpu"):
        rows = ladder.main_ladder(records, device)
        if ladder.is_complete(rows):
            return "An epoch from the original pipeline to the fast one", ladder_page.waterfall(ladder.timed(rows))
    rows = mel_summary.rows([record for record in records if gather.is_mel(record)])
    if any(row["against_eager"] for row in rows):
        return "Speed of mel spectrograms over torchaudio, one mark a case", mel_page.speed_ups(rows)
    published = [row for row in experiments.published_rows() if row["experiment"] == "batch-size"]
    return "The original's epoch times over batch size", experiments_page.times(published, "batch_size")
