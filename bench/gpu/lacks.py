"""Before the first stage: whether there is a GPU, and what the environment lacks and what that changes."""

import importlib.util
import itertools
import json

from triadbench.bench import records
from triadbench.bench.gpu import tools
from triadbench.bench.gpu.context import Context
from triadbench.kernels import SPECS
from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.gpu import mel_cuda

PACKAGES = {
    "pytest": "the GPU tests are not run",
    "av": "only WAV of 16 bits is read",
    "soundfile": "the original's pipeline reads WAV by the standard library",
    "soxr": "only sounds of the models' sample rate are read",
    "psutil": "the load by other processes is read from /proc",
    "pynvml": "the GPU's clocks, temperature and load during trials are not known",
    "triton": "torch.compile is not measured",
    "numba": "our kernels do not run",
    "numba_cuda": "our GPU kernel does not run",
}
TOOLS = {
    "nvidia-smi": "clocks, temperature and power are not known",
    "compute-sanitizer": "the kernels' memory accesses are not checked",
    "ncu": "no hardware counters are read",
    "ptxas": "machine code is assembled by nvJitLink",
    "g++": "torch.compile makes nothing for the CPU",
}


def run(context: Context) -> str:
    """`gpu` (bool), `environment` (as records have it) and `lacks` (lines), as JSON."""
    import torch

    lacks = [f"{name}: {what}" for name, what in PACKAGES.items() if importlib.util.find_spec(name) is None]
    lacks += [f"{name}: {what}" for name, what in TOOLS.items() if not (gpu_compile.tool(name) or tools.find(name))]
    if (reason := why_no_provider()) is not None:
        lacks.append(f"ONNX Runtime's CUDA provider ({reason}): the card's command, infer --provider cuda, is unproven")
    if (reason := why_no_compiler()) is not None:
        absent = ", ".join(_not_compiled())
        what = f"not there, so not run: {absent}" if absent else "all are there"
        lacks.append(f"numba's compiler for GPUs ({reason}): our kernel runs from prebuilt programs alone; {what}")
    told = {"gpu": torch.cuda.is_available(), "environment": context.environment, "lacks": lacks}
    return json.dumps(told)


def _not_compiled() -> list[str]:
    """Spec and dtype of the mel kernels whose program is neither kept nor prebuilt, where nothing can compile it."""
    absent = []
    for (name, spec), dtype in itertools.product(SPECS.items(), ("float32", "int16")):
        try:
            gpu_compile.ptx(mel_cuda.plan_for(spec, in_dtype=dtype))
        except Exception:  # what is missing raises errors of several kinds, and the reason is told already
            absent.append(f"{name} {dtype}")
    return absent


def why_no_provider() -> str | None:
    """Why ONNX Runtime cannot compute on a GPU; None if it says that it can."""
    try:
        import onnxruntime
    except ImportError as error:
        return str(error)
    providers = onnxruntime.get_available_providers()
    return None if "CUDAExecutionProvider" in providers else f"onnxruntime has {', '.join(providers)}"


def why_no_compiler() -> str | None:
    """Why numba cannot compile for a GPU, as without NVVM or with a numpy that it does not know; None if it can."""

    def nothing() -> None:
        pass

    try:
        from numba import cuda

        cuda.compile(nothing, "void()", device=False, abi="numba", cc=gpu_compile.OLDEST, output="ptx")
    except Exception as error:  # of several kinds
        return records.reason_of(error)
    return None
