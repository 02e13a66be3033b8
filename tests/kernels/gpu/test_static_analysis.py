"""The promise: the CUDA kernel compiles for every GPU generation we name, keeps its data in registers and fits several
blocks on a multiprocessor. No GPU is needed: the compiler, the assembler and the lister run anywhere.
"""

import ctypes
import re
import shutil

import pytest

from triadbench.kernels import CHORD, ORIGINAL, SPECS, WHISPER, MelSpec
from triadbench.kernels.gpu import compile as cuda_compile
from triadbench.kernels.gpu import mel_cuda
from triadbench.kernels.gpu import memory as cuda_memory
from triadbench.kernels.gpu import plan as cuda_plan
from triadbench.kernels.gpu import static_analysis as cuda_static

pytestmark = pytest.mark.skipif(cuda_static.why_unavailable() is not None, reason=str(cuda_static.why_unavailable()))

# Registers a thread: with 128 of them four blocks of 128 threads fill the register file, with 112 two of 288 threads do.
REGISTERS = {"ORIGINAL": 128, "CHORD": 112, "WHISPER": 96}


@pytest.fixture(scope="module", autouse=True)
def _compiled_here(tmp_path_factory):
    """A fresh folder of compiled code: what is checked was made by the sources at hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setattr(cuda_compile, "PREBUILT", tmp_path_factory.mktemp("prebuilt"))
        yield


@pytest.mark.parametrize("arch", cuda_static.LIMITS)
@pytest.mark.parametrize("name", SPECS)
def test_registers_spills_and_shared_memory(name, arch):
    found = cuda_static.analyse(SPECS[name], arch=arch)
    assert (found["spill_store_bytes"], found["spill_load_bytes"], found["stack_bytes"]) == (0, 0, 0)
    assert 32 <= found["registers"] <= REGISTERS[name]
    assert found["shared_bytes"] == mel_cuda.plan_for(SPECS[name], log=True).shared_bytes
    assert found["blocks_per_sm"] >= (1 if (name, arch) == ("CHORD", "sm_120") else 2)
    assert found["blocks_per_sm"] == min(found["blocks_per_sm_by"].values())
    assert found["occupancy"] >= (8 / 48 if arch == "sm_120" else 16 / 64)  # warps


@pytest.mark.parametrize("name", SPECS)
def test_mix(name):
    found = cuda_static.analyse(SPECS[name])
    assert tuple(found["mix"]) == cuda_static.CLASSES
    assert found["instructions"] == sum(found["mix"].values())
    assert found["mix"]["other"] < 0.1 * found["instructions"]
    assert found["mix"]["FFMA"] > found["mix"]["FADD"] > 0, "sums and products are not fused"
    assert found["mix"]["special function"] >= 1  # the logarithm


def test_indices_are_32_bit():
    """64-bit arithmetic is for the clip's address, for pointers moved once, and for samples at an edge, one each; not for
    every access."""
    text, plan = cuda_static.ptx(ORIGINAL), mel_cuda.plan_for(ORIGINAL, log=True)
    at_an_edge = plan.real_radix + plan.shift
    assert len(re.findall(r"\b(?:add|mul|mad|sub)\.[a-z.]*[su]64\b", text)) < 120 + at_an_edge


@pytest.mark.parametrize("name", SPECS)
def test_neighbouring_floats_travel_together(name):
    """Complex values as 8 bytes, tables as 16: split into single floats, accesses would be two and four times as many."""
    plan, text = mel_cuda.plan_for(SPECS[name], log=True), cuda_static.ptx(SPECS[name])
    count = lambda pattern: len(re.findall(pattern, text))  # noqa: E731
    assert count(r"\bld\.shared\.v2\.f32") == sum(plan.together(2 * radix) * radix for radix in plan.radices)
    assert count(r"\bld\.shared\.v4\.f32") == plan.step and count(r"\bst\.shared\.v4\.f32") == 2  # rows of powers, sums
    assert count(r"\bst\.shared\.v2\.f32") >= plan.n_residues - plan.packed + sum(plan.radices[:-1])
    assert count(r"\bld\.global\.nc\.v4\.f32") >= plan.real_radix // 4 + plan.n_residues // 2
    assert ".extern .shared .align 16" in text


@pytest.mark.parametrize(
    ("spec", "in_dtype", "log"),
    [
        (ORIGINAL, "float32", False),
        (ORIGINAL, "int16", True),
        (CHORD, "int16", True),
        (WHISPER, "int16", True),
        (WHISPER, "int16", False),
        (MelSpec(n_fft=60, power=1.0, pad_mode="circular"), "float32", False),
        (MelSpec(n_fft=486, power=1.7, center=False), "float32", True),
    ],
    ids=[
        "original_no_log",
        "original_int16",
        "chord_int16",
        "whisper_int16",
        "whisper_int16_no_log",
        "magnitude",
        "other_power",
    ],
)
@pytest.mark.parametrize("arch", cuda_static.LIMITS)
def test_other_kernels_do_not_spill(spec, in_dtype, log, arch):
    found = cuda_static.analyse(spec, in_dtype=in_dtype, log=log, arch=arch)
    assert (found["spill_store_bytes"], found["spill_load_bytes"], found["stack_bytes"]) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("n_fft", [8, 375, 512, 1000, 2048, 8192, 16384, 15625, 20000])
def test_other_sizes_do_not_spill(n_fft):
    found = cuda_static.analyse(MelSpec(n_fft=n_fft))
    assert (found["spill_store_bytes"], found["stack_bytes"]) == (0, 0)
    assert found["shared_bytes"] <= cuda_plan.SHARED_LIMIT


def test_occupancy_by_hand():
    """128 threads of 110 registers: 3584 a warp (110 x 32 up to a multiple of 256), 18 warps, 4 blocks."""
    found = cuda_static.occupancy(110, 31416, 128, "sm_90")
    assert found == {"registers": 4, "shared": 7, "threads": 16, "blocks": 32}


def test_the_launcher_passes_what_the_kernel_takes():
    """Order, size and kind of every parameter."""
    kinds = {ctypes.c_void_p: "u64", ctypes.c_uint32: "u32", ctypes.c_int32: "u32", ctypes.c_float: "f32"}
    taken = re.findall(r"\.param \.([a-z]+\d+) mel_param_\d+", cuda_static.ptx(WHISPER))
    assert taken == [kinds[kind] for kind in mel_cuda.KINDS]
    assert len(taken) == len(cuda_memory.PARAMETERS)
    plan = mel_cuda.plan_for(WHISPER, log=True)
    assert len(mel_cuda.geometry(plan, WHISPER, 2, 16000, 1e-10)[1]) + 4 == len(taken)


def test_a_launch_calls_the_driver_once(monkeypatch):
    """With a driver that only takes notes: geometry, stream, shared memory, and the context of a thread that has none."""
    calls = []

    class Driver:
        def __getattr__(self, name):
            def call(*arguments):
                calls.append((name, arguments))
                return 0, 0

            return call

    monkeypatch.setattr(mel_cuda, "_driver", Driver)
    plan = mel_cuda.plan_for(WHISPER, log=True)
    kernel = mel_cuda.Kernel(plan, function=5, context=7)
    scalars = mel_cuda.geometry(plan, WHISPER, 2, 16000, 1e-10)[1]
    mel_cuda.launch(kernel, 20, (11, 12, 13, 14), scalars, 99)
    assert [name for name, _ in calls] == ["cuCtxGetCurrent", "cuCtxPushCurrent", "cuLaunchKernel", "cuCtxPopCurrent"]
    tiles = -(-101 // plan.frames)
    parameters = ((11, 12, 13, 14, 16000, 101, tiles, 160, 200, 0, 1e-10, 1.0), mel_cuda.KINDS)
    assert calls[2][1] == (5, 20, 1, 1, plan.threads, 1, 1, plan.shared_bytes, 99, parameters, 0)


def test_machine_code_is_made_and_kept(tmp_path, monkeypatch):
    """What the launcher loads; the second time nothing is compiled, and another program text is another file."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    plan = mel_cuda.plan_for(MelSpec(n_fft=16, n_mels=2))
    code = cuda_compile.machine_code(plan, "sm_90")
    assert code.startswith(b"\x7fELF")
    assert b".text.mel\x00" in code
    assert b".text.mel\x00" in cuda_compile._link(cuda_compile.ptx(plan), "sm_90")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".cubin", ".ptx"]
    with monkeypatch.context() as patch:
        patch.setattr(cuda_compile, "compile_ptx", None)  # calling it would fail
        assert cuda_compile.machine_code(plan, "sm_90") == code
        with pytest.raises(RuntimeError, match="TypeError.* not callable"):
            cuda_compile.machine_code(mel_cuda.plan_for(MelSpec(n_fft=16, n_mels=2), log=True), "sm_90")


def test_errors_tell_the_way_out(monkeypatch):
    with pytest.raises(ValueError, match="arch='sm_35' must be one of 'sm_80', 'sm_90', 'sm_100', 'sm_120'"):
        cuda_static.analyse(CHORD, arch="sm_35")
    with pytest.raises(ValueError, match="n_fft=77 must be a product of 2, 3 and 5"):
        cuda_static.analyse(MelSpec(n_fft=77))
    monkeypatch.setattr(cuda_compile, "tool", shutil.which)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="ptxas is not found; pip install triton"):
        cuda_static.analyse(CHORD)
