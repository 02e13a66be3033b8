"""The chapter of line profiles: the source itself, every line with its time and its heat, from records alone.

A line's heat is its own share: what a listed function takes is shown there and not at the line that calls it, so that
all shares of a listing sum to 100 %. Heat is one hue, told apart by lightness, and stands beside the figure.
"""

from __future__ import annotations

import textwrap
from html import escape

from triadbench.bench.analysis.summary import number, select

_HOT_LINES = 8
_HOT_SHARE = 0.01
_OPEN_SHARE = 0.005
"""Functions below this share of their own come folded."""

CSS = """
.hot { margin: .3rem 0; padding: 0; list-style: none; }
.hot li { display: grid; grid-template-columns: 4.2rem 5.6rem minmax(0, 1fr); gap: .6rem; align-items: baseline;
  padding: .15rem .4rem; border-radius: 5px; font-variant-numeric: tabular-nums; font-size: .88rem;
  background: rgb(217 119 6 / calc(var(--heat) * .55)); }
.hot li > * { text-align: right; } .hot li > :last-child { text-align: left; }
.hot code, .listing code { font: .82rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; }
.hot a { color: inherit; text-decoration-color: var(--soft); overflow-wrap: anywhere; }
.hot .where { display: block; color: var(--soft); font-size: .78rem; }
.function { margin: .5rem 0; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
.function > summary { padding: .5rem .8rem; color: var(--ink); overflow-wrap: anywhere; }
.function > summary .soft { font-size: .82rem; font-variant-numeric: tabular-nums; }
.listing { border-top: 1px solid var(--line); padding: .3rem 0; overflow-x: auto; }
.row { display: grid; grid-template-columns: 3.2rem 4.2rem 5rem 5.4rem minmax(0, 1fr); gap: .5rem;
  padding: 0 .8rem 0 0; align-items: baseline; scroll-margin-top: 4rem;
  background: rgb(217 119 6 / calc(var(--heat, 0) * .55)); }
.row > span { text-align: right; font-size: .8rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.row > .n { color: var(--soft); } .row > .n a { color: var(--accent); }
.row > code { white-space: pre-wrap; overflow-wrap: anywhere; padding-left: 2ch; text-indent: -2ch; tab-size: 4; }
.row.idle > code { color: var(--soft); }
.row .to { color: var(--soft); font-size: .76rem; font-family: system-ui, sans-serif; }
.row .to a { color: var(--accent); }
.row.head { color: var(--soft); background: none; } .row.head > span { font-weight: 600; }
.row:target, .row:focus { outline: 2px solid var(--accent); outline-offset: -2px; }
.hot a:focus-visible, .row a:focus-visible, .function > summary:focus-visible { outline: 2px solid var(--accent); }
.scale { display: inline-grid; grid-template-columns: repeat(5, 4.2rem); font-size: .78rem; text-align: center;
  border: 1px solid var(--line); border-radius: 5px; overflow: hidden; max-width: 100%; }
.scale span { background: rgb(217 119 6 / calc(var(--heat) * .55)); }
kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 .35em; font-size: .8rem; background: var(--page); }
@media (max-width: 700px) {
  .hot li { grid-template-columns: 3.4rem 4.6rem minmax(0, 1fr); gap: .4rem; padding: .3rem .3rem; }
  .row { grid-template-columns: 2.3rem 3.6rem 4.6rem 1fr; gap: .1rem .4rem; padding: .05rem .4rem .05rem 0; }
  .row > code { grid-column: 2 / -1; } .row > .hits { text-align: left; }
  .row.idle { grid-template-columns: 2.3rem minmax(0, 1fr); } .row.idle > span:not(.n) { display: none; }
  .row.head > code { display: none; } .scale { grid-template-columns: repeat(5, 3.2rem); }
}
"""

SCRIPT = """
// n and p go to the next and the previous hot line, from where the focus is.
document.addEventListener("keydown", event => {
  if (!["n", "p"].includes(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  const hot = [...document.querySelectorAll(".row.is-hot")];
  if (!hot.length) return;
  const at = document.activeElement, forward = event.key === "n";
  const bit = forward ? Node.DOCUMENT_POSITION_FOLLOWING : Node.DOCUMENT_POSITION_PRECEDING;
  const there = hot.filter(row => row !== at && (at.compareDocumentPosition(row) & bit) && !row.contains(at));
  const from = there.length && at !== document.body ? there : hot;
  const next = from[forward ? 0 : from.length - 1];
  next.closest("details").open = true;
  next.focus();
  next.scrollIntoView({ block: "center" });
});
"""


def chapter(records: list[dict]) -> str:
    """The line profiles among the records as a fragment of a page with the theme's style; nothing if there are none.

    Of each target and device the last record is shown.
    """
    latest = {}
    for record in select(records, "lines"):
        given = record["parameters"]
        latest[given["target"], given.get("device")] = record
    shown = list(latest.values())
    if not shown:
        return ""
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in findings(shown))
    scale = "".join(
        f'<span style="--heat:{_heat(share):.3f}">{text}</span>'
        for share, text in ((0, "0 %"), (0.01, "1 %"), (0.1, "10 %"), (0.4, "40 %"), (1, "100 %"))
    )
    sections = "".join(_target(i, record) for i, record in enumerate(shown))
    return f"""<style>{CSS}</style>
<h2>Line by line</h2>
<div class="card"><ul class="findings">{sentences}</ul></div>
<p class="soft">The share of a line is its own: what a function listed further down takes is counted there. The shares
of a listing sum to 100 %. <kbd>n</kbd> and <kbd>p</kbd> go to the next and the previous hot line; the line's number
leads back to the index. Heat by share: <span class="scale" role="img" aria-label="Heat grows with the square root of
the share, from none at 0 to full at 100 percent">{scale}</span></p>
{sections}
<script>{SCRIPT}</script>"""


def findings(records: list[dict]) -> list[str]:
    """What the line profiles among the records say, a sentence a target."""
    made = []
    for record in select(records, "lines"):
        hottest = _hottest(record)
        if not hottest:
            continue
        line = hottest[0]
        plain_ms = _plain_ms(record)
        made.append(
            f"{_title(record)}: {number(plain_ms)} ms a clip without the profiler, which {_added(record)}; "
            f"{_percent(_own(record, line))} of the profiled time is the line {line['file']}:{line['line']}, "
            f"“{line['text'].strip()}”."
            + (" Other programs wanted the cores meanwhile, so times may be off." if record.get("disturbed") else "")
        )
    return made


def _target(index: int, record: dict) -> str:
    total_ms = 1e3 * record["samples"][0] / record["clips"] if record["clips"] else 0.0
    hottest = _hottest(record)
    hot = "".join(
        f'<li style="--heat:{_heat(_own(record, line)):.3f}"><b>{_percent(_own(record, line))}</b>'
        f"<span>{_clip_ms(record, line)} ms</span>"
        f'<a href="#{_anchor(index, line)}"><code>{escape(line["text"].strip())}</code>'
        f'<span class="where">{escape(line["file"])}:{line["line"]}, {line["hits"]:,} times</span></a></li>'
        for line in hottest
    )
    functions = "".join(_listing(index, record, function, hottest) for function in record["functions"])
    badge = '<span class="badge">disturbed</span>' if record.get("disturbed") else ""
    return f"""
<h3 id="lines-{index}">{escape(_title(record))}{badge}</h3>
<p class="soft">{escape(record.get("told", ""))} {record["clips"]:,} clips were profiled, {number(total_ms)} ms each on
average; in the fastest round without the profiler a clip took {number(_plain_ms(record))} ms. Profiling
{_added(record)} (fastest rounds compared).</p>
<div class="card"><b>Hottest lines</b> <span class="soft">(own share, ms a clip)</span><ol class="hot">{hot}</ol></div>
{functions}"""


def _listing(index: int, record: dict, function: dict, hottest: list[dict]) -> str:
    lines = [line for line in record["lines"] if line["function"] == function["function"]]
    own = sum(_own(record, line) for line in lines)
    inclusive = function["seconds"] / record["samples"][0] if record["samples"][0] else 0.0
    names = {f["function"] for f in record["functions"]}
    texts = textwrap.dedent("\n".join(line["text"] for line in lines)).split("\n")
    rows = []
    for line, text in zip(lines, texts, strict=True):
        is_hot = any(line is hot for hot in hottest)
        # A source line may be long, and its links lead to listings of this very target.
        to = ", ".join(
            f'<a href="#lines-{index}-{_slug(name)}">{escape(_short(name))}</a>'
            for name in line["enters"]
            if name in names
        )
        note = f' <span class="to">→ {to}, with it {_percent(line["share"])}</span>' if to else ""
        place = f'<a href="#lines-{index}" title="to the index">{line["line"]}</a>' if is_hot else str(line["line"])
        ran = line["hits"] > 0
        kind = "row" + (" is-hot" if is_hot else "") + ("" if ran else " idle")
        focus = ' tabindex="-1"' if is_hot else ""
        figures = (_percent(_own(record, line)), _clip_ms(record, line), f"{line['hits']:,}×") if ran else ("", "", "")
        rows.append(
            f'<div class="{kind}" id="{_anchor(index, line)}"{focus} style="--heat:{_heat(_own(record, line)):.3f}" '
            f'role="row"><span class="n" role="cell">{place}</span><span role="cell">{figures[0]}</span>'
            f'<span role="cell">{figures[1]}</span><span class="hits" role="cell">{figures[2]}</span>'
            f'<code role="cell">{escape(text) or "&nbsp;"}{note}</code></div>'
        )
    head = (
        '<div class="row head" role="row"><span role="columnheader">line</span><span role="columnheader">share</span>'
        '<span role="columnheader">ms a clip</span><span role="columnheader">runs</span>'
        '<code role="columnheader"></code></div>'
    )
    is_first = function is record["functions"][0]
    state = " open" if own >= _OPEN_SHARE or is_first else ""
    return f"""<details class="function" id="lines-{index}-{_slug(function["function"])}"{state}>
<summary><b>{escape(_short(function["function"]))}</b> <span class="soft">{escape(function["file"])}:{function["line"]}
· {_percent(own)} of its own, {_percent(inclusive)} with all it calls · {function["calls"]:,} calls</span></summary>
<div class="listing" role="table" aria-label="Lines of {escape(function["function"])}">{head}{"".join(rows)}</div>
</details>
"""


def _hottest(record: dict) -> list[dict]:
    ran = [line for line in record["lines"] if _own(record, line) >= _HOT_SHARE]
    return sorted(ran, key=lambda line: -line["own_seconds"])[:_HOT_LINES]


def _own(record: dict, line: dict) -> float:
    total = record["samples"][0]
    return line["own_seconds"] / total if total > 0 else 0.0


def _heat(share: float) -> float:
    """0 to 1: the square root, so that a line of 1 % is still seen."""
    return min(1.0, max(0.0, share)) ** 0.5


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


def _clip_ms(record: dict, line: dict) -> str:
    value = 1e3 * line["own_seconds"] / record["clips"]
    return number(value, 3) if value >= 0.001 else "0" if value == 0 else "<0.001".replace("<", "&lt;")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 else "0 %"


def _title(record: dict) -> str:
    given = record["parameters"]
    device = {"cuda": "GPU", "cpu": "CPU"}.get(given.get("device"), given.get("device"))
    title = given["target"][:1].upper() + given["target"][1:]
    return f"{title} ({device})" if device else title


def _short(name: str) -> str:
    return name.partition(":")[2]


def _slug(name: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in name)


def _anchor(index: int, line: dict) -> str:
    return f"lines-{index}-{_slug(line['function'])}-{line['line']}"
