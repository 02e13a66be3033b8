"""The accuracy chapter: what trained networks know, from evaluations, songs and trainings with the original recipe."""

import itertools
from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.report.figures import DASHES, SERIES, layout, rounded
from triadbench.bench.report.page import render
from triadbench.core.training.name_evaluation import reliability_traces

_CHANCE = {"type": 25.0, "root": 100 / 12}


def chapter(entries: Sequence[dict]) -> Markup:
    """HTML of evaluations, songs and trainings; "" where there are none. Accuracy depends on no machine."""
    names = [entry for entry in entries if "set" in entry and "by_quality" in entry]
    evaluations = [entry for entry in entries if "set" in entry and "by_quality" not in entry]
    songs = [entry for entry in entries if entry.get("name") == "songs"]
    trainings = [entry for entry in entries if entry.get("name") == "original recipe"]
    if not evaluations and not trainings and not names and not songs:
        return Markup()
    curves = _curves(trainings) if trainings else None
    shown = {"trainings": trainings, "curves": curves, "evaluations": evaluations, "chance": _CHANCE}
    return render("accuracy.html", **shown, names=names, songs=songs, reliability=_reliability(names, songs))


def _reliability(names: Sequence[dict], songs: Sequence[dict]) -> go.Figure | None:
    """How often a model is right where it states a confidence, by set and by songs; None without confidences."""
    calibrations = {f"{entry['set']}, full names": entry["calibration"]["names"] for entry in names}
    for entry in songs:
        if entry.get("calibration", {}).get("bins"):
            degraded = ", degraded" if entry["parameters"]["degraded"] else ""
            calibrations[f"songs: {entry['parameters']['instrument']}{degraded}"] = entry["calibration"]
    if not calibrations:
        return None
    figure = go.Figure(reliability_traces(calibrations))
    for trace, colour in zip(figure.data[1:], itertools.cycle(SERIES), strict=False):
        trace.update(line_color=colour, x=rounded(trace.x), y=rounded(trace.y))
    figure.update_layout(**layout(460), xaxis_title_text="stated confidence, percent", xaxis_range=[0, 102])
    return figure.update_yaxes(title_text="right, percent", automargin=True, range=[0, 102])


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
