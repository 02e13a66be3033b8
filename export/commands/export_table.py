"""What an exported file costs: a short timing of all of them in turns, and the table that `export` prints.

Timed are one clip of 4 s, and a batch of 32 (offline); on as many threads as torch uses, with PyTorch's own predictor
beside them. `benchmark` measures at length.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from triadbench.core import timing
from triadbench.core.commands.console import table
from triadbench.export.formats.exporter import Row

_ROUNDS = {1: 20, 32: 4}  # by batch
_HEADERS = ["file", "format", "precision", "status", "MB", "network MB", "type %", "root %", "worst difference"]


def time_files(rows: Sequence[Row], model: Path | None, progress: Callable[[int, int], None]) -> dict[str, dict]:
    """{file: {"ms", "clips_per_s", "disturbed"}} of the files that are there: median time of a clip alone, clips a
    second in batches of 32, and whether other work wanted the same cores (see `core.timing`)."""
    import numpy as np
    import torch

    from triadbench.core.constants import CLIP_SAMPLES
    from triadbench.core.models.predictor import Predictor
    from triadbench.export.predict.providers import OnnxModel
    from triadbench.export.predict.torch_models import TorchScriptModel

    predictor, threads = Predictor.load(model), torch.get_num_threads()
    runs: dict[str, Callable] = {}
    for row in rows:
        if row.format == "checkpoint":
            runs[row.file] = predictor
        elif row.path is not None:
            opener = OnnxModel if row.format == "onnx" else TorchScriptModel
            runs[row.file] = opener(Path(row.path), threads=threads).run
    times: dict[str, dict] = {name: {"disturbed": False} for name in runs}
    for done, (batch, rounds) in enumerate(_ROUNDS.items()):
        progress(done, len(_ROUNDS))
        waveforms = (0.1 * np.random.default_rng(0).standard_normal((batch, CLIP_SAMPLES))).astype(np.float32)
        with torch.inference_mode():
            mel = predictor.mel(torch.from_numpy(waveforms)).numpy()
        inputs = {row.file: mel if row.front_end == "none" else waveforms for row in rows}
        bound = {name: functools.partial(run, inputs[name]) for name, run in runs.items()}
        for name, measured in timing.measure(bound, rounds=rounds, min_time_s=0.0, warmup=3).items():
            cost = {"ms": measured.p50_ms} if batch == 1 else {"clips_per_s": 1e3 * batch / measured.p50_ms}
            times[name] |= cost | {"disturbed": times[name]["disturbed"] or measured.disturbed}
    progress(len(_ROUNDS), len(_ROUNDS))
    return times


def text(rows: Sequence[Row], times: dict[str, dict]) -> str:
    """The table, and what its columns mean."""
    notes = [f"{row.file}: {row.status}" for row in rows if not row.ok]
    if any(cost.get("disturbed") for cost in times.values()):
        notes.append("Other work kept the cores busy meanwhile: compare the times with one another at most.")
    return "\n".join([table([*_HEADERS, "ms", "clips/s"], [_line(row, times.get(row.file)) for row in rows]), *notes])


def as_json(rows: Sequence[Row], times: dict[str, dict], out: Path) -> dict:
    """The same for programs."""
    untimed = dict.fromkeys(("ms", "clips_per_s", "disturbed"))
    files = [{**dataclasses.asdict(row), **untimed, **times.get(row.file, {})} for row in rows]
    return {"out": str(out), "files": files}


def _line(row: Row, cost: dict | None) -> list:
    return [
        *(row.file, row.format, row.precision, row.status.split(":")[0]),
        *(None if size is None else f"{size / 1e6:.2f}" for size in (row.bytes, row.network_bytes)),
        *(None if share is None else f"{100 * share:.2f}" for share in (row.type_accuracy, row.root_accuracy)),
        None if row.worst_difference is None else f"{row.worst_difference:.1e}",
        *((f"{cost['ms']:.2f}", round(cost["clips_per_s"])) if cost else (None, None)),
    ]
