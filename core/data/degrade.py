"""Degrade a whole data set into a pack: the command `data degrade`."""

from triadbench.core.data.clips import Progress
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import pack
from triadbench.core.files import StrPath
from triadbench.core.render.degrade import Degradation, Degrader


def degrade_set(
    source: StrPath,
    out: StrPath,
    *,
    degradation: Degradation | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict:
    """Degrade every clip of a set once, into a pack at `out` with the same names.

    Returns:
        {"path", "n", "skipped": [[name, reason], ...], "bytes", "seed"}

    Raises:
        UserError: nothing to read, or `out` is taken.
    """
    dataset = open_dataset(source)
    degrader = Degrader(degradation or Degradation(), seed)
    described = {"degraded": dataset.path.name, "seed": seed}
    return pack(dataset, out, progress, change=degrader, source=described) | {"seed": seed}
