"""The chapter of `benchmark`: what an answer costs in every format, on every provider, and how exact it is."""

from __future__ import annotations

from collections.abc import Sequence

from triadbench.bench.analysis import pairing
from triadbench.bench.analysis import providers as providers_numbers
from triadbench.bench.analysis.providers import BASELINE, FILES, PERCENTILES, PROCESS
from triadbench.bench.analysis.summary import number
from triadbench.bench.report import providers_plots
from triadbench.bench.report import sections as pieces
from triadbench.bench.report.page import Chapter, machine_page

TITLE = "One clip in, one chord out: formats and providers"


def chapter(records: Sequence[dict]) -> str:
    """HTML of the records of one machine; "" where there is none of `benchmark`."""
    records = [record for record in records if record["name"] in providers_numbers.NAMES]
    if not records:
        return ""
    rows = providers_numbers.rows(records)
    sentences = "".join(f"<li>{pieces.text(sentence)}</li>" for sentence in findings(records))
    return "\n".join(
        [
            pieces.card(f'<ul class="findings">{sentences}</ul>') if sentences else "",
            '<p class="soft">A call takes clips of 4 s that lie in memory and gives probabilities in memory; '
            "contestants took turns. Before it was timed, each one's answers to the very clips were compared with the "
            "PyTorch model's.</p>",
            _single(rows),
            _offline(rows),
            _loads(records),
            _waits(records, FILES, "A folder of wav files", "providers-files"),
            _waits(records, PROCESS, "Whole commands", "providers-process"),
            _placement(rows),
            _left_out(records, rows),
        ]
    )


def page(records: Sequence[dict]) -> str:
    """The whole HTML page of one run."""
    body = chapter(records) or pieces.card("<p>Nothing was measured.</p>")
    return machine_page("What an answer costs", "Benchmark", [Chapter("providers", TITLE, body)], records)


def findings(records: Sequence[dict]) -> list[str]:
    """What the records say, in sentences."""
    rows = providers_numbers.rows(records)
    told = []
    for threads in sorted({row["threads"] for row in rows}):
        here = [row for row in rows if (row["threads"], row["provider"], row["precision"]) == (threads, "cpu", "fp32")]
        where = f"CPU, {pairing.told_threads(threads)}"
        single = [row for row in here if row["over_eager"]]
        if single:
            best = max(single, key=lambda row: row["over_eager"])
            told.append(
                f"{where}, one clip a call: “{best['name']}” answers in {number(best['single']['p50'])} ms (median; "
                f"99 % within {number(best['single']['p99'])} ms), {number(best['over_eager'])} times as fast as eager "
                f"PyTorch with torchaudio's mel, its probabilities within {best['worst_difference']:.1e}{_mark(best)}."
            )
        offline = [row for row in here if row["over_eager_offline"]]
        if offline:
            best = max(offline, key=lambda row: row["best"])
            told.append(
                f"{where}, many clips: “{best['name']}” answers {number(best['best'])} clips a second at batch "
                f"{best['best_batch']}, {number(best['over_eager_offline'])} times as many as eager PyTorch at its "
                f"best batch{_mark(best, best['best_batch'])}."
            )
    ratio = providers_numbers.files_ratio(records)
    if ratio:
        ours, loop, times = ratio
        told.append(
            f"A folder of {ours['files']} files: `infer` takes {number(ours['median_s'])} s and a plain eager loop "
            f"{number(loop['median_s'])} s, {number(times)} times as long, with the same labels"
            f"{' (disturbed)' if 'disturbed' in (ours['badge'], loop['badge']) else ''}."
        )
    for row in providers_numbers.waits(records, PROCESS):
        told.append(
            f"python cli.py {row['what']} takes {number(row['median_s'])} s as a whole process (median of "
            f"{len(row['samples'])}){': ' + row['badge'] if row['badge'] else ''}."
        )
    crossings = providers_numbers.crossovers(rows)
    for crossing in crossings:
        at = crossing["batch"]
        told.append(
            f"{crossing['name']}: faster than every CPU contestant from batch {at} on (there {crossing['cpu']})."
            if at is not None
            else f"{crossing['name']}: at no batch size that was measured faster than the CPU."
        )
    if not crossings:
        told.append("GPU: not measured, and so no crossover between CPU and GPU.")
    return told


def _mark(row: dict, batch: int | None = None) -> str:
    disturbed = row["badge"] == "disturbed" if batch is None else row["disturbed"].get(batch)
    return " (disturbed: other programs wanted the cores meanwhile)" if disturbed else ""


def _single(rows: list[dict]) -> str:
    rows = [row for row in rows if row["single"]]
    if not rows:
        return ""
    figure, choices = providers_plots.latencies(rows)
    keys = ["mean", *PERCENTILES, "max", "min"]
    head = [
        "contestant",
        "threads",
        "x eager",
        "worst difference",
        "same label",
        *(f"{key} ms" for key in keys),
        "n",
        "first call ms",
        "",
    ]
    cells = [
        [
            row["name"],
            row["threads"],
            _over(row, "over_eager"),
            difference(row),
            f"{100 * row['agreement']:.4g} %",
            *(number(row["single"][key]) for key in keys),
            f"{row['single']['n']:,}",
            number(row["first_ms"]),
            pieces.badge(row["badge"]),
        ]
        for row in rows
    ]
    told = (
        "Every query by itself. “First call” is the first in this process, after loading; a fresh process is below. "
        "The difference is the largest of any probability from the PyTorch model's, on the clips that were timed."
    )
    return pieces.section(
        "One clip a call",
        told,
        pieces.plot(
            figure, "providers-latency", "Distribution of latencies, a line for each contestant", choices=choices
        ),
        pieces.table(head, cells, caption="Latency of one clip"),
    )


def _over(row: dict, key: str) -> str:
    return "1" if row["format"] == BASELINE else number(row[key])


def difference(row: dict) -> str:
    """The error that stands beside a speed-up."""
    return "—" if row["worst_difference"] is None else f"{row['worst_difference']:.1e}"


def _offline(rows: list[dict]) -> str:
    rows = [row for row in rows if row["offline"]]
    if not rows:
        return ""
    figure, choices = providers_plots.throughput(rows)
    batches = sorted({batch for row in rows for batch in row["offline"]})
    head = ["contestant", "threads", "best x eager's", "worst difference", *(f"batch {batch}" for batch in batches), ""]
    cells = [
        [
            row["name"],
            row["threads"],
            _over(row, "over_eager_offline"),
            difference(row),
            *(number(row["offline"].get(batch)) for batch in batches),
            pieces.badge("disturbed" if any(row["disturbed"].values()) else ""),
        ]
        for row in rows
    ]
    return pieces.section(
        "Many clips: throughput over batch size",
        "Clips a second, of the median call at each batch size.",
        pieces.plot(
            figure,
            "providers-throughput",
            "Clips a second over the batch size, a line for each contestant",
            choices=choices,
        ),
        pieces.table(head, cells, caption="Clips a second"),
        _energy(rows),
    )


def _energy(rows: list[dict]) -> str:
    measured = [row for row in rows if row["joules"]]
    if measured:
        cells = [
            [row["name"], batch, number(1e3 * joules)] for row in measured for batch, joules in row["joules"].items()
        ]
        return pieces.table(["contestant", "batch", "mJ a clip"], cells, caption="Energy of the whole GPU (NVML)")
    reason = next((row["energy_note"] for row in rows if row["energy_note"]), "not measured: there was no GPU")
    return f'<p class="soft">Energy: {pieces.text(reason)}.</p>'


def _loads(records: Sequence[dict]) -> str:
    rows = providers_numbers.loads(records)
    if not rows:
        return ""
    batch = rows[0]["batch"]
    gpu = any(row["gpu_memory_mb"] is not None for row in rows)
    head = [
        "contestant",
        "threads",
        "load ms",
        "first call ms",
        "second call ms",
        "memory MB",
        f"with batch {batch} MB",
        *(["GPU memory MB"] if gpu else []),
        "file MB",
        "n",
        "",
    ]
    cells = [
        [
            row["name"],
            row["threads"],
            number(row["load_ms"]),
            number(row["first_ms"]),
            number(row["second_ms"]),
            number(row["memory_mb"]),
            number(row["batch_memory_mb"]),
            *([number(row["gpu_memory_mb"])] if gpu else []),
            number(None if row["bytes"] is None else row["bytes"] / 1e6),
            row["n"],
            pieces.badge(row["badge"]),
        ]
        for row in rows
    ]
    told = (
        "Medians of fresh processes. Loading begins when Python and NumPy are there and holds every other import; "
        "memory is what the process's peak grows by, with one clip and with a batch; compiled code lay on the disk "
        "already."
    )
    return pieces.section("Loading, first call and memory", told, pieces.table(head, cells, caption="Fresh processes"))


def _waits(records: Sequence[dict], name: str, title: str, plot_id: str) -> str:
    rows = providers_numbers.waits(records, name)
    if not rows:
        return ""
    for row in rows:
        row["label"] = row["what"]
        if row["files"] is not None:
            row["label"] += f", {row['files']} files, {pairing.told_threads(row['threads'])}"
    ends = ["files a second"] if name == FILES else []
    cells = [
        [
            row["label"],
            number(row["median_s"]),
            number(min(row["samples"])),
            number(max(row["samples"])),
            len(row["samples"]),
            number(row["first_s"]),
            *([number(row["files"] / row["median_s"])] if ends else []),
            pieces.badge(row["badge"]),
        ]
        for row in rows
    ]
    told = {
        FILES: "From wav files to chords with the model loaded, alternated. The eager loop is what one writes first: "
        "soundfile.read, torchaudio's mel, the model, one file after another. Both name the same chords.",
        PROCESS: "From starting Python to its end, alternated; the first run of each is apart.",
    }[name]
    head = ["", "median s", "least s", "most s", "n", "first s", *ends, ""]
    return pieces.section(
        title,
        told,
        pieces.plot(providers_plots.waits(rows), plot_id, f"{title}: seconds, a box for each"),
        pieces.table(head, cells, caption=title),
    )


def _placement(rows: list[dict]) -> str:
    cells, seen = [], set()
    for row in rows:
        placed = row["placement"]
        if placed and row["name"] not in seen:
            seen.add(row["name"])
            nodes = ", ".join(f"{count} on {name}" for name, count in placed["nodes"].items())
            cells.append([row["name"], nodes, placed["shape_nodes"], placed["memcpy"]])
    if not cells:
        return ""
    told = "Where ONNX Runtime's profiler saw each node run, and the copies between CPU and GPU inside the graph."
    head = ["contestant", "nodes", "of them shapes, on the CPU", "Memcpy nodes"]
    return pieces.section("Placement", told, pieces.table(head, cells, caption="Nodes by provider"))


def _left_out(records: Sequence[dict], rows: list[dict]) -> str:
    found = providers_numbers.left_out(records)
    if not found:
        return ""
    return pieces.section(
        "Not measured", "", pieces.table(["contestant", "why"], [list(entry) for entry in found], words=True)
    )
