"""The promise: a machine without any compiler runs prebuilt kernels, of the same sources alone, and undamaged ones."""

import subprocess

import numpy as np
import pytest

from triadbench.kernels import SPECS, MelSpec, MelSpectrogram, object_cache
from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.gpu import mel_cuda, source, static_analysis

SPEC = MelSpec(n_fft=16, n_mels=2)
PTX = "// .entry mel"


def _refuse(*_, **__):
    raise AssertionError("a compiler was called")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of prebuilt code, and no other code on the disk."""
    monkeypatch.setattr(gpu_compile, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "prebuilt"


@pytest.fixture
def plan(folder, monkeypatch):
    """A plan that is prebuilt, by a stand-in for the compilers; afterwards they refuse, and the cache is empty."""
    plan = mel_cuda.plan_for(SPEC)
    with monkeypatch.context() as patch:
        patch.setattr(gpu_compile, "compile_ptx", lambda plan: PTX)
        patch.setattr(gpu_compile, "_assemble", lambda text, arch: f"{arch} of {text}".encode())
        files = gpu_compile.prebuild(plan, ["sm_90", "sm_80"])
    assert sorted(files) == sorted(folder.iterdir())
    assert sorted(file.name.partition(".")[2] for file in files) == ["ptx", "sm_80.cubin", "sm_90.cubin"]
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder.parent / "another"))
    for name in ("compile_ptx", "_assemble", "_link"):
        monkeypatch.setattr(gpu_compile, name, _refuse)
    monkeypatch.setattr(subprocess, "run", _refuse)
    return plan


def test_no_compiler_is_called(plan, folder):
    assert gpu_compile.machine_code(plan, "sm_90") == f"sm_90 of {PTX}".encode()
    assert gpu_compile.machine_code(plan, "sm_80") == f"sm_80 of {PTX}".encode()
    assert gpu_compile.ptx(plan) == PTX
    assert not (folder.parent / "another").exists(), "code that another machine made is not this machine's"


def test_the_text_for_other_gpus_comes_from_the_folder(plan, monkeypatch):
    monkeypatch.setattr(gpu_compile, "_assemble", lambda text, arch: f"{arch}, here, of {text}".encode())
    assert gpu_compile.machine_code(plan, "sm_120") == f"sm_120, here, of {PTX}".encode()


@pytest.mark.parametrize("damage", [lambda code: code[:-1], lambda code: b"", lambda code: code + b"x"])
def test_a_damaged_file_counts_as_missing(plan, folder, damage, monkeypatch):
    for file in folder.iterdir():
        file.write_bytes(damage(file.read_bytes()))
    monkeypatch.setattr(gpu_compile, "compile_ptx", lambda plan: "anew")
    assert gpu_compile.ptx(plan) == "anew"


def test_the_cache_comes_first(plan, monkeypatch):
    object_cache.write(object_cache.folders()[0] / f"{gpu_compile._key(plan)}.ptx", b"kept here")
    assert gpu_compile.ptx(plan) == "kept here"


@pytest.mark.parametrize("error", [ImportError("no NVVM"), AttributeError("numpy has changed")])
def test_without_compiler_and_file_one_error_names_the_command(plan, error, monkeypatch):
    def fail(plan):
        raise error

    monkeypatch.setattr(gpu_compile, "compile_ptx", fail)
    other = mel_cuda.plan_for(MelSpec(n_fft=36))
    with pytest.raises(RuntimeError, match="n_fft=36 is not prebuilt.*python cli.py kernel --prebuild") as raised:
        gpu_compile.ptx(other)
    assert raised.value.__cause__ is error


class TestNames:
    """Of files: all that decides the code, and nothing that differs between two machines with the same sources."""

    def _name(self, **changes):
        return gpu_compile._prebuilt(mel_cuda.plan_for(SPEC, **changes), "ptx").name

    def test_they_cover_what_decides_the_code(self, monkeypatch):
        names = {self._name(), self._name(log=True), self._name(in_dtype="int16")}
        with monkeypatch.context() as patch:
            patch.setitem(gpu_compile._CACHE.__dict__, "sources_digest", "an edit of the compiler's own text")
            names.add(self._name())
        text, constants = source.program(mel_cuda.plan_for(SPEC))
        for program in ((text + "#", constants), (text, constants | {"zero": np.float32(1.0)})):
            monkeypatch.setattr(source, "program", lambda plan, program=program: program)
            names.add(self._name())
        assert len(names) == 6

    def test_neither_tools_nor_python_count(self, monkeypatch):
        name, key = self._name(), gpu_compile._key(mel_cuda.plan_for(SPEC))
        fresh = gpu_compile.ObjectCache("mel_cuda", gpu_compile._SOURCES, ("no-such-tool",))
        monkeypatch.setattr(gpu_compile, "_CACHE", fresh)
        assert self._name() == name
        assert gpu_compile._key(mel_cuda.plan_for(SPEC)) != key

    @pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
    def test_a_modules_own_filterbank_has_the_prebuilt_plan(self, spec):
        """It is rounded to float32, and decides which bins are computed."""
        filters = MelSpectrogram.from_spec(spec, backend="torchaudio").mel_scale.fb.T.numpy()
        assert mel_cuda.plan_for(spec, filterbank=filters) == mel_cuda.plan_for(spec)


@pytest.mark.skipif(static_analysis.why_unavailable() is not None, reason=str(static_analysis.why_unavailable()))
def test_true_code_is_analysed_from_the_folder(folder, monkeypatch):
    plan = mel_cuda.plan_for(SPEC, log=True)
    gpu_compile.prebuild(plan, ["sm_90"])
    code, text = gpu_compile.machine_code(plan, "sm_90"), gpu_compile.ptx(plan)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder.parent / "another"))
    for name in ("compile_ptx", "_link"):
        monkeypatch.setattr(gpu_compile, name, _refuse)
    assert (gpu_compile.machine_code(plan, "sm_90"), gpu_compile.ptx(plan)) == (code, text)
    assert code.startswith(b"\x7fELF")
    static_analysis._analysis.cache_clear()
    assert static_analysis.analyse(SPEC, log=True)["registers"] > 0
