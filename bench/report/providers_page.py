"""The chapter of `benchmark`: what a prediction costs in every format, on every provider, and how exact it is."""

from collections.abc import Sequence

from markupsafe import Markup

from triadbench.bench.analysis import providers
from triadbench.bench.report import page as pages
from triadbench.bench.report import providers_plots
from triadbench.bench.report.page import Chapter, render

TITLE = "One clip in, one chord out: formats and providers"
_WAITS = {
    providers.FILES: (
        "A folder of wav files",
        "providers-files",
        "From wav files to chords with the model loaded, alternated. The eager loop is what one writes first: "
        "soundfile.read, torchaudio's mel, the model, one file after another. Both name the same chords.",
    ),
    providers.PROCESS: (
        "Whole commands",
        "providers-process",
        "From starting Python to its end, alternated; the first run of each is apart.",
    ),
}
"""Name of the records -> title, id and explanation."""


def chapter(records: Sequence[dict]) -> Markup:
    """HTML of the records of one machine; "" where there is none of `benchmark`."""
    records = [record for record in records if record["name"] in providers.NAMES]
    if not records:
        return Markup()
    rows = providers.rows(records)
    single, offline = ([row for row in rows if row[kind]] for kind in ("single", "offline"))
    waits = [(words, providers.waits(records, name)) for name, words in _WAITS.items()]
    return render(
        "providers.html",
        sentences=providers.sentences(records),
        single=single,
        latencies=providers_plots.latencies(single) if single else None,
        statistics=["mean", *providers.PERCENTILES, "max", "min"],
        offline=offline,
        throughput=providers_plots.throughput(offline) if offline else None,
        batches=sorted({batch for row in offline for batch in row["offline"]}),
        joules=[(row["name"], batch, 1e3 * joules) for row in offline for batch, joules in row["joules"].items()],
        no_energy=next((row["energy_note"] for row in offline if row["energy_note"]), "not measured: there was no GPU"),
        loads=providers.loads(records),
        waits=[(*words, timed, providers_plots.waits(timed)) for words, timed in waits if timed],
        placements={row["name"]: row["placement"] for row in rows if row["placement"]},
        left_out=providers.left_out(records),
        over_eager=providers.over_eager,
    )


def page(records: Sequence[dict]) -> str:
    """The whole HTML page of one run."""
    body = chapter(records) or Markup('<div class="card"><p>Nothing was measured.</p></div>')
    return pages.machine_page("What a prediction costs", "Benchmark", [Chapter("providers", TITLE, body)], records)
