"""The promise: the driver gets what the launcher means, through the true cuda.bindings: names of functions, handles,
and the parameters of a launch, byte for byte. The driver itself is a stand-in, cuda_stub.c.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kernels.inputs import in_a_new_process
from triadbench.kernels import ORIGINAL, MelSpec
from triadbench.kernels.gpu import mel_cuda

_SOURCE = Path(__file__).with_name("cuda_stub.c")
_PROGRAM = """
from triadbench.kernels import ORIGINAL, MelSpec
from triadbench.kernels.gpu import mel_cuda
import torch

torch.cuda.get_device_capability = lambda device: (9, 0)
torch.cuda.ExternalStream = lambda handle, device: print("external", handle, device)
mel_cuda.gpu_compile.machine_code = lambda plan, arch: b"?ELF" + arch.encode()
driver = mel_cuda._driver()
mel_cuda._checked(
    driver.cuThreadExchangeStreamCaptureMode(driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
)
mel_cuda._checked(driver.cuCtxSetCurrent(mel_cuda._context(1)))
mel_cuda._own_stream(1)
kernel = mel_cuda._kernel(mel_cuda.plan_for(ORIGINAL, log=True), 1)
mel_cuda._kernel(mel_cuda.plan_for(MelSpec(n_fft=20000)), 1)
n_blocks, scalars = mel_cuda.geometry(kernel.plan, ORIGINAL, 512, 64000, 1e-10)
for _ in range(2):  # the second time in a thread without a context
    mel_cuda.launch(kernel, n_blocks, (0x1000, 0x2000, 0x30000000000, 0x4000), scalars, 0x99)
    mel_cuda._checked(driver.cuCtxSetCurrent(0))
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.skipif(importlib.util.find_spec("cuda") is None, reason="cuda.bindings are not installed")
def test_the_driver_is_asked_for_what_is_meant(tmp_path):
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, _SOURCE], check=True)
    said = " ".join(in_a_new_process(_PROGRAM, LD_LIBRARY_PATH=str(tmp_path)))
    plan = mel_cuda.plan_for(ORIGINAL, log=True)
    prepared = "mode 2 device 1 retain 1 current 0x7777 stream 1 external 85 1 load ELF function 0x11 mel "
    large = f"load ELF function 0x11 mel attribute 0x22 8 {mel_cuda.plan_for(MelSpec(n_fft=20000)).shared_bytes} "
    sizes = f"launch 0x22 ({512 * -(-126 // plan.frames)} 1 1) ({plan.threads} 1 1) {plan.shared_bytes} 0x99"
    pointers = "pointer 1000 pointer 2000 pointer 30000000000 pointer 4000"
    integers = " ".join(f"integer {n}" for n in (64000, 126, -(-126 // plan.frames), 512, 512, 0))
    launch = f"{sizes} {pointers} {integers} floats 1e-10 1"
    none = "current (nil)"
    assert said == f"{prepared}{large}{launch} {none} push 0x7777 {launch} pop 0x7777 {none}"
