"""Altered copies of a whole data set: through an amplifier, or as worse recordings.

Amplifier copies are the second half of the original study's data: `shred___Af_d__000.wav`. Each has a random generator
of its own, seeded by (seed, number of the clip), so the bytes do not depend on how many processes made them. A
manifest ties each copy to its recording, so that grouped splits keep copies together.
"""

import functools
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from triadbench.core.audio.io import AudioError, to_int16, write_wav
from triadbench.core.constants import SAMPLE_RATE, usable_cores
from triadbench.core.data.clips import Clip, Dataset, Progress
from triadbench.core.data.dataset import MANIFEST, open_dataset
from triadbench.core.data.pack import new_pack, open_rows, pack
from triadbench.core.errors import UserError
from triadbench.core.files import StrPath, atomic_path
from triadbench.core.models.chords import ClipName
from triadbench.core.render.amplifier import amplify, random_settings
from triadbench.core.render.rooms import Degradation, Degrader
from triadbench.core.workers import run_all

_CHUNK = 32


def amplify_set(
    source: StrPath, out: StrPath, *, seed: int = 0, jobs: int | None = None, progress: Progress | None = None
) -> dict:
    """Play every clip of a data set through a random crunch amplifier; the folder `out` appears whole or not at all.

    Args:
        source: folder, zip or pack. out: folder to make; it must not exist yet or be empty.
        seed: of the amplifiers' settings. jobs: processes; None for one a core.

    Returns:
        `path`, `n` (copies written), `skipped` (list of [member, reason]), `seed`.

    Raises:
        UserError: nothing to read, `out` is taken, or no clip could be read.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs={jobs}: at least 1 process is needed")
    dataset = open_dataset(source)
    names = copy_names(dataset.clips)
    skipped = [list(entry) for entry in dataset.skipped]
    lines = []
    with atomic_path(out, directory=True) as folder:
        tasks = [(index, str(folder / f"{name}.wav")) for index, name in enumerate(names)]
        make = functools.partial(functools.partial, _copy)  # bound to the set and seed once in each process
        reasons = run_all(make, (dataset, seed), tasks, jobs or usable_cores(), chunk=_CHUNK, progress=progress)
        for name, clip, reason in zip(names, dataset.clips, reasons, strict=True):
            if reason is None:
                lines.append({"file": f"{name}.wav", "recording": recording_of(clip), "source": clip.member})
            else:
                skipped.append([clip.member, reason])
        if not lines:
            raise UserError(f"{source}: none of {len(tasks)} clips could be read; the last: {skipped[-1][1]}")
        manifest = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / MANIFEST).write_text(manifest, encoding="utf-8")
    return {"path": str(out), "n": len(lines), "skipped": skipped, "seed": seed}


def pack_with_copies(source: StrPath, out: StrPath, *, seed: int = 0, progress: Progress | None = None) -> None:
    """Write a pack at `out` in which each clip of a set stands before its copy; errors as of `amplify_set`.

    Any even number of its first clips is half copies, as the original's set is.
    """
    dataset = open_dataset(source)
    clips, names = dataset.clips, copy_names(dataset.clips)
    with new_pack(out, 2 * len(clips)) as writer:
        make = functools.partial(functools.partial, _copy_into)
        tasks = list(range(len(clips)))
        run_all(make, (dataset, seed, writer.clips_path), tasks, usable_cores(), chunk=_CHUNK, progress=progress)
        index = []
        for clip, name in zip(clips, names, strict=True):
            index += [{"file": file, "recording": recording_of(clip)} for file in (clip.member, f"{name}.wav")]
        writer.finish(index, source={"amplified": dataset.path.name, "seed": seed})


def degrade_set(source: StrPath, out: StrPath, *, seed: int = 0, progress: Progress | None = None) -> dict:
    """Degrade every clip of a set once, into a pack at `out` with the same names; the result of `pack`, and "seed"."""
    dataset = open_dataset(source)
    described = {"degraded": dataset.path.name, "seed": seed}
    return pack(dataset, out, progress, change=Degrader(Degradation(), seed), source=described) | {"seed": seed}


def copy_names(clips: list[Clip]) -> list[str]:
    """The copies' names without suffix, numbered from 0 within each root and type, in the order of the clips."""
    numbers: dict[tuple[int, int], Iterator[int]] = defaultdict(itertools.count)
    names = []
    for root, chord_type, voicing in ((clip.name.root, clip.name.type, clip.name.voicing) for clip in clips):
        number = next(numbers[root, chord_type])
        names.append(ClipName(root, chord_type, example=number, voicing=voicing, kind="shred").format())
    return names


def recording_of(clip: Clip) -> str:
    """The recording that a copy belongs to; without a manifest all clips with the same octave, root, type, volume and
    voicing count as one, as in `core.data.splits.grouped_split`.
    """
    name = clip.name
    if clip.recording is not None:
        return clip.recording
    return f"{name.kind}_{name.octave}_{name.root}_{name.type}_{name.volume}_{name.voicing}"


def _copy(dataset: Dataset, seed: int, task: tuple[int, str]) -> str | None:
    """Write the copy of clip `index` to `path`; why it was skipped, or None."""
    index, path = task
    try:
        waveform = dataset.read(index)
    except AudioError as error:
        return str(error)
    write_wav(path, _amplified(waveform, seed, index))
    return None


def _copy_into(dataset: Dataset, seed: int, place: Path, index: int) -> None:
    """Write clip `index` and its copy into the rows of a pack."""
    rows, waveform = open_rows(place), dataset.read(index)
    rows[2 * index], rows[2 * index + 1] = map(to_int16, (waveform, _amplified(waveform, seed, index)))


def _amplified(waveform: np.ndarray, seed: int, index: int) -> np.ndarray:
    return amplify(waveform, SAMPLE_RATE, random_settings(np.random.default_rng([seed, index])))
