"""The promise: importing the settings costs numpy alone; torch comes with MelSpectrogram."""

import pytest

from tests.kernels.inputs import in_a_new_process

HEAVY = ("torch", "torch._dynamo", "torchaudio", "scipy", "numba", "numba_cuda", "librosa")


def _loaded(statement: str) -> set[str]:
    return set(in_a_new_process(f"{statement}; import sys; print(*sys.modules)")) & set(HEAVY)


@pytest.mark.parametrize(
    "statement",
    [
        "from triadbench.kernels import MelSpec, ORIGINAL, CHORD, WHISPER, available_backends",
        "import triadbench.kernels.compare, triadbench.kernels.gpu.mel_cuda, triadbench.kernels.mel_matmul, triadbench.kernels.cpu.mel_numba, triadbench.kernels.mel_reference, triadbench.kernels.mel_torchaudio",
    ],
)
def test_light_imports_do_not_load_heavy_packages(statement):
    assert _loaded(statement) == set()


def test_the_check_sees_torch_when_it_is_loaded():
    assert "torch" in _loaded(
        "from triadbench.kernels import MelSpec, MelSpectrogram, available_backends, ORIGINAL, CHORD"
    )


@pytest.mark.parametrize("backend", ["auto", "numba", "matmul"])
def test_a_first_mel_loads_neither_a_compiler_nor_torchaudio(backend):
    """Each would cost the first call of a process more than the call itself."""
    made = f"from triadbench.kernels import MelSpectrogram; import torch; MelSpectrogram(backend={backend!r})(torch.zeros(2, 4000))"
    assert _loaded(made) <= {"torch", "scipy", "numba"}  # numba only where its kernel is not on the disk yet
