"""The clips of the study: wav files for the original pipeline, and the same in the same order as a pack for the fast.

Without a data set of the user's a set of the original's protocol is rendered: our own piano synthesiser, ten variants
of each recording, octaves 3 to 5, three volumes. Everything is kept under one folder and used again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from triadbench.core.errors import UserError

FOLDER = Path("data/study")
FULL = 16_384
"""Clips of the largest setting of the original's experiments."""
Report = Callable[[str, int, int | None], None]


class StudyClips(NamedTuple):
    """Attributes:
    wavs: `core.data.dataset.Dataset` of single files, or None where no original pipeline asks for it.
    pack: the same clips in the same order as a pack, or None likewise.
    digest: of names and sizes, to know them again.
    origin: where they came from, for records: "rendered" or the name that the user gave.
    """

    wavs: object
    pack: object
    digest: str
    origin: str

    def of(self, packed: bool, n: int):
        """The first `n` clips for a pipeline that reads a pack, or files."""
        dataset = self.pack if packed else self.wavs
        return dataset.subset(range(n))


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
    if source is None:
        source = _rendered(n, folder, report)
    given = open_dataset(source, progress=lambda done, total: report("check", done, total))
    if len(given) < n:
        raise UserError(f"{source} holds {len(given)} clips and {n} are needed; give more clips or a smaller --clips")
    if given.kind == "pack":
        pack, digest = given.subset(range(n)), given.digest()
        wavs = _as_wavs(given, n, folder / f"{_stem(source, digest)}-wav", report) if needs_wavs else None
    else:
        order = _mixed(len(given))
        mixed, digest = given.subset(order), given.digest()
        wavs = mixed.subset(range(n))
        pack = _as_pack(mixed, n, folder, _stem(source, digest), report) if needs_pack else None
    return StudyClips(wavs, pack if needs_pack else None, digest[:16], origin)


def _rendered(n: int, folder: Path, report: Report) -> Path:
    """The smallest rendered pack of at least `n` clips, rendered now if there is none."""
    from triadbench.core.data.render_set import RenderConfig, render_dataset

    kept = {}
    for path in folder.glob("set-*.pack"):
        size = path.name.removeprefix("set-").removesuffix(".pack")
        if size.isdigit() and int(size) >= n:
            kept[int(size)] = path
    if kept:
        return kept[min(kept)]
    out = folder / f"set-{n}.pack"
    sources = tuple(f"synth:{seed}" for seed in range(8))
    render_dataset(
        RenderConfig(out=out, n=n, sources=sources, variants=10, seed=13, pack=True, cache=folder.parent / "banks"),
        bank_progress=lambda done, total: report("instruments", done, total),
        progress=lambda done, total: report("render", done, total),
    )
    return out


def _as_wavs(pack, n: int, folder: Path, report: Report):
    """The first `n` clips of a pack as single wav files, in the pack's order."""
    from triadbench.core.audio.io import write_wav
    from triadbench.core.data.dataset import open_dataset

    # File by file: an interrupted copy goes on, and a later study of more clips adds only what is missing.
    for row, clip in enumerate(pack.clips[:n]):
        path = folder / clip.member
        if not path.exists():
            write_wav(path, pack.rows[row])
            if row % 64 == 63:
                report("copy to wav", row + 1, n)
    found = open_dataset(folder, check="none")
    at = {clip.member: index for index, clip in enumerate(found.clips)}
    return found.subset([at[clip.member] for clip in pack.clips[:n]])


def _as_pack(mixed, n: int, folder: Path, stem: str, report: Report):
    from triadbench.core.data.dataset import open_dataset
    from triadbench.core.data.pack import pack as write_pack

    out = folder / f"{stem}-{n}.pack"
    if not out.exists():
        made = write_pack(mixed.subset(range(n)), out, progress=lambda done, total: report("pack", done, total))
        if made["skipped"] and made["n"] < n:
            raise UserError(f"{made['skipped'][0][0]} cannot be read; mend or remove it and remove {out}")
    return open_dataset(out)


def _mixed(n: int) -> list[int]:
    """A fixed shuffle: names in order put an octave's clips together, and a part of a set must resemble the whole."""
    import numpy as np

    return np.random.default_rng(13).permutation(n).tolist()


def _stem(source: Path, digest: str) -> str:
    return f"{source.name.removesuffix('.pack').removesuffix('.zip')}-{hashlib.sha256(digest.encode()).hexdigest()[:8]}"
