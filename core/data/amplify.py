"""Amplifier copies of a data set, as the second half of the original study's data: `shred___Af_d__000.wav`.

Every clip has a random generator of its own, seeded by (seed, number of the clip), so the bytes do not depend on how
many processes made them. A manifest ties each copy to its recording, so that grouped splits keep copies together.
"""

import json
from collections import Counter
from dataclasses import dataclass

import numpy as np

from triadbench.core.audio.io import AudioError, write_wav
from triadbench.core.constants import SAMPLE_RATE, usable_cores
from triadbench.core.data.clips import Clip, Dataset, Progress
from triadbench.core.data.dataset import MANIFEST, open_dataset
from triadbench.core.errors import UserError
from triadbench.core.files import StrPath, atomic_path
from triadbench.core.models.chords import ClipName
from triadbench.core.render.amplifier import amplify, random_settings
from triadbench.core.workers import run_all

_CHUNK = 32


def amplify_set(
    source: StrPath, out: StrPath, *, seed: int = 0, jobs: int | None = None, progress: Progress | None = None
) -> dict:
    """Play every clip of a data set through a random crunch amplifier; the folder `out` appears whole or not at all.

    Args:
        source: folder, zip or pack. out: folder to make; it must not exist yet or be empty.
        seed: of the amplifiers' settings. The same seed and source give the same bytes.
        jobs: processes; None for one a core. progress: called with (clips done, clips in all).

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
        jobs = jobs or usable_cores()
        reasons = run_all(_Copier, (dataset, seed), tasks, jobs, chunk=_CHUNK, progress=progress)
        for index, (clip, reason) in enumerate(zip(dataset.clips, reasons, strict=True)):
            if reason is None:
                lines.append({"file": f"{names[index]}.wav", "recording": recording_of(clip), "source": clip.member})
            else:
                skipped.append([clip.member, reason])
        if not lines:
            raise UserError(f"{source}: none of {len(tasks)} clips could be read; the last: {skipped[-1][1]}")
        manifest = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / MANIFEST).write_text(manifest, encoding="utf-8")
    return {"path": str(out), "n": len(lines), "skipped": skipped, "seed": seed}


def copy_names(clips: list[Clip]) -> list[str]:
    """The copies' names without suffix, numbered from 0 within each root and type, in the order of the clips."""
    numbers: Counter[tuple[int, int]] = Counter()
    names = []
    for clip in clips:
        label = (clip.name.root, clip.name.type)
        name = ClipName(*label, example=numbers[label], voicing=clip.name.voicing, kind="shred")
        names.append(name.format())
        numbers[label] += 1
    return names


def recording_of(clip: Clip) -> str:
    """The recording that a copy belongs to: its source's.

    Without a manifest names do not say which examples are variants of one recording, so all with the same octave, root,
    type, volume and voicing count as one, as in `core.data.splits.grouped_split`.
    """
    name = clip.name
    if clip.recording is not None:
        return clip.recording
    return f"{name.kind}_{name.octave}_{name.root}_{name.type}_{name.volume}_{name.voicing}"


@dataclass(frozen=True)
class _Copier:
    dataset: Dataset
    seed: int

    def __call__(self, task: tuple[int, str]) -> str | None:
        """Write the copy of clip `index` to `path`; why it was skipped, or None."""
        index, path = task
        try:
            waveform = self.dataset.read(index)
        except AudioError as error:
            return str(error)
        settings = random_settings(np.random.default_rng([self.seed, index]))
        write_wav(path, amplify(waveform, SAMPLE_RATE, settings))
        return None
