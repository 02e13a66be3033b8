"""From waveforms to chords, with PyTorch: the model, its mel spectrogram, and the rule for silence, in one object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core import checkpoint as checkpoints
from core.checkpoint import Checkpoint
from core.device import torch_device
from core.errors import UserError
from core.labels import NO_CHORD, ROOTS, TYPES, chord_symbol
from kernels import MelSpectrogram

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained" / "chordnet.safetensors"
SAMPLE_RATE = 16000
CLIP_SAMPLES = 64000
SILENCE_PEAK = 1e-4
"""Below this deviation from the mean (80 dB under full scale) nothing sounds."""
_SOUND_BLOCK, _SOUND_BLOCKS = 400, 4
"""A chord sounds in at least four blocks of 25 ms; a click, or the edge of a constant offset, in fewer."""


@dataclass(frozen=True)
class Scores:
    """Probabilities for a batch; None where the model does not answer that question.

    Attributes:
        types: float32 (batch, 4). roots: float32 (batch, 12).
        joint: float32 (batch, 12, 4), of every chord; None for models of one task.
        silent: bool (batch,).
    """

    types: np.ndarray | None
    roots: np.ndarray | None
    joint: np.ndarray | None
    silent: np.ndarray


class Predictor:
    """A loaded model that answers for waveforms.

    Args:
        checkpoint: from `core.checkpoint.load`.
        device: "cpu" or "cuda".
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu"):
        self.checkpoint = checkpoint
        self.device = torch_device(device)
        self.model = checkpoint.model.to(self.device).eval()
        self.log = checkpoint.architecture == "chordnet"
        self.mel = MelSpectrogram.from_spec(checkpoint.spec, log=self.log).to(self.device)

    @classmethod
    def load(cls, path: str | Path | None = None, device: str = "cpu") -> Predictor:
        """The model of a file, or the shipped one.

        Raises:
            UserError: the file is missing or no model.
        """
        path = Path(path) if path is not None else SHIPPED
        if path == SHIPPED and not path.exists():
            raise UserError(f"the shipped model {SHIPPED.name} is not in pretrained/; give --model FILE, or train one")
        return cls(checkpoints.load(path), device)

    @torch.inference_mode()
    def __call__(self, waveforms: np.ndarray) -> Scores:
        """Scores of waveforms (batch, samples), float32 at 16 kHz in [-1, 1]; any length for ours, 64,000 samples for
        the original network.

        Raises:
            UserError: a shape that the model does not take, or values that are not finite.
        """
        waveforms = np.asarray(waveforms, dtype=np.float32)
        if waveforms.ndim != 2 or waveforms.shape[1] < self.checkpoint.spec.n_fft:
            raise UserError(
                f"waveforms of shape {waveforms.shape}: expected (batch, samples), at least "
                f"{self.checkpoint.spec.n_fft} samples; pad with zeros"
            )
        if not self.log and waveforms.shape[1] != CLIP_SAMPLES:
            raise UserError(f"the original network takes {CLIP_SAMPLES} samples, not {waveforms.shape[1]}")
        if not np.isfinite(waveforms).all():
            raise UserError("waveforms hold NaN or infinite values")
        silent = is_silent(waveforms)
        mel = self.mel(torch.from_numpy(waveforms).to(self.device))
        if self.log:
            joint = self.model.joint(mel)
            joint = torch.softmax(joint.flatten(1), dim=1).reshape(joint.shape).cpu().numpy()
            return Scores(joint.sum(axis=1), joint.sum(axis=2), joint, silent)
        probabilities = self.model(mel.unsqueeze(1)).cpu().numpy()
        if self.checkpoint.task == "type":
            return Scores(probabilities, None, None, silent)
        return Scores(None, probabilities, None, silent)


def is_silent(waveforms: np.ndarray) -> np.ndarray:
    """Whether there is no chord to name, bool (batch,), in waveforms (batch, samples) at 16 kHz.

    An offset is not heard, and neither is the step where a constant begins, ends or is padded with zeros.
    """
    n_blocks = waveforms.shape[1] // _SOUND_BLOCK
    blocks = waveforms[:, : n_blocks * _SOUND_BLOCK].reshape(len(waveforms), n_blocks, _SOUND_BLOCK)
    deviation = np.abs(blocks - blocks.mean(axis=2, keepdims=True)).max(axis=2)
    return (deviation >= SILENCE_PEAK).sum(axis=1) < _SOUND_BLOCKS


def name_chord(joint: np.ndarray, alternatives: int = 3) -> dict:
    """Words for joint probabilities (12, 4): the likeliest chord, its parts, their confidences, and the next chords.

    The chord is the largest joint probability; type and root are its own, so the three never contradict one another.
    """
    joint = joint / joint.sum()  # float32 sums stray from 1, and a confidence must not exceed it
    types, roots = np.minimum(joint.sum(axis=0), 1.0), np.minimum(joint.sum(axis=1), 1.0)
    ranked = [divmod(int(k), len(TYPES)) for k in np.argsort(-joint, axis=None)[: alternatives + 1]]
    root, chord_type = ranked[0]
    return {
        "chord": chord_symbol(root, chord_type),
        "type": TYPES[chord_type],
        "root": ROOTS[root],
        "confidence": float(joint[root, chord_type]),
        "type_confidence": float(types[chord_type]),
        "root_confidence": float(roots[root]),
        "alternatives": [{"chord": chord_symbol(r, t), "confidence": float(joint[r, t])} for r, t in ranked[1:]],
    }


def no_chord() -> dict:
    """The same words for silence."""
    return {
        "chord": NO_CHORD, "type": None, "root": None, "confidence": None, "type_confidence": None,
        "root_confidence": None, "alternatives": [],
    }  # fmt: skip
