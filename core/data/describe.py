"""What is in a data set: counts by every label, lengths, levels, duplicates, silence; and a page that shows it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from triadbench.core.audio.io import AudioError, to_int16
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.data.clips import Dataset, Progress
from triadbench.core.errors import UserError
from triadbench.core.files import StrPath, atomic_path
from triadbench.core.models.chords import ROOTS, TYPES

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SILENT_PEAK_DB = -60.0
"""Below this peak (in dB of full scale) a clip counts as silent: 33 of 32768 steps."""
FLOOR_DB = -120.0
_LISTED = 100


def describe(dataset: Dataset, progress: Progress | None = None) -> dict:
    """Read every clip once and count.

    Returns:
        JSON-ready: n, path, kind, types, roots, octaves, volumes, voicings, kinds (counts by name; "none" where names
        do not say), type_by_root (4, 12), recordings {named, distinct}, sample_rates, durations_s and levels in dB of
        full scale (peak_db, rms_db; each min, p10, median, p90, max, histogram), silent, duplicates {groups, clips,
        pairs: names of clips whose 4 seconds are the same to the bit}, unreadable, skipped {n, reasons, files}.
        Lists of names hold at most 100.
    """
    peaks, levels, durations, silent, unreadable = [], [], [], [], []
    rates: Counter[int] = Counter()
    members_by_content: dict[bytes, list[str]] = defaultdict(list)
    for index, clip in enumerate(dataset.clips):
        try:
            waveform, header = dataset.read(index), dataset.header(index)
        except AudioError as error:
            unreadable.append((clip.member, str(error)))
        else:
            peaks.append(_decibels(np.max(np.abs(waveform))))
            levels.append(_decibels(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))))
            rates[header.sample_rate] += 1
            if header.duration_s is not None:
                durations.append(header.duration_s)
            if peaks[-1] < SILENT_PEAK_DB:
                silent.append(clip.member)
            content = hashlib.blake2b(to_int16(waveform).tobytes(), digest_size=16).digest()
            members_by_content[content].append(clip.member)
        if progress is not None:
            progress(index + 1, len(dataset))
    names = [clip.name for clip in dataset.clips]
    table = np.zeros((len(TYPES), len(ROOTS)), dtype=np.int64)
    np.add.at(table, dataset.labels(), 1)
    recordings = [clip.recording for clip in dataset.clips if clip.recording is not None]
    groups = [members for members in members_by_content.values() if len(members) > 1]
    reasons = (reason.replace(repr(PurePosixPath(name).stem), "its name") for name, reason in dataset.skipped)
    pairs = [[members[0], other] for members in groups for other in members[1:]]
    return {
        "path": str(dataset.path),
        "kind": dataset.kind,
        "n": len(dataset),
        "types": _counts((TYPES[name.type] for name in names), TYPES),
        "roots": _counts((ROOTS[name.root] for name in names), ROOTS),
        **{f"{key}s": _counts(getattr(name, key) for name in names) for key in ("octave", "volume", "voicing", "kind")},
        "type_by_root": table.tolist(),
        "recordings": {"named": len(recordings), "distinct": len(set(recordings))},
        "sample_rates": {str(rate): n for rate, n in sorted(rates.items())},
        "durations_s": _spread(durations),
        "peak_db": _spread(peaks),
        "rms_db": _spread(levels),
        "silent": {"n": len(silent), "files": silent[:_LISTED]},
        "duplicates": {"groups": len(groups), "clips": sum(map(len, groups)), "pairs": pairs[:_LISTED]},
        "unreadable": {"n": len(unreadable), "files": [list(item) for item in unreadable[:_LISTED]]},
        "skipped": {
            "n": len(dataset.skipped),
            "reasons": _counts(reasons),
            "files": [list(item) for item in dataset.skipped[:_LISTED]],
        },
    }


def picture(description: dict, dataset: Dataset, path: StrPath) -> None:
    """Write `description` as one interactive HTML page that needs no network, with the waveform and the log mel
    spectrogram (of the original study) of one clip a type; UserError: `path` is no .html file that can be written.
    """
    if not os.fspath(path).lower().endswith((".html", ".htm")):
        raise UserError(f"{path}: the picture is an interactive page; give a name that ends in .html")
    import plotly.io

    parts = [
        plotly.io.to_html(figure, include_plotlyjs=position == 0, full_html=False, config={"displaylogo": False})
        for position, figure in enumerate((_overview(description), _examples(dataset)))
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width"><title>triadbench: data set</title></head>'
        '<body style="font-family:sans-serif;margin:0 auto;max-width:1200px">' + "".join(parts) + "</body></html>\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, "utf-8")


def _overview(description: dict) -> Figure:
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    specs = [[{"colspan": 2}, None], [{}, {}], [{}, {}]]
    titles = ("clips by type and root", "octave", "volume", "length", "level: RMS blue, peak orange")
    figure = make_subplots(rows=3, cols=2, specs=specs, subplot_titles=titles, vertical_spacing=0.1)
    table = description["type_by_root"]
    texts = {"text": table, "texttemplate": "%{text}", "hovertemplate": "%{x} %{y}: %{z} clips<extra></extra>"}
    heatmap = graph_objects.Heatmap(z=table, x=ROOTS, y=TYPES, colorscale="Blues", zmin=0, showscale=False, **texts)
    figure.add_trace(heatmap, row=1, col=1)
    for column, key in ((1, "octaves"), (2, "volumes")):
        counts = description[key]
        figure.add_trace(graph_objects.Bar(x=list(counts), y=list(counts.values()), name=key), row=2, col=column)
        figure.update_xaxes(type="category", row=2, col=column)
    for column, key, label in ((1, "durations_s", "length"), (2, "peak_db", "peak"), (2, "rms_db", "RMS")):
        histogram = description[key]["histogram"]
        edges = np.array(histogram["edges"])
        if len(edges) > 1:
            bars = {"x": (edges[:-1] + edges[1:]) / 2, "y": histogram["counts"], "width": np.diff(edges)}
            figure.add_trace(graph_objects.Bar(name=label, opacity=0.7, **bars), row=3, col=column)
    figure.update_xaxes(title_text="s", row=3, col=1)
    figure.update_xaxes(title_text="dB of full scale", row=3, col=2)
    title = (
        "{n} clips, {skipped[n]} files skipped, {silent[n]} silent, {duplicates[clips]} in {duplicates[groups]} groups "
        "of duplicates"
    ).format(**description)
    figure.update_layout(title=title, height=950, barmode="overlay", showlegend=False, template="plotly_white")
    return figure


def _examples(dataset: Dataset) -> Figure:
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    from triadbench.kernels.mel_reference import mel_spectrogram
    from triadbench.kernels.spec import ORIGINAL

    first = {clip.name.type: index for index, clip in reversed(list(enumerate(dataset.clips)))}
    waveforms = {}
    for index in sorted(first.values()):
        with contextlib.suppress(AudioError):
            waveforms[dataset.clips[index].member] = dataset.read(index)
    titles = list(waveforms)
    figure = make_subplots(rows=2, cols=max(1, len(titles)), subplot_titles=titles, vertical_spacing=0.12)
    for column, waveform in enumerate(waveforms.values(), 1):
        # The lowest and highest sample of every 10 ms: the outline, at a fortieth of the size.
        steps = waveform[: len(waveform) // 160 * 160].reshape(-1, 160)
        outline = np.stack([steps.min(axis=1), steps.max(axis=1)], axis=1).ravel()
        seconds = np.arange(len(outline)) * 80 / SAMPLE_RATE
        line = graph_objects.Scattergl(x=seconds, y=np.round(outline, 4), line={"width": 1})
        figure.add_trace(line, row=1, col=column)
        decibels = 10 * np.log10(np.maximum(mel_spectrogram(waveform[None], ORIGINAL)[0], 1e-12))
        decibels = np.round(np.maximum(decibels, decibels.max() - 80), 1)
        times = np.round(np.arange(decibels.shape[1]) * ORIGINAL.hop_length / ORIGINAL.sample_rate, 3)
        axes = {"x": times, "y": np.round(ORIGINAL.mel_points()[1:-1], 1)}
        mel = graph_objects.Heatmap(z=decibels, colorscale="Magma", showscale=False, **axes)
        figure.add_trace(mel, row=2, col=column)
        figure.update_yaxes(type="log", title_text="Hz" if column == 1 else None, row=2, col=column)
        figure.update_xaxes(title_text="s", row=2, col=column)
    figure.update_layout(height=650, showlegend=False, template="plotly_white", title="examples")
    return figure


def _counts(values: Iterable[object], order: Sequence[str] = ()) -> dict[str, int]:
    counts = Counter("none" if value is None else str(value) for value in values)
    return {key: counts[key] for key in (*order, *sorted(set(counts) - set(order)))}


def _spread(values: Sequence[float]) -> dict:
    names = ("min", "p10", "median", "p90", "max")
    if not values:
        return dict.fromkeys(names) | {"histogram": {"edges": [], "counts": []}}
    percentiles = np.percentile(values, [0, 10, 50, 90, 100])
    counts, edges = np.histogram(values, bins=40, range=(percentiles[0] - 0.5, percentiles[-1] + 0.5))
    histogram = {"edges": np.round(edges, 4).tolist(), "counts": counts.tolist()}
    return dict(zip(names, percentiles.tolist(), strict=True)) | {"histogram": histogram}


def _decibels(amplitude: float) -> float:
    return float(max(FLOOR_DB, 20 * np.log10(max(float(amplitude), 1e-12))))
