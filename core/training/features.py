"""Mel spectrograms of a whole data set, computed once and not in every epoch."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.data.dataset import Dataset
from triadbench.core.data.pack import CLIPS
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.kernels.spec import MelSpec

_BATCH = 64


def features_of(
    dataset: Dataset,
    spec: MelSpec,
    *,
    log: bool,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Mel spectrograms (n, n_mels, n_frames) of all clips.

    Args:
        log: log mel, kept as float16 (error 2^-11 of values within +-24: below a tenth of a decibel); otherwise
            power mel as float32, whose range float16 does not hold.
        cache: folder for the array, which is then memory-mapped and found again by the set's digest; None keeps it in
            memory.
        progress: called with (clips done, clips).

    Raises:
        UserError: a clip that cannot be read. (Check the set with `data info` first, or pack it.)
    """
    import torch

    from triadbench.kernels import MelSpectrogram

    transform = MelSpectrogram.from_spec(spec, log=log)
    shape = (len(dataset), spec.n_mels, spec.n_frames(CLIP_SAMPLES))
    dtype = np.dtype(np.float16 if log else np.float32)

    def fill(out: np.ndarray) -> None:
        with torch.inference_mode():
            for start in range(0, len(dataset), _BATCH):
                rows = range(start, min(start + _BATCH, len(dataset)))
                out[rows.start : rows.stop] = transform(torch.from_numpy(dataset.read_many(rows))).numpy()
                if progress is not None:
                    progress(rows.stop, len(dataset))

    if cache is None:
        out = np.empty(shape, dtype)
        fill(out)
        return out
    # The digest knows names and sizes (of a zip checksums as well); files rewritten in place have another time.
    files = {"pack": [CLIPS], "folder": [clip.member for clip in dataset.clips]}.get(dataset.kind, [])
    written = [os.stat(dataset.path / file).st_mtime_ns for file in files]
    key = json.dumps([dataset.digest(), str(dataset.path.resolve()), written, spec.to_dict(), log, shape])
    path = Path(cache) / f"features-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        with atomic_path(path) as temporary:
            out = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            fill(out)
            out.flush()
    try:
        out = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: a damaged cache ({error}); delete it, and it is made again") from error
    if out.shape != shape or out.dtype != dtype:
        raise UserError(f"{path}: a cache of another shape; delete it, and it is made again")
    return out
