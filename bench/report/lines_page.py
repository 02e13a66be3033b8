"""The chapter of line profiles: the source itself, every line with its time and its heat, from records alone.

A line's heat is its own share: what a listed function takes is shown there and not at the line that calls it, so that
all shares of a listing sum to 100 %. Heat is one hue, told apart by lightness, and stands beside the figure.
"""

import textwrap

from markupsafe import Markup

from triadbench.bench.analysis.summary import DEVICES, OTHER_PROGRAMS, number, select
from triadbench.bench.report.page import render

_HOT_LINES = 8
_HOT_SHARE = 0.01
_OPEN_SHARE = 0.05
"""Functions below this share of their own come folded."""


def chapter(records: list[dict]) -> Markup:
    """The line profiles among the records; nothing if there are none.

    Of each target and device the last record is shown.
    """
    latest = {_title(record): record for record in select(records, "lines")}
    if not latest:
        return Markup()
    return render(
        "lines.html",
        findings=findings(list(latest.values())),
        scale=[(_heat(share), f"{100 * share:g} %") for share in (0, 0.01, 0.1, 0.4, 1)],
        targets={f"lines-{index}": (record, _hottest(record)) for index, record in enumerate(latest.values())},
        **{"title": _title, "plain_ms": _plain_ms, "added": _added, "function_of": _function, "line_of": _line},
    )


def findings(records: list[dict]) -> list[str]:
    """What the line profiles among the records say, a sentence a target."""
    sentences = []
    for record in select(records, "lines"):
        for line in _hottest(record)[:1]:
            sentences.append(
                f"{_title(record)}: {number(_plain_ms(record))} ms a clip without the profiler, which "
                f"{_added(record)}; {_percent(_own(record, line))} of the profiled time is the line "
                f"{line['file']}:{line['line']}, “{line['text'].strip()}”."
                + (OTHER_PROGRAMS if record.get("disturbed") else "")
            )
    return sentences


def _function(target_id: str, record: dict, function: dict, hottest: list[dict]) -> dict:
    lines = [line for line in record["lines"] if line["function"] == function["function"]]
    own = sum(_own(record, line) for line in lines)
    texts = textwrap.dedent("\n".join(line["text"] for line in lines)).split("\n")
    listed = {other["function"] for other in record["functions"]}
    rows = []
    for line, text in zip(lines, texts, strict=True):
        enters = {f"{target_id}-{_slug(name)}": name.partition(":")[2] for name in line["enters"] if name in listed}
        hot = any(line is other for other in hottest)
        rows.append(_line(target_id, record, line) | {"text": text, "hot": hot, "enters": enters})
    return {
        "id": f"{target_id}-{_slug(function['function'])}",
        "name": function["function"].partition(":")[2],
        "function": function,
        "open": own >= _OPEN_SHARE or function is record["functions"][0],
        "own": _percent(own),
        "inclusive": _percent(function["seconds"] / record["samples"][0] if record["samples"][0] else 0.0),
        "rows": rows,
    }


def _line(target_id: str, record: dict, line: dict) -> dict:
    own = _own(record, line)
    clip_ms = 1e3 * line["own_seconds"] / record["clips"]
    return {
        "id": f"{target_id}-{_slug(line['function'])}-{line['line']}",
        "text": line["text"].strip(),
        "place": f"{line['file']}:{line['line']}",
        "number": line["line"],
        "hits": f"{line['hits']:,}" if line["hits"] else "",
        "heat": _heat(own),
        "share": _percent(own),
        "inclusive": _percent(line["share"]),
        "ms": number(clip_ms) if clip_ms >= 0.001 else "<0.001" if clip_ms else "0",
    }


def _hottest(record: dict) -> list[dict]:
    hot = [line for line in record["lines"] if _own(record, line) >= _HOT_SHARE]
    return sorted(hot, key=lambda line: -line["own_seconds"])[:_HOT_LINES]


def _own(record: dict, line: dict) -> float:
    total = record["samples"][0]
    return line["own_seconds"] / total if total > 0 else 0.0


def _heat(share: float) -> str:
    """0 to 1: the square root, so that a line of 1 % is still seen."""
    return f"{min(1.0, max(0.0, share)) ** 0.5:.3f}"


def _plain_ms(record: dict) -> float:
    """Of the fastest round, as the overhead is: other programs only ever make a round slower."""
    return 1e3 * min(record["plain_s"]) * len(record["plain_s"]) / record["clips"]


def _added(record: dict) -> str:
    if record.get("disturbed"):
        return f"took {record['overhead']:.2f} times as long, with other programs at work"
    more = record["overhead"] - 1
    if abs(more) < 0.02:
        return "adds less than 2 %"
    return f"adds {100 * more:.0f} %" if more > 0 else "adds nothing that can be told from other programs' noise"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "0 %"


def _title(record: dict) -> str:
    target, device = record["parameters"]["target"], record["parameters"].get("device")
    title = target[:1].upper() + target[1:]
    return f"{title} ({DEVICES.get(device, device)})" if device else title


def _slug(name: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in name)
