"""The first screen of a page: the answer in a sentence, three figures, one picture, from one machine's records."""

from collections.abc import Iterator, Sequence
from typing import Any

from triadbench.bench.analysis import experiments, ladder
from triadbench.bench.analysis import findings as story
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.gather import is_mel
from triadbench.bench.analysis.summary import badge, number, percent, select, span
from triadbench.bench.report import experiments_page, flame_page, ladder_page, mel_page, pipeline_page
from triadbench.bench.report.figures import Figure
from triadbench.bench.report.page import Opening

HEIGHT = 400
"""Of an opening's picture, in pixels: with the rest it fits a desktop's screen."""


def of_records(records: Sequence[dict]) -> Opening:
    """What one machine's records answer; of disturbed timings no ratio."""
    try:
        numbers = {sentence["key"]: sentence["numbers"] for sentence in story.tell(records, True)}
        quiet = [[r for r in rows if r["badge"] != "disturbed"] for rows in pipeline_page.groups(records).values()]
        both = [rows for rows in quiet if len(rows) == 2]
        numbers["pipeline"] = {"ratio": both[0][0]["median_s"] / both[0][1]["median_s"]} if both else {}
        label, picture = _picture(records)
        picture[0].update_layout(height=min(HEIGHT, picture[0].layout.height))
        return Opening(_verdict(numbers, records), list(_figures(numbers, records))[:3], picture, label)
    except story.MALFORMED:  # the chapter of these records names what is wrong
        return Opening("Nothing is concluded: some records are not as they should be.")


def _verdict(numbers: dict[str, dict[str, Any]], records: Sequence[dict]) -> str:
    why, gain, pipeline, mel, files = (numbers[key] for key in ("why", "gain", "pipeline", "mel", "providers"))
    timings = [record for record in records if record["samples"]]
    if why.get("device") == "GPU":
        share = percent(1 - why["share_outside_network"])
        return f"The GPU mostly waits: the network takes {share} of an epoch of the original pipeline."
    if ratio := gain.get("ladder_ratio") or gain.get("experiments_most") or pipeline.get("ratio"):
        return f"The fast pipeline trains {number(ratio, 2)} times as fast as the original on the same CPU."
    if ratio := mel.get("rival_median"):
        return f"Our mel kernel is {number(ratio, 2)} times as fast as the best rival."
    if ratio := files.get("over_eager"):
        return f"One clip is named {number(ratio, 2)} times as fast as by eager PyTorch."
    if disturbed := sum(badge(record) == "disturbed" for record in timings):
        return f"Nothing is concluded: other programs disturbed {disturbed:,} of {len(timings):,} timings."
    return "Nothing is concluded: no two timings here can be compared."


def _figures(numbers: dict[str, dict[str, Any]], records: Sequence[dict]) -> Iterator[tuple[str, str]]:
    ratios = {
        ("gpu", "ladder_ratio"): "an epoch on the GPU: the fast pipeline over the original",
        ("gain", "ladder_ratio"): "an epoch on the CPU: the fast pipeline over the original",
        ("pipeline", "ratio"): "an epoch: the fast pipeline over the original",
        ("mel", "eager_median"): f"our mel kernel over torchaudio on the {numbers['mel'].get('device')}, median",
        ("mel", "rival_median"): "our mel kernel over the best rival, median",
        ("providers", "over_eager"): "naming one clip: the exported file over PyTorch",
        ("providers", "files_ratio"): "a folder of files: infer over a loop of PyTorch",
    }
    yield from (
        (f"{number(numbers[key][name], 2)} ×", words) for (key, name), words in ratios.items() if numbers[key].get(name)
    )
    for record in select(records, flame_page.NAME):
        if not record.get("disturbed"):
            yield f"{number(record['plain_ms'] / record['clips'], 2)} ms", f"a clip: {record['parameters']['target']}"
    yield (
        f"{span(numbers['why'][f'published_{end}'] for end in ('least', 'most'))} ×",
        "the original's GPU over its CPU",
    )


def _picture(records: Sequence[dict]) -> tuple[str, Figure]:
    for rows in (ladder.main_ladder(records, device) for device in ("cuda", "cpu")):
        if ladder.is_complete(rows):
            return "An epoch from the original pipeline to the fast one", ladder_page.waterfall(ladder.timed(rows))
    if select(records, flame_page.NAME):
        return "Flame graph: calls as wide as they take time", flame_page.figure(records)
    for rows in pipeline_page.groups(records).values():
        return "An epoch's parts", ladder_page.parts(rows, [row["name"] for row in rows])
    rows = mel_summary.rows([record for record in records if is_mel(record)])
    if any(row["against_eager"] for row in rows):
        return "Speed of mel spectrograms over torchaudio, one mark a case", mel_page.speed_ups(rows)
    published = [row for row in experiments.published_rows() if row["experiment"] == "batch-size"]
    return "The original's epoch times over batch size", experiments_page.times(published, "batch_size")
