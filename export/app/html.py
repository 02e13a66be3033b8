"""What the page shows: spelled chords, the keyboard, the mel spectrogram, and HTML from the templates beside it."""

import base64
import io

import jinja2
import numpy as np
from markupsafe import Markup

from triadbench.core.models.chords import root_pitch_class
from triadbench.core.models.spelling import chord_root, chord_words, note_names, printed, read_chord, spoken
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.export.app import FOLDER
from triadbench.export.app.quiz import Score
from triadbench.export.app.recognition import clock
from triadbench.kernels import mel_reference
from triadbench.kernels.spec import MelSpec

_NATURALS = (0, 2, 4, 5, 7, 9, 11)  # semitones of white keys above C
_COLOURS = "#000004 #1c1044 #4f127b #812581 #b5367a #e55064 #fb8761 #fec287 #fcfdbf".split()
"""Dark to light with even steps of lightness, so that the picture reads in grey as well."""
_RANGE_DB = 80.0
_HZ = (100, 200, 500, 1000, 2000, 3000, 4000, 8000)
_LOADER = jinja2.FileSystemLoader(FOLDER / "templates")
_TEMPLATES = jinja2.Environment(
    loader=_LOADER, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
)


def notes(chord: str) -> list[tuple[str, int]]:
    """(name as "Eb", semitones above the first C) of a chord's notes in root position; [] for "N"."""
    parts = read_chord(chord)
    if parts is None:
        return []
    lowest, steps = root_pitch_class(parts.root), QUALITIES[parts.quality].semitones
    return list(zip(note_names(chord), (lowest + step for step in steps), strict=True))


def render(template: str, **values: object) -> Markup:
    """A template of the folder `templates`, by its name without suffix."""
    return Markup(_TEMPLATES.get_template(f"{template}.html").render(values))


def hint(line: str) -> Markup:
    """What to do where there is nothing yet."""
    return render("hint", line=line)


def mistake(line: str) -> Markup:
    """A friendly line about what cannot be used, read out at once by a screen reader."""
    return render("mistake", line=line)


def verdict(is_right: bool, words: str, chord: str, score: Score) -> Markup:
    """Of an answer in ear training or practice, with the keys of a chord and the score."""
    return render("verdict", is_right=is_right, words=words, chord=chord, score=score)


def keyboard(chord: str) -> Markup:
    """An SVG of two octaves from C, the chord's keys marked and named; no key is marked for "N"."""
    names = {semitone: name for name, semitone in notes(chord)}
    words = "No chord"
    if (parts := read_chord(chord)) is not None:
        spoken_notes = [*map(spoken, names.values())]
        words = f"{spoken_notes[0]} {QUALITIES[parts.quality].words}: {', '.join(spoken_notes)}"
    return render("keyboard", names=names, naturals=_NATURALS, words=words)


def spectrogram(waveform: np.ndarray, spec: MelSpec, start_s: float = 0.0) -> Markup:
    """An SVG of the mel spectrogram of a waveform (samples,), brightest at its peak, 80 dB down to black."""
    filterbank = spec.filterbank()
    mel = mel_reference.mel_spectrogram(waveform, spec, filterbank=filterbank)
    level_db = 20.0 / spec.power * np.log10(np.maximum(mel, 1e-10))
    shades = np.clip(255 * (1 + (level_db - level_db.max()) / _RANGE_DB), 0, 255).astype(np.uint8)
    centres_hz = filterbank.argmax(axis=1) * spec.sample_rate / spec.n_fft
    seconds = len(waveform) / spec.sample_rate
    extent = f"{spec.n_mels} bands from {spec.f_min:g} to {spec.f_max:g} Hz over {seconds:g} seconds"
    loudest_hz = centres_hz[mel.sum(axis=1).argmax()]
    return render(
        "spectrogram",
        png=base64.b64encode(_png(shades[::-1])).decode(),
        words=f"{extent} from second {start_s:g}; loudest near {loudest_hz:.0f} Hz",
        frequencies=_frequency_marks(centres_hz),
        seconds=[(f"{start_s + second:g} s", second / seconds) for second in range(int(seconds) + 1)],
    )


def _frequency_marks(centres_hz: np.ndarray) -> list[tuple[str, float]]:
    """Where each frequency lies among the bands with these centres; those too near the one before are left out."""
    marks: list[tuple[str, float]] = []
    for hz in _HZ:
        share = float(np.interp(hz, centres_hz, np.arange(len(centres_hz))) + 0.5) / len(centres_hz)
        inside = centres_hz[0] <= hz <= centres_hz[-1] * 1.02
        if inside and (not marks or share - marks[-1][1] > 0.1):
            marks.append((f"{hz // 1000} kHz" if hz >= 1000 else f"{hz} Hz", share))
    return marks


def _png(shades: np.ndarray) -> bytes:
    """A PNG of shades (height, width) uint8 in our colours."""
    from PIL import Image  # Gradio brings it

    anchors = np.array([list(bytes.fromhex(colour[1:])) for colour in _COLOURS])
    positions = np.linspace(0, len(anchors) - 1, 256)
    palette = np.stack([np.interp(positions, np.arange(len(anchors)), channel) for channel in anchors.T], axis=1)
    image = Image.fromarray(np.ascontiguousarray(shades))
    image.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _hue_of(chord: str) -> int | None:
    """Degrees of the colour circle, by the circle of fifths; None for "N"."""
    parts = read_chord(chord)
    return None if parts is None else 30 * (7 * parts.root % 12)


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


_TEMPLATES.filters |= {"percent": _percent, "clock": clock, "printed": printed}
_TEMPLATES.globals |= {"keyboard": keyboard, "spectrogram": spectrogram, "hue_of": _hue_of}
_TEMPLATES.globals |= {"notes": notes, "chord_words": chord_words, "chord_root": chord_root}
