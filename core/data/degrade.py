"""Degrade a whole data set into a pack: the command `data degrade`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from triadbench.core.audio.io import AudioError
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import PackWriter
from triadbench.core.errors import UserError
from triadbench.core.render.degrade import Degradation, Degrader


def degrade_set(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    degradation: Degradation | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Degrade every clip of a set once, into a pack at `out` with the same names.

    Returns:
        {"path", "n", "skipped": [[name, reason], ...], "bytes", "seed"}

    Raises:
        UserError: nothing to read, or `out` is taken.
    """
    dataset = open_dataset(source)
    degrader = Degrader(degradation or Degradation(), seed)
    skipped, index = list(dataset.skipped), []
    with PackWriter(out, len(dataset)) as writer:
        for position, clip in enumerate(dataset.clips):
            try:
                writer.write(len(index), degrader(dataset.read(position), position))
                index.append({"file": clip.member, "recording": clip.recording})
            except AudioError as error:
                skipped.append((clip.member, str(error)))
            if progress is not None:
                progress(position + 1, len(dataset))
        if not index:
            raise UserError(f"{source}: none of {len(dataset)} clips could be read; the last: {skipped[-1][1]}")
        writer.finish(index, skipped=skipped, source={"degraded": dataset.path.name, "seed": seed})
    size = sum(entry.stat().st_size for entry in Path(out).iterdir())
    return {"path": str(out), "n": len(index), "skipped": [list(e) for e in skipped], "bytes": size, "seed": seed}
