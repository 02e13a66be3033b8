"""`kernel` prints the generated kernels of every named spec, without a GPU; a wrong name is a usage error."""

import pytest

from tests.commands import run, run_json
from triadbench.kernels import SPECS
from triadbench.kernels.gpu import compile as gpu_compile
from triadbench.kernels.listing import FILES


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_the_listing_in_the_tree_is_what_it_prints(target):
    assert run("kernel", "original", "--target", target).stdout == FILES[target].read_text(encoding="utf-8")


@pytest.mark.parametrize("spec", SPECS)
def test_every_named_spec_has_both(spec):
    listings = [run_json("kernel", spec, "--target", target)[0]["listing"] for target in ("cpu", "cuda")]
    assert all(str(SPECS[spec].n_fft) in text for text in listings) and listings[0] != listings[1]


def test_log_and_lanes_change_it():
    assert run("kernel", "--target", "cuda").stdout != run("kernel", "--target", "cuda", "--no-log").stdout
    assert run("kernel", "--lanes", "4").stdout != run("kernel", "--lanes", "16").stdout


def test_an_unknown_spec_lists_the_known():
    done = run("kernel", "NOISE", code=2)
    assert "'NOISE' must be one of ORIGINAL, CHORD, WHISPER" in done.stderr


def test_a_gpu_is_named_to_prebuild_for():
    assert "--arch goes with --prebuild" in run("kernel", "--arch", "sm_90", code=2).stderr


def test_prebuild_fills_the_folder(tmp_path, monkeypatch):
    """Every spec, for both dtypes, with and without log; the compiler is tried in kernels/gpu/test_prebuilt.py."""
    monkeypatch.setattr(gpu_compile, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu_compile, "compile_ptx", lambda plan: repr(plan))
    monkeypatch.setattr(gpu_compile, "_assemble", lambda text, arch: arch.encode())
    result, _ = run_json("kernel", "--prebuild", "--arch", "sm_80", "--arch", "sm_90")
    files = list((tmp_path / "prebuilt").iterdir())
    assert (result["files"], result["archs"]) == (len(files), ["sm_80", "sm_90"])
    assert len(files) == 3 * 2 * 2 * 3
    assert result["bytes"] == sum(file.stat().st_size for file in files)


def test_prebuild_needs_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_compile, "PREBUILT", tmp_path / "prebuilt")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu_compile, "compile_ptx", None)
    assert "cannot be compiled here" in run("kernel", "--prebuild", code=1).stderr
