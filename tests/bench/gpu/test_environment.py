"""The first stage: the machine as it is, roofs of random data, and no rate without a right product."""

import json

import pytest
import torch

from triadbench.bench import machine, records
from triadbench.bench.gpu import environment, lacks
from triadbench.bench.gpu.context import Context


@pytest.fixture
def context(tmp_path):
    return Context("cpu", True, 60.0, tmp_path / "r.jsonl", tmp_path)


def test_the_roofs_are_recorded_with_their_work_and_error(context):
    said = environment.run(context)
    lines, problems = records.load(context.records)
    assert not problems
    found = {(line["parameters"]["what"], line["parameters"]["dtype"]): line for line in lines[1:]}
    copy, product = found["copy", "float32"], found["matmul", "float32"]
    assert len(found) == 2 and copy["samples"] and product["samples"]
    assert copy["bytes_moved"] == 8 << 20 and product["flops"] == 2 * 256**3
    assert 0 < product["error"]["rms_relative"] < 1e-5
    assert "TB/s" in said and "TFLOP/s" in said
    assert lines[0]["name"] == "gpu environment"
    assert lines[0]["packages"]["numba-cuda"] == machine.version_of("numba-cuda")
    assert lines[0]["programs"]["g++"] is None or any(char.isdigit() for char in lines[0]["programs"]["g++"])


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16"])
def test_a_product_of_lower_precision_has_no_rate(context, monkeypatch, dtype):
    """Each precision's limit lets its own rounding pass and stops the next lower one's."""
    lower = {"float32": 11, "tf32": 8, "bfloat16": 5}  # bits of the significand that is taken by mistake
    own = {"float32": 24, "tf32": 11, "bfloat16": 8}

    def rounded(matrix, bits):
        significand, exponent = torch.frexp(matrix)
        return torch.ldexp(torch.round(significand * 2**bits) / 2**bits, exponent)

    monkeypatch.setattr(environment, "LIMITS", {"float32": environment.LIMITS[dtype]})
    for bits, passes in ((own[dtype], True), (lower[dtype], False)):
        monkeypatch.setattr(
            environment, "_multiply", lambda a, b, precision, bits=bits: rounded(a, bits) @ rounded(b, bits)
        )
        if passes:
            environment.run(context)
        else:
            with pytest.raises(AssertionError, match="rms_relative"):
                environment.run(context)


def test_a_copy_that_copies_nothing_has_no_rate(context, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "copy_", lambda self, source: self)
    with pytest.raises(AssertionError, match="the copy differs"):
        environment.run(context)


def test_what_is_missing_is_named_with_what_that_changes(context, monkeypatch):
    told = json.loads(lacks.run(context))
    assert told["environment"]["python"] and told["gpu"] is torch.cuda.is_available()
    absent = {*lacks.PACKAGES, *lacks.TOOLS}
    prebuilt = True

    def ptx(plan):
        if not prebuilt and plan.n_fft == 4096 and plan.in_dtype == "int16":
            raise RuntimeError("not prebuilt")

    monkeypatch.setattr(lacks.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(lacks.tools, "find", lambda name: None)
    monkeypatch.setattr(lacks.gpu_compile, "tool", lambda name: None)
    monkeypatch.setattr(lacks, "why_no_compiler", lambda: "libNVVM is not available")
    monkeypatch.setattr(lacks.gpu_compile, "ptx", ptx)
    monkeypatch.setattr(lacks, "why_no_provider", lambda: "onnxruntime has CPUExecutionProvider")
    lines = json.loads(lacks.run(context))["lacks"]
    assert absent <= {line.partition(":")[0] for line in lines}
    assert any("libNVVM is not available" in line and "all are there" in line for line in lines)
    prebuilt = False
    assert "not there, so not run: CHORD int16" in json.loads(lacks.run(context))["lacks"][-1]
    assert any("infer --provider cuda" in line and "unproven" in line for line in lines)


def test_programs_tell_their_versions(monkeypatch):
    """As nvcc and ncu print it: names and years first, the version below."""
    text = "nvcc: NVIDIA (R) Cuda compiler driver\nCopyright (c) 2005-2025 NVIDIA Corporation\nBuilt on Wed_Aug_20\n"
    text += "Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler.36424714_0\n"
    monkeypatch.setattr(environment.tools, "find", lambda name: name)
    monkeypatch.setattr(machine, "run_process", lambda command, timeout_s: text)
    assert environment._version("nvcc") == "Cuda compilation tools, release 13.0, V13.0.88"

    def fail(command, timeout_s):
        raise machine.ProcessError("did not end")

    monkeypatch.setattr(machine, "run_process", fail)
    assert environment._version("nvcc") is None
