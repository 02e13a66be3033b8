"""The accuracy chapter: what trained networks know, from evaluations and from trainings with the original recipe."""

from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.report.figures import DASHES, SERIES, layout, rounded
from triadbench.bench.report.page import render

_CHANCE = {"type": 25.0, "root": 100 / 12}


def chapter(entries: Sequence[dict]) -> Markup:
    """HTML of evaluations and trainings; "" where there are none. Accuracy depends on no machine."""
    evaluations = [entry for entry in entries if "set" in entry]
    trainings = [entry for entry in entries if entry.get("name") == "original recipe"]
    if not evaluations and not trainings:
        return Markup()
    curves = _curves(trainings) if trainings else None
    return render("accuracy.html", trainings=trainings, curves=curves, evaluations=evaluations, chance=_CHANCE)


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
