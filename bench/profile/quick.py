"""What do the torchaudio mel, the networks and a training step cost on this machine's CPU?

Timed: torchaudio's mel spectrogram (both specs, one clip and a batch), both networks' forward pass, and the parts of a
training step: mel, forward, backward, optimizer. Every result is compared with float64 on the timed inputs first.
Not timed: reading files, the data loader, other mel backends, a GPU.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from triadbench.bench import machine, outputs, records, roofs
from triadbench.bench.analysis import summary
from triadbench.bench.cases import SEED, make_networks, make_waveform, torchaudio_mel
from triadbench.core import timing
from triadbench.core.constants import CLIP_SAMPLES

if TYPE_CHECKING:
    import torch

MEL_BATCHES = (1, 64)
FORWARD_BATCHES = (1, 32)
STEP_BATCH = 32
MEL_TOLERANCE = 1e-4
"""Largest peak-relative and RMS error of a float32 mel: torchaudio rounds filter corners and weights to float32."""
FORWARD_TOLERANCE = 1e-4
"""Largest error of a float32 forward pass, relative to the float64 pass's largest value.

Sums of up to 5,760 float32 products round to about sqrt(5760) * 6e-8 = 5e-6 a layer; five layers and a margin of four.
"""


class Effort(NamedTuple):
    """How long to measure: `FULL` for people, `SMOKE` for tests of everything but the numbers."""

    rounds: int
    min_time_s: float
    max_time_s: float
    steps: int
    peak_s: float


FULL = Effort(rounds=20, min_time_s=0.5, max_time_s=5.0, steps=12, peak_s=0.5)
SMOKE = Effort(rounds=2, min_time_s=0.0, max_time_s=1.0, steps=2, peak_s=0.0)


def run(
    out: Path,
    records_path: Path,
    progress: Callable[[int, int | None], None] | None = None,
    effort: Effort = FULL,
) -> dict:
    """Measure, append the records, write the page.

    Args:
        out: HTML page to write, whole or not at all.
        records_path: JSON Lines file to append each finished measurement to.
        progress: called with (measurements done, measurements in all).
        effort: how long to measure.

    Returns:
        `page`, `records` (paths), `seconds`, `environment`, `measurements` (one summary per record) and `findings`
        (sentences).

    Raises:
        RuntimeError: a result is wrong; nothing slower or faster than right is reported.
        UserError: an output cannot be written.
    """
    from triadbench.bench.report import quick_page

    start = time.perf_counter()
    environment = machine.environment()
    made = measure(environment, records_path, progress, effort)
    return {
        **outputs.write_page(quick_page.page(made), out, records_path, environment, start),
        "measurements": [summary.row(record, summary.peak_gflop_per_s(made)) for record in made],
        "findings": summary.findings(made),
    }


def measure(
    environment: dict,
    records_path: Path,
    progress: Callable[[int, int | None], None] | None = None,
    effort: Effort = FULL,
) -> list[dict]:
    """The records of `run`, each appended to the file as soon as it is made."""
    stages = [_peaks, _mels, _forwards, _steps]
    made: list[dict] = []
    for done, stage in enumerate(stages):
        if progress is not None:
            progress(done, len(stages))
        for record in stage(environment, effort):
            records.append(record, records_path)
            made.append(record)
    if progress is not None:
        progress(len(stages), len(stages))
    return made


def text(result: dict) -> str:
    """The terminal's version of `run`'s result: one table and the sentences."""
    return summary.text(result["measurements"], result["findings"]) + f"\n\nPage: {result['page']}"


# --- stages: each gives records --------------------------------------------------------------------------------------


def _peaks(environment: dict, effort: Effort) -> list[dict]:
    others = timing.OtherWork()
    peaks = roofs.measure(timing.own_threads(), effort.peak_s)
    load = others.fields()
    common = {"device": "cpu", "dtype": "float32"}
    made = []
    for name, roof in (("peak copy", peaks["memory"]), ("peak matmul", peaks["arithmetic"])):
        samples = roof.pop("samples_ms")
        made.append(
            records.make(name, parameters=common, unit="ms", samples=samples, environment=environment, **roof, **load)
        )
    return made


def _timed(effort: Effort, contestants: dict, check: Callable) -> dict[str, timing.Timing]:
    return timing.measure(
        contestants, check=check, rounds=effort.rounds, min_time_s=effort.min_time_s, max_time_s=effort.max_time_s
    )


def _record(name: str, parameters: dict, timed: timing.Timing, environment: dict, clips: int, **more: Any) -> dict:
    return records.make(
        name,
        parameters={"device": "cpu", "dtype": "float32", "seed": SEED, **parameters},
        unit="ms",
        samples=timed.samples_ms,
        environment=environment,
        **records.timing_fields(timed, clips),
        **more,
    )


def _mels(environment: dict, effort: Effort) -> list[dict]:
    """torchaudio's own module and our drop-in module on its fastest backend, taking turns."""
    from triadbench import kernels
    from triadbench.kernels import mel_reference, operation_count

    made = []
    for spec_name in ("ORIGINAL", "CHORD"):
        spec = kernels.SPECS[spec_name]
        modules = {"torchaudio": torchaudio_mel(spec), "ours": kernels.MelSpectrogram.from_spec(spec)}
        for batch in MEL_BATCHES:
            waveform = make_waveform(batch)
            expected = mel_reference.mel_spectrogram(waveform.numpy(), spec)
            errors: dict[str, dict] = {}

            def check(name: str, mel, expected=expected, errors=errors, case=f"mel {spec_name} batch {batch}") -> None:
                errors[name] = mel_error(f"{case} {name}", mel, expected)

            contestants = {name: _bound(module, waveform) for name, module in modules.items()}
            n_frames = spec.n_frames(CLIP_SAMPLES)
            arrays = CLIP_SAMPLES + spec.n_mels * n_frames
            for name, timed in _timed(effort, contestants, check).items():
                made.append(
                    _record(
                        "mel",
                        {"backend": name, "spec": spec_name, "batch": batch},
                        timed,
                        environment,
                        batch,
                        runs_on=modules["ours"].backend if name == "ours" else "torchaudio",
                        error=errors[name],
                        flops=operation_count.flops(spec, batch, CLIP_SAMPLES),
                        bytes_moved=4 * batch * arrays,
                    )
                )
    return made


def _forwards(environment: dict, effort: Effort) -> list[dict]:
    """Both networks without gradients, from the mel they want to their answer."""
    import torch

    made = []
    for network in make_networks():
        exact = copy.deepcopy(network.module).double().eval()
        module = network.module.eval()
        for batch in FORWARD_BATCHES:
            inputs = network.front_end(make_waveform(batch))
            with torch.inference_mode():
                expected = _flat(exact(inputs.double()))
                error: dict = {}

                def check(name: str, result, expected=expected, error=error, batch=batch) -> None:
                    error.update(forward_error(f"forward {name} batch {batch}", result, expected))

                timed = _timed(effort, {network.name: _bound(module, inputs)}, check)[network.name]
                flops = _count_flops(_bound(module, inputs))
            made.append(
                _record(
                    "forward",
                    {"network": network.name, "spec": network.spec_name, "batch": batch},
                    timed,
                    environment,
                    batch,
                    error=error,
                    flops=flops,
                )
            )
    return made


def _steps(environment: dict, effort: Effort) -> list[dict]:
    """A training step in its parts, on one batch; checked that it learns: a finite loss, and parameters that move."""
    import torch

    made = []
    waveform = make_waveform(STEP_BATCH)
    generator = torch.Generator().manual_seed(SEED)
    for network in make_networks():
        types = torch.randint(0, 4, (STEP_BATCH,), generator=generator)
        roots = torch.randint(0, 12, (STEP_BATCH,), generator=generator)
        module = network.module.train()
        optimizer = torch.optim.Adam(module.parameters(), lr=network.learning_rate)
        before = [parameter.detach().clone() for parameter in module.parameters()]
        samples: dict[str, list[float]] = {"mel": [], "forward": [], "backward": [], "optimizer": []}
        others = timing.OtherWork()
        for _ in range(effort.steps + 1):
            marks = [time.perf_counter()]
            with torch.no_grad():
                inputs = network.front_end(waveform)
            marks.append(time.perf_counter())
            optimizer.zero_grad(set_to_none=True)
            loss = network.loss(inputs, types, roots)
            marks.append(time.perf_counter())
            loss.backward()
            marks.append(time.perf_counter())
            optimizer.step()
            marks.append(time.perf_counter())
            check_step(network.name, float(loss.detach()), before, list(module.parameters()))
            for part, start, end in zip(samples, marks, marks[1:], strict=False):
                samples[part].append(1e3 * (end - start))
        other_cores = others.cores()
        for part, values in samples.items():
            timed = timing.Timing.from_samples(values[0] / 1e3, values[1:], 1, other_cores)
            made.append(
                _record(
                    "training step",
                    {"network": network.name, "spec": network.spec_name, "batch": STEP_BATCH, "part": part},
                    timed,
                    environment,
                    STEP_BATCH,
                )
            )
    return made


# --- gates: no time without a right answer ---------------------------------------------------------------------------


def mel_error(case: str, mel, expected) -> dict:
    """The error of a float32 mel, for its record. Raises RuntimeError where it is too large to be rounding."""
    from triadbench.kernels.compare import compare

    found = compare(mel.numpy(), expected, rtol_peak=MEL_TOLERANCE, rtol_rms=MEL_TOLERANCE, dtype="float32")
    if not found.passed:
        raise RuntimeError(f"{case} is wrong, so it is not timed: {found}")
    return records.error_fields(found)


def forward_error(case: str, result, expected: torch.Tensor) -> dict:
    """The error of a float32 forward pass against the float64 one. Raises RuntimeError above `FORWARD_TOLERANCE`."""
    from triadbench.kernels.compare import compare

    found = compare(
        _flat(result).numpy(),
        expected.numpy(),
        rtol_peak=FORWARD_TOLERANCE,
        rtol_rms=FORWARD_TOLERANCE,
        dtype="float32",
    )
    if not found.passed:
        raise RuntimeError(f"{case} is wrong, so it is not timed: {found}")
    return records.error_fields(found)


def check_step(name: str, loss: float, before: list[torch.Tensor], after: list[torch.Tensor]) -> None:
    """Raises RuntimeError unless the loss is finite and some parameter differs from what it was, finitely."""
    import torch

    if not math.isfinite(loss):
        raise RuntimeError(f"training step of {name} is wrong, so it is not timed: loss={loss}")
    if all(torch.equal(old, new.detach()) for old, new in zip(before, after, strict=True)):
        raise RuntimeError(f"training step of {name} is wrong, so it is not timed: no parameter moved")
    if not all(torch.isfinite(new).all() for new in after):
        raise RuntimeError(f"training step of {name} is wrong, so it is not timed: a parameter is not finite")


def _bound(module: Callable, inputs: torch.Tensor) -> Callable[[], Any]:
    return lambda: module(inputs)


def _flat(result: Any) -> torch.Tensor:
    """The answers of a network as one tensor (batch, numbers), whether it gives one tensor, a tuple or a dict."""
    import torch

    if isinstance(result, torch.Tensor):
        return result.flatten(1)
    values = result.values() if isinstance(result, dict) else result
    return torch.cat([value.flatten(1) for value in values], dim=1)


def _count_flops(function: Callable[[], Any]) -> int:
    """Operations of the convolutions and matrix products that a call runs; the rest is left out."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()
