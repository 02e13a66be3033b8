"""Render a whole data set, in parallel, into a folder of wav files or straight into a pack."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from triadbench.core.audio.io import to_int16, write_wav
from triadbench.core.constants import usable_cores
from triadbench.core.data.clips import Progress
from triadbench.core.data.dataset import MANIFEST
from triadbench.core.data.pack import new_pack, open_rows
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.render.chords import STYLES, PlannedClip, Renderer, Style, plan
from triadbench.core.render.note_banks import NoteBank, build_banks
from triadbench.core.workers import run_all

_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """A set to be rendered.

    Attributes:
        out: folder to make; with `pack`, a pack (see `core.data.pack`). n: number of clips.
        sources: note sources (see `core.render.note_banks`). weights: how often each plays, or None for equally often.
        style: one of `core.render.chords.STYLES`. voicings: which, or None for those that the style mixes at random.
        variants: clips of each recording. octaves: of the root. cache: folder where note banks are kept.
    """

    out: str | Path
    n: int
    sources: Sequence[str]
    weights: Sequence[float] | None = None
    style: str = "clean"
    voicings: Sequence[str] | None = None
    variants: int = 1
    octaves: Sequence[int] = (3, 4, 5)
    seed: int = 0
    pack: bool = False
    cache: str | Path = "data/banks"
    workers: int = dataclasses.field(default_factory=usable_cores)


def render_dataset(
    config: RenderConfig, *, bank_progress: Progress | None = None, progress: Progress | None = None
) -> dict:
    """Render a set; the folder appears when it is whole. Returns path, n, recordings, instruments, seconds_of_audio.

    Raises:
        UserError: a source, style, voicing or number that cannot be rendered, an output that exists, a full disk.
    """
    if config.style not in STYLES:
        raise UserError(f"unknown style {config.style!r}; choose from {', '.join(STYLES)}")
    if not config.sources:
        raise UserError("no instrument to render with; give at least one note source, as synth:0")
    if config.workers < 1:
        raise UserError(f"workers={config.workers}: at least 1 process is needed")
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        # Here, before minutes of work, and again by the writer.
        raise UserError(f"{out} exists already and is not empty; remove it or choose another output")
    style = STYLES[config.style]
    paths = build_banks(config.sources, config.cache, workers=config.workers, progress=bank_progress)
    banks = [NoteBank.load(path) for path in paths]
    options = {name: getattr(config, name) for name in ("seed", "variants", "octaves", "weights", "voicings")}
    clips = plan(config.n, banks, voicing_weights=style.voicings, **options)
    index = [
        {"file": _file(clip), "recording": f"{config.seed}-{clip.recording}", "instrument": banks[clip.bank].name}
        for clip in clips
    ]

    def render_into(place: Path) -> None:
        chunks = [clips[start : start + _CHUNK] for start in range(0, len(clips), _CHUNK)]

        def count(done: int, _: int) -> None:
            if progress is not None:
                progress(min(done * _CHUNK, len(clips)), len(clips))

        run_all(_ChunkRenderer, (paths, style, config.seed, place), chunks, config.workers, progress=count)

    if config.pack:
        described = {**dataclasses.asdict(config), "out": None, "cache": None, "workers": None}
        with new_pack(out, len(clips)) as writer:
            render_into(writer.clips_path)
            writer.finish(index, source={"rendered": described})
    else:
        with atomic_path(out, directory=True) as folder:
            render_into(folder)
            with open(folder / MANIFEST, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in index)
    return {
        "path": str(config.out),
        "n": len(clips),
        "recordings": len({clip.recording for clip in clips}),
        "instruments": sorted({entry["instrument"] for entry in index}),
        "seconds_of_audio": 4 * len(clips),
    }


def _file(clip: PlannedClip) -> str:
    return f"{clip.name.format()}.wav"


class _ChunkRenderer:
    """Renders clips into a folder, or into the array file of a pack."""

    def __init__(self, banks: Sequence[Path], style: Style, seed: int, place: Path):
        self._renderer = Renderer([NoteBank.load(path) for path in banks], style, seed)
        self._place = place if place.is_dir() else open_rows(place)

    def __call__(self, chunk: Sequence[PlannedClip]) -> None:
        for clip in chunk:
            waveform = to_int16(self._renderer.clip(clip))
            if isinstance(self._place, np.ndarray):
                self._place[clip.index] = waveform
                continue
            write_wav(self._place / _file(clip), waveform)
