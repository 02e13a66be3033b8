"""From waveforms to chords, with PyTorch: the model, its mel spectrogram, and the rule for silence, in one object."""

from __future__ import annotations

import numpy as np
import torch

from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.device import torch_device
from triadbench.core.errors import UserError
from triadbench.core.files import ModelFiles, pretrained_path
from triadbench.core.models import checkpoint as checkpoints
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.networks import ChordNet, OriginalPair, joint_of
from triadbench.core.models.prediction import Scores, is_silent
from triadbench.kernels import MelSpectrogram

SHIPPED = pretrained_path("chordnet.safetensors")


class Predictor:
    """A loaded model that scores waveforms on the device "cpu" or "cuda"."""

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu"):
        self.checkpoint = checkpoint
        self.device = torch_device(device)
        self.model = checkpoint.model.to(self.device).eval()
        self.log = isinstance(self.model, ChordNet)
        self.mel = MelSpectrogram.from_spec(checkpoint.spec, log=self.log).to(self.device)

    @classmethod
    def load(cls, files: ModelFiles | None = None, device: str = "cpu") -> Predictor:
        """The model of a file, or of two (`core.models.checkpoint.load`), by default the shipped one. Raises UserError:
        a file is missing or no model, or two do not go together."""
        files = SHIPPED if files is None else files
        if files == SHIPPED and not SHIPPED.exists():
            name, folder = SHIPPED.name, SHIPPED.parent
            raise UserError(f"the shipped model {name} is not in {folder}; give --model FILE, or train one")
        return cls(checkpoints.load(files), device)

    @torch.inference_mode()
    def __call__(self, waveforms: np.ndarray) -> Scores:
        """Scores of waveforms (batch, samples), float32 at 16 kHz in [-1, 1]; any length for ours, 64,000 samples for
        the original network. UserError: a shape that the model does not take, or values that are not finite.
        """
        waveforms, least = np.asarray(waveforms, dtype=np.float32), self.checkpoint.spec.n_fft
        if waveforms.ndim != 2 or waveforms.shape[1] < least:
            expected = f"(batch, samples), at least {least} samples; pad with zeros"
            raise UserError(f"waveforms of shape {waveforms.shape}: expected {expected}")
        if not self.log and waveforms.shape[1] != CLIP_SAMPLES:
            raise UserError(f"the original network takes {CLIP_SAMPLES} samples, not {waveforms.shape[1]}")
        if not np.isfinite(waveforms).all():
            raise UserError("waveforms hold NaN or infinite values")
        silent = is_silent(waveforms)
        mel = self.mel(torch.from_numpy(waveforms).to(self.device))
        if isinstance(self.model, ChordNet):
            heads = self.model.heads(mel)
            chords = self.model.calibrated(heads.chords)
            logits = joint_of(chords)
            joint = torch.softmax(logits.flatten(1), dim=1).reshape(logits.shape).cpu().numpy()
            full = torch.softmax(chords, dim=1).cpu().numpy(), torch.softmax(heads.bass, dim=1).cpu().numpy()
            return Scores(joint.sum(axis=1), joint.sum(axis=2), joint, silent, *full)
        if isinstance(self.model, OriginalPair):
            types, roots = (net(mel.unsqueeze(1)).cpu().numpy() for net in (self.model.types, self.model.roots))
            return Scores(types, roots, roots[:, :, None] * types[:, None], silent)
        probabilities = self.model(mel.unsqueeze(1)).cpu().numpy()
        types, roots = (probabilities, None) if self.checkpoint.task == "type" else (None, probabilities)
        return Scores(types, roots, None, silent)
