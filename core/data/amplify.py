"""Amplifier copies of a data set, as the second half of the original study's data: `shred___Af_d__000.wav`.

Every clip has a random generator of its own, seeded by (seed, number of the clip), so the bytes do not depend on how
many processes made them. A manifest ties each copy to its recording, so that grouped splits keep copies together.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from triadbench.core import workers
from triadbench.core.constants import usable_cores
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.models.chords import ClipName

if TYPE_CHECKING:
    from triadbench.core.data.dataset import Clip, Dataset

_CHUNK = 32


def amplify_set(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    seed: int = 0,
    jobs: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict:
    """Play every clip of a data set through a random crunch amplifier; the folder `out` appears whole or not at all.

    Args:
        source: folder, zip or pack.
        out: folder to make; it must not exist yet or be empty.
        seed: of the amplifiers' settings. The same seed and source give the same bytes.
        jobs: processes; None for one a core.
        progress: called with (clips done, clips in all).

    Returns:
        `path`, `n` (copies written), `skipped` (list of [member, reason]), `seed`.

    Raises:
        UserError: nothing to read, `out` is taken, or no clip could be read.
    """
    from triadbench.core.data.dataset import open_dataset

    if jobs is not None and jobs < 1:
        raise UserError(f"jobs={jobs}: at least 1 process is needed")
    dataset = open_dataset(source)
    names = copy_names(dataset.clips)
    skipped = [list(entry) for entry in dataset.skipped]
    lines = []
    with atomic_path(out, directory=True) as folder:
        tasks = [(index, str(folder / f"{name}.wav"), seed) for index, name in enumerate(names)]
        for done, (index, reason) in enumerate(_run(dataset, tasks, jobs or usable_cores()), start=1):
            clip = dataset.clips[index]
            if reason is None:
                lines.append({"file": f"{names[index]}.wav", "recording": recording_of(clip), "source": clip.member})
            else:
                skipped.append([clip.member, reason])
            if progress is not None:
                progress(done, len(tasks))
        if not lines:
            raise UserError(f"{source}: none of {len(tasks)} clips could be read; the last: {skipped[-1][1]}")
        manifest = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "clips.jsonl").write_text(manifest, encoding="utf-8")
    return {"path": str(out), "n": len(lines), "skipped": skipped, "seed": seed}


def copy_names(clips: list[Clip]) -> list[str]:
    """The copies' names without suffix, numbered from 0 within each root and type, in the order of the clips."""
    numbers: Counter = Counter()
    names = []
    for clip in clips:
        label = (clip.name.root, clip.name.type)
        name = ClipName(*label, example=numbers[label], voicing=clip.name.voicing, kind="shred")
        names.append(name.format())
        numbers[label] += 1
    return names


def recording_of(clip: Clip) -> str:
    """The recording that a copy belongs to: its source's, or without a manifest everything that its name may be of.

    The archive's names do not say which examples are variants of one recording, so all with the same octave, root,
    type, volume and voicing count as one, as `core.data.splits.grouped_split` has it.
    """
    if clip.recording is not None:
        return clip.recording
    name = clip.name
    return f"{name.kind}_{name.octave}_{name.root}_{name.type}_{name.volume}_{name.voicing}"


def _run(dataset: Dataset, tasks: list[tuple[int, str, int]], jobs: int) -> Iterator[tuple[int, str | None]]:
    """Do all tasks; yield (index, None or why the clip was skipped) in order."""
    if jobs == 1 or len(tasks) <= _CHUNK:
        for task in tasks:
            yield _amplify_one(dataset, *task)
        return
    # spawn: a fork of a process with running threads may hang, and Python 3.12 warns of it.
    with concurrent.futures.ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_start, initargs=(dataset,)
    ) as pool:
        try:
            yield from pool.map(_in_worker, tasks, chunksize=_CHUNK)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_dataset: Dataset


def _start(dataset: Dataset) -> None:
    global _dataset
    workers.begin()
    _dataset = dataset


def _in_worker(task: tuple[int, str, int]) -> tuple[int, str | None]:
    return _amplify_one(_dataset, *task)


def _amplify_one(dataset: Dataset, index: int, path: str, seed: int) -> tuple[int, str | None]:
    from triadbench.core.audio.io import AudioError, write_wav
    from triadbench.core.constants import SAMPLE_RATE
    from triadbench.core.render.amplifier import amplify, random_settings

    try:
        waveform = dataset.read(index)
    except AudioError as error:
        return index, str(error)
    rng = np.random.default_rng([seed, index])
    copy = amplify(waveform, SAMPLE_RATE, random_settings(rng))
    write_wav(Path(path), copy)
    return index, None
