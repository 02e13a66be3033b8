"""No time without a green check: the PyTorch model's answers to the very clips that are timed, and the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from triadbench.bench.cases import SEED
from triadbench.core.constants import CLIP_SAMPLES, SAMPLE_RATE
from triadbench.core.models.predictor import Predictor

LOGIT_LIMIT = 1e-4
"""No fp32 logit may be further than this share of the largest from the PyTorch model's: where a network is sure, a
probability of 0 or 1 hides wrong weights, and a logit does not."""
LEAST_AGREEMENT = 0.9
"""Share of labels that fp16 and int8 must have in common with it, on clips of which many nearly drown in noise: enough
to see that it is the same model. What they cost in accuracy is measured when they are exported."""
_CHUNK = 16
_NOISE_DB = (-40.0, 15.0)
"""Level of the noise against the chords: of one clean chord every probability is 0 or 1, and any difference small."""


def make_clips(n: int) -> np.ndarray:
    """Seeded clips (n, 64000) float32: two triads of harmonic tones that decay, one fainter than the other, in noise
    from faint to louder than they."""
    draw = np.random.default_rng(SEED)
    time_s = np.arange(CLIP_SAMPLES) / SAMPLE_RATE
    chords = []
    for root in range(12):
        for thirds in ((0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 8)):
            notes = 440.0 * 2.0 ** ((48 + root + np.array(thirds) - 69) / 12)
            tones = sum(np.sin(2 * np.pi * f * h * time_s + 6 * draw.random()) / h for f in notes for h in (1, 2, 3, 4))
            chords.append(tones * np.exp(-time_s))
    clips = np.empty((n, CLIP_SAMPLES), np.float32)
    for i in range(n):
        chord = np.roll(chords[draw.integers(len(chords))], draw.integers(CLIP_SAMPLES))  # no two clips are alike
        chord = chord + draw.uniform(0.0, 1.0) * chords[draw.integers(len(chords))]
        noise = draw.standard_normal(CLIP_SAMPLES) * chord.std() * 10 ** (draw.uniform(*_NOISE_DB) / 20)
        chord += noise
        clips[i] = draw.uniform(0.1, 0.9) * chord / np.abs(chord).max()
    return clips


class Check(NamedTuple):
    """Of one contestant's answers: the worst difference of a probability, the share of clips with the same label, the
    limit on the difference (None for fp16 and int8), and the reason why it failed (None where it passed)."""

    worst_difference: float
    agreement: float
    limit: float | None
    reason: str | None

    def error(self) -> dict:
        """A record's `error`."""
        fields = self._asdict()
        del fields["reason"]
        return {"reference": "PyTorch", **fields}


def expected(predictor: Predictor, clips: np.ndarray) -> dict[str, np.ndarray]:
    """The PyTorch model's answers: `types` (n, 4), `roots` (n, 12), `logits` (n, 12, 4), `labels` (n,); and `slack`
    (n,), how many times the limit a probability may be away (as `export.formats.verify.Case`)."""
    model: Any = predictor.model
    scores, logits = [], []
    for part in np.array_split(clips, range(_CHUNK, len(clips), _CHUNK)):
        scores.append(predictor(part))
        with torch.inference_mode():  # the predictor keeps them for itself
            logits.append(model.joint(predictor.mel(torch.from_numpy(part))).numpy())
    joint = np.concatenate([part.joint for part in scores])
    largest = np.abs(np.concatenate(logits)).reshape(len(joint), -1).max(axis=1)  # of the original, without bound
    return {
        "types": np.concatenate([part.types for part in scores]),
        "roots": np.concatenate([part.roots for part in scores]),
        "logits": np.concatenate(logits),
        "labels": joint.reshape(len(joint), -1).argmax(axis=1),
        "slack": np.ones(len(joint)) if predictor.log else np.maximum(1.0, 0.1 * largest),
    }


def _shifted(logits: np.ndarray) -> np.ndarray:
    """With 0 as each clip's largest: logits (n, 12, 4) that differ by a constant give the same probabilities."""
    return logits - logits.reshape(len(logits), -1).max(axis=1).reshape(-1, 1, 1)


def compare(
    outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], precision: str, allowed: float = 1e-5
) -> Check:
    """Compare a contestant's outputs with those of the PyTorch model (from `expected`) for the same clips; NaN fails.

    fp32 must have every label, and every probability within `allowed`; other precisions `LEAST_AGREEMENT`.
    """
    probabilities = [np.asarray(outputs[f"{task}_probabilities"], np.float64) for task in ("type", "root")]
    logits = np.asarray(outputs["logits"], np.float64)
    right = [reference["types"], reference["roots"]]
    n, shapes = len(reference["labels"]), [values.shape for values in probabilities]
    if shapes != [values.shape for values in right] or logits.shape != (n, 12, 4):
        return Check(float("inf"), 0.0, allowed, f"outputs of shapes {shapes} for {n} clips")
    exact = precision == "fp32"
    limit = allowed if exact else None
    if not all(np.isfinite(values).all() for values in (*probabilities, logits)):
        return Check(float("inf"), 0.0, limit, "outputs that are not finite")
    away = np.abs(np.hstack(probabilities) - np.hstack(right)).max(axis=1)
    worst = float(away.max())
    agreement = float((logits.reshape(n, -1).argmax(axis=1) == reference["labels"]).mean())
    least = 1.0 if exact else LEAST_AGREEMENT
    difference = _shifted(logits) - _shifted(reference["logits"])
    apart = float(np.abs(difference).max() / np.abs(reference["logits"]).max())
    reason = None
    if exact and (away > allowed * reference["slack"]).any():
        reason = f"a probability differs by {worst:.2g} from the PyTorch model's, allowed are {allowed:g}"
    elif exact and apart > LOGIT_LIMIT:
        reason = f"a logit differs by {apart:.2g} of the largest from the PyTorch model's, allowed are {LOGIT_LIMIT:g}"
    elif agreement < least:
        reason = f"{100 * agreement:.1f} % of the labels are the PyTorch model's, {100 * least:.0f} % must be"
    return Check(worst, agreement, limit, reason)
