"""The one place that renders HTML: Jinja2 templates in `templates/`, with every value escaped unless it is Markup.

A page has chapters for one machine or for several, of which one is shown at a time.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup

from triadbench.bench.analysis.summary import number, percent, scientific

if TYPE_CHECKING:
    import jinja2

_TEMPLATES = Path(__file__).parent / "templates"


class Chapter(NamedTuple):
    """One chapter: `id` for links, `title`, `body` as HTML."""

    id: str
    title: str
    body: str


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2
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
    environment.filters["commas"] = lambda value: f"{value:,}" if isinstance(value, int) else value
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
    import jinja2

    try:
        return Markup(_environment().get_template(template).render(values))
    except jinja2.UndefinedError as error:
        raise ValueError(str(error)) from error


def page(title: str, lead: str, machines: Sequence[tuple[str, Sequence[Chapter]]]) -> str:
    """The whole HTML page.

    Args:
        title, lead: heading and the line below it.
        machines: (label, chapters) of each machine, the one to show first in front.
    """
    return str(render("page.html", title=title, lead=lead, machines=machines))


def machine_page(title: str, what: str, chapters: Sequence[Chapter], records: Sequence[dict]) -> str:
    """The page of one run on one machine, with the machine as its last chapter.

    Args:
        what: of the line below the title, as "Profile".
        records: of the run; the first says on which machine and when.
    """
    if not records:
        return page(title, "", [("nothing measured", chapters)])
    environment = records[0]["environment"]
    gpu = environment["gpu"] or "no GPU: nothing was measured on one"
    where = f"{environment['cpu']}, {environment['cores_usable']} cores · {gpu}"
    last = Chapter("environment", "Environment", render("machine.html", fields=_fields(environment)))
    return page(title, f"{what} of {environment['time']}", [(where, [*chapters, last])])


def _fields(environment: dict) -> dict[str, object]:
    """A record's environment in words: field -> value."""
    commit = environment["commit"] and environment["commit"][:12] + (" (changed)" if environment["dirty"] else "")
    return {
        "triadbench": f"{environment['triadbench']}, commit {commit or 'unknown'}",
        "CPU": f"{environment['cpu']} ({', '.join(environment['cpu_features']) or 'no vector extension known'})",
        "Cores": f"{environment['cores_physical']} physical, {environment['cores_logical']} logical, "
        f"{environment['cores_usable']} usable here; torch uses {environment['torch_threads']} threads",
        "Memory": f"{environment['ram_gb']} GB",
        "GPU": environment["gpu"] and f"{environment['gpu']}, driver {environment['gpu_driver']}" or "none",
        "System": environment["os"],
        "Python": environment["python"],
        "Packages": ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version),
        "Time": environment["time"],
    }
