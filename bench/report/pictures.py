"""The README's pictures: figures of the report as PNG, light and 800 pixels wide, drawn by the system's browser."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import plotly.graph_objects as go

from triadbench.bench.analysis import experiments as experiment_numbers
from triadbench.bench.analysis import gather
from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.analysis.summary import DEVICES
from triadbench.bench.report import browser, experiments_page, ladder_page, mel_page
from triadbench.bench.report.page import render
from triadbench.kernels.scratch import scratch_folder

WIDTH = 800
_HEAD = 64  # pixels that title and machine take above a figure


def write_pictures(record_paths: Sequence[Path] | None, folder: Path) -> list[str]:
    """Draw what the records (as of `write_report`) hold: ladders, mel rivals, experiments beside the original.

    Returns:
        paths of the pictures NAME.png in `folder`; with several machines each has its own folder there.

    Raises:
        UserError: no browser on the PATH, no records, or the disk refuses.
    """
    from triadbench.core.files import atomic_path

    machines = [machine for machine in gather.gather(record_paths).machines if not machine.rehearsal]
    paths = []
    for machine in machines:
        place = folder if len(machines) == 1 else folder / re.sub(r"[^a-z0-9]+", "-", machine.label.lower()).strip("-")
        for name, title, figure in figures(machine.records):
            out = place / f"{name}.png"
            with atomic_path(out) as temporary:
                _draw(figure, title, machine.label, temporary)
            paths.append(str(out))
    return paths


def figures(records: list[dict]) -> Iterator[tuple[str, str, go.Figure]]:
    """(file name, title, figure) of each picture that one machine's records allow."""
    for device, where in DEVICES.items():
        rows = ladder_numbers.timed(ladder_numbers.main_ladder(records, device))
        if len(rows) < 2:
            continue
        title = f"One epoch on the {where}: from the original pipeline to the fast one"
        yield f"ladder-{device}", title, ladder_page.waterfall(rows)[0]
        if parts := [row for row in rows if row["parts"]]:
            title = f"What one training clip costs on the {where}, rung by rung"
            yield f"ladder-parts-{device}", title, ladder_page.parts(parts)[0]
    timings = mel_summary.rows([record for record in records if gather.is_mel(record)])
    if any(row["against_eager"] for row in timings):
        yield "mel-rivals", "Mel spectrograms: speed over torchaudio, one mark a case", mel_page.speed_ups(timings)[0]
    ours = experiment_numbers.shown(experiment_numbers.ours(records))
    for name, variable in experiment_numbers.NAMES.items():
        if any(f"experiment {row['experiment']}" == name for row in ours):
            rows = [*experiment_numbers.published_rows(), *ours]
            rows = [row for row in rows if f"experiment {row['experiment']}" == name]
            figure, _ = experiments_page.times(rows, variable)
            yield name.replace(" ", "-"), "Training time of an epoch: the original's figures and ours", figure


def _draw(figure: go.Figure, title: str, machine: str, out: Path) -> None:
    height = int(figure.layout.height or 450)
    figure.update_layout(paper_bgcolor="white", plot_bgcolor="white", font={"color": "#1c2430", "size": 13})
    figure.update_layout(width=WIDTH - 24, legend_font_size=12)
    figure.update_xaxes(gridcolor="#d9dee6", zerolinecolor="#d9dee6")
    figure.update_yaxes(gridcolor="#d9dee6", zerolinecolor="#d9dee6")
    with scratch_folder() as folder:
        path = folder / "picture.html"
        path.write_text(render("picture.html", title=title, machine=machine, figure=figure), encoding="utf-8")
        browser.screenshot(path, out, WIDTH, height + _HEAD)
