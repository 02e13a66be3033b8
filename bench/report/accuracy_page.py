"""The accuracy chapter: what trained networks know, from evaluations and from trainings with the original recipe."""

from __future__ import annotations

from collections.abc import Sequence

from triadbench.bench.report import sections as pieces
from triadbench.bench.report.sections import DASHES, SERIES, rounded

_CHANCE = {"type": 25.0, "root": 100 / 12}


def chapter(found: Sequence[dict]) -> str:
    """HTML of evaluations and trainings; "" where there are none. Accuracy depends on no machine."""
    evaluations = [entry for entry in found if "set" in entry]
    trainings = [entry for entry in found if entry.get("name") == "original recipe"]
    return "\n".join(part for part in (_trainings(trainings), _evaluations(evaluations)) if part)


def _trainings(found: list[dict]) -> str:
    if not found:
        return ""
    import plotly.graph_objects as go

    figure = go.Figure()
    for i, entry in enumerate(found):
        task = str(entry["parameters"]["task"])
        key = next((key for key in entry["curves"][0] if key.endswith("accuracy")), None)
        figure.add_scatter(
            x=[row["epoch"] for row in entry["curves"]],
            y=rounded([100 * row[key] for row in entry["curves"]]),
            mode="lines+markers",
            name=f"{task}, its own random split",
            line={"color": SERIES[i % len(SERIES)], "dash": DASHES[i % len(DASHES)]},
            marker={"symbol": ("circle", "square")[i % 2]},
            hovertemplate="epoch %{x}: %{y:.1f} %<extra>%{fullData.name}</extra>",
        )
        figure.add_scatter(
            x=[entry["curves"][-1]["epoch"]],
            y=[100 * entry["held_out_piano_accuracy"]],
            mode="markers",
            name=f"{task}, a piano that it never heard",
            marker={"color": SERIES[i % len(SERIES)], "symbol": ("star", "diamond")[i % 2], "size": 14},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [100 * (entry["held_out_piano_interval"][1] - entry["held_out_piano_accuracy"])],
                "arrayminus": [100 * (entry["held_out_piano_accuracy"] - entry["held_out_piano_interval"][0])],
            },
            hovertemplate="%{y:.1f} %<extra>%{fullData.name}</extra>",
        )
    figure.update_layout(
        **pieces.layout(400),
        xaxis={"title": {"text": "epoch"}},
        yaxis={"title": {"text": "test accuracy, percent"}, "automargin": True, "range": [0, 100]},
    )
    rows = [
        [
            entry["parameters"]["task"],
            f"{entry['n_train']:,}",
            f"{entry['n_test']:,}",
            _percent(entry["random_split_test_accuracy"]),
            f"{_percent(entry['held_out_piano_accuracy'])} ({_interval(entry['held_out_piano_interval'])})",
            f"{_CHANCE.get(entry['parameters']['task'], 0):.1f}",
            entry["held_out_piano"],
        ]
        for entry in found
    ]
    head = [
        "network",
        "trained on",
        "tested on",
        "random split %",
        "held-out piano % (95 % interval)",
        "chance %",
        "which",
    ]
    return pieces.section(
        "The original recipe, and what its split hides",
        "With a random split variants of one recording stand on both sides, and the network is praised for knowing "
        "recordings. On a piano that it never heard it is little better than chance.",
        pieces.plot(
            figure,
            "accuracy-original",
            "Test accuracy of the original recipe over epochs",
            data=pieces.table(head, rows, caption="The original recipe"),
        ),
        pieces.table(head, rows, caption="The original recipe"),
    )


def _evaluations(found: list[dict]) -> str:
    if not found:
        return ""
    rows = [
        [
            entry["set"],
            f"{entry['n']:,}",
            *(
                f"{_percent(entry.get(f'{key}_accuracy'))} ({_interval(entry.get(f'{key}_interval'))})"
                for key in ("type", "root", "both")
            ),
            *(_percent((entry.get("baseline") or {}).get(f"{key}_accuracy")) for key in ("type", "root")),
        ]
        for entry in found
    ]
    head = ["tested on", "clips", "type %", "root %", "both %", "template: type %", "root %"]
    return pieces.section(
        "The shipped model on instruments that it never heard",
        "In brackets the 95 % interval. The chroma template needs no training: it is what a network has to beat.",
        pieces.table(head, rows, caption="Accuracy"),
    )


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}"


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}" if bounds else "—"
