"""The chapter of flame graphs, and the same stacks as a file for speedscope (speedscope.app), from records alone."""

import json
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis.summary import DEVICES, OTHER_PROGRAMS, number, percent, select
from triadbench.bench.report.figures import Figure, layout, views
from triadbench.bench.report.page import render
from triadbench.core.files import atomic_path

NAME = "flame"
_OURS, _OTHERS, _OPERATORS = "#56b4e9", "#b6bcc6", "#e69f00"
"""Colours of our Python, of other Python and built-in functions, and of torch's operators."""


def chapter(records: Sequence[dict]) -> Markup:
    """The flame graphs among the records; nothing if there are none."""
    shown = select(records, NAME)
    return render("flame.html", findings=findings(shown), figure=figure(shown)) if shown else Markup()


def findings(records: Sequence[dict]) -> list[str]:
    """What each flame graph says, in a sentence: the call with most time of its own."""
    sentences = []
    for record in select(records, NAME):
        own: dict[str, float] = {}
        for _, name, ms in record["calls"]:
            own[name] = own.get(name, 0.0) + ms
        name = max(own, key=own.__getitem__)
        sentences.append(
            f"{_title(record)}: {number(record['plain_ms'] / record['clips'])} ms a clip, under the profiler "
            f"{record['samples'][0] / record['plain_ms']:.2f} times as long; most of its own time has {name}, "
            f"{percent(own[name] / sum(own.values()))}." + (OTHER_PROGRAMS if record.get("disturbed") else "")
        )
    return sentences


def figure(records: Sequence[dict]) -> Figure:
    """An icicle for each record, one shown at a time: width is time, below a call lies what it calls."""
    drawn, titles = go.Figure(), [_title(record) for record in select(records, NAME)]
    for record in select(records, NAME):
        names = [name.replace("<", "&lt;") for _, name, _ in record["calls"]]
        drawn.add_icicle(
            ids=list(map(str, range(len(names)))),
            parents=["" if caller is None else str(caller) for caller, *_ in record["calls"]],
            labels=[name.rpartition("): ")[2] for name in names],
            values=[ms for *_, ms in record["calls"]],
            sort=False,
            customdata=names,
            marker={"colors": [_colour(name) for name in names], "line": {"width": 0.5, "color": "#ffffff"}},
            tiling={"orientation": "v", "pad": 0},
            textfont={"color": "#1c2430"},
            hovertemplate="%{customdata}<br>%{percentRoot:.1%}, by itself %{value:.3~g} ms<extra></extra>",
        )
    margin = dict.fromkeys("lrtb", 0)
    drawn.update_layout(**layout(620) | {"margin": margin}, uniformtext={"minsize": 9, "mode": "hide"})
    return drawn, views(drawn, range(len(titles)), dict(enumerate(titles)))


def write_speedscope(records: Sequence[dict], out: Path) -> None:
    """Write the stacks in speedscope's format."""
    frames: dict[str, int] = {}
    profiles = []
    for record in records:
        samples: list[list[int]] = []
        for caller, name, _ in record["calls"]:
            samples.append([*([] if caller is None else samples[caller]), frames.setdefault(name, len(frames))])
        weights = [ms for *_, ms in record["calls"]]
        profile = {"type": "sampled", "name": _title(record), "unit": "milliseconds", "startValue": 0}
        profiles.append(profile | {"endValue": sum(weights), "samples": samples, "weights": weights})
    schema = "https://www.speedscope.app/file-format-schema.json"
    content = {"$schema": schema, "shared": {"frames": [{"name": name} for name in frames]}, "profiles": profiles}
    with atomic_path(out) as temporary:
        temporary.write_text(json.dumps(content), encoding="utf-8")


def _title(record: dict) -> str:
    target, device = record["parameters"]["target"], record["parameters"]["device"]
    return f"{target[:1].upper()}{target[1:]} ({DEVICES.get(device, device)})"


def _colour(name: str) -> str:
    if "triadbench/" in name:
        return _OURS
    return _OPERATORS if name.startswith(("aten::", "autograd::", "torch::")) or "Backward" in name else _OTHERS
