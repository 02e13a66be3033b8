"""The chapter of a GPU run: how each stage ended, what the checks found, counters, and the final training."""

from statistics import median

import plotly.graph_objects as go
from markupsafe import Markup

from triadbench.bench.analysis.summary import number, percent, select
from triadbench.bench.report.figures import SERIES, Figure, layout
from triadbench.bench.report.page import render

TITLE = "A GPU in minutes: checks, counters, the final training"
_RESULTS = ("tests", "sanitizer", "counters", "final training", "command")
NAMES = tuple(f"gpu {name}" for name in ("stage", "environment", "roof", *_RESULTS, "training left out"))


def chapter(records: list[dict]) -> Markup:
    """The last record of each case; nothing where there is no GPU run."""
    stages = select(records, "gpu stage")
    if not any(record["name"] in NAMES for record in records):
        return Markup()
    trainings = [record for record in select(records, "gpu final training") if record["samples"]]
    counted = [record for record in select(records, "gpu counters") if record.get("metrics")]
    return render(
        "gpu.html",
        findings=findings(records),
        stages=stages,
        roofs=[roof(record) for record in select(records, "gpu roof") if record["samples"]],
        checks=checks(records),
        counters=counted,
        units={name: value["unit"] for record in counted for name, value in record["metrics"].items()},
        trainings=[(record, training_figure(record)) for record in trainings if len(record["samples"]) > 1],
    )


def findings(records: list[dict]) -> list[str]:
    """What the run says, in sentences; what it could not measure as well."""
    stages = select(records, "gpu stage")
    unfinished = [record["parameters"]["stage"] for record in stages if record["status"] != "done"]
    sentences = [f"Of {len(stages)} stages not finished: {', '.join(unfinished)}."] if unfinished else []
    for record in select(records, "gpu final training"):
        if not record["samples"]:
            continue
        case, seconds = record["parameters"], record["samples"]
        accuracy = record["test_accuracy"][-1]
        sentences.append(
            f"The original's final training ({case['clips']:,} clips, batch {case['batch_size']}, {case['task']} "
            f"network; generated clips) took {number(median(seconds))} s an epoch on the {_where(record)}, "
            f"{len(seconds)} of {case['epochs']} epochs {number(sum(seconds))} s"
            + (f", to {percent(accuracy, 1)} on its own test part." if accuracy is not None else ".")
        )
    for record in records:
        if record["name"] in NAMES and record.get("reason") and record["name"] != "gpu stage":
            case = " ".join(map(str, record["parameters"].values()))
            sentences.append(f"{record['name'].removeprefix('gpu ')} {case}".strip() + f": {record['reason']}.")
    return sentences


def checks(records: list[dict]) -> list[tuple[str, str]]:
    """(check, what it found), of those that ran."""
    rows = []
    for record in select(records, "gpu tests"):
        if "passed" in record:
            counts = ", ".join(f"{record[kind]} {kind}" for kind in ("passed", "failed", "errors", "skipped"))
            failures = "; ".join(f"{failure['name']}: {failure['reason']}" for failure in record["failures"])
            rows.append(("GPU tests", f"{counts}. {failures}".strip()))
    for record in select(records, "gpu sanitizer"):
        if record.get("errors") is not None:
            rows.append((record["parameters"]["tool"], f"{record['errors']} errors"))
    for record in select(records, "gpu command"):
        if record["samples"]:
            rows.append((record["parameters"]["command"], f"right answer after {number(median(record['samples']))} s"))
    return rows


def roof(record: dict) -> dict:
    """A measured peak: `what`, `dtype`, `rate` (10^12 bytes or operations a second, of the best sample) and `unit`."""
    work, unit = (record["flops"], "TFLOP/s") if record.get("flops") else (record["bytes_moved"], "TB/s")
    return {**record["parameters"], "rate": work / min(record["samples"]) / 1e9, "unit": unit}


def training_figure(record: dict) -> Figure:
    """Seconds of every epoch, and beside them the GPU's clock and temperature where it told them."""
    figure, epochs = go.Figure(), list(range(1, len(record["samples"]) + 1))
    figure.add_scatter(x=epochs, y=record["samples"], name="seconds", mode="lines+markers", line={"color": SERIES[0]})
    labels = {"sm_clock_mhz": "SM clock, MHz", "temperature_c": "temperature, °C", "power_w": "power, W"}
    told = {key: [(state or {}).get(key) for state in record["states"]][: len(epochs)] for key in labels}
    told = {key: values for key, values in told.items() if any(value is not None for value in values)}
    for index, (key, values) in enumerate(told.items(), start=1):
        style = {"mode": "lines+markers", "line": {"color": SERIES[index], "dash": "dot"}, "visible": False}
        figure.add_scatter(x=epochs, y=values, name=labels[key], yaxis="y2", **style)
    choices = [
        {
            "label": f"with {labels[shown]}" if shown else "seconds alone",
            "args": [{"visible": [True, *(key == shown for key in told)]}, {"yaxis2.visible": bool(shown)}],
        }
        for shown in ("", *told)
    ]
    second = {"overlaying": "y", "side": "right", "showgrid": False, "visible": False}
    figure.update_layout(**layout(320), yaxis2=second)
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(automargin=True)
    figure.layout.yaxis.update(title={"text": "seconds"}, rangemode="tozero")
    return figure, choices


def _where(record: dict) -> str:
    environment = record["environment"]
    return str(environment["gpu"] or environment["cpu"]) if record["parameters"]["device"] == "cuda" else "CPU"
