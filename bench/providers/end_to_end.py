"""What a user waits for: a folder of files, and whole processes. Answers are checked in every round."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from triadbench.core import timing
from triadbench.core.constants import SAMPLE_RATE
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE

_TIMEOUT_S = 300
INFER, LOOP, LOOP_ALONE = "infer", "eager loop", "eager loop, one thread"


def ways(threads: int) -> tuple[str, ...]:
    """What is timed with so many threads. The loop on one alone as well: torch's own threads can cost it more than
    they give, and a ratio is to be taken with the loop at its best."""
    return (INFER, LOOP, LOOP_ALONE) if threads > 1 else (INFER, LOOP)


def write_wavs(clips: np.ndarray, folder: Path) -> list[Path]:
    """16-bit mono wav files of clips (n, samples), 0000.wav and on."""
    import soundfile

    paths = [folder / f"{i:04d}.wav" for i in range(len(clips))]
    for path, clip in zip(paths, clips, strict=True):
        soundfile.write(path, clip, SAMPLE_RATE, subtype="PCM_16")
    return paths


def files(
    model: Path, checkpoint: Path, wavs: Sequence[Path], threads: int, rounds: int, progress: Callable[[], None]
) -> dict:
    """Seconds for all files, the model loaded before: the `ways`, alternated.

    The loop is what one writes first: soundfile.read, torchaudio's mel, the model, one file after another.

    Returns:
        {way: samples in seconds}, `other_cores`, `front_end` (that `infer` used last), `first_s` of each way.

    Raises:
        UserError: two of them name other chords.
    """
    import torch

    from triadbench.bench.providers.contestants import BASELINE, Contestant
    from triadbench.bench.providers.runners import Opened
    from triadbench.core.models.prediction import name_chord
    from triadbench.export.predict.bulk import infer_files
    from triadbench.export.predict.predictor import ChordPredictor

    predictor = ChordPredictor(model, threads=1)  # as the command does: each of its threads answers alone
    eager = Opened(Contestant(BASELINE, "fp32", "cpu", str(checkpoint)), threads)

    def infer() -> list[str]:
        return [
            result.get("chord") or result["error"]
            for result in infer_files(predictor, list(map(str, wavs)), workers=threads, at_once=True)
        ]

    def loop() -> list[str]:
        import soundfile

        named = []
        for path in wavs:
            waveform, _ = soundfile.read(path, dtype="float32")
            logits = torch.from_numpy(eager(waveform[None])["logits"][0])
            named.append(name_chord(torch.softmax(logits.flatten(), 0).reshape(logits.shape).numpy(), 3)["chord"])
        return named

    names = ways(threads)
    seconds: dict[str, list[float]] = {way: [] for way in names}
    first_s, right = {}, None
    others = timing.OtherWork()
    for number in range(rounds + 1):
        for way in names if number % 2 else reversed(names):
            torch.set_num_threads(1 if way == LOOP_ALONE else threads)
            time.sleep(0.1)
            start = time.perf_counter()
            named = infer() if way == INFER else loop()
            took_s = time.perf_counter() - start
            right = right or named
            if named != right:
                wrong = sum(a != b for a, b in zip(named, right, strict=True))
                raise UserError(f"{way}: {wrong} of {len(wavs)} files get another chord than by another way")
            if number:
                seconds[way].append(took_s)
            else:
                first_s[way] = took_s
            progress()
    return {
        "seconds": seconds,
        "first_s": first_s,
        "other_cores": others.cores(),
        "front_end": predictor.front_end,
    }


def processes(wav: Path, chord: str, rounds: int, progress: Callable[[], None]) -> dict:
    """Seconds of whole processes, alternated, the first of each left out: `infer` of one file, and `--help`.

    Raises:
        UserError: one fails, or the file's chord is not the right one.
    """
    commands = {"infer clip.wav": (["infer", str(wav)], chord), "--help": (["--help"], "infer")}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    first_s = {}
    others = timing.OtherWork()
    for number in range(rounds + 1):
        for name, (arguments, told) in commands.items():
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, str(PACKAGE / "cli.py"), *arguments],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )
            took_s = time.perf_counter() - start
            if done.returncode != 0 or told not in done.stdout.split():
                reason = (done.stderr.strip().splitlines() or [f"{told!r} is not in what it printed"])[-1]
                raise UserError(f"python cli.py {name}: {reason}")
            if number:
                seconds[name].append(took_s)
            else:
                first_s[name] = took_s
            progress()
    return {"seconds": seconds, "first_s": first_s, "other_cores": others.cores()}
