"""Name the chord in audio files of any kind, rate and length; a bad file is reported and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from core.answers import CLIP_SAMPLES, SAMPLE_RATE, name_chord, no_chord
from core.audio import AUDIO_SUFFIXES, iter_blocks
from core.errors import UserError
from core.predict import Predictor

WINDOW_S = CLIP_SAMPLES / SAMPLE_RATE
HOP_S = WINDOW_S / 2
_BATCH = 16
_BLOCK_S = 30.0


def find_files(paths: Sequence[str | Path]) -> list[Path]:
    """The audio files that paths name: files as given, folders with all below them, sorted.

    A missing file, and a folder with no audio file in it, are left in the list to be reported with the others.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file() and p.name[0] != "."
            )
            files += inside or [path]
        else:
            files.append(path)
    return files


def infer_files(predictor: Predictor, files: Iterable[str | Path], alternatives: int = 3) -> Iterator[dict]:
    """One result a file, in order: {"file", "duration_s", "windows", "agreement", "chord", ...}, or {"file", "error"}.

    A file longer than a clip is heard in windows of 4 s, half over each other, and their probabilities are averaged,
    each by its share of the sound. `agreement` is the share of sound whose own window says the same chord: a low one
    means that more than one chord is in the file. Memory does not grow with the length.
    """
    if predictor.checkpoint.task != "both":
        raise UserError(f"this model answers for the {predictor.checkpoint.task} only; `infer` needs one for both")
    for file in files:
        try:
            if Path(file).is_dir():
                raise UserError(f"{file}: no audio file in this folder (looked for {', '.join(AUDIO_SUFFIXES)})")
            yield {"file": str(file), **_infer(predictor, file, alternatives)}
        except UserError as error:
            yield {"file": str(file), "error": str(error)}


def _infer(predictor: Predictor, file: str | Path, alternatives: int) -> dict:
    total, weight, samples, windows = np.zeros((12, 4)), 0.0, 0, 0
    votes: dict[str, float] = {}

    def blocks() -> Iterator[np.ndarray]:
        nonlocal samples
        for block in iter_blocks(file, block_seconds=_BLOCK_S):
            samples += len(block)
            yield block

    for batch in window_batches(blocks()):
        scores = predictor(batch)
        loudness = np.sqrt(np.mean(np.square(batch - batch.mean(axis=1, keepdims=True)), axis=1))
        for joint, share, silent in zip(scores.joint, loudness, scores.silent, strict=True):
            windows += 1
            if not silent:
                total += share * joint
                weight += share
                answer = name_chord(joint, 0)["chord"]
                votes[answer] = votes.get(answer, 0.0) + share
    described = {"duration_s": round(samples / SAMPLE_RATE, 3), "windows": windows}
    if weight == 0:
        return {**described, "agreement": None, **no_chord()}
    named = name_chord(total / weight, alternatives)
    return {**described, "agreement": float(votes.get(named["chord"], 0.0) / weight), **named}


def window_batches(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches (batch, 64000) of the windows of a waveform that comes in blocks (samples,) of any length.

    The last window is padded with zeros; it is left out if all its samples have been in the one before.
    """
    hop = CLIP_SAMPLES // 2
    rest = np.zeros(0, dtype=np.float32)
    ready: list[np.ndarray] = []
    full = False
    for block in blocks:
        rest = np.concatenate([rest, block])
        while len(rest) >= CLIP_SAMPLES:
            ready.append(rest[:CLIP_SAMPLES])
            rest, full = rest[hop:], True
        while len(ready) >= _BATCH:
            yield np.stack(ready[:_BATCH])
            ready = ready[_BATCH:]
    if not full or len(rest) > hop:
        ready.append(np.pad(rest, (0, CLIP_SAMPLES - len(rest))))
    if ready:
        yield np.stack(ready)
