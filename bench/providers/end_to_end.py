"""What a user waits for: a folder of files, and whole processes. Answers are checked in every round."""

import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from triadbench.bench import machine
from triadbench.bench.providers.contestants import BASELINE, Contestant, Opened
from triadbench.core import timing
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE
from triadbench.core.models.prediction import chords_of_triads, name_chord, softmax
from triadbench.export.predict.bulk import infer_files
from triadbench.export.predict.predictor import ChordPredictor

INFER, LOOP, LOOP_ALONE = "infer", "eager loop", "eager loop, one thread"
Answer = TypeVar("Answer")


class Waits(NamedTuple):
    """Of each contestant the seconds, and the first ones apart; `other_cores` and `disturbed` for the records."""

    samples_s: dict[str, list[float]]
    first_s: dict[str, float]
    load: dict[str, Any]


def ways(threads: int) -> tuple[str, ...]:
    """What is timed with so many threads. The loop on one alone as well: torch's own threads can cost it more than
    they give, and a ratio is to be taken with the loop at its best."""
    return (INFER, LOOP, LOOP_ALONE) if threads > 1 else (INFER, LOOP)


def write_wavs(clips: np.ndarray, folder: Path) -> list[Path]:
    """16-bit mono wav files of clips (n, samples), 0000.wav and on."""
    import soundfile

    for i, clip in enumerate(clips):
        soundfile.write(folder / f"{i:04d}.wav", clip, SAMPLE_RATE, subtype="PCM_16")
    return sorted(folder.glob("*.wav"))


def files(
    model: Path, checkpoint: Path, wavs: Sequence[Path], threads: int, rounds: int, progress: Callable[[], None]
) -> tuple[Waits, str]:
    """Seconds for all files, the model loaded before: all ways, alternated; and the front end that `infer` used last.

    The loop is what one writes first: soundfile.read, torchaudio's mel, the model, one file after another.
    Raises UserError where two of them name other chords.
    """
    import soundfile

    predictor = ChordPredictor(model, threads=1)  # as the command does: each of its threads answers alone
    eager = Opened(Contestant(BASELINE, "fp32", "cpu", str(checkpoint)), threads)

    def infer() -> list[str]:
        results = infer_files(predictor, list(map(str, wavs)), workers=threads, at_once=True)
        return [result.get("chord") or result["error"] for result in results]

    def loop() -> list[str]:
        chords = []
        for path in wavs:
            waveform, _ = soundfile.read(path, dtype="float32")
            (named,) = chords_of_triads(softmax(eager(waveform[None])["logits"]))
            chords.append(name_chord(named)["chord"])
        return chords

    def settle(way: str) -> None:
        torch.set_num_threads(1 if way == LOOP_ALONE else threads)
        time.sleep(0.1)

    expected: list[str] = []

    def check(way: str, chords: list[str]) -> None:
        expected[:] = expected or chords
        if wrong := sum(a != b for a, b in zip(chords, expected, strict=True)):
            raise UserError(f"{way}: {wrong} of {len(wavs)} files get another chord than by another way")

    contestants = {way: infer if way == INFER else loop for way in ways(threads)}
    return _alternate(contestants, rounds, settle, check, progress, threads), predictor.front_end


def processes(wav: Path, chord: str, rounds: int, progress: Callable[[], None]) -> Waits:
    """Seconds of whole processes, alternated, the first of each apart: `infer` of one file, and `--help`.

    Raises UserError where one fails, or the file's chord is not the right one.
    """
    commands = {"infer clip.wav": ["infer", str(wav)], "--help": ["--help"]}
    words = {"infer clip.wav": chord, "--help": "infer"}

    def run(name: str) -> str:
        try:
            return machine.run_process([sys.executable, str(PACKAGE / "cli.py"), *commands[name]])
        except machine.ProcessError as error:
            raise UserError(f"python cli.py {name}: {error}") from error

    def check(name: str, printed: str) -> None:
        if words[name] not in printed.split():
            raise UserError(f"python cli.py {name}: {words[name]!r} is not in what it printed")

    contestants = {name: functools.partial(run, name) for name in commands}
    return _alternate(contestants, rounds, lambda name: None, check, progress, threads=1)


def _alternate(
    contestants: Mapping[str, Callable[[], Answer]],
    rounds: int,
    settle: Callable[[str], None],
    check: Callable[[str, Answer], None],
    progress: Callable[[], None],
    threads: int,
) -> Waits:
    """Every contestant once a round, with one round more at first; `settle` and `check` are outside the clock."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    others = timing.OtherWork()
    for _, name in timing.alternate(contestants, rounds + 1):
        settle(name)
        start = time.perf_counter()
        answer = contestants[name]()
        seconds[name].append(time.perf_counter() - start)
        check(name, answer)
        progress()
    first_s = {name: values.pop(0) for name, values in seconds.items()}
    return Waits(seconds, first_s, others.fields(threads))
