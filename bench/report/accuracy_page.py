"""The accuracy chapter: what trained networks know, from evaluations, songs and trainings with the original recipe."""

from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.report.figures import DASHES, SERIES, layout, rounded
from triadbench.bench.report.page import render
from triadbench.core.training.name_evaluation import SCORES, draw_reliability

_CHANCE = {"type": 25.0, "root": 100 / 12}
_COLUMNS = (*SCORES, "segmentation")


def chapter(entries: Sequence[dict]) -> Markup:
    """HTML of evaluations, songs and trainings; "" where there are none. Accuracy depends on no machine."""
    names = [entry for entry in entries if "by_quality" in entry or entry.get("name") == "songs"]
    evaluations = [entry for entry in entries if "set" in entry and "by_quality" not in entry]
    trainings = [entry for entry in entries if entry.get("name") == "original recipe"]
    if not evaluations and not trainings and not names:
        return Markup()
    curves = _curves(trainings) if trainings else None
    shown = {"trainings": trainings, "curves": curves, "evaluations": evaluations, "chance": _CHANCE}
    scored = [(_tested_on(entry), entry) for entry in names]
    calibrations = {
        f"{tested_on}, {key}": calibration
        for tested_on, entry in scored
        for key, calibration in entry.get("calibration", {}).items()
        if calibration["bins"]
    }
    picture = Markup(draw_reliability(calibrations, "Reliability")) if calibrations else None
    return render("accuracy.html", **shown, scored=scored, columns=_COLUMNS, reliability=picture)


def _tested_on(entry: dict) -> str:
    """The set, or the instrument of songs."""
    if "set" in entry:
        return entry["set"]
    parameters = entry["parameters"]
    return f"songs: {parameters['instrument']}{', degraded' if parameters['degraded'] else ''}"


def _curves(trainings: Sequence[dict]) -> go.Figure:
    """Test accuracy over the epochs, and that on a piano of which no clip was trained on."""
    figure = go.Figure()
    for index, entry in enumerate(trainings):
        task, curves = entry["parameters"]["task"], entry["curves"]
        key = next(key for key in curves[0] if key.endswith("accuracy"))
        colour, dash = SERIES[index % len(SERIES)], DASHES[index % len(DASHES)]
        look: dict[str, object] = {"mode": "lines+markers", "name": f"{task}, its own random split"}
        look |= {"line": {"color": colour, "dash": dash}, "marker_symbol": ("circle", "square")[index % 2]}
        look["hovertemplate"] = "epoch %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>"
        shares = rounded([100 * row[key] for row in curves])
        figure.add_scatter(x=[row["epoch"] for row in curves], y=shares, **look)
        held_out, (low, high) = entry["held_out_piano_accuracy"], entry["held_out_piano_interval"]
        figure.add_scatter(
            x=[curves[-1]["epoch"]],
            y=[100 * held_out],
            mode="markers",
            name=f"{task}, a piano that it never heard",
            marker={"color": colour, "symbol": ("star", "diamond")[index % 2], "size": 14},
            error_y={"symmetric": False, "array": [100 * (high - held_out)], "arrayminus": [100 * (held_out - low)]},
            hovertemplate="%{y:.1f} %<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(**layout(400), xaxis_title_text="epoch")
    return figure.update_yaxes(title_text="test accuracy, percent", automargin=True, range=[0, 100])
