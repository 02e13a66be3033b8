"""What the page says of a clip: HTML of an answer, of a mistake, and of nothing yet."""

from __future__ import annotations

from html import escape

from triadbench.export.app.drawings import chord_words, keyboard, notes, printed, symbol
from triadbench.export.app.spectrogram import picture
from triadbench.export.app.uploads import Heard, clock
from triadbench.export.predict.bulk import WINDOW_S


def answer(heard: Heard, predictor) -> str:
    """The chord of a clip, how sure it is, its keys, what else it may be, what the model saw, and the time taken."""
    said = heard.answer
    if said["root"] is None:
        head = '<p class="tb-chord">N</p><p>No chord: this is silence, or too short a sound.</p>'
    else:
        names = ", ".join(printed(name) for name, _ in notes(said["root"], said["type"]))
        head = (
            f'<p class="tb-chord">{escape(symbol(said["chord"]))}</p>'
            f"<p>{escape(chord_words(said['root'], said['type']))}: {names}</p><dl class='tb-bars'>"
            f"{_bar('Chord', said['confidence'])}{_bar('Type: ' + said['type'], said['type_confidence'])}"
            f"{_bar('Root: ' + printed(said['root']), said['root_confidence'])}</dl>"
        )
    if said["windows"] > 1 and said["agreement"] is not None:
        head += (
            f"<p>Heard in {said['windows']} windows of {WINDOW_S:g} s; {_percent(said['agreement'])} of the sound says "
            "this chord."
        )
        head += (
            " There may be several chords in it: the tab Song names each.</p>" if said["agreement"] < 0.8 else "</p>"
        )
    others = "".join(
        f"<tr><td>{escape(symbol(other['chord']))}</td><td>{_percent(other['confidence'])}</td></tr>"
        for other in said["alternatives"]
    )
    table = (
        f'<table class="tb-table"><caption>Next likely chords</caption><thead><tr><th scope="col">chord</th>'
        f'<th scope="col">confidence</th></tr></thead><tbody>{others}</tbody></table>'
        if others
        else ""
    )
    window = f"{clock(heard.start_s)} to {clock(heard.start_s + WINDOW_S)}"
    return (
        f'<section class="tb-answer" role="status" aria-label="Answer">{head}{keyboard(said["root"], said["type"])}'
        f"{table}<figure>{picture(heard.window, predictor.info.spec, heard.start_s)}<figcaption>What the model saw: "
        f"the mel spectrogram of {window}, {predictor.info.spec.n_mels} bands.</figcaption></figure>"
        f'<p class="tb-time">Answered in {heard.read_ms + heard.model_ms:.0f} ms (reading {heard.read_ms:.1f} ms, '
        f"model {heard.model_ms:.1f} ms) by {escape(predictor.path.name)} on {predictor.provider}.</p></section>"
    )


def mistake(line: str) -> str:
    """A friendly line about what cannot be used, read out at once by a screen reader."""
    return f'<p class="tb-mistake" role="alert">{escape(line[:1].upper() + line[1:])}.</p>'


def hint(line: str) -> str:
    """What to do where there is nothing yet."""
    return f'<p class="tb-hint" role="status">{escape(line)}</p>'


def _percent(share: float) -> str:
    return "under 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _bar(name: str, share: float) -> str:
    return (
        f"<div><dt>{escape(name)}</dt><dd><span class='tb-bar' aria-hidden='true'><span style='width:"
        f"{100 * share:.1f}%'></span></span>{_percent(share)}</dd></div>"
    )
