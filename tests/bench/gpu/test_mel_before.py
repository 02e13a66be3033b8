"""The promise: the CUDA kernel before the present one is whole and right, so that a GPU measures both side by side."""

import numpy as np
import pytest

from tests.kernels.inputs import TOLERANCES, noise
from triadbench.bench.gpu import mel_before
from triadbench.kernels import SPECS, MelSpec
from triadbench.kernels.compare import assert_close
from triadbench.kernels.gpu.ptx_machine import Memory, execute
from triadbench.kernels.mel_reference import mel_spectrogram


@pytest.mark.parametrize(("name", "dtype"), [*((name, "float32") for name in SPECS), ("ORIGINAL", "int16")])
def test_its_ptx_gives_the_mel(name, dtype):
    spec = SPECS[name]
    text, *tables, (frames, threads, shared_bytes) = mel_before.load(spec, dtype)
    # Whole tiles: of frames behind a clip's end it transforms what nothing wrote, and stores nothing.
    waveform = noise((2, (2 * frames - 1) * spec.hop_length), dtype)
    n_blocks, scalars = mel_before.geometry(spec, *waveform.shape, frames)
    mel = np.full((2, spec.n_mels, 2 * frames), np.nan, np.float32)
    bases = [number << 40 for number in range(1, 5)]
    memories = [Memory(array, base) for array, base in zip((waveform, *tables), (bases[0], *bases[2:]), strict=True)]
    memories.append(Memory(mel, bases[1], read_only=False, written=False))
    launch = {"n_blocks": n_blocks, "threads": threads, "shared_bytes": shared_bytes}
    execute(text, memories, (*bases, *scalars), **launch)
    assert_close(mel, mel_spectrogram(waveform, spec), dtype="float32", **TOLERANCES["float32"])


def test_it_takes_the_named_specs_on_a_gpu():
    plain, graphed = mel_before.contestants().values()
    assert plain.why_not(SPECS["CHORD"], "cpu") == graphed.why_not(SPECS["CHORD"], "cpu") == "it needs a GPU"
    assert plain.unsupported(MelSpec(n_fft=512)) == "it is kept for the named specs"
    assert graphed.graph_of == plain.name == "ours: cuda, before"
    assert len(mel_before._KINDS) == 4 + len(mel_before.geometry(SPECS["CHORD"], 1, 9000, 2)[1])
