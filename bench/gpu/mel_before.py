"""The CUDA kernel before the present one, to be measured beside it: that of commit 3963a22, for the named specs.

Beside this file lie its PTX, tables and launches. Once both are measured, both files go, and what names them in mel.py.
"""

import ctypes
from pathlib import Path

import numpy as np
import torch

from triadbench.bench.mel import rivals
from triadbench.kernels import SPECS, MelSpec
from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.gpu import mel_cuda

_FILE = Path(__file__).with_suffix(".npz")
_KINDS = (*mel_cuda.KINDS[:-2], ctypes.c_uint32, *mel_cuda.KINDS[-2:])  # it was told the number of filters


def contestants() -> dict[str, rivals.Rival]:
    """By calls, and in a CUDA graph."""
    rival = rivals.Rival(
        "ours: cuda, before",
        "the CUDA kernel of commit 3963a22",
        _prepare,
        devices=("cuda",),
        tolerance=1e-5,
        tolerance_reason="that of ours: cuda",
        ours=True,
        int16=True,
        unavailable=lambda device: mel_cuda.why_unavailable() or (None if _FILE.is_file() else f"no {_FILE.name} here"),
        unsupported=lambda spec: None if spec in SPECS.values() else "it is kept for the named specs",
    )
    return {one.name: one for one in (rival, rivals._graphed(rival))}


def load(spec: MelSpec, dtype: str) -> tuple[str, np.ndarray, np.ndarray, list[int]]:
    """PTX, tables, bands; frames, threads and shared bytes of a block."""
    (name,) = (name for name, known in SPECS.items() if known == spec)
    with np.load(_FILE) as file:
        text, tables, bands, launch = (file[f"{name}_{dtype}_{part}"] for part in ("ptx", "tables", "bands", "launch"))
    return text.tobytes().decode(), tables, bands, launch.tolist()


def geometry(spec: MelSpec, n_clips: int, time: int, frames: int) -> tuple[int, tuple]:
    """Blocks, and the kernel's scalars in order."""
    n_frames = spec.n_frames(time)
    n_tiles = -(-n_frames // frames)
    counts = (time, n_frames, n_tiles, spec.hop_length, spec.n_fft // 2, 0, spec.n_mels)
    return n_clips * n_tiles, (*counts, 0.0, 1.0)


def _prepare(spec, waveform, threads):
    driver, checked, device = mel_cuda._driver(), mel_cuda._checked, waveform.device
    text, *tables, (frames, block, shared_bytes) = load(spec, str(waveform.dtype).removeprefix("torch."))
    arch = "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    module = checked(driver.cuModuleLoadData(gpu_compile._assemble(text, arch)))
    function = checked(driver.cuModuleGetFunction(module, gpu_compile.ENTRY.encode()))
    on_device = [torch.from_numpy(table).to(device) for table in tables]

    def compute(waveform):
        n_clips, time = waveform.shape
        n_blocks, scalars = geometry(spec, n_clips, time, frames)
        mel = torch.empty((n_clips, spec.n_mels, spec.n_frames(time)), device=device)
        pointers = (tensor.data_ptr() for tensor in (waveform, mel, *on_device))
        sizes, stream = (n_blocks, 1, 1, block, 1, 1, shared_bytes), torch.cuda.current_stream().cuda_stream
        checked(driver.cuLaunchKernel(function, *sizes, stream, ((*pointers, *scalars), _KINDS), 0))
        return mel

    return compute
