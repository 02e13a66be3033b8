"""The chapter of the final training: accuracy and time of every epoch, the original's and ours."""

from collections.abc import Sequence

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis import final, published
from triadbench.bench.report.figures import Figure, layout, rounded, views
from triadbench.bench.report.page import render

TITLE = "The original's final training, again"


def chapter(records: Sequence[dict]) -> Markup:
    """HTML of one machine's records; "" without any."""
    if not records:
        return Markup("")
    epochs = {task: final.by_epoch(records, task) for task in ("type", "root")}
    more = {"totals": final.totals(records), "head": final.HEAD, "remarks": final.remarks(records)}
    return render("final.html", figure=curves(records), epochs=epochs, **more)


def curves(records: Sequence[dict]) -> Figure:
    """Test accuracy over the seconds since the training began, one network at a time."""
    figure, owners = go.Figure(), []
    for task in ("type", "root"):
        theirs = published.final_epochs(task)
        lines = [("the original", [e["test_accuracy"] for e in theirs], [e["elapsed_s"] for e in theirs])]
        lines += [
            (final.who(record), record["test_accuracy"], record["samples"]) for record in final.mine(records, task)
        ]
        for name, accuracies, seconds in lines:
            since = [sum(seconds[: n + 1]) for n in range(len(seconds))]
            look = {"mode": "lines+markers", "name": name, "hovertemplate": "%{y:.2f} % after %{x:,.0f} s"}
            figure.add_scatter(x=rounded(since), y=rounded([100 * value for value in accuracies]), **look)
            owners.append(task)
    figure.update_layout(**layout(420))
    figure.update_xaxes(title_text="seconds of training and testing (log)", type="log")
    figure.update_yaxes(title_text="test accuracy, %")
    return figure, views(figure, owners, {task: f"{task} network" for task in ("type", "root")})
