"""HTML of what the page answers, from the templates beside this module."""

import jinja2
from markupsafe import Markup

from triadbench.core.models.chords import ROOTS
from triadbench.export.app import FOLDER, chord_spelling
from triadbench.export.app.quiz import Score
from triadbench.export.app.spectrogram import describe
from triadbench.export.app.uploads import clock
from triadbench.kernels.spec import MelSpec

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def render(template: str, **values: object) -> Markup:
    """A template of the folder `templates`, by its name without suffix."""
    return Markup(_TEMPLATES.get_template(f"{template}.html").render(values))


def hint(line: str) -> Markup:
    """What to do where there is nothing yet."""
    return render("hint", line=line)


def mistake(line: str) -> Markup:
    """A friendly line about what cannot be used, read out at once by a screen reader."""
    return render("mistake", line=line)


def verdict(is_right: bool, words: str, root: str, chord_type: str, score: Score) -> Markup:
    """Of an answer in ear training or practice, with the keys of a chord and the score."""
    return render("verdict", is_right=is_right, words=words, root=root, chord_type=chord_type, score=score)


def keyboard(root: str | None, chord_type: str | None) -> Markup:
    """An SVG of two octaves from C, the triad's keys marked and named; no key is marked without a chord."""
    names = {semitone: name for name, semitone in chord_spelling.notes(root, chord_type)}
    words = chord_spelling.keyboard_words(root, chord_type)
    return render("keyboard", names=names, naturals=list(chord_spelling.NATURALS.values()), words=words)


def spectrogram(waveform, spec: MelSpec, start_s: float = 0.0) -> Markup:
    """An SVG of the mel spectrogram of a waveform (samples,), brightest at its peak, 80 dB down to black."""
    return render("spectrogram", **describe(waveform, spec, start_s))


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


_TEMPLATES.filters |= {"percent": _percent, "clock": clock, "printed": chord_spelling.printed}
_TEMPLATES.globals |= {"keyboard": keyboard, "spectrogram": spectrogram, "roots": ROOTS}
_TEMPLATES.globals |= {"notes": chord_spelling.notes, "chord_words": chord_spelling.chord_words}
