"""One run of an experiment or a ladder: its clips, its finished trials, its records, and its way to a trainer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triadbench.bench import machine, outputs
from triadbench.bench.study import clips as study_clips
from triadbench.bench.study.protocol import SEED, SPLIT_SEED
from triadbench.bench.study.trials import FILE, TrialLog, append_missing, fingerprint

if TYPE_CHECKING:
    from triadbench.core.data.dataset import Dataset
    from triadbench.core.training.epoch import StudyTrainer
    from triadbench.core.training.settings import Switches


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
        data: folder, zip or pack of clips; None renders a set (see `bench.study.clips`).
        data_folder: keeps what is made of the clips.
        maker: makes a trainer; None: `make_trainer`.
    """

    folder: Path
    records_path: Path
    progress: Callable[[str], contextlib.AbstractContextManager]
    note: Callable[[str], None] = lambda text: None
    data: Path | None = None
    data_folder: Path = study_clips.FOLDER
    maker: Callable[..., StudyTrainer] | None = None


@dataclass
class Session:
    """A run that holds its folder."""

    settings: Settings
    clips: study_clips.StudyClips
    environment: dict
    log: TrialLog
    started: float

    def trainer(self, switches: Switches, n: int, **options: Any) -> StudyTrainer:
        """A trainer of the first `n` clips."""
        maker = self.settings.maker or make_trainer
        return maker(self.clips.of(switches.packed, n), switches=switches, **options)

    def data_fields(self) -> dict[str, Any]:
        """What every record says of the clips and of what may not change."""
        data = {"origin": self.clips.origin, "digest": self.clips.digest}
        return {"data": data, "fingerprint": self.log.fingerprint}

    def finish(self, results: list[dict]) -> dict[str, Any]:
        """Append records; `records`, `trials` (paths), `appended`, `seconds` and `environment` for the result."""
        return {
            "records": str(self.settings.records_path),
            "trials": str(self.log.path),
            "appended": append_missing(results, self.settings.records_path),
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
    with outputs.only_one(settings.folder):
        with _stepwise(settings.progress) as report:
            clips = study_clips.prepare(
                n,
                needs_wavs=needs_wavs,
                needs_pack=needs_pack,
                source=settings.data,
                folder=settings.data_folder,
                report=report,
            )
        environment = machine.environment()
        log = TrialLog(settings.folder, fingerprint(environment, clips.digest), settings.note)
        yield Session(settings, clips, environment, log, started)


@contextlib.contextmanager
def _stepwise(progress: Callable[[str], contextlib.AbstractContextManager]) -> Iterator[study_clips.Report]:
    """A callback (step, done, total) that opens a new bar whenever the step changes."""
    with contextlib.ExitStack() as stack:
        bars: dict[str, Callable] = {}

        def report(step: str, done: int, total: int | None) -> None:
            if step not in bars:
                stack.close()
                bars.clear()
                bars[step] = stack.enter_context(progress(step))
            bars[step](done, total)

        yield report
