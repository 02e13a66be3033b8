"""The one place that renders HTML: Jinja2 templates in `templates/`, with every value escaped unless it is Markup.

A page opens with its answer, of one machine or of several, of which one is shown at a time; chapters are folded below.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from triadbench.bench.analysis.summary import number, percent, scientific
from triadbench.bench.report.figures import Figure

_TEMPLATES = Path(__file__).parent / "templates"
_ENVIRONMENT = {
    "triadbench": "triadbench",
    "CPU": "cpu",
    "vector extensions": "cpu_features",
    "physical cores": "cores_physical",
    "logical cores": "cores_logical",
    "usable cores": "cores_usable",
    "torch threads": "torch_threads",
    "memory GB": "ram_gb",
    "GPU": "gpu",
    "GPU driver": "gpu_driver",
    "system": "os",
    "Python": "python",
}
"""What a page shows of its records' machine: label -> field of the environment."""


class Chapter(NamedTuple):
    """One chapter: `id` for links, `title`, `body` as HTML."""

    id: str
    title: str
    body: str


class Opening(NamedTuple):
    """The first screen: `verdict` in one short sentence, three `figures` as (value, what it is), and one picture.

    `picture`: a figure and its choices, or None; `label` says what it shows.
    """

    verdict: str
    figures: Sequence[tuple[str, str]] = ()
    picture: Figure | None = None
    label: str = ""


@functools.cache
def _environment() -> jinja2.Environment:
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: "—" if value is None else value,
    )
    environment.filters |= {"json": _json, "number": number, "percent": percent, "scientific": scientific}
    environment.filters |= {"median": median, "commas": lambda value: f"{value:,}" if isinstance(value, int) else value}
    environment.globals["plotly"] = lambda: Markup(get_plotlyjs())
    environment.globals["file"] = lambda name: Markup((_TEMPLATES / name).read_text(encoding="utf-8"))
    return environment


def _json(value: object) -> Markup:
    """JSON for the inside of a script, figures of plotly included."""
    from plotly.utils import PlotlyJSONEncoder

    return Markup(json.dumps(value, cls=PlotlyJSONEncoder, separators=(",", ":")).replace("<", "\\u003c"))


def render(template: str, **values: object) -> Markup:
    """A template of `templates/` with its values.

    Raises:
        ValueError: a field that the template shows is missing, as in records that are not as they should be.
    """
    try:
        return Markup(_environment().get_template(template).render(values))
    except jinja2.UndefinedError as error:
        raise ValueError(str(error)) from error


def page(title: str, lead: str, machines: Sequence[tuple[str, Opening, Sequence[Chapter]]]) -> str:
    """The whole HTML page: heading, a last line, and (label, opening, chapters) of each machine, the first shown."""
    return str(render("page.html", title=title, lead=lead, machines=machines))


def machine_page(title: str, what: str, opening: Opening, chapters: Sequence[Chapter], records: Sequence[dict]) -> str:
    """The page of one run on one machine, which is its last chapter; `what` is its kind, as "Profile"."""
    if not records:
        return page(title, "", [("nothing measured", opening, chapters)])
    machine = records[0]["environment"]
    gpu = machine["gpu"] or "no GPU: nothing was measured on one"
    where = f"{machine['cpu']}, {machine['cores_usable']} cores · {gpu}"
    last = Chapter("environment", "Environment", environment(records))
    return page(title, f"{what} of {machine['time']}", [(where, opening, [*chapters, last])])


def environment(records: Sequence[dict]) -> Markup:
    """The environments of one machine's records: what they share once, commits and times one by one."""
    environments = [record["environment"] for record in records]
    fields = {
        label: "; ".join(dict.fromkeys(_words(environment.get(key)) for environment in environments))
        for label, key in _ENVIRONMENT.items()
    }
    versions: dict[str, dict[str, None]] = {}
    times: dict[tuple[str, str], list[str]] = {}
    for record, environment in zip(records, environments, strict=True):
        for name, version in (environment.get("versions") or {}).items():
            if version:
                versions.setdefault(name, {})[str(version)] = None
        changed = " (changed)" if environment.get("dirty") else ""
        code = f"{str(environment['commit'])[:12]}{changed}" if environment.get("commit") else "unknown"
        times.setdefault((record["name"], code), []).append(str(environment.get("time", "")))
    packages = ", ".join(f"{name} {' and '.join(known)}" for name, known in versions.items())
    return render(
        "environment.html",
        has_gpu=any(environment.get("gpu") for environment in environments),
        fields=fields | {"packages": packages or "—"},
        measured=[(*key, len(known), min(known), max(known)) for key, known in sorted(times.items())],
    )


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none known"
    return "none" if value is None else str(value)
