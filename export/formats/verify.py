"""Whether an exported file is the model that it was made of: the file itself is run, in a fresh process.

Checked, on all of `verification_clips` and on awkward waveforms (silence, constants, very quiet,
shortest, 10 s), in batches and lengths that the file was not traced with:

- names, types and open axes of inputs and outputs, the metadata, ONNX's own checker, finite outputs that sum to 1;
- fp32: the same label for every clip, and no probability further than `FP32_LIMIT` from the PyTorch model's (a
  millionth of the largest logit for the original network, where that is more);
- fp16 and int8: the same label for `LEAST_AGREEMENT` of the clips, and at most `MOST_ACCURACY_LOST` of accuracy lost;
- that the accuracies in the metadata are those measured here.

The clips are rendered by our own synthesiser, never taken from data. Those to verify on are by instruments that the
shipped model was not trained on; those to calibrate int8 with, by others.
"""

import dataclasses
import functools
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import torch

from triadbench.core.audio.io import to_int16
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.errors import UserError
from triadbench.core.models.checkpoint import Checkpoint
from triadbench.core.models.prediction import softmax, triads_of
from triadbench.core.models.predictor import Predictor
from triadbench.core.render.chords import STYLES, Renderer, plan
from triadbench.core.render.note_banks import NoteBank, build_banks
from triadbench.export.formats.onnx_model import NetworkWithProbabilities
from triadbench.export.predict.metadata import KEY, SEAL, ExportInfo, check_seal

FP32_LIMIT = 1e-5
LEAST_AGREEMENT = 0.995
MOST_ACCURACY_LOST = 0.002
_BATCHES = (1, 5, 33, 64, 3)  # none is the size that was traced
_WORKER = Path(__file__).with_name("fresh_run.py")
_FOREIGN = {  # modules that no fresh process may import
    "onnx": {"triadbench", "torch", "numba", "scipy", "onnx"},
    "torchscript": {"triadbench", "torchaudio", "numba", "scipy", "onnxruntime"},
}
_TIME_LIMIT_S = 900

VERIFICATION_INSTRUMENTS = ("synth:7001:grand", "synth:7002:upright", "synth:7003:electric", "synth:7004:plucked")
CALIBRATION_INSTRUMENTS = ("synth:0", "synth:1", "synth:2", "synth:3")
VERIFICATION_STYLES = ("clean", "room", "wild")
N_VERIFICATION = len(VERIFICATION_STYLES) * 432  # 3 octaves x 12 roots x 4 types x 3 volumes: as many of each
N_CALIBRATION = 288

Progress = Callable[[str, int, int], None]  # called with (what is done, done, total)


class VerificationError(UserError):
    """The file is not the model that it was made of, or not precise enough."""


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


def verification_clips(banks: Path, n: int = N_VERIFICATION, progress: Progress = lambda *at: None) -> LabelledClips:
    """`n` clips, a third each clean, in rooms, and with everything; as many of each type, root, octave and volume, from
    instruments that the folder `banks` keeps."""
    return _render("verification", VERIFICATION_INSTRUMENTS, VERIFICATION_STYLES, n, 5, banks, progress)


def calibration_clips(banks: Path, n: int = N_CALIBRATION) -> LabelledClips:
    """Clips with everything that training has, by other instruments than those verified on."""
    return _render("calibration", CALIBRATION_INSTRUMENTS, ("wild",), n, 6, banks, lambda *at: None)


def _render(
    what: str, instruments: tuple, styles: tuple, n: int, seed: int, folder: Path, report: Progress
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
            if len(names) % 48 == 0 or len(names) == n:
                report("render", len(names), n)
    title = f"{n} clips for {what}: {', '.join(instruments)}; {', '.join(styles)}; seed {seed}"
    labels = ("type", "root", "root_is_defined")
    return LabelledClips(title, clips, *(np.array([getattr(name, label) for name in names]) for label in labels))


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A batch: files of waveforms and of their mel spectrograms, rows of both, the PyTorch model's outputs, whether
    others must be the same, and how many times `FP32_LIMIT` each clip's may differ, (batch,)."""

    name: str
    waveforms: str
    mels: str
    rows: tuple[int, int]
    expected: tuple[np.ndarray, ...]
    comparable: bool
    slack: np.ndarray


class Reference:
    """The PyTorch model's outputs for labelled clips (at least 1,000 for a verification that counts), computed once for
    all files of a checkpoint; `folder` is for the arrays that the fresh process reads."""

    def __init__(self, checkpoint: Checkpoint, clips: LabelledClips, folder: Path, report: Progress = lambda *at: None):
        self.checkpoint, self.clips, self.folder = checkpoint, clips, folder
        self.predictor = Predictor(checkpoint)
        self.tasks = ("type", "root") if checkpoint.task == "both" else (checkpoint.task,)
        self.n = len(clips)
        self.cases: list[Case] = []
        try:
            self._write(report)
        except OSError as error:
            raise UserError(f"{self.folder}: no room for the verification ({error.strerror or error})") from error

    def accuracies(self, outputs: list[tuple[np.ndarray, ...]]) -> dict:
        """Of the labelled clips' probabilities, in batches: {"set", "n", "type_accuracy", "root_accuracy"}."""
        measured: dict = {"set": self.clips.name, "n": self.n}
        for i, task in enumerate(self.tasks):
            labels = np.concatenate([batch[i] for batch in outputs]).argmax(axis=1)
            right = labels == (self.clips.types if task == "type" else self.clips.roots)
            measured[f"{task}_accuracy"] = float(np.mean(right if task == "type" else right[self.clips.root_defined]))
        return measured

    def expected_accuracies(self) -> dict:
        """Of the PyTorch model."""
        return self.accuracies([case.expected for case in self.cases if case.name == "clips"])

    def _write(self, progress: Progress) -> None:
        np.save(self.folder / "clips.npy", self.clips.clips)
        spec = self.checkpoint.spec
        # Not memory-mapped: on a full disk that would kill the process without a word.
        mels = np.empty((self.n, spec.n_mels, spec.n_frames(CLIP_SAMPLES)), np.float32)
        sums = itertools.accumulate(itertools.cycle(_BATCHES), initial=0)
        bounds = [*itertools.takewhile(lambda bound: bound < self.n, sums), self.n]
        for start, stop in itertools.pairwise(bounds):
            mels[start:stop] = self._add("clips", ("clips.npy", "mels.npy"), start, self.clips.waveforms(start, stop))
            progress("PyTorch", stop, self.n)
        np.save(self.folder / "mels.npy", mels)
        for name, waveforms, comparable in self._awkward():
            files = f"{name}.npy", f"{name}-mel.npy"
            np.save(self.folder / files[0], waveforms)
            np.save(self.folder / files[1], self._add(name, files, 0, waveforms, comparable))

    def _add(self, name: str, files: tuple, start: int, waveforms: np.ndarray, comparable: bool = True) -> np.ndarray:
        """Append a case, and return its mel spectrograms."""
        mel, scores = self.mel(waveforms), self.predictor(waveforms)
        chords = () if scores.bass is None else (scores.chords, scores.bass)  # of triads alone they are made of them
        answers = (scores.types, scores.roots, scores.joint, *chords)
        expected = tuple(values for values in answers if values is not None)
        rows = start, start + len(waveforms)
        self.cases.append(Case(name, files[0], files[1], rows, expected, comparable, self._slack(mel)))
        return mel

    def _slack(self, mel: np.ndarray) -> np.ndarray:
        """1 for our network, on which levels have no effect. The original's logits grow with the sound's power, without
        bound, and float32 sums hold them to a millionth of their size."""
        if self.checkpoint.architecture != "original":
            return np.ones(len(mel))
        with torch.inference_mode():
            logits = NetworkWithProbabilities(self.checkpoint)(torch.from_numpy(mel))[-1].flatten(1).numpy()
        return np.maximum(1.0, 1e-6 / FP32_LIMIT * np.abs(logits).max(axis=1))

    def mel(self, waveforms: np.ndarray) -> np.ndarray:
        """(Log) mel spectrograms of waveforms, as the PyTorch model takes them."""
        with torch.inference_mode():
            return self.predictor.mel(torch.from_numpy(waveforms)).numpy()

    def _awkward(self) -> Iterator[tuple[str, np.ndarray, bool]]:
        """Name, waveforms and whether they can be compared: where nothing but rounding noise is left beside a constant,
        no two programs agree, and `core.models.prediction.is_silent` answers for the model."""
        clips = self.clips.waveforms(0, min(4, self.n))
        yield "silence", np.zeros((2, CLIP_SAMPLES), np.float32), True
        yield "constant", np.full((1, CLIP_SAMPLES), 0.25, np.float32), False
        yield "very quiet", clips * np.float32(1e-3), True
        yield "loudest", np.clip(clips * np.float32(30), -1, 1), True
        yield "one click", np.eye(1, CLIP_SAMPLES, 30_000, dtype=np.float32), True
        if self.checkpoint.architecture == "original":  # it takes one length
            return
        yield "shortest", np.ascontiguousarray(clips[:3, 20_000 : 20_000 + self.checkpoint.spec.n_fft]), True
        yield "odd length", np.ascontiguousarray(clips[:, 10_000:31_777]), True
        yield "ten seconds", np.ascontiguousarray(np.tile(clips[:2], 3)[:, :160_000]), True


@dataclasses.dataclass(frozen=True)
class Report:
    """Of one file that was run: the worst difference of a probability from the PyTorch model's, the same divided by
    `Case.slack`, the share of clips with the same label, and accuracies as `ExportInfo.accuracies`."""

    worst_difference: float
    against_limit: float
    agreement: float
    accuracies: dict


def verify(path: str | Path, info: ExportInfo, reference: Reference) -> Report:
    """Check the file `path`, as the module's docstring says. Raises VerificationError with what is wrong."""
    try:
        if info.kind == "onnx":
            onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise _refusal(info, f"ONNX's checker refuses it ({' '.join(str(error).split())[:200]})") from error
    outputs, about = run_fresh(path, info, reference)
    try:
        check_seal(Path(path), info.kind)
    except UserError as error:
        raise _refusal(info, error) from error
    _check_about(about, info)
    report = compare(outputs, info, reference)
    hold(report, info, reference)
    different = f"its metadata say {info.accuracies}, measured were {report.accuracies}"
    _require(report.accuracies == info.accuracies, info, different)
    return report


def _refusal(info: ExportInfo, reason: object, case: str = "") -> VerificationError:
    return VerificationError(f"{info.kind} {info.front_end} {info.precision}{case}: {reason}")


def _require(holds: bool, info: ExportInfo, otherwise: str, case: str = "") -> None:
    if not holds:
        raise _refusal(info, otherwise, case)


def run_fresh(path: str | Path, info: ExportInfo, reference: Reference) -> tuple[list[tuple], dict]:
    """Outputs of every case and what the file says of itself, from a process of its own, or VerificationError."""
    files = [case.mels if info.front_end == "none" else case.waveforms for case in reference.cases]
    batches = [[str(reference.folder / f), *case.rows] for f, case in zip(files, reference.cases, strict=True)]
    job = {"model": str(Path(path).resolve()), "kind": info.kind, "batches": batches}
    with tempfile.TemporaryDirectory(dir=reference.folder) as folder:
        try:
            job_path, result = Path(folder) / "job.json", Path(folder) / "result.npz"
            job_path.write_text(json.dumps(job), encoding="utf-8")
            # -I: neither the folder that we run in nor the environment's paths lead to anything of ours.
            command = [sys.executable, "-I", str(_WORKER), str(job_path), str(result)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIME_LIMIT_S, cwd=folder)
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            _require(done.returncode == 0, info, f"does not run ({last[:300]})")
            with np.load(result, allow_pickle=False) as arrays:
                about = json.loads(str(arrays["about"]))
                n = len(info.output_names)
                outputs = [tuple(arrays[f"{i}/{j}"] for j in range(n)) for i in range(len(batches))]
        except subprocess.TimeoutExpired as error:
            raise _refusal(info, f"no answer in {_TIME_LIMIT_S} s") from error
        except (OSError, KeyError) as error:
            raise _refusal(info, f"its outputs cannot be read ({error})") from error
    return outputs, about


def compare(outputs: list[tuple], info: ExportInfo, reference: Reference) -> Report:
    """Outputs of every case against the PyTorch model's. Raises VerificationError: wrong shapes, values that are no
    probabilities, or logits that do not belong to them."""
    worst, limited, same, clips = 0.0, 0.0, 0, []
    for case, values in zip(reference.cases, outputs, strict=True):
        probabilities = _probabilities(values, case, info)
        if case.name == "clips":
            clips.append(probabilities)
            label = 2 if info.task == "both" else 0  # the triad, or the task's one
            labels = [
                values[label].reshape(len(values[label]), -1).argmax(axis=1)
                for values in (probabilities, case.expected)
            ]
            same += int((labels[0] == labels[1]).sum())
        if case.comparable:
            for ours, theirs in zip(probabilities, case.expected, strict=True):
                difference = np.abs(ours.astype(np.float64) - theirs).reshape(len(ours), -1).max(axis=1)
                worst = max(worst, float(difference.max()))
                limited = max(limited, float((difference / case.slack).max()))
    return Report(worst, limited, same / reference.n, reference.accuracies(clips))


def hold(report: Report, info: ExportInfo, reference: Reference) -> None:
    """Raises VerificationError where a report misses the limits of the file's precision."""
    agreement = f"{100 * report.agreement:.2f} % of the labels are"
    if info.precision == "fp32":
        difference = f"a probability differs by {report.worst_difference:.2g} from PyTorch's, limit {FP32_LIMIT:g}"
        _require(report.against_limit <= FP32_LIMIT, info, difference)
        _require(report.agreement == 1.0, info, f"{agreement} PyTorch's, not all")
        return
    least = f"{agreement} fp32's, below {100 * LEAST_AGREEMENT:g} %"
    _require(report.agreement >= LEAST_AGREEMENT, info, least)
    for key, expected in reference.expected_accuracies().items():
        if key.endswith("accuracy"):
            lost = f"{key} {100 * report.accuracies[key]:.2f} %, fp32 has {100 * expected:.2f} %"
            limit = f"at most {100 * MOST_ACCURACY_LOST:g} points may be lost"
            _require(report.accuracies[key] >= expected - MOST_ACCURACY_LOST, info, f"{lost}; {limit}")


def _probabilities(outputs: tuple, case: Case, info: ExportInfo) -> tuple[np.ndarray, ...]:
    """The outputs' probabilities, and of a model of both tasks those that its logits give, as `Case.expected`."""
    require = functools.partial(_require, info=info, case=f", {case.name}")
    n, expected = len(case.expected), [values.shape for values in case.expected]
    shapes = [values.shape for values in outputs[:n]]
    is_float32 = all(values.dtype == np.float32 for values in outputs)
    require(shapes == expected and is_float32, otherwise=f"outputs {shapes}, expected float32 {expected}")
    require(all(np.isfinite(values).all() for values in outputs), otherwise="outputs that are not finite")
    named = zip(info.output_names, outputs, strict=True)
    probabilities = [softmax(values.astype(np.float64)) if "logits" in name else values for name, values in named]
    sums = [np.abs(values.reshape(len(values), -1).sum(axis=1) - 1).max() for values in probabilities]
    require(max(sums) <= 1e-3, otherwise="probabilities that do not sum to 1")
    if info.task == "both":
        types, roots, joint, *more = probabilities
        pairs = [(joint.sum(axis=1), types), (joint.sum(axis=2), roots)]
        if info.vocabulary:
            triads = triads_of(more[0])  # what has none is spread over all of them
            pairs.append(((triads[:, :-1] + triads[:, -1:] / (triads.shape[1] - 1)).reshape(joint.shape), joint))
    else:
        pairs = [(probabilities[0], probabilities[1])]
    apart = max(np.abs(one - other).max() for one, other in pairs)
    require(apart <= 1e-3, otherwise="logits that are not those of the probabilities")
    return tuple(probabilities[:n])


def _check_about(about: dict, info: ExportInfo) -> None:
    foreign = ", ".join(sorted(set(about["modules"]) & _FOREIGN[info.kind]))
    _require(not foreign, info, f"it was not run alone; {foreign} was imported")
    metadata = about["metadata"]
    if info.kind == "onnx":
        frames = "n_frames" if info.samples is None else info.spec.n_frames(info.samples)
        axes = ["batch", info.spec.n_mels, frames] if info.front_end == "none" else ["batch", "samples"]
        inputs, outputs = about["inputs"], about["outputs"]
        _require(inputs == {info.input_name: axes}, info, f"inputs {inputs}, expected {info.input_name!r} {axes}")
        as_named = list(outputs) == info.output_names and about["types"] == ["tensor(float)"]
        _require(as_named, info, f"outputs {list(outputs)} of {about['types']}")
        has_batch = all(shape[0] == "batch" for shape in outputs.values())
        _require(has_batch, info, f"the batch is not open in {outputs}")
        metadata.pop(SEAL, None)
    written = metadata if info.kind == "torchscript" else info.metadata()
    same = metadata == written and ExportInfo.from_metadata({KEY: metadata[KEY]}, "the file") == info
    _require(same, info, "its metadata are not those written")
