"""The clips of the study: wav files for the original pipeline, and the same in the same order as a pack for the fast.

Without a data set of the user's a set of the original's protocol is rendered: our own piano synthesiser, ten variants
of each recording, octaves 3 to 5, three volumes. Everything is kept under one folder and used again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from triadbench.core.errors import UserError

if TYPE_CHECKING:
    from triadbench.core.data.dataset import Dataset

FOLDER = Path("data/study")
Report = Callable[[str, int, int | None], None]


class StudyClips(NamedTuple):
    """The same clips in the same order, for either pipeline.

    Attributes:
        wavs: as single files, or None where no original pipeline asks for it.
        pack: as a pack, or None likewise.
        digest: of names and sizes, to know them again.
        origin: where they came from, for records: "rendered" or the name that the user gave.
    """

    wavs: Dataset | None
    pack: Dataset | None
    digest: str
    origin: str

    def of(self, packed: bool, n: int) -> Dataset:
        """The first `n` clips, or all, for a pipeline that reads a pack, or files."""
        dataset = self.pack if packed else self.wavs
        assert dataset is not None, "prepared for other pipelines"
        return dataset.subset(range(min(n, len(dataset))))


def prepare(
    n: int, *, needs_wavs: bool, needs_pack: bool, source: Path | None, folder: Path = FOLDER, report: Report
) -> StudyClips:
    """Open, and make where missing, the first `n` clips.

    Args:
        n: clips of the largest setting.
        needs_wavs, needs_pack: which of the two kinds the pipelines read.
        source: the user's folder, zip or pack; None renders.
        folder: where what is made here is kept.
        report: called with ("render", "copy to wav", "pack" or "check", done, total).

    Raises:
        UserError: too few clips in the source, or a disk that is full.
    """
    from triadbench.core.data.dataset import open_dataset

    origin = "rendered" if source is None else source.name
    source = source or _rendered(n, folder, report)
    dataset = open_dataset(source, progress=lambda done, total: report("check", done, total))
    if len(dataset) < n:
        raise UserError(f"{source} holds {len(dataset)} clips and {n} are needed; give more clips or a smaller --clips")
    digest = dataset.digest()
    stem = source.name.removesuffix(".pack").removesuffix(".zip")
    stem = f"{stem}-{hashlib.sha256(digest.encode()).hexdigest()[:8]}"
    if dataset.kind == "pack":
        wavs = _as_wavs(dataset, n, folder / f"{stem}-wav", report) if needs_wavs else None
        pack = dataset.subset(range(n)) if needs_pack else None
    else:
        wavs = dataset.subset(_shuffled(len(dataset))[:n])
        pack = _as_pack(wavs, folder / f"{stem}-{n}.pack", report) if needs_pack else None
    return StudyClips(wavs, pack, digest[:16], origin)


def _rendered(n: int, folder: Path, report: Report) -> Path:
    """The smallest rendered pack of at least `n` clips, rendered now if there is none."""
    from triadbench.core.data.render_set import RenderConfig, render_dataset

    sizes = [path.name.removeprefix("set-").removesuffix(".pack") for path in folder.glob("set-*.pack")]
    large = [int(size) for size in sizes if size.isdigit() and int(size) >= n]
    out = folder / f"set-{min(large, default=n)}.pack"
    if not large:
        sources = tuple(f"synth:{seed}" for seed in range(8))
        render_dataset(
            RenderConfig(out=out, n=n, sources=sources, variants=10, seed=13, pack=True, cache=folder.parent / "banks"),
            bank_progress=lambda done, total: report("instruments", done, total),
            progress=lambda done, total: report("render", done, total),
        )
    return out


def _as_wavs(pack: Dataset, n: int, folder: Path, report: Report) -> Dataset:
    """The first `n` clips of a pack as single wav files, in the pack's order."""
    from triadbench.core.audio.io import write_wav
    from triadbench.core.data.dataset import open_dataset

    # File by file: an interrupted copy goes on, and a later study of more clips adds only what is missing.
    assert pack.rows is not None, "a pack has rows"
    members = [clip.member for clip in pack.clips[:n]]
    for row, member in enumerate(members):
        if not (folder / member).exists():
            write_wav(folder / member, pack.rows[row])
            if row % 64 == 63:
                report("copy to wav", row + 1, n)
    files = open_dataset(folder, check="none")
    index = {clip.member: number for number, clip in enumerate(files.clips)}
    return files.subset([index[member] for member in members])


def _as_pack(files: Dataset, out: Path, report: Report) -> Dataset:
    from triadbench.core.data.dataset import open_dataset
    from triadbench.core.data.pack import pack

    if not out.exists():
        result = pack(files, out, progress=lambda done, total: report("pack", done, total))
        if result["skipped"]:
            raise UserError(f"{result['skipped'][0][0]} cannot be read; mend or remove it and remove {out}")
    return open_dataset(out)


def _shuffled(n: int) -> list[int]:
    """A fixed shuffle: names in order put an octave's clips together, and a part of a set must resemble the whole."""
    import numpy as np

    return np.random.default_rng(13).permutation(n).tolist()
