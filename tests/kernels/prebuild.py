"""Prebuilds the CUDA kernels that the tests on a GPU need: `python -m tests.kernels.prebuild [ARCH ...]`, default sm_90.

For a machine that has a GPU and cannot compile. It takes two seconds a kernel; those of the named specs come with
`python cli.py kernel --prebuild`.
"""

import sys

import numpy as np

from tests.kernels.cuda_cases import AGAINST_REFERENCE, ON_GPU, TONES
from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.gpu.mel_cuda import plan_for


def plans():
    """Every kernel once."""
    settings = [(case.spec, case.waveform.dtype.name, case.log) for case in (AGAINST_REFERENCE | TONES).values()]
    settings += [(spec, "float32", False) for spec in ON_GPU]
    # As a module holds its filterbank: rounded.
    filters = {spec: spec.filterbank().astype(np.float32) for spec, _, _ in settings}
    return {plan_for(spec, in_dtype=dtype, log=log, filterbank=filters[spec]) for spec, dtype, log in settings}


if __name__ == "__main__":
    files = [file for plan in plans() for file in gpu_compile.prebuild(plan, sys.argv[1:] or ["sm_90"])]
    print(f"{gpu_compile.PREBUILT}: {len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
