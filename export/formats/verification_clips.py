"""The clips that exports are verified on and calibrated with: rendered by our own synthesiser, never taken from data.

Those to verify on are by instruments that the shipped model was not trained on; those to calibrate with, by others.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from triadbench.core.audio.io import to_int16
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.render.chords import STYLES, Renderer, plan
from triadbench.core.render.note_banks import NoteBank, build_banks

VERIFICATION_INSTRUMENTS = ("synth:7001:grand", "synth:7002:upright", "synth:7003:electric", "synth:7004:plucked")
CALIBRATION_INSTRUMENTS = ("synth:0", "synth:1", "synth:2", "synth:3")
VERIFICATION_STYLES = ("clean", "room", "wild")
_KEYS = 432  # 3 octaves x 12 roots x 4 types x 3 volumes: as many of each
N_VERIFICATION = len(VERIFICATION_STYLES) * _KEYS
N_CALIBRATION = 288
_CHUNK = 48

Progress = Callable[[str, int, int], None]
"""Called with (what is done, done, total)."""


def _ignore(what: str, done: int, total: int) -> None:
    pass


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledClips:
    """Clips int16 (n, 64000) at 16 kHz, true types and roots (n,), and whether a clip's root is defined."""

    name: str
    clips: np.ndarray
    types: np.ndarray
    roots: np.ndarray
    root_defined: np.ndarray

    def __len__(self) -> int:
        return len(self.clips)

    def waveforms(self, start: int, stop: int) -> np.ndarray:
        """Rows as float32 in [-1, 1]."""
        return self.clips[start:stop].astype(np.float32) / np.float32(32768)


def verification_clips(banks: str | Path, n: int = N_VERIFICATION, progress: Progress = _ignore) -> LabelledClips:
    """`n` clips, a third each clean, in rooms, and with everything; as many of each type, root, octave and volume.

    `banks` is the folder that keeps the instruments.
    """
    return _render("verification", VERIFICATION_INSTRUMENTS, VERIFICATION_STYLES, n, 5, banks, progress)


def calibration_clips(banks: str | Path, n: int = N_CALIBRATION) -> LabelledClips:
    """Clips with everything that training has, by other instruments than those verified on."""
    return _render("calibration", CALIBRATION_INSTRUMENTS, ("wild",), n, 6, banks, _ignore)


def _render(
    what: str, instruments: tuple, styles: tuple, n: int, seed: int, folder: str | Path, report: Progress
) -> LabelledClips:
    paths = build_banks(instruments, folder, progress=lambda *at: report("instruments", *at))
    banks = [NoteBank.load(path) for path in paths]
    clips, names = np.empty((n, CLIP_SAMPLES), np.int16), []
    for number, (style, rows) in enumerate(zip(styles, np.array_split(np.arange(n), len(styles)), strict=True)):
        # Clean clips as the data set has them; the others in every voicing.
        voicings = ("root",) if style == "clean" else None
        weights = STYLES[style].voicings if style == "wild" else (1, 1, 1, 1, 1)
        if not len(rows):
            continue
        planned = plan(len(rows), banks, seed=seed + 10 * number, voicings=voicings, voicing_weights=weights)
        renderer = Renderer(banks, STYLES[style], seed + 10 * number)
        for row, clip in zip(rows, planned, strict=True):
            clips[row] = to_int16(renderer.clip(clip))
            names.append(clip.name)
            if len(names) % _CHUNK == 0 or len(names) == n:
                report("render", len(names), n)
    title = f"{n} clips for {what}: {', '.join(instruments)}; {', '.join(styles)}; seed {seed}"
    labels = ("type", "root", "root_is_defined")
    return LabelledClips(title, clips, *(np.array([getattr(name, label) for name in names]) for label in labels))
