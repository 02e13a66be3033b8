"""The chapter of the final training: accuracy and time of every epoch, the original's and ours."""

import itertools
from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis import final
from triadbench.bench.report.figures import Figure, layout, rounded, views
from triadbench.bench.report.page import render

TITLE = "The original's final training, again"


def chapter(records: Sequence[dict]) -> Markup:
    """HTML of one machine's records; "" without any."""
    if not records:
        return Markup("")
    tables = {"totals": final.totals(records), "head": final.HEAD, "epochs": final.by_epoch(records)}
    return render("final.html", figure=curves(records), remarks=final.remarks(records), **tables)


def curves(records: Sequence[dict]) -> Figure:
    """Test accuracy over the seconds since the training began, one network at a time."""
    figure, trainings = go.Figure(), final.trainings(records)
    for _, who, _, epochs, *_ in trainings:
        accuracies, _, seconds = zip(*epochs, strict=True)
        look = {"mode": "lines+markers", "name": who, "hovertemplate": "%{y:.2f} % after %{x:,.0f} s"}
        since = rounded([*itertools.accumulate(seconds)])
        figure.add_scatter(x=since, y=rounded([100 * value for value in accuracies]), **look)
    figure.update_layout(**layout(420))
    figure.update_xaxes(title_text="seconds of training and testing (log)", type="log")
    figure.update_yaxes(title_text="test accuracy, %", automargin=True)
    owners = [training.task for training in trainings]
    return figure, views(figure, owners, {task: f"{task} network" for task in dict.fromkeys(owners)})
