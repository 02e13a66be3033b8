"""One run of an experiment or a ladder: its clips, its finished trials, its records, and its way to a trainer.

One line a finished trial is appended to `trials.jsonl` and flushed to the disk, so that an interrupted study goes on
where it was; a trial that was interrupted has no line and starts anew. A line counts for a case only if its parameters,
number and fingerprint are the same: machine, code and clips. Of two lines for one trial (a folder that was copied and
joined by hand) the first counts.

The clips are wav files for the original pipeline, and the same in the same order as a pack for the fast. Without a data
set of the user's a set of the original's protocol is rendered: our own piano synthesiser, ten variants of each
recording, octaves 3 to 5, three volumes, and a copy of every clip through an amplifier. Everything is kept under one
folder and used again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from triadbench.bench import machine, outputs, records
from triadbench.bench.study.protocol import SEED, SPLIT_SEED, Case
from triadbench.core.constants import ALL_CLIPS
from triadbench.core.errors import UserError
from triadbench.core.files import only_one

if TYPE_CHECKING:
    from triadbench.core.data.dataset import Dataset
    from triadbench.core.training.epoch import StudyTrainer
    from triadbench.core.training.settings import Switches

FILE = "trials.jsonl"
_Report = Callable[[str, int, int | None], None]
_MACHINE = ("cpu", "cores_usable", "torch_threads", "omp_wait_policy", "gpu", "gpu_driver", "python", "versions")


def fingerprint(environment: dict, data: str) -> str:
    """What must not change between the trials of a figure, in 16 characters.

    Processor, cores, threads, GPU and driver, versions of torch and its like, the sources of core and kernels, and the
    clips. A changed report or command line leaves it as it is.
    """
    sources = machine.source_digest("core/**/*.py", "kernels/**/*.py")
    parts = [sources, {name: environment.get(name) for name in _MACHINE}, data]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class TrialLog:
    """The finished trials of one folder; `note` is called with a line about half lines and what does not count."""

    def __init__(self, folder: Path, fingerprint: str, note: Callable[[str], None] = lambda _: None) -> None:
        self.path, self.fingerprint = Path(folder) / FILE, fingerprint
        self._environment = machine.environment()
        self._lines: dict[str, dict] = {}
        lines, problems = records.load(self.path) if self.path.exists() else ([], [])
        for problem in problems:
            note(f"{problem}; that trial starts anew")
        own = [line for line in lines if line["parameters"].get("fingerprint") == fingerprint]
        for line in own:
            self._lines.setdefault(self._key(line["parameters"]), line)
        if others := len(lines) - len(own):
            note(f"{self.path}: {others} trials of other code, clips or another machine are not counted")

    def _key(self, parameters: dict) -> str:
        return json.dumps({**parameters, "fingerprint": self.fingerprint}, sort_keys=True)

    def find(self, parameters: dict) -> dict | None:
        """The line of a finished trial, or None."""
        return self._lines.get(self._key(parameters))

    def __getitem__(self, parameters: dict) -> dict:
        """The line of a trial that is finished."""
        return self._lines[self._key(parameters)]

    def add(self, parameters: dict, samples: list[float], **more: Any) -> dict:
        """Keep a finished trial: `samples` in seconds. The line is on the disk when this returns.

        Raises:
            ValueError: a trial that is there already.
            UserError: the disk refuses.
        """
        parameters, key = {**parameters, "fingerprint": self.fingerprint}, self._key(parameters)
        if key in self._lines:
            raise ValueError(f"trial {parameters} is finished already")
        environment = {**self._environment, "time": machine.utc_now()}
        line = records.make("trial", parameters=parameters, unit="s", samples=samples, environment=environment, **more)
        records.append(line, self.path)
        self._lines[key] = line
        return line


def append_missing(
    results: Sequence[dict], path: Path, fields: Sequence[str] = ("name", "parameters", "samples")
) -> int:
    """Append, in one piece, the records that the file does not hold yet, by these fields; how many those were."""
    known = [[record.get(field) for field in fields] for record in (records.load(path)[0] if path.exists() else [])]
    missing = [record for record in results if [record[field] for field in fields] not in known]
    records.append_all(missing, path)
    return len(missing)


class Remaining:
    """Seconds of trials to come: those of the same case, else of the nearest kind that was seen, by number of clips."""

    _KINDS: tuple[Callable[[Case], object], ...] = (
        lambda case: case,
        lambda case: (case.device, case.pipeline, case.task),
        lambda case: (case.device, case.pipeline),
        lambda case: case.device,
        lambda case: None,
    )

    def __init__(self) -> None:
        self._seen: list[tuple[Case, float]] = []

    def saw(self, case: Case, seconds: float) -> None:
        """A trial of `case` took this long."""
        self._seen.append((case, seconds))

    def seconds(self, cases: Sequence[Case]) -> float:
        """Of one trial of each of `cases`; 0 before anything was seen."""
        known = {case: self._estimate(case) for case in set(cases)}
        return sum(known[case] for case in cases)

    def _estimate(self, case: Case) -> float:
        for kind in self._KINDS:
            clip_s = [seconds / seen.num_items for seen, seconds in self._seen if kind(seen) == kind(case)]
            if clip_s:
                return median(clip_s) * case.num_items
        return 0.0

    def text(self, cases: Sequence[Case]) -> str:
        """As "about 3 h 10 min left"; empty before anything was seen."""
        return f"about {duration(self.seconds(cases))} left" if self._seen and cases else ""


def duration(seconds: float) -> str:
    """As "45 s", "12 min" or "3 h 10 min"."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


class StudyClips(NamedTuple):
    """The same clips in the same order, as single files and as a pack (None where no pipeline asks for that), their
    digest of names and sizes, and for records their origin: "rendered" or the name that the user gave."""

    wavs: Dataset | None
    pack: Dataset | None
    digest: str
    origin: str


def _prepare_clips(n: int, settings: Settings, needs_wavs: bool, needs_pack: bool, report: _Report) -> StudyClips:
    """Open, and make where missing, the first `n` clips; `report` is called with (step, clips done, clips in all)."""
    from triadbench.core.data.dataset import open_dataset
    from triadbench.core.data.pack import pack as write_pack
    from triadbench.core.training.draws import draw_clips

    folder = settings.data_folder
    source = settings.data or _rendered(n, folder, report)
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
        # As the original draws them; of its whole set the trainer does that.
        whole = n == len(dataset) >= ALL_CLIPS
        wavs = dataset if whole else dataset.subset(draw_clips(len(dataset), SPLIT_SEED)[:n])
        out = folder / f"{stem}-{n}.pack"
        if needs_pack and not out.exists():
            result = write_pack(wavs, out, progress=lambda done, total: report("pack", done, total))
            if result["skipped"]:
                raise UserError(f"{result['skipped'][0][0]} cannot be read; mend or remove it and remove {out}")
        pack = open_dataset(out) if needs_pack else None
    return StudyClips(wavs, pack, digest[:16], "rendered" if settings.data is None else settings.data.name)


def _rendered(n: int, folder: Path, report: _Report) -> Path:
    """The smallest pack of at least `n` clips, half of them amplifier copies; made now if there is none."""
    from triadbench.core.data.copies import pack_with_copies
    from triadbench.core.data.render_set import RenderConfig, render_dataset

    sizes = [path.name.removeprefix("doubled-").removesuffix(".pack") for path in folder.glob("doubled-*.pack")]
    large = [int(size) for size in sizes if size.isdigit() and int(size) >= n]
    out, clean = folder / f"doubled-{min(large, default=n + n % 2)}.pack", folder / f"clean-{n}.pack"
    if not large:
        sources, half, banks = tuple(f"synth:{seed}" for seed in range(8)), (n + 1) // 2, folder.parent / "banks"
        if not clean.exists():
            render_dataset(
                RenderConfig(clean, half, sources, variants=10, seed=13, pack=True, cache=banks),
                bank_progress=lambda done, total: report("instruments", done, total),
                progress=lambda done, total: report("render", done, total),
            )
        pack_with_copies(clean, out, seed=13, progress=lambda done, total: report("amplifier copies", done, total))
        shutil.rmtree(clean)
    return out


def _as_wavs(pack: Dataset, n: int, folder: Path, report: _Report) -> Dataset:
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


def make_trainer(dataset: Dataset, *, seed: int = SEED, **options: Any) -> StudyTrainer:
    """`core.training.epoch.StudyTrainer` with the study's split; tests give another maker."""
    from triadbench.core.training.epoch import StudyTrainer

    return StudyTrainer(dataset, seed=seed, split_seed=SPLIT_SEED, **options)


@dataclass(frozen=True)
class Settings:
    """Where a run reads and writes, and whom it tells.

    Attributes:
        folder: where finished trials are kept; the same folder goes on where it was.
        records_path: JSON Lines file to append to; a figure that it holds already is not appended again.
        progress: makes a context with a callback (done, total, text) from a label, as `core.commands.console.progress`.
        note: called with a line for the reader.
        data, data_folder: folder, zip or pack of clips, or None to render a set; what keeps those made here.
        maker: makes a trainer; None: `make_trainer`.
        proceed: called before each trial or epoch that is kept; raises to stop there.
    """

    folder: Path
    records_path: Path
    progress: Callable[[str], contextlib.AbstractContextManager]
    note: Callable[[str], None] = lambda text: None
    data: Path | None = None
    data_folder: Path = Path("data/study")
    maker: Callable[..., StudyTrainer] | None = None
    proceed: Callable[[], None] = lambda: None


@dataclass
class Session:
    """A run that holds its folder."""

    settings: Settings
    clips: StudyClips
    environment: dict
    log: TrialLog
    started: float
    appended: int = 0

    def trainer(self, switches: Switches, n: int, **options: Any) -> StudyTrainer:
        """A trainer of the first `n` clips."""
        dataset = self.clips.pack if switches.packed else self.clips.wavs
        assert dataset is not None, "prepared for other pipelines"
        maker = self.settings.maker or make_trainer
        return maker(dataset.subset(range(min(n, len(dataset)))), switches=switches, **options)

    def data_fields(self) -> dict[str, Any]:
        """What every record says of the clips and of what may not change."""
        data = {"origin": self.clips.origin, "digest": self.clips.digest}
        return {"data": data, "fingerprint": self.log.fingerprint}

    def append(self, results: list[dict]) -> None:
        """Append the records that are not there yet, and count them in `appended`."""
        self.appended += append_missing(results, self.settings.records_path)

    def finish(self, results: list[dict]) -> dict[str, Any]:
        """Append missing records; `records`, `trials` (paths), `appended`, `seconds`, `environment` for the result."""
        self.append(results)
        return {
            "records": str(self.settings.records_path),
            "trials": str(self.log.path),
            "appended": self.appended,
            "seconds": round(time.perf_counter() - self.started, 1),
            "environment": self.environment,
        }


@contextlib.contextmanager
def open_session(settings: Settings, n: int, *, needs_wavs: bool = True, needs_pack: bool = True) -> Iterator[Session]:
    """Hold the run's folder, prepare its first `n` clips as files and as a pack, and read its finished trials.

    Raises:
        UserError: clips that cannot be read, a folder in use, an output that cannot be written, a disk that is full.
    """
    started = time.perf_counter()
    outputs.check_writable(settings.records_path, "--records", appended=True)
    outputs.check_writable(settings.folder / FILE, "--run", appended=True)
    with only_one(settings.folder):
        with contextlib.ExitStack() as stack:
            bars: dict[str, Callable] = {}

            def report(step: str, done: int, total: int | None) -> None:
                if step not in bars:  # every step has a bar of its own
                    stack.close()
                    bars.clear()
                    bars[step] = stack.enter_context(settings.progress(step))
                bars[step](done, total)

            clips = _prepare_clips(n, settings, needs_wavs, needs_pack, report)
        environment = machine.environment()
        log = TrialLog(settings.folder, fingerprint(environment, clips.digest), settings.note)
        yield Session(settings, clips, environment, log, started)
