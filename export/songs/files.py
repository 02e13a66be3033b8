"""A timeline as a file: .lab (MIREX), JSON, CSV, MIDI or a plot; and as a table to read."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triadbench.core.constants import TIMELINE_FORMATS as FORMATS
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.models.chords import NO_CHORD, ROOTS, TYPES, root_pitch_class
from triadbench.core.models.spelling import chord_name, chord_root, read_chord
from triadbench.core.models.vocabulary import QUALITIES
from triadbench.export.songs.timeline import Segment, Timeline

if TYPE_CHECKING:
    import mido
    import plotly.graph_objects as go

_TICKS, _ASSUMED_BPM, _VELOCITY = 480, 120.0, 72  # of MIDI
_BASS_MIDI, _LOWEST_MIDI = 36, 55  # the bass sounds below C3, the chord from G3 up
_COLOURS = "#0b63b0", "#b3420f", "#6d3aa8", "#1a7a4c", "#7a6a00", "#666c76"  # of `TYPES`, no triad, no chord
_SHOWN_S, _NAMED_S = 40.0, 0.9
"""Seconds of the plot shown at first; the shortest segment that has room for its name then."""


def _csv(timeline: Timeline) -> str:
    """A row a segment, with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow("start_s end_s chord root type roman confidence name label bass label_confidence".split())
    for s, numeral in zip(timeline.segments, timeline.roman, strict=True):
        shares = ("" if share is None else f"{share:.4f}" for share in (s.confidence, s.label_confidence))
        times = f"{s.start_s:.3f}", f"{s.end_s:.3f}"
        writer.writerow([*times, s.chord, s.root, s.type, numeral, next(shares), s.name, s.label, s.bass, *shares])
    return out.getvalue()


def text(timeline: Timeline) -> str:
    """A table to read, with key, tempo and the common progressions below it."""
    rows = [("start", "end", "chord", "roman", "confidence"), ("-----", "---", "-----", "-----", "----------")]
    for s, numeral in zip(timeline.segments, timeline.roman, strict=True):
        confidence = "" if s.label_confidence is None else f"{100 * s.label_confidence:.1f} %"
        rows.append((clock(s.start_s), clock(s.end_s), s.name, numeral or "", confidence))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, ">><<>", widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += ["", f"length       {clock(timeline.duration_s)}"]
    if timeline.key is not None:
        confidence = "" if timeline.key_confidence is None else f" ({100 * timeline.key_confidence:.0f} %)"
        lines.append(f"key          {timeline.key}{confidence}")
    if timeline.tempo_bpm is not None:
        bars = "" if timeline.meter is None else f", {timeline.meter} in a bar"
        lines.append(f"tempo        {timeline.tempo_bpm:.0f} beats a minute{bars}")
    for k, entry in enumerate(timeline.progressions):
        label = "progressions" if k == 0 else ""
        lines.append(f"{label:12} {' '.join(entry['roman'])}   ({' '.join(entry['chords'])}; {entry['count']} times)")
    return "\n".join(lines) + "\n"


def clock(seconds: float) -> str:
    """Minutes and seconds, as 3:07.25; with hours from one on."""
    minutes, hundredths = divmod(round(seconds * 100), 6000)
    rest = f"{hundredths / 100:05.2f}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest}" if minutes >= 60 else f"{minutes}:{rest}"


def chord_midi(name: str) -> list[int]:
    """MIDI numbers that sound a chord: its bass, and its notes close above G3; none for "N"."""
    chord = read_chord(name)
    if chord is None:
        return []
    root, bass = (root_pitch_class(chord.root if k is None else k) for k in (chord.root, chord.bass))
    close = sorted(_LOWEST_MIDI + (root + step - _LOWEST_MIDI) % 12 for step in QUALITIES[chord.quality].semitones)
    return [_BASS_MIDI + bass, *close]


def _midi_beats(timeline: Timeline) -> tuple[list[float], int]:
    """Times of beats in seconds, from 0 until after the end, and how many lie before the first whole bar."""
    heard = timeline.beats if len(timeline.beats) > 1 else [(0.0, 1), (60 / (timeline.tempo_bpm or _ASSUMED_BPM), 2)]
    times = [time for time, _ in heard]
    n_before = round(times[0] / (times[1] - times[0]))
    pickup = n_before + next((k for k, (_, position) in enumerate(heard) if position == 1), 0)
    beats = [*(times[0] * k / n_before for k in range(n_before)), *(times if n_before else [0.0, *times[1:]])]
    while beats[-1] <= timeline.duration_s:
        beats.append(beats[-1] + times[-1] - times[-2])
    return beats, pickup % (timeline.meter or 1)


def midi(timeline: Timeline) -> mido.MidiFile:
    """One track: the tempo of each beat, meter and key, a marker with each chord's name, and its notes."""
    import mido

    beats, pickup = _midi_beats(timeline)
    ticks = _TICKS * np.arange(len(beats))
    events: list[tuple[int, mido.Message | mido.MetaMessage]] = []

    def add(type: str, tick: int, make: type = mido.MetaMessage, **fields: object) -> None:
        events.append((tick, make(type, **fields)))

    tempos = [round(1e6 * (end - start)) for start, end in itertools.pairwise(beats)]
    for k, tempo in enumerate(tempos):
        if k == 0 or abs(tempo - tempos[k - 1]) > 1:
            add("set_tempo", _TICKS * k, tempo=tempo)
    if timeline.meter is not None:
        for k, numerator in {0: pickup or timeline.meter, pickup: timeline.meter}.items():
            add("time_signature", _TICKS * k, numerator=numerator, denominator=4)
    if timeline.key is not None:
        tonic, mode = timeline.key.split()
        add("key_signature", 0, key=tonic + "m" if mode == "minor" else tonic)
    for segment in (s for s in timeline.segments if s.name != NO_CHORD):
        start, end = np.rint(np.interp([segment.start_s, segment.end_s], beats, ticks)).astype(int).tolist()
        notes = chord_midi(segment.name)
        add("marker", start, text=segment.name)
        for note in notes:
            add("note_on", start, mido.Message, note=note, velocity=_VELOCITY)
        for note in notes:
            add("note_off", end, mido.Message, note=note, velocity=0)
    add("end_of_track", round(float(np.interp(timeline.duration_s, beats, ticks))))
    track, now = mido.MidiTrack(), 0
    for tick, message in sorted(events, key=lambda event: event[0]):
        track.append(message.copy(time=tick - now))
        now = tick
    return mido.MidiFile(type=0, ticks_per_beat=_TICKS, tracks=[track])


def figure(timeline: Timeline) -> go.Figure:
    """A plotly figure: chords over time, one row a root (around the circle of fifths), one colour a type of triad."""
    import plotly.graph_objects as go

    circle = [(ROOTS.index("C") + 7 * k) % 12 for k in range(12)]
    row_of: dict[int | None, str] = {root: _row_name(root, timeline) for root in circle}
    roots = {s: None if (chord := read_chord(s.name)) is None else chord.root for s in timeline.segments}
    if None in roots.values():
        row_of[None] = NO_CHORD
    plot = go.Figure()
    for kind, colour in zip((*TYPES, "no triad", "no chord"), _COLOURS, strict=True):
        bars = [(s, r) for s, r in zip(timeline.segments, timeline.roman, strict=True) if _kind(s) == kind]
        if not bars:
            continue
        plot.add_bar(
            base=[s.start_s for s, _ in bars],
            x=[s.end_s - s.start_s for s, _ in bars],
            y=[row_of[roots[s]] for s, _ in bars],
            orientation="h",
            name=kind,
            marker={"color": colour, "line": {"width": 0}},
            width=0.85,
            hovertext=[s.name for s, _ in bars],
            customdata=[
                (
                    f"{clock(s.start_s)} to {clock(s.end_s)}",
                    r,
                    "" if s.label_confidence is None else f"{s.label_confidence:.1%}",
                )
                for s, r in bars
            ],
            hovertemplate="<b>%{hovertext}</b> %{customdata[1]}<br>%{customdata[0]}<br>%{customdata[2]}<extra></extra>",
        )
    # The names are a trace of their own: plotly misplaces texts inside bars that have a base.
    named = [s for s in timeline.segments if s.end_s - s.start_s >= _NAMED_S]
    places = {"x": [(s.start_s + s.end_s) / 2 for s in named], "y": [row_of[roots[s]] for s in named]}
    style = {"mode": "text", "textfont": {"color": "white", "size": 12}, "hoverinfo": "skip", "showlegend": False}
    plot.add_scatter(**places, text=[s.name for s in named], **style)
    if lines := " ".join(f"M {time:.3f},0 V 1" for time, position in timeline.beats if position == 1):  # of bars
        plot.add_shape(type="path", path=lines, yref="paper", layer="below", line={"color": "#9aa3ad", "width": 1})
    title = "Chords" if timeline.key is None else f"Chords in {timeline.key}"
    plot.update_layout(title={"text": title}, template="plotly_white", barmode="overlay", height=560)
    plot.update_layout(margin={"l": 50, "r": 20, "t": 70, "b": 40})
    plot.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"})
    seconds = [0, min(timeline.duration_s, _SHOWN_S)]
    plot.update_xaxes(title={"text": "seconds"}, range=seconds, rangeslider={"visible": True, "thickness": 0.08})
    rows = list(row_of.values())[::-1]
    plot.update_yaxes(categoryorder="array", categoryarray=rows, title={"text": "root"}, fixedrange=True)
    return plot


def _kind(segment: Segment) -> str:
    return segment.type or ("no chord" if segment.name == NO_CHORD else "no triad")


def _row_name(root: int, timeline: Timeline) -> str:
    """A root as most of the song's chords spell it, or as a major triad there would be."""
    names = [str(chord_root(s.name)) for s in timeline.segments if (c := read_chord(s.name)) and c.root == root]
    return max(names, key=names.count) if names else chord_name(root, TYPES.index("major"), timeline.key)


def format_of(path: str | Path) -> str:
    """The format that a file name asks for. Raises UserError for another suffix."""
    suffix = Path(path).suffix.lower().lstrip(".")
    suffix = {"midi": "mid", "htm": "html"}.get(suffix, suffix)
    if suffix not in FORMATS:
        raise UserError(f"{path}: give a name that ends in {', '.join('.' + name for name in FORMATS)}")
    return suffix


def write(timeline: Timeline, path: str | Path, format: str | None = None) -> None:
    """Write a timeline in one of `FORMATS`, None: that of the name; the file appears whole or not at all.

    Raises:
        UserError: an unknown format, or the place cannot be written.
    """
    format = format or format_of(path)
    if format not in FORMATS:
        raise UserError(f"format={format!r} must be one of {', '.join(FORMATS)}")
    with atomic_path(path) as temporary:
        if format == "mid":
            midi(timeline).save(temporary)
        elif format == "html":
            options = {"displaylogo": False, "responsive": True}
            figure(timeline).write_html(temporary, include_plotlyjs=True, config=options)
        else:
            if format == "json":
                content = json.dumps(timeline.as_dict(), indent=1, allow_nan=False) + "\n"
            elif format == "csv":
                content = _csv(timeline)
            else:  # start and end in seconds, chord
                rows = ((f"{s.start_s:.3f}", f"{s.end_s:.3f}", s.label) for s in timeline.segments)
                content = "".join("\t".join(row) + "\n" for row in rows)
            temporary.write_text(content, encoding="utf-8", newline="\n")
