"""The promise: the listings show what is compiled, for any spec, without a GPU or numba; those in the tree are current."""

import re

import numpy as np
import pytest

from tests.kernels.inputs import in_a_new_process
from triadbench.kernels import ORIGINAL, SPECS, MelSpec
from triadbench.kernels.gpu.mel_cuda import plan_for
from triadbench.kernels.gpu.source import program
from triadbench.kernels.listing import FILES, kernel_listing


@pytest.mark.parametrize("target", FILES)
def test_the_listing_in_the_tree_is_current(target):
    listing = kernel_listing(ORIGINAL, target)
    assert FILES[target].read_text(encoding="utf-8") == listing, "run python -m triadbench.kernels.listing"
    assert len(listing.splitlines()) < 800


@pytest.mark.parametrize("name", SPECS)
def test_the_cuda_listing_is_the_compiled_program(name):
    text, constants = program(plan_for(SPECS[name], log=True))
    head, body = kernel_listing(SPECS[name], "cuda").split("\n\n", 1)
    indented = [
        " " * (len(line) - len(line.lstrip())) + statement
        for line in body.splitlines()
        for statement in line.strip().split("; ")
    ]
    assert [line.rstrip() for line in indented] == [line.rstrip() for line in text.strip("\n").splitlines()]
    scope = {"float32": np.float32}
    exec(head, scope)
    assert {name: scope[name] for name in constants} == constants


@pytest.mark.parametrize(
    "spec", [*SPECS.values(), MelSpec(n_fft=120), MelSpec(n_fft=77), MelSpec(n_fft=560), MelSpec(n_fft=202)]
)
def test_the_cpu_listings_butterflies_are_transforms(spec):
    listing = kernel_listing(spec, "cpu", lanes=4)
    sections = re.findall(r"\n(real|complex) butterfly of (\d+):\n((?:    .*\n)+)", listing)
    for kind, size, text in sections:
        size = int(size)
        x, y = np.random.default_rng(size).standard_normal((2, size))
        scope = {f"x{n}": x[n] for n in range(size)} | {f"y{n}": y[n] for n in range(size)}
        scope["fma"] = lambda a, b, c: a * b + c
        exec(re.sub(r"^    ", "", text, flags=re.MULTILINE), scope)
        expected = np.fft.rfft(x) if kind == "real" else np.fft.fft(x + 1j * y)
        outputs = [scope[f"re{k}"] + 1j * scope.get(f"im{k}", 0.0) for k in range(len(expected))]
        np.testing.assert_allclose(outputs, expected, atol=1e-7)
    shown = {(kind, int(size)) for kind, size, _ in sections}
    steps = re.findall(r"^    (first|pass|last)\(radix=(\d+)", listing, flags=re.MULTILINE)
    assert shown == {("real" if name == "first" else "complex", int(radix)) for name, radix in steps}


def test_steps_by_name():
    listing = kernel_listing(MelSpec(n_fft=560), "cpu")
    assert re.search(
        r"^    direct_first\(radix=7, count=\d+, table=\d+, .*row_size=\d+\)$", listing, flags=re.MULTILINE
    )
    assert "parts" not in listing and "_=" not in listing


def test_what_is_refused():
    with pytest.raises(ValueError, match="target='gpu' must be one of 'cpu', 'cuda'"):
        kernel_listing(ORIGINAL, "gpu")
    with pytest.raises(ValueError, match="n_fft=77 must be a product of 2, 3 and 5"):
        kernel_listing(MelSpec(n_fft=77), "cuda")


def test_it_loads_no_compiler():
    code = (
        "from triadbench.kernels import ORIGINAL, listing; import sys\n"
        "assert listing.kernel_listing(ORIGINAL, 'cpu') and listing.kernel_listing(ORIGINAL, 'cuda')\n"
        "print(*sys.modules)"
    )
    assert not {"torch", "numba", "numba_cuda", "llvmlite.binding"} & set(in_a_new_process(code))
