"""The first screen of a page: the answer in a sentence, three figures, one picture, from one machine's records."""

from collections.abc import Iterator, Sequence

from triadbench.bench.analysis import experiments, ladder, providers
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
        answers = list(_answers(records))
        label, picture = _picture(records)
        picture[0].update_layout(height=min(HEIGHT, picture[0].layout.height))
    except story.MALFORMED:  # the chapter of these records names what is wrong
        return Opening("Nothing is concluded: some records are not as they should be.")
    timings = [record for record in records if record["samples"]]
    disturbed = sum(badge(record) == "disturbed" for record in timings)
    nothing = "Nothing is concluded: no two timings here can be compared."
    if disturbed:
        nothing = f"Nothing is concluded: other programs disturbed {disturbed:,} of {len(timings):,} timings."
    verdict = next((sentence for *_, sentence in answers if sentence), nothing)
    return Opening(verdict, [(value, words) for value, words, _ in answers if value][:3], picture, label)


def _answers(records: Sequence[dict]) -> Iterator[tuple[str, str, str]]:
    """(figure or "", what it is, verdict or "") of all that the records answer, the weightiest first."""
    numbers = {sentence["key"]: sentence["numbers"] for sentence in story.tell(records, True)}
    why, gain, mel, files = (numbers[key] for key in ("why", "gain", "mel", "providers"))
    if why.get("device") == "GPU":
        share = percent(1 - why["share_outside_network"])
        yield "", "", f"The GPU mostly waits: the network takes {share} of an epoch of the original pipeline."
    if ratio := numbers["gpu"].get("ladder_ratio"):
        yield f"{number(ratio)} ×", "an epoch on the GPU: the fast pipeline over the original", ""
        yield from _on_gpu(records)
    pipelines = [rows for case, rows in pipeline_page.groups(records).items() if case[0] == "cpu" and len(rows) == 2]
    quiet = [rows for rows in pipelines if "disturbed" not in (rows[0]["badge"], rows[1]["badge"])]
    parts = [original["median_s"] / fast["median_s"] for original, fast in quiet]
    if ratio := gain.get("ladder_ratio") or gain.get("experiments_least") or next(iter(parts), None):
        verdict = f"The fast pipeline trains {number(ratio, 2)} times as fast as the original on the same CPU."
        yield f"{number(ratio, 2)} ×", "an epoch on the CPU: the fast pipeline over the original", verdict
    if ratio := mel.get("rival_median"):
        verdict = f"Our mel kernel is {number(ratio, 2)} times as fast as the best rival."
        yield f"{number(ratio, 2)} ×", f"our mel kernel over the best rival on the {mel['device']}, median", verdict
    if ratio := files.get("over_eager"):
        verdict = f"One clip is named {number(ratio, 2)} times as fast as by eager PyTorch."
        yield f"{number(ratio, 2)} ×", "naming one clip: the exported file over PyTorch", verdict
    for record in select(records, flame_page.NAME):
        if not record.get("disturbed"):
            ms, target = number(record["plain_ms"] / record["clips"], 2), record["parameters"]["target"]
            yield f"{ms} ms", f"a clip: {target}", f"{target[:1].upper()}{target[1:]} takes {ms} ms a clip."
    yield f"{span(why[f'published_{end}'] for end in ('least', 'most'))} ×", "the original's GPU over its CPU", ""


def _on_gpu(records: Sequence[dict]) -> Iterator[tuple[str, str, str]]:
    rows = [row for row in mel_summary.rows([record for record in records if is_mel(record)]) if not row["disturbed"]]
    for duel in mel_summary.duels([row for row in rows if row["device"] == "cuda"])[:1]:
        batch, faster = duel["case"].batch, duel["against_eager"]
        words = f"a clip's mel by our kernel, batch {batch}" + (f": {number(faster)} × torchaudio" if faster else "")
        yield f"{number(1e6 * duel['ours']['p50_ms'] / batch)} ns", words, ""
    named = [row for row in providers.rows(records) if row["provider"] == "cuda" and row["best"]]
    for row in sorted(named, key=lambda row: -row["best"])[:1]:
        if not row["disturbed"][row["best_batch"]]:
            yield f"{row['best']:,.0f}", f"clips a second named on the GPU, {row['best_batch']} at a time", ""


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
