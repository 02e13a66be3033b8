"""Why did the original train only twice as fast on a GPU, and how long does its final training take on this one?

In order: the ladder on the GPU, the final training, the ladder on this machine's CPU over the same clips, and
experiment 1 at two batch sizes. No part begins that cannot end in time, as reckoned from an epoch of the original
pipeline that is timed before. A part that fails does not stop the next.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from triadbench.bench import records
from triadbench.bench.gpu.clips import clip_names, make_chunks, write_wavs
from triadbench.bench.gpu.context import Context, gpu_state
from triadbench.bench.study import experiments, ladder, protocol
from triadbench.bench.study.session import Settings, make_trainer
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.data.clips import Clip
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import PackDataset
from triadbench.core.models.chords import ClipName
from triadbench.core.timing import synchronize
from triadbench.core.training.batches import features_fit
from triadbench.core.training.settings import ORIGINAL_PIPELINE, fast_pipeline, finite_loss
from triadbench.kernels import MelSpectrogram
from triadbench.kernels.spec import ORIGINAL

FINAL, LEFT_OUT = "gpu final training", "gpu training left out"
_RUN: dict[str, Any] = {"task": "type", "batch_size": 32}
_SLOW = {"cpu": 0.7, "cuda": 0.3}  # an epoch of the rungs above "packed" over the original's, at most


class _Size(NamedTuple):
    """How much; of a choice of ladders (clips, rounds) and experiments (clips) the first that there is time for."""

    wavs: int = 2048
    ladders: tuple[tuple[int, int], ...] = ((512, 2), (512, 1), (256, 1))
    final: int = 86_400  # clips and epochs of the original
    epochs: int = 30
    experiments: tuple[int, ...] = (2048, 1024, 512)
    batches: tuple[int, ...] = (32, 256)
    trial_epochs: int = 2


_TINY = _Size(48, ((48, 1),), 48, 2, (48,), (32,), 1)


def run(context: Context) -> str:
    """Measure the parts. Raises RuntimeError, at the end, where one failed."""
    if context.rehearse:
        torch.set_num_threads(1)  # two that wait for one another take ten times as long where others hold the cores
    training = _Training(context)
    device = context.device
    training.part(f"ladder on {device}", training.ladder_s(device), partial(training.ladder, device))
    if not training.part("final training", 10.0, partial(training.final, "fast")):
        training.part("final training, no graph", 10.0, partial(training.final, "fast, no CUDA graph"))
    if device != "cpu":
        training.part("ladder on cpu", training.ladder_s("cpu"), partial(training.ladder, "cpu"))
    clips = training.first_of(training.size.experiments, training.experiment_s, 1.0)
    training.part("experiment 1", training.experiment_s(clips), partial(training.experiment, clips))
    line = "; ".join([*training.failed, *training.done])
    if training.failed:
        raise RuntimeError(line)
    return line


class _Training:
    def __init__(self, context: Context) -> None:
        self.context, self.size = context, _TINY if context.rehearse else _Size()
        self.done: list[str] = []
        self.failed: list[str] = []
        self.wavs = write_wavs(self.size.wavs, context.scratch / "generated", context.device)
        self.clip_s = {device: self._original_clip_s(device) for device in {context.device, "cpu"}}
        # The same on both devices, so that they can be compared; the rest has 40 % of the time.
        both_s = lambda case: sum(self.ladder_s(device, case) for device in self.clip_s)  # noqa: E731
        self.case: tuple[int, int] = self.first_of(self.size.ladders, both_s, 0.6)

    def part(self, name: str, seconds: float, work: Callable[[], str]) -> bool:
        """Do a part that takes about so long, if there is time; False where it was begun and failed."""
        left_s = self.context.left_s()
        try:
            if seconds < left_s or self.context.rehearse:
                self.done.append(f"{name}: {work()}")
            else:
                reason = f"it would take {seconds:.0f} s and {left_s:.0f} s are left"
                self.context.add(LEFT_OUT, {"part": name}, reason=reason)
                self.done.append(f"{name} left out: {reason}")
        except Exception as error:
            reason = f"{type(error).__name__}: {records.reason_of(error)}"
            self.context.add(LEFT_OUT, {"part": name}, reason=reason)
            self.failed.append(f"{name} failed: {reason}")
            return False
        return True

    def first_of(self, choices, seconds: Callable[[Any], float], share: float):
        """The first choice that takes no more than a share of the time that is left; else the last."""
        most_s = share * self.context.left_s()
        return next((choice for choice in choices if seconds(choice) < most_s), choices[-1])

    def _original_clip_s(self, device: str) -> float:
        """Seconds a clip in an epoch of the original pipeline: the faster of two, of which the first one warms up."""
        clips = open_dataset(self.wavs).subset(range(min(96, self.size.wavs)))
        trainer = make_trainer(clips, switches=ORIGINAL_PIPELINE, device=device, **_RUN)
        return min(trainer.train_epoch().seconds for _ in range(2)) / trainer.n_train

    def ladder_s(self, device: str, case: tuple[int, int] | None = None) -> float:
        """About: two rungs read single clips; every rung has a first epoch and two a round, longer with a clock."""
        (clips, rounds), rungs = case or self.case, ladder.rungs_of(device)
        epochs = 3 + (2 + _SLOW[device] * (len(rungs) - 2)) * (1 + 2.5 * rounds)
        return 0.7 * clips * self.clip_s[device] * epochs + 5

    def ladder(self, device: str) -> str:
        clips, rounds = self.case
        case = ladder.LadderCase(device, num_items=clips, rounds=rounds, **_RUN)
        settings = self._settings(f"ladder-{device}")
        try:
            result = ladder.run([case], settings)
        except Exception:
            if device == "cuda":  # the graph is what fails first: the other rungs' epochs are kept, and not lost for it
                plain = [rung for rung in ladder.rungs_of(device) if not rung.switches.cuda_graph]
                ladder.run([case], settings, lambda _: plain)
            raise
        if wrong := [record["parameters"]["name"] for record in result["failed"]]:
            raise RuntimeError(f"not the original's losses: {', '.join(wrong)}")
        ends = result["rungs"][0], result["rungs"][-1]
        if disturbed := next((record["disturbed"] for record in ends if record["disturbed"]), None):
            return f"all rungs are timed, and no ratio is shown: {disturbed}"
        first, last = (float(np.median(record["samples"])) for record in ends)
        return f"the fast pipeline is {first / last:.1f} times as fast as the original"

    def experiment_s(self, clips: int) -> float:
        """About: two trials of the original pipeline, with its testing; the fast one takes a fraction of that."""
        return 3 * clips * self.clip_s[self.context.device] * len(self.size.batches) * self.size.trial_epochs + 5

    def experiment(self, clips: int) -> str:
        options: dict[str, Any] = {"batch_sizes": self.size.batches, "epochs": self.size.trial_epochs, "trials": 2}
        options |= {"clips": (clips,), "task": _RUN["task"], "device": self.context.device}
        result = experiments.run(protocol.make("batch-size", **options), self._settings("experiment"))
        return f"{len(result['figures'])} figures of {clips:,} clips"

    def _settings(self, name: str) -> Settings:
        def report(*done: object) -> None:
            if self.context.left_s() <= 0:
                raise TimeoutError(f"{self.context.seconds:.0f} s are over")

        progress = lambda label: contextlib.nullcontext(report)  # noqa: E731
        context, note = self.context, partial(print, flush=True)
        return Settings(context.scratch / name, context.records, progress, note, self.wavs, context.scratch / "packs")

    def final(self, pipeline: str) -> str:
        """The original's final training of one network, on clips whose features never leave the device."""
        context, n = self.context, self.size.final
        later_s = 0.0 if context.device == "cpu" else min(self.ladder_s("cpu"), context.left_s() / 2)
        while not features_fit(n, context.device):
            n //= 2
        names, features, made_s = self._features(n, 0.3 * (context.left_s() - later_s))
        # A pack without samples: none is read, for the source has its features already.
        clips = [Clip(name, f"{name.format()}.wav") for name in names]
        dataset = PackDataset(Path("generated"), np.empty((len(clips), 0), np.int16), clips, ())
        switches = fast_pipeline(context.device)
        switches = switches.with_(cuda_graph=switches.cuda_graph and pipeline == "fast")
        trainer = make_trainer(dataset, switches=switches, device=context.device, **_RUN)
        trainer.source.features = features  # type: ignore[attr-defined]  # this pipeline's source keeps them
        epochs, states = [], []
        try:
            for epoch in range(self.size.epochs):
                states.append(gpu_state())
                train, test = trainer.train_epoch(), trainer.test_epoch()
                finite_loss(train.loss + test.loss, epoch)
                epochs.append((train, test))
                if context.left_s() - later_s < 1.5 * (train.seconds + test.seconds):
                    break
        finally:
            parameters = {"device": context.device, "clips": len(clips), "epochs": self.size.epochs}
            fields: dict[str, Any] = {"epochs_done": len(epochs), "data": {"origin": "generated"}, "states": states}
            fields |= {"switches": switches.describe(), "made_s": made_s, "n_clips": trainer.n_train}
            for side, part in enumerate(("train", "test")):
                fields[f"{part}_s"] = [epoch[side].seconds for epoch in epochs]
                fields[f"{part}_loss"] = [epoch[side].loss for epoch in epochs]
            fields["test_accuracy"] = [test.accuracy for _, test in epochs]
            seconds = [train.seconds + test.seconds for train, test in epochs]
            context.add(FINAL, {**parameters, **_RUN, "pipeline": pipeline}, seconds, **fields)
        accuracy = f"test accuracy {100 * (epochs[-1][1].accuracy or 0.0):.1f} %"
        return f"{len(epochs)} of {self.size.epochs} epochs of {len(clips):,} clips in {sum(seconds):.1f} s, {accuracy}"

    def _features(self, n: int, most_s: float) -> tuple[list[ClipName], torch.Tensor, float]:
        """Names and mel spectrograms (clips, 1, 64, 126) of `n` clips, fewer after `most_s`; the seconds it took."""
        device, names, done, begun = self.context.device, clip_names(n), 0, time.perf_counter()
        mel = MelSpectrogram.from_spec(ORIGINAL).to(device)
        features = torch.empty((n, 1, ORIGINAL.n_mels, ORIGINAL.n_frames(CLIP_SAMPLES)), device=device)
        for waveforms in make_chunks(names, device):
            with torch.no_grad():
                features[done : done + len(waveforms), 0] = mel(waveforms)
            done += len(waveforms)
            synchronize(device)
            if time.perf_counter() - begun > most_s:
                break
        return names[:done], features[:done], time.perf_counter() - begun
