// Runs in the head: the theme is set before anything is drawn, the rest waits until the page is there.
const root = document.documentElement;
const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
const themeOfAddress = new URLSearchParams(location.search).get("theme");
let theme = themeOfAddress;
try {
  theme = theme || localStorage.getItem("theme");
} catch (denied) { /* a page from the disk may have no storage */ }
if (theme === "dark" || theme === "light") root.dataset.theme = theme;

// --- figures ---------------------------------------------------------------------------------------------------------

const plotSettings = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };

/** Draw the figures below `place` that are unfolded and not drawn yet: the JSON of each stands in a script beside it,
    with what a reader may choose to see. */
function draw(place) {
  for (const source of place.querySelectorAll("script[data-plot]")) {
    if (source.closest("details:not([open])")) continue;
    const { figure, changes } = JSON.parse(source.textContent), id = source.dataset.plot;
    source.removeAttribute("data-plot");
    if (innerWidth < 600) {
      figure.layout.font.size = 10;
      // A legend in one column or two: on so narrow a page it takes its height from the figure.
      const names = figure.data.filter(trace => trace.showlegend !== false && trace.visible !== false && trace.name);
      const entrywidth = names.some(trace => trace.name.length > 30) ? 1 : .5;
      figure.layout.legend = { ...figure.layout.legend, entrywidthmode: "fraction", entrywidth, font: { size: 8 } };
      if (names.length > 6) figure.layout.height += 10 * names.length / entrywidth;
      document.getElementById(id).style.height = figure.layout.height + "px";
      for (const note of figure.layout.annotations || []) note.font = { ...note.font, size: 9 };
    }
    Plotly.newPlot(id, figure.data, figure.layout, plotSettings);
    if (changes.length < 2) continue;
    const select = document.getElementById(id + "-choice");
    select.addEventListener("change", () => Plotly.update(id, ...changes[select.selectedIndex]));
  }
  paint();
}

/** Give all figures the colours of the page. */
function paint() {
  const style = getComputedStyle(root), get = name => style.getPropertyValue(name).trim();
  for (const plot of document.querySelectorAll(".js-plotly-plot")) {
    const change = { "font.color": get("--ink"),
      "hoverlabel.bgcolor": get("--card"), "hoverlabel.font.color": get("--ink") };
    for (const axis of Object.keys(plot.layout).filter(key => /^[xy]axis/.test(key))) {
      change[axis + ".gridcolor"] = change[axis + ".zerolinecolor"] = get("--line");
    }
    Plotly.relayout(plot, change);
  }
}

/** A figure measures its place before the page's width is final, and one that was folded away had none. */
function fit() {
  for (const plot of document.querySelectorAll(".js-plotly-plot")) if (plot.offsetParent) Plotly.Plots.resize(plot);
}

// --- the page --------------------------------------------------------------------------------------------------------

function switchTheme() {
  const now = root.dataset.theme || (systemDark.matches ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch (denied) { /* kept for this visit only */ }
  paint();
}

/** Of several machines one is shown; the others wait in templates, which a browser neither runs nor draws. */
function connectMachineMenu(menu) {
  const shown = [document.getElementById("machine")];
  const templates = document.querySelectorAll("template.machine");
  menu.selectedIndex = 0;
  menu.addEventListener("change", () => {
    const index = menu.selectedIndex, now = document.getElementById("machine");
    if (shown[index]) {
      now.replaceWith(shown[index]);
      paint();
    } else {
      const place = document.createElement("div");
      place.id = "machine";
      shown[index] = place;
      place.append(document.importNode(templates[index - 1].content, true));
      now.replaceWith(place);
      draw(place);
    }
    fit();
  });
}

/** Unfold what an address's "#id" names, and all that it lies in. */
function reveal(hash) {
  const target = hash && document.getElementById(decodeURIComponent(hash.slice(1)));
  if (!target) return;
  const own = target.matches("section") ? target.querySelector("details") : target;
  for (let folded = own.closest("details"); folded; folded = folded.parentElement.closest("details")) folded.open = true;
  draw(document);
  target.scrollIntoView();
}

/** The keys n and p go to the next and the previous hot line of source, from where the focus is. */
function goToHotLine(event) {
  if (!["n", "p"].includes(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  const hot = [...document.querySelectorAll(".row.is-hot")];
  if (!hot.length) return;
  const focus = document.activeElement, forward = event.key === "n";
  const bit = forward ? Node.DOCUMENT_POSITION_FOLLOWING : Node.DOCUMENT_POSITION_PRECEDING;
  const beyond = hot.filter(row => row !== focus && (focus.compareDocumentPosition(row) & bit) && !row.contains(focus));
  const rows = beyond.length && focus !== document.body ? beyond : hot;
  const next = rows[forward ? 0 : rows.length - 1];
  reveal("#" + next.id);
  next.focus();
  next.scrollIntoView({ block: "center" });
}

let themeOnScreen, folded;
function printing(on) {
  if (on) {
    folded = document.querySelectorAll("details:not([open])");
    themeOnScreen = root.dataset.theme || "";
  }
  for (const details of folded) details.open = on;
  root.dataset.theme = on ? "light" : themeOnScreen;
  draw(document);
}

document.addEventListener("DOMContentLoaded", () => {
  draw(document);
  document.getElementById("theme-switch").addEventListener("click", switchTheme);
  const menu = document.getElementById("machine-choice");
  if (menu) connectMachineMenu(menu);
  reveal(location.hash);
});
window.addEventListener("load", fit);
window.addEventListener("hashchange", () => reveal(location.hash));
document.addEventListener("click", event => reveal(event.target.closest('a[href^="#"]')?.hash));
document.addEventListener("toggle", event => { draw(event.target); fit(); }, true);
document.addEventListener("keydown", goToHotLine);
systemDark.addEventListener("change", paint);
window.addEventListener("beforeprint", () => printing(true));
window.addEventListener("afterprint", () => printing(false));
