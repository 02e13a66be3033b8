"""What an exported file costs: a short timing of all of them in turns, and the table that `export` prints.

Timed are one clip of 4 s, and a batch of 32 (offline); on as many threads as torch uses, with PyTorch's own predictor
beside them. `benchmark` measures at length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from triadbench.core import timing
from triadbench.core.commands.console import table
from triadbench.export.formats.exporter import Row

_OFFLINE = 32
_ROUNDS = {1: 20, _OFFLINE: 4}


def time_files(
    rows: Sequence[Row], model: Path | None, progress: Callable[[int, int], None] | None = None
) -> dict[str, dict]:
    """{file: {"ms", "clips_per_s", "disturbed"}} of the files that are there: median time of a clip alone, clips a
    second in batches of 32, and whether other work wanted the same cores (see `core.timing`)."""
    import numpy as np

    from triadbench.core.constants import CLIP_SAMPLES
    from triadbench.core.models.predictor import Predictor

    predictor = Predictor.load(model)
    runs = {row.file: (_runner(row, predictor), row.front_end == "none") for row in rows if row.ok}
    times: dict[str, dict] = {name: {} for name in runs}
    for done, batch in enumerate((1, _OFFLINE)):
        if progress is not None:
            progress(done, 2)
        waveforms = (0.1 * np.random.default_rng(0).standard_normal((batch, CLIP_SAMPLES))).astype(np.float32)
        mel = _mel(predictor, waveforms)
        bound = {
            name: (lambda run=run, given=mel if takes_mel else waveforms: run(given))
            for name, (run, takes_mel) in runs.items()
        }
        measured = timing.measure(bound, rounds=_ROUNDS[batch], min_time_s=0.0, warmup=3)
        for name, each in measured.items():
            times[name]["ms" if batch == 1 else "clips_per_s"] = (
                each.p50_ms if batch == 1 else 1e3 * batch / each.p50_ms
            )
            times[name]["disturbed"] = times[name].get("disturbed", False) or each.disturbed
    if progress is not None:
        progress(2, 2)
    return times


def text(rows: Sequence[Row], times: dict[str, dict]) -> str:
    """The table, and what its columns mean."""
    lines = [_line(row, times.get(row.file, {})) for row in rows]
    headers = [
        "file",
        "format",
        "precision",
        "status",
        "MB",
        "network MB",
        "type %",
        "root %",
        "worst difference",
        "ms",
        "clips/s",
    ]
    notes = [f"{row.file}: {row.status}" for row in rows if not row.ok]
    if any(each.get("disturbed") for each in times.values()):
        notes.append("Other work kept the cores busy meanwhile: compare the times with one another at most.")
    return "\n".join([table(headers, lines), *notes])


def as_json(rows: Sequence[Row], times: dict[str, dict], out: Path) -> dict:
    """The same for programs."""
    untimed = dict.fromkeys(("ms", "clips_per_s", "disturbed"))
    return {
        "out": str(out),
        "files": [{**dataclasses.asdict(row), **untimed, **times.get(row.file, {})} for row in rows],
    }


def _line(row: Row, times: dict) -> list:
    return [
        row.file,
        row.format,
        row.precision,
        row.status.split(":")[0],
        *(None if size is None else f"{size / 1e6:.2f}" for size in (row.bytes, row.network_bytes)),
        *(None if share is None else f"{100 * share:.2f}" for share in (row.type_accuracy, row.root_accuracy)),
        None if row.worst_difference is None else f"{row.worst_difference:.1e}",
        f"{times['ms']:.2f}" if times else None,
        round(times["clips_per_s"]) if times else None,
    ]


def _runner(row: Row, predictor) -> Callable:
    import torch

    if row.format == "checkpoint":
        return predictor
    if row.format == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(row.path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda given: session.run(None, {name: given})
    from triadbench.export.formats.torchscript_model import load

    module = load(row.path)

    def run(given):
        with torch.inference_mode():
            return module(torch.from_numpy(given))

    return run


def _mel(predictor, waveforms):
    import torch

    with torch.inference_mode():
        return predictor.mel(torch.from_numpy(waveforms)).numpy()
