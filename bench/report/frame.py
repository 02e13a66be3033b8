"""The page around the chapters: head, switch between light and dark, menu of machines, table of contents.

Of several machines one is shown at a time. The others wait in templates, which a browser neither runs nor draws: the
page opens as fast as with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from triadbench.bench.report import mel_plots, theme


class Chapter(NamedTuple):
    """One chapter: `id` for links, `title`, `body` as HTML."""

    id: str
    title: str
    body: str


def page(title: str, lead: str, machines: Sequence[tuple[str, Sequence[Chapter]]], *, head: str = "") -> str:
    """The whole HTML page.

    Args:
        title, lead: heading and the line below it.
        machines: (label, chapters) of each machine, the one to show first in front.
        head: further HTML for the head, which chapters bring along.
    """
    from plotly.offline import get_plotlyjs

    menu = ""
    if len(machines) > 1:
        options = "".join(f"<option>{escape(label)}</option>" for label, _ in machines)
        menu = f'<label class="choice">Machine <select id="machine-choice">{options}</select></label>'
    waiting = "".join(
        f'<template class="machine">{_machine(label, chapters)}</template>' for label, chapters in machines[1:]
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{theme.CSS}{mel_plots.CSS}{CSS}</style>
<script>{get_plotlyjs()}</script>
<script>{SCRIPT}</script>
{head}
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header><div class="bar"><strong>triadbench</strong>{menu}
<button type="button" id="theme-switch" aria-label="Switch between light and dark">Dark or light</button></div></header>
<main id="content" tabindex="-1">
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
<noscript><div class="card">Pictures need JavaScript; every number is in the tables.</div></noscript>
<div id="machine">{_machine(*machines[0])}</div>
{waiting}
</main>
<script>{theme.SCRIPT}{LAST_SCRIPT}</script>
</body>
</html>
"""


def _machine(label: str, chapters: Sequence[Chapter]) -> str:
    links = "".join(f'<li><a href="#{chapter.id}">{escape(chapter.title)}</a></li>' for chapter in chapters)
    bodies = "\n".join(
        f'<section id="{chapter.id}" aria-labelledby="{chapter.id}-title"><h2 id="{chapter.id}-title">'
        f"{escape(chapter.title)}</h2>\n{chapter.body}\n</section>"
        for chapter in chapters
    )
    return (
        f'<p class="where">Measured on <b>{escape(label)}</b></p>'
        f'<nav class="card contents" aria-label="Contents"><ol>{links}</ol></nav>\n{bodies}'
    )


CSS = """
.skip { position: absolute; left: -999px; } .skip:focus { left: 1rem; top: .5rem; z-index: 9; padding: .4rem .8rem;
  background: var(--card); color: var(--accent); }
header { position: sticky; top: 0; z-index: 5; background: var(--page); border-bottom: 1px solid var(--line); }
.bar { max-width: 1200px; margin: 0 auto; padding: .45rem 1rem; display: flex; gap: .5rem 1rem; align-items: center;
  flex-wrap: wrap; }
.bar .choice { flex: 1 1 12rem; min-width: 0; } .bar .choice select { max-width: 75%; }
#theme-switch { margin-left: auto; font: inherit; font-size: .85rem; color: var(--accent); background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; padding: .25rem .7rem; cursor: pointer; }
a { color: var(--accent); } main:focus { outline: none; }
a:focus-visible, button:focus-visible, details:focus-within > summary:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 2px; }
section { scroll-margin-top: 3.2rem; }
h2 { font-size: 1.45rem; margin: 3rem 0 .6rem; padding-top: .6rem; border-top: 2px solid var(--line); }
h3 { font-size: 1.1rem; margin: 1.8rem 0 .4rem; }
h4 { margin: 1rem 0 .3rem; }
.contents ol { columns: 15rem; margin: .2rem 0; padding-left: 1.4rem; }
.where { margin: 0; }
.story { padding-left: 1.3rem; } .story li { margin: .7rem 0; font-size: 1.06rem; }
.story li.missing { color: var(--soft); font-size: .95rem; }
code { font-size: .88em; overflow-wrap: anywhere; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
.badge.good { background: var(--good-back); color: var(--good); }
.badge.bad { background: var(--bad-back); color: var(--bad); }
details { margin: .4rem 0; } details .card { margin: .4rem 0; }
.rungs { padding-left: 1.4rem; } .rungs li { margin: .5rem 0; }
.card > .wide.card { border: 0; padding: 0; }
@media (max-width: 560px) { h2 { font-size: 1.2rem; } .story li { font-size: 1rem; } .bar { padding: .35rem .6rem; } }
@media print { header, .contents, .choice, .skip { display: none; } .card { break-inside: avoid; }
  .wide { overflow: visible; } table { font-size: .7rem; } th, td { white-space: normal; } body { background: #fff; } }
"""

SCRIPT = """
const asked = new URLSearchParams(location.search).get("theme");
try {
  const theme = asked || localStorage.getItem("theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch (denied) {
  if (asked) document.documentElement.dataset.theme = asked;
}
const setting = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
function draw(id, figure, changes) {
  Plotly.newPlot(id, figure.data, figure.layout, setting);
  if (changes.length) choose(id, changes);
}
function choose(id, changes) {
  const select = document.getElementById(id + "-choice");
  select.addEventListener("change", () => Plotly.update(id, ...changes[select.selectedIndex]));
}
function fit() {
  for (const plot of document.querySelectorAll(".js-plotly-plot")) if (plot.offsetParent) Plotly.Plots.resize(plot);
}
// A picture measures its place before the page's width is final, and one that was folded away had none.
window.addEventListener("load", fit);
document.addEventListener("toggle", fit, true);
let before;
function paper(on) {
  const data = document.documentElement.dataset;
  if (on) { before = data.theme; data.theme = "light"; }
  else if (before) data.theme = before;
  else delete data.theme;
  paint();
}
window.addEventListener("beforeprint", () => paper(true));
window.addEventListener("afterprint", () => paper(false));
"""
"""In the head, before the pictures."""

LAST_SCRIPT = """
document.getElementById("theme-switch").addEventListener("click", () => {
  const root = document.documentElement, now = root.dataset.theme || (dark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch (denied) { /* kept for this visit only */ }
  paint();
});
const menu = document.getElementById("machine-choice");
if (menu) {
  const shown = [document.getElementById("machine")];
  const templates = document.querySelectorAll("template.machine");
  menu.selectedIndex = 0;
  menu.addEventListener("change", () => {
    const index = menu.selectedIndex, now = document.getElementById("machine");
    if (shown[index]) {
      now.replaceWith(shown[index]);
    } else {
      const place = document.createElement("div");
      place.id = "machine";
      shown[index] = place;
      now.replaceWith(place);
      place.append(document.importNode(templates[index - 1].content, true));
    }
    paint();
    fit();
  });
}
"""
"""At the end, after `theme.SCRIPT`, which paints the pictures."""
