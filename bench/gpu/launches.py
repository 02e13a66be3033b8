"""The mel kernel once for every spec and nothing else: what compute-sanitizer and Nsight Compute look at."""

import sys
from typing import Any

from triadbench.bench.cases import make_waveform
from triadbench.core import workers
from triadbench.kernels import SPECS, MelSpectrogram, mel_reference
from triadbench.kernels.compare import assert_close


def main(device: str, batch: str, samples: str) -> None:
    """`batch` clips of `samples` samples a spec, in the order of `SPECS`; the first and the last clip are checked.

    Raises AssertionError for a wrong mel.
    """
    waveform = make_waveform(int(batch))[:, : int(samples)].contiguous()
    ends, on_device = [0, -1], waveform.to(device)
    for name, spec in SPECS.items():
        module = MelSpectrogram.from_spec(spec, backend="cuda" if device == "cuda" else "numba").to(device)
        expected = mel_reference.mel_spectrogram(waveform[ends].numpy(), spec)
        limits: dict[str, Any] = {"dtype": "float32", "rtol_peak": 1e-4, "rtol_rms": 1e-4}
        print(assert_close(module(on_device).cpu()[ends].numpy(), expected, context=name, **limits), flush=True)


def command(device: str, batch: int, samples: int) -> list[str]:
    """The command line of `main` in a process of its own."""
    return workers.module_command(__name__, device, str(batch), str(samples))


if __name__ == "__main__":
    main(*sys.argv[1:])
