"""A song's chords over time as HTML: a strip of buttons that goes along with the playback, and what the song is in."""

from __future__ import annotations

from html import escape
from urllib.parse import quote

from triadbench.core.models.chords import NO_CHORD, ROOTS
from triadbench.export.app.drawings import printed, symbol
from triadbench.export.app.uploads import clock

_PX_A_SECOND = 34
_MOST_PROGRESSIONS = 5


def page(timeline, playback: str | None, seconds: float) -> str:
    """The timeline with a player of its own.

    Args:
        timeline: of `export.songs.timeline`.
        playback: path of the sound that this visitor sent, or None. seconds: that the answer took.
    """
    player = (
        f'<audio id="song-player" controls preload="metadata" aria-label="Playback of your song" '
        f'src="gradio_api/file={quote(playback)}"></audio>'
        if playback
        else ""
    )
    cells = "".join(_cell(segment, roman) for segment, roman in _with_roman(timeline))
    return (
        f'<section class="tb-song" role="status" aria-label="Chords over time">{_facts(timeline, seconds)}{player}'
        f'<ol class="tb-strip" aria-label="Chords in order; choose one to hear it">{cells}</ol>'
        f"{_progressions(timeline)}</section>"
    )


def _with_roman(timeline) -> list[tuple]:
    romans = list(timeline.roman) + [None] * (len(timeline.segments) - len(timeline.roman))
    return list(zip(timeline.segments, romans, strict=False))


def _cell(segment, roman: str | None) -> str:
    lasting = segment.end_s - segment.start_s
    silent = segment.chord == NO_CHORD
    name = "no chord" if silent else f"{segment.root} {segment.type}"
    sure = "" if segment.confidence is None else f", {100 * segment.confidence:.0f} % sure"
    numeral = "" if roman is None else f", {roman}"
    told = f"{name}{numeral}, {clock(segment.start_s)} to {clock(segment.end_s)}{sure}"
    hue = "" if silent or segment.root not in ROOTS else f"--hue:{30 * (7 * ROOTS.index(segment.root) % 12)};"
    return (
        f'<li style="{hue}flex:0 1 {max(lasting * _PX_A_SECOND, 44):.0f}px"><button type="button" '
        f'class="tb-cell {"tb-none" if silent else ""}" data-start="{segment.start_s:.3f}" '
        f'data-end="{segment.end_s:.3f}" aria-label="{escape(told)}" title="{escape(told)}">'
        f"<b>{escape(symbol(segment.chord))}</b><small>{escape(roman or '')}</small>"
        f"<small>{clock(segment.start_s)}</small></button></li>"
    )


def _facts(timeline, seconds: float) -> str:
    facts = [f"{clock(timeline.duration_s)} long", f"{len(timeline.segments)} segments"]
    if timeline.key:
        key = escape(printed(timeline.key.split()[0]) + timeline.key[len(timeline.key.split()[0]) :])
        facts.insert(0, f"key of {key}")
    if timeline.tempo_bpm:
        facts.append(f"about {timeline.tempo_bpm:.0f} beats a minute")
    return f"<p><b>{' · '.join(facts)}</b></p><p class='tb-time'>Found in {seconds:.1f} s.</p>"


def _progressions(timeline) -> str:
    rows = [_progression(found) for found in timeline.progressions[:_MOST_PROGRESSIONS]]
    if not rows:
        return ""
    return (
        '<table class="tb-table"><caption>Most common progressions</caption><thead><tr><th scope="col">chords</th>'
        f'<th scope="col">times</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _progression(found: dict) -> str:
    chords = found.get("roman") or found.get("chords") or []
    count = found.get("count", "")
    return f"<tr><td>{escape(' – '.join(map(str, chords)))}</td><td>{escape(str(count))}</td></tr>"
