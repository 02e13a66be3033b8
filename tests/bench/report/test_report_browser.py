"""The report in a real browser without the network: no error, every picture drawn, hover, switches, a phone's width."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from tests.bench import report_records as made
from triadbench.bench.report import browser
from triadbench.bench.report.report import write_report

pytestmark = pytest.mark.skipif(browser.find() is None, reason="no Chromium or Chrome on the PATH")

_FIRST = """<script>
const errors = [];
addEventListener("error", event => errors.push(String(event.message || event.target.src || event.target.href)), true);
addEventListener("unhandledrejection", event => errors.push("rejected: " + event.reason));
for (const kind of ["error", "warn"]) console[kind] = (...words) => errors.push(kind + ": " + words.join(" "));
</script>"""

_LAST = """<script>
const pause = ms => new Promise(done => setTimeout(done, ms));
const ink = plot => getComputedStyle(plot.querySelector(".xtick text, .ytick text")).fill;
function drawn() {
  return {
    asked: document.querySelectorAll("div[role=img]").length,
    plots: [...document.querySelectorAll(".js-plotly-plot")].map(plot => ({
      id: plot.id, svg: plot.querySelectorAll(".main-svg").length,
      marks: plot.querySelectorAll(".trace, .points path, .barlayer path, .scatterlayer path").length,
      inside: plot.querySelector(".main-svg").getBoundingClientRect().right
        <= plot.closest(".card").getBoundingClientRect().right + 1,
    })),
  };
}
function unfold() { for (const folded of document.querySelectorAll("details")) folded.open = true; }
function hover(plot) {
  // Real events over a mark: what a mouse does, not what the library offers to scripts.
  const mark = plot.querySelector(".points path, .scatterlayer path.point"), box = mark.getBoundingClientRect();
  const drag = plot.querySelector(".nsewdrag");
  for (const kind of ["mouseover", "mousemove"]) {
    drag.dispatchEvent(new MouseEvent(kind, { bubbles: true, clientX: box.x + box.width / 2,
      clientY: box.y + box.height / 2, view: window }));
  }
}
addEventListener("load", () => setTimeout(async () => {
  const found = { errors };
  try {
    found.unfolded = [...document.querySelectorAll("details.chapter[open]")].map(each => each.parentElement.id);
    found.opening = { ...drawn(), height: document.body.offsetHeight };
    dispatchEvent(new Event("beforeprint"));
    found.printed = [document.querySelectorAll("details:not([open])").length, drawn().plots.length];
    dispatchEvent(new Event("afterprint"));
    found.afterwards = document.querySelectorAll("details.chapter[open]").length;
    const links = [...document.querySelectorAll(".row[id], section[id]")];
    if (links.length) {
      const target = links[links.length - 1];
      location.hash = target.id;
      await pause(200);
      found.linked = [target.querySelector("details")?.open, target.getBoundingClientRect().top];
    }
    unfold();
    await pause(500);
    found.first = drawn();
    found.wide = [innerWidth, document.documentElement.scrollWidth];
    const plot = document.getElementById("ladder0-waterfall") || document.querySelector(".js-plotly-plot");
    if (plot) {
      plot.scrollIntoView();
      await pause(100);
      hover(plot);
      await pause(300);
      found.hover = [...plot.querySelectorAll(".hoverlayer text")].map(text => text.textContent);
      const before = ink(plot);
      document.getElementById("theme-switch")?.click();
      await pause(300);
      found.ink = [before, ink(plot)];
    }
    const menu = document.getElementById("machine-choice");
    if (menu) {
      found.machines = [];
      for (const index of [1, 0, 1]) {
        menu.selectedIndex = index;
        menu.dispatchEvent(new Event("change"));
        await pause(200);
        unfold();
        await pause(500);
        found.machines.push({ told: document.querySelector(".where").textContent, ...drawn() });
      }
    }
    for (const select of document.querySelectorAll("[id$=-choice]")) {
      if (select.id === "machine-choice") continue;
      for (let index = 0; index < select.options.length; index++) {
        select.selectedIndex = index;
        select.dispatchEvent(new Event("change"));
      }
    }
    await pause(300);
    found.fetched = performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith("data:"));
  } catch (error) {
    errors.push("probe: " + error);
  }
  parent.postMessage(JSON.stringify(found), "*");
}, 1000));
</script>"""


def look(page: Path, width: int = 1200, fragment: str = "") -> dict:
    """What the browser saw on a page of this width; a frame, for a window is never narrower than 500 pixels."""
    content = page.read_text(encoding="utf-8")
    probed = page.with_name(f"probed-{page.name}")
    probed.write_text(
        content.replace("<head>", "<head>" + _FIRST, 1).replace("</body>\n</html>", _LAST + "</body></html>")
    )
    frame = page.with_name(f"frame-{page.name}")
    frame.write_text(
        f'<!DOCTYPE html><body><iframe src="{probed.name}{fragment}" style="width:{width}px;height:3000px;border:0"></iframe>'
        '<pre id="found"></pre><script>addEventListener("message", event => {'
        'document.getElementById("found").textContent = event.data; document.querySelector("iframe").remove(); });'
        "</script></body>"
    )
    done = browser.run(frame, "--dump-dom", "--window-size=1300,3000", "--enable-logging=stderr")
    found = re.search(r'<pre id="found">(.+?)</pre>', done.stdout, re.S)
    assert found, f"the page did not answer: {done.stderr[-2000:]}"
    result = json.loads(html.unescape(found[1]))
    # What the page's script cannot see, such as a refused load, the browser's own log says.
    result["log"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return result


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    files = [
        made.write(made.everything(), folder / "cpu.jsonl"),
        made.write(made.everything("Test GPU", scale=0.1), folder / "gpu.jsonl"),
    ]
    write_report(files, folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def seen(report) -> dict:
    return look(report)


def test_no_error_and_nothing_fetched(seen):
    assert seen["errors"] == [] and seen["log"] == [] and seen["fetched"] == []


def test_a_page_opens_with_one_screen_and_the_rest_folded(seen):
    assert [plot["id"] for plot in seen["opening"]["plots"]] == ["opening"] and seen["opening"]["height"] < 2000
    # Folded pictures are drawn when their chapter opens, and all of them on paper.
    assert seen["printed"] == [0, seen["opening"]["asked"]] and seen["afterwards"] == 0
    assert seen["unfolded"] == []
    unfolded, top = seen["linked"]
    assert unfolded and 0 <= top < 2900


def test_every_picture_is_drawn(seen):
    for view in (seen["first"], *seen["machines"]):
        assert len(view["plots"]) == view["asked"] >= 10
        for plot in view["plots"]:
            assert plot["svg"] >= 2 and plot["marks"] > 0 and plot["inside"], plot


def test_hover_tells_the_number(seen):
    assert any(" s" in words for words in seen["hover"]), seen["hover"]


def test_the_switch_repaints_the_pictures(seen):
    light, dark = seen["ink"]
    assert light != dark


def test_the_menu_shows_one_machine_at_a_time(seen):
    assert ["Other CPU" in view["told"] for view in seen["machines"]] == [False, True, False]
    ids = [plot["id"] for plot in seen["machines"][0]["plots"]]
    assert len(ids) == len(set(ids)) and len(seen["machines"][1]["plots"]) == len(seen["first"]["plots"])


def test_a_phone_scrolls_in_one_direction_only(report):
    seen = look(report, width=420, fragment="#ladder0-waterfall")
    assert seen["wide"][0] == 420 >= seen["wide"][1]
    # Opened by a link to a place deep in a chapter, that chapter alone is unfolded.
    assert seen["unfolded"] == ["ladder"]
    assert seen["errors"] == [] and all(plot["inside"] for plot in seen["first"]["plots"])


@pytest.mark.parametrize(
    ("put", "expected"),
    [
        ("<script>console.error('wrong')</script>", "errors"),
        ("<script>missing()</script>", "errors"),
        ("<script>Promise.reject(1)</script>", "errors"),
        ('<script src="https://example.org/x.js"></script>', "fetched"),
        ('<img src="http://example.org/x.png" alt="">', "fetched"),
        ('<div role="img" aria-label="never drawn"></div>', "drawn"),
    ],
)
def test_the_probe_sees_what_is_wrong(tmp_path, put, expected):
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html>\n<html>\n<head></head>\n<body>\n<main>{put}</main>\n</body>\n</html>\n")
    seen = look(page)
    wrong = {
        "errors": seen["errors"],
        "fetched": seen.get("fetched") or seen["errors"],
        "drawn": seen["first"]["asked"] != len(seen["first"]["plots"]),
    }
    assert wrong[expected]


def test_pictures_for_the_readme(report, tmp_path):
    from triadbench.bench.report import pictures

    (path,) = [made.write(made.ladder(made.environment()), tmp_path / "ladder.jsonl")]
    files = pictures.write_pictures([path], tmp_path / "pictures")
    assert [Path(file).name for file in files] == ["ladder-cpu.png", "ladder-parts-cpu.png"]
    for file in files:
        head = Path(file).read_bytes()[:24]
        assert head.startswith(b"\x89PNG") and int.from_bytes(head[16:20], "big") == 1600
