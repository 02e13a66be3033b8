"""The README's pictures: figures of the report as PNG, light and 800 pixels wide, drawn by the system's browser."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from triadbench.bench.analysis import experiments as experiment_numbers
from triadbench.bench.analysis import gather
from triadbench.bench.analysis import ladder as ladder_numbers
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.report import browser, experiments_plots, ladder_plots, mel_plots

if TYPE_CHECKING:
    import plotly.graph_objects as go

WIDTH = 800
_HEAD = 64  # pixels that title and machine take above a figure


def write_pictures(record_paths: Sequence[Path] | None, folder: Path) -> list[str]:
    """Draw what the records hold: ladders, mel rivals, experiments beside the original.

    Args:
        record_paths: as of `bench.report.report.write_report`.
        folder: where to write NAME.png; with several machines one folder in it for each.

    Returns:
        paths of the pictures.

    Raises:
        UserError: no browser on the PATH, no records, or the disk refuses.
    """
    from triadbench.core.files import atomic_path

    machines = gather.gather(record_paths).machines
    made = []
    for machine in machines:
        place = folder if len(machines) == 1 else folder / _slug(machine.label)
        for name, title, figure in figures(machine.records):
            out = place / f"{name}.png"
            with atomic_path(out) as temporary:
                _draw(figure, title, machine.label, temporary)
            made.append(str(out))
    return made


def figures(records: list[dict]) -> Iterator[tuple[str, str, go.Figure]]:
    """(file name, title, figure) of each picture that one machine's records allow."""
    for device, where in (("cpu", "CPU"), ("cuda", "GPU")):
        rows = ladder_numbers.timed(ladder_numbers.main_ladder(records, device))
        if len(rows) > 1:
            yield (
                f"ladder-{device}",
                f"One epoch on the {where}: from the original pipeline to the fast one",
                (ladder_plots.waterfall(rows)[0]),
            )
            if any(row["parts"] for row in rows):
                yield (
                    f"ladder-parts-{device}",
                    f"What one training clip costs on the {where}, rung by rung",
                    (ladder_plots.parts([row for row in rows if row["parts"]])[0]),
                )
    made = mel_summary.rows([record for record in records if gather.is_mel(record)])
    if any(row["against_eager"] for row in made):
        yield "mel-rivals", "Mel spectrograms: speed over torchaudio, one mark a case", mel_plots.speed_ups(made).figure
    rows = experiment_numbers.shown(experiment_numbers.ours(records))
    for name, number in experiment_numbers.NAMES.items():
        mine = [row for row in rows if row["experiment"] == number]
        if mine:
            theirs = [row for row in experiment_numbers.published() if row["experiment"] == number]
            figure, _ = experiments_plots.times(theirs + mine, "batch_size" if number == 1 else "num_items")
            yield name.replace(" ", "-"), "Training time of an epoch: the original's figures and ours", figure


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def _draw(figure: go.Figure, title: str, machine: str, out: Path) -> None:
    from plotly.offline import get_plotlyjs

    height = int(figure.layout.height or 450)
    figure.update_layout(
        paper_bgcolor="white",
        plot_bgcolor="white",
        font={"color": "#1c2430", "size": 13},
        width=WIDTH - 24,
        legend={"font": {"size": 12}},
    )
    figure.update_xaxes(gridcolor="#d9dee6", zerolinecolor="#d9dee6")
    figure.update_yaxes(gridcolor="#d9dee6", zerolinecolor="#d9dee6")
    drawn = figure.to_json().replace("<", "\\u003c")
    page = f"""<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><script>{get_plotlyjs()}</script>
<style>body {{ margin: 0; padding: 8px 12px; background: #fff; color: #1c2430;
font: 14px/1.3 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }} b {{ font-size: 17px; }}
p {{ margin: 2px 0 6px; color: #5b6675; }}</style></head><body><b>{escape(title)}</b><p>{escape(machine)}</p>
<div id="plot"></div><script>const figure = {drawn};
Plotly.newPlot("plot", figure.data, figure.layout, {json.dumps({"displayModeBar": False})});</script></body></html>"""
    with tempfile.TemporaryDirectory(prefix="triadbench-picture-") as folder:
        path = Path(folder) / "picture.html"
        path.write_text(page, encoding="utf-8")
        browser.screenshot(path, out, WIDTH, height + _HEAD)
