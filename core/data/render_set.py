"""Render a whole data set, in parallel, into a folder of wav files or straight into a pack."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path

from triadbench.core import workers
from triadbench.core.constants import usable_cores
from triadbench.core.errors import UserError
from triadbench.core.files import atomic_path
from triadbench.core.render.chords import STYLES, PlannedClip, Renderer, Style, plan
from triadbench.core.render.note_banks import NoteBank, build_banks

_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """What to render.

    Attributes:
        out: folder to make; with `pack`, a pack (see `core.data.pack`).
        n: number of clips.
        sources: note sources (see `core.render.note_banks`). weights: how often each plays, or None for equally often.
        style: name of one of `core.render.chords.STYLES`.
        voicings: which voicings, or None for those that the style mixes at random.
        variants: clips of each recording. octaves: of the root. seed: of everything.
        cache: folder where note banks are kept.
        workers: processes.
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
    workers: int = dataclasses.field(default_factory=lambda: usable_cores())


def render_dataset(
    config: RenderConfig,
    *,
    bank_progress: Callable[[int, int], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    """Render a set; the folder appears when it is whole.

    Args:
        bank_progress: called with (banks built, banks). progress: called with (clips rendered, clips).

    Returns:
        {"path", "n", "recordings", "instruments", "seconds_of_audio"}

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
    if out.exists() and (
        not out.is_dir() or any(out.iterdir())
    ):  # said before minutes of work, and again by the writer
        raise UserError(f"{out} exists already and is not empty; remove it or choose another output")
    style = STYLES[config.style]
    paths = build_banks(config.sources, config.cache, workers=config.workers, progress=bank_progress)
    banks = [NoteBank.load(path) for path in paths]
    clips = plan(
        config.n,
        banks,
        seed=config.seed,
        variants=config.variants,
        octaves=config.octaves,
        weights=config.weights,
        voicings=config.voicings,
        voicing_weights=style.voicings,
    )
    names = [clip.name.format() + ".wav" for clip in clips]
    index = [
        {"file": name, "recording": f"{config.seed}-{clip.recording}", "instrument": banks[clip.bank].name}
        for name, clip in zip(names, clips, strict=True)
    ]
    if config.pack:
        _into_pack(config, style, paths, clips, index, progress)
    else:
        with atomic_path(config.out, directory=True) as folder:
            _run(config, style, paths, clips, ("folder", str(folder), names), progress)
            with open(folder / "clips.jsonl", "w", encoding="utf-8", newline="\n") as file:
                file.writelines(json.dumps(entry) + "\n" for entry in index)
    return {
        "path": str(config.out),
        "n": len(clips),
        "recordings": len({clip.recording for clip in clips}),
        "instruments": sorted({banks[clip.bank].name for clip in clips}),
        "seconds_of_audio": 4 * len(clips),
    }


def _into_pack(config: RenderConfig, style: Style, paths, clips, index, progress) -> None:
    from triadbench.core.data.pack import PackWriter

    with PackWriter(config.out, len(clips)) as writer:
        _run(config, style, paths, clips, ("pack", str(writer.clips_path), None), progress)
        described = {**dataclasses.asdict(config), "out": None, "cache": None, "workers": None}
        writer.finish(index, source={"rendered": described})


def _run(
    config: RenderConfig, style: Style, paths: Sequence[Path], clips: Sequence[PlannedClip], target, progress
) -> None:
    chunks = [clips[start : start + _CHUNK] for start in range(0, len(clips), _CHUNK)]
    start = (list(map(str, paths)), style, config.seed, target)
    if config.workers == 1 or len(chunks) == 1:
        _start_worker(*start)
        try:
            for done, chunk in enumerate(chunks):
                _render_chunk(chunk)
                if progress is not None:
                    progress(min((done + 1) * _CHUNK, len(clips)), len(clips))
        finally:
            _worker.clear()
        return
    # spawn: a fork of a process with running threads may hang, and Python 3.12 warns of it.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        min(config.workers, len(chunks)), context, _start_worker, start
    ) as pool:
        futures = [pool.submit(_render_chunk, chunk) for chunk in chunks]
        try:
            done = 0
            for future in concurrent.futures.as_completed(futures):
                done += future.result()
                if progress is not None:
                    progress(done, len(clips))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_worker: dict = {}


def _start_worker(paths: list[str], style: Style, seed: int, target: tuple) -> None:
    workers.begin()
    _worker["renderer"] = Renderer([NoteBank.load(path) for path in paths], style, seed)
    kind, place, names = target
    if kind == "pack":
        from triadbench.core.data.pack import open_rows

        _worker["rows"] = open_rows(place)
    _worker["folder"], _worker["names"] = Path(place), names


def _render_chunk(chunk: Sequence[PlannedClip]) -> int:
    import soundfile

    from triadbench.core.audio.io import to_int16
    from triadbench.core.constants import SAMPLE_RATE

    for planned in chunk:
        waveform = to_int16(_worker["renderer"].clip(planned))
        if "rows" in _worker:
            _worker["rows"][planned.index] = waveform
        else:
            path = _worker["folder"] / _worker["names"][planned.index]
            try:
                soundfile.write(path, waveform, SAMPLE_RATE, subtype="PCM_16")
            except soundfile.SoundFileError as error:
                raise UserError(f"{path.name}: cannot be written ({error}); is the disk full?") from error
    return len(chunk)
