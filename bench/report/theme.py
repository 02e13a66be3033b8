"""Look of every page: one style sheet and one script, for light and dark, wide and narrow, without the network."""

_LIGHT = """color-scheme: light; --ink: #1c2430; --soft: #5b6675; --line: #d9dee6; --page: #f6f7f9; --card: #ffffff;
  --accent: #1f6feb; --warn: #9a5b00; --warn-back: #fff1d6; --good: #146c43; --good-back: #dcf3e6;
  --bad: #a3152a; --bad-back: #fde3e5;"""
_DARK = """color-scheme: dark; --ink: #e6eaf0; --soft: #9aa6b5; --line: #323b48; --page: #12161c; --card: #1a2028;
  --accent: #6ea8ff; --warn: #ffce80; --warn-back: #43320f; --good: #8fe0b4; --good-back: #123524;
  --bad: #ffb3ba; --bad-back: #4a161d;"""

CSS = (
    f"""
:root {{ {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
:root[data-theme="light"] {{ {_LIGHT} }}
:root[data-theme="dark"] {{ {_DARK} }}
@media print {{ :root, :root[data-theme] {{ {_LIGHT} }} }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p.lead, .soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .8rem 1rem; margin: .8rem 0; }
.findings li { margin: .35rem 0; }
.wide { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: right; padding: .35rem .5rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
tbody tr:last-child td { border-bottom: 0; }
.dim td:not(:first-child) { color: var(--soft); font-style: italic; }
.badge { display: inline-block; padding: 0 .45em; margin-left: .5em; border-radius: 999px; font-size: .75rem;
  background: var(--warn-back); color: var(--warn); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.plot { width: 100%; }
@media (max-width: 560px) { main { padding: 1rem .6rem 3rem; } .card { padding: .6rem .7rem; }
  h1 { font-size: 1.35rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; } }
"""
)

SCRIPT = """
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function paint() {
  const style = getComputedStyle(document.documentElement), get = name => style.getPropertyValue(name).trim();
  for (const plot of document.querySelectorAll(".js-plotly-plot")) {
    const change = { "font.color": get("--ink"),
      "hoverlabel.bgcolor": get("--card"), "hoverlabel.font.color": get("--ink") };
    for (const axis of Object.keys(plot.layout).filter(key => /^[xy]axis/.test(key))) {
      change[axis + ".gridcolor"] = get("--line");
      change[axis + ".zerolinecolor"] = get("--line");
    }
    (plot.layout.updatemenus || []).forEach((_, i) => {
      change[`updatemenus[${i}].bgcolor`] = get("--card");
      change[`updatemenus[${i}].bordercolor`] = get("--line");
      change[`updatemenus[${i}].font.color`] = get("--accent");
    });
    Plotly.relayout(plot, change);
  }
}
paint();
dark.addEventListener("change", paint);
"""

COLOURS = ("#3b82f6", "#e8743b", "#19a979", "#b566d9", "#d94a70", "#8a8f98")
"""Trace colours with enough contrast on both backgrounds."""
