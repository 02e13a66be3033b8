"""A timeline as a file: .lab (MIREX), JSON, CSV, MIDI, a plot, or a table to read.

Every format is written by one function of the timeline; `FORMATS` names them, and `write` puts the file in place whole.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.models.chords import ROOTS, TYPE_INTERVALS, TYPES, root_pitch_class
from triadbench.export.songs.timeline import Segment, Timeline

_LAB_TYPES = dict(zip(TYPES, ("maj", "min", "dim", "aug"), strict=True))
_TICKS = 480
_ASSUMED_BPM = 120.0
_VELOCITY = 72
_BASS_MIDI, _LOWEST_MIDI = 36, 55
"""The root sounds below C3, the triad from G3 up."""
_TYPE_COLOURS = dict(zip(TYPES, ("#0b63b0", "#b3420f", "#6d3aa8", "#1a7a4c"), strict=True))
_NO_CHORD_COLOUR = "#666c76"
_SHOWN_S, _NAMED_S = 40.0, 0.9
"""Seconds of the plot shown at first; from what length on a stretch has room for its name then."""


def lab_label(segment: Segment) -> str:
    """The chord in MIREX syntax (Harte, 2010): C:maj, Ab:min, B:dim, F:aug, N."""
    return "N" if segment.root is None else f"{segment.root}:{_LAB_TYPES[segment.type]}"


def lab(timeline: Timeline) -> str:
    """A line a segment: start and end in seconds, chord; separated by tabs."""
    return "".join(f"{s.start_s:.3f}\t{s.end_s:.3f}\t{lab_label(s)}\n" for s in timeline.segments)


def json_text(timeline: Timeline) -> str:
    """All that is known, one object."""
    return json.dumps(timeline.as_dict(), indent=1, allow_nan=False) + "\n"


def csv_text(timeline: Timeline) -> str:
    """A row a segment, with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["start_s", "end_s", "chord", "root", "type", "roman", "confidence"])
    for s, numeral in zip(timeline.segments, timeline.roman, strict=True):
        confidence = "" if s.confidence is None else f"{s.confidence:.4f}"
        writer.writerow([f"{s.start_s:.3f}", f"{s.end_s:.3f}", s.chord, s.root, s.type, numeral, confidence])
    return out.getvalue()


def text(timeline: Timeline) -> str:
    """A table to read, with key, tempo and the common progressions below it."""
    rows = [("start", "end", "chord", "roman", "confidence"), ("-----", "---", "-----", "-----", "----------")]
    for s, numeral in zip(timeline.segments, timeline.roman, strict=True):
        confidence = "" if s.confidence is None else f"{100 * s.confidence:.1f} %"
        rows.append((clock(s.start_s), clock(s.end_s), s.chord, numeral or "", confidence))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = [
        f"{a.rjust(widths[0])}  {b.rjust(widths[1])}  {c.ljust(widths[2])}  {d.ljust(widths[3])}  "
        f"{e.rjust(widths[4])}".rstrip()
        for a, b, c, d, e in rows
    ]
    return "\n".join([*lines, "", *summary(timeline)]) + "\n"


def summary(timeline: Timeline) -> list[str]:
    """Lines about all of the recording: key, tempo, the most common progressions."""
    lines = [f"length       {clock(timeline.duration_s)}"]
    if timeline.key is not None:
        lines.append(f"key          {timeline.key} ({100 * timeline.key_confidence:.0f} %)")
    if timeline.tempo_bpm is not None:
        lines.append(f"tempo        {timeline.tempo_bpm:.0f} beats a minute")
    for k, entry in enumerate(timeline.progressions):
        head = "progressions" if k == 0 else ""
        times = f"{entry['count']} times"
        lines.append(f"{head:12} {' '.join(entry['roman'])}   ({' '.join(entry['chords'])}; {times})")
    return lines


def clock(seconds: float) -> str:
    """Minutes and seconds, as 3:07.25; with hours from one on."""
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    hours, minutes = divmod(minutes, 60)
    clock_text = f"{minutes:02d}:{rest / 100:05.2f}" if hours else f"{minutes}:{rest / 100:05.2f}"
    return f"{hours}:{clock_text}" if hours else clock_text


def chord_midi(segment: Segment) -> list[int]:
    """MIDI numbers that sound a segment: the root in the bass, and the triad close above G3; none for "N"."""
    if segment.root is None:
        return []
    pitch_class = root_pitch_class(ROOTS.index(segment.root))
    steps = TYPE_INTERVALS[TYPES.index(segment.type)]
    close = sorted(_LOWEST_MIDI + (pitch_class + step - _LOWEST_MIDI) % 12 for step in steps)
    return [_BASS_MIDI + pitch_class, *close]


def _write_midi(timeline: Timeline, path: Path) -> None:
    import mido

    bpm = timeline.tempo_bpm or _ASSUMED_BPM
    midi = mido.MidiFile(type=0, ticks_per_beat=_TICKS)
    track = mido.MidiTrack()
    midi.tracks.append(track)
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm)))
    if timeline.key is not None:
        tonic, mode = timeline.key.split()
        track.append(mido.MetaMessage("key_signature", key=_signature(tonic, mode)))
    now = 0

    def tick(seconds: float) -> int:
        return round(seconds * bpm / 60 * _TICKS)

    for segment in timeline.segments:
        start, end, notes = tick(segment.start_s), tick(segment.end_s), chord_midi(segment)
        if segment.root is not None:
            track.append(mido.MetaMessage("marker", text=segment.chord, time=start - now))
            now = start
        for note in notes:
            track.append(mido.Message("note_on", note=note, velocity=_VELOCITY, time=start - now))
            now = start
        for note in notes:
            track.append(mido.Message("note_off", note=note, velocity=0, time=end - now))
            now = end
    track.append(mido.MetaMessage("end_of_track", time=max(0, tick(timeline.duration_s) - now)))
    midi.save(path)


def _signature(tonic: str, mode: str) -> str:
    """As MIDI knows it: keys that it lacks are spelt with their other name."""
    if mode == "minor":
        return {"Db": "C#", "Gb": "F#"}.get(tonic, tonic) + "m"
    return tonic


def _write_plot(timeline: Timeline, path: Path) -> None:
    figure(timeline).write_html(path, include_plotlyjs=True, config={"displaylogo": False, "responsive": True})


def figure(timeline: Timeline):
    """A plotly figure: chords over time, one row a root (around the circle of fifths), one colour a type."""
    import plotly.graph_objects as go

    circle = [ROOTS[(ROOTS.index("C") + 7 * k) % 12] for k in range(12)]
    rows = [*circle, "N"] if any(s.root is None for s in timeline.segments) else circle
    page = go.Figure()
    for kind, colour in [*_TYPE_COLOURS.items(), (None, _NO_CHORD_COLOUR)]:
        chosen = [(s, r) for s, r in zip(timeline.segments, timeline.roman, strict=True) if s.type == kind]
        if not chosen:
            continue
        page.add_trace(
            go.Bar(
                base=[s.start_s for s, _ in chosen],
                x=[s.end_s - s.start_s for s, _ in chosen],
                y=[s.root or "N" for s, _ in chosen],
                orientation="h",
                name=kind or "no chord",
                marker={"color": colour, "line": {"width": 0}},
                width=0.85,
                hovertext=[s.chord for s, _ in chosen],
                customdata=[
                    [clock(s.start_s), clock(s.end_s), r or "", "" if s.confidence is None else f"{s.confidence:.1%}"]
                    for s, r in chosen
                ],
                hovertemplate="<b>%{hovertext}</b> %{customdata[2]}<br>%{customdata[0]} to %{customdata[1]}<br>"
                "%{customdata[3]}<extra></extra>",
            )
        )
    # Written as a trace of their own: inside bars that have a base, plotly puts texts where they do not belong.
    named = [s for s in timeline.segments if s.end_s - s.start_s >= _NAMED_S]
    page.add_trace(
        go.Scatter(
            x=[(s.start_s + s.end_s) / 2 for s in named],
            y=[s.root or "N" for s in named],
            text=[s.chord for s in named],
            mode="text",
            textfont={"color": "white", "size": 12},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    shown = min(timeline.duration_s, _SHOWN_S)
    page.update_layout(
        title={"text": "Chords" + ("" if timeline.key is None else f" in {timeline.key}")},
        template="plotly_white",
        barmode="overlay",
        height=560,
        margin={"l": 50, "r": 20, "t": 70, "b": 40},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
    )
    page.update_xaxes(title={"text": "seconds"}, range=[0, shown], rangeslider={"visible": True, "thickness": 0.08})
    page.update_yaxes(categoryorder="array", categoryarray=rows[::-1], title={"text": "root"}, fixedrange=True)
    return page


def _text_writer(make: Callable[[Timeline], str]) -> Callable[[Timeline, Path], None]:
    def put(timeline: Timeline, path: Path) -> None:
        path.write_text(make(timeline), encoding="utf-8", newline="\n")

    return put


_WRITERS: dict[str, Callable[[Timeline, Path], None]] = {
    "lab": _text_writer(lab),
    "json": _text_writer(json_text),
    "csv": _text_writer(csv_text),
    "mid": _write_midi,
    "html": _write_plot,
}
FORMATS = tuple(_WRITERS)


def format_of(path: str | Path) -> str:
    """The format that a file name asks for.

    Raises:
        UserError: another suffix.
    """
    suffix = Path(path).suffix.lower().lstrip(".")
    suffix = {"midi": "mid", "htm": "html"}.get(suffix, suffix)
    if suffix not in _WRITERS:
        raise UserError(f"{path}: give a name that ends in {', '.join('.' + name for name in FORMATS)}")
    return suffix


def write(timeline: Timeline, path: str | Path, format: str | None = None) -> None:
    """Write a timeline; the file appears whole or not at all.

    Args:
        format: one of `FORMATS`; None takes it from the name.

    Raises:
        UserError: an unknown format, or the place cannot be written.
    """
    format = format or format_of(path)
    if format not in _WRITERS:
        raise UserError(f"format={format!r} must be one of {', '.join(FORMATS)}")
    with atomic_path(path) as temporary:
        _WRITERS[format](timeline, temporary)
