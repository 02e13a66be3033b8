"""The promise: the straight-line transforms that the program text is made of are transforms."""

import numpy as np
import pytest

from triadbench.kernels.gpu.source import Graph, Node, _halves


def _evaluate(function, z):
    """The text of `function` of complex inputs, executed in float64 with the constants as they are rounded."""
    constants = {"zero": np.float32(0.0)}
    graph = Graph(constants, 0)
    inputs = [(Node(graph, f"x{k}"), Node(graph, f"y{k}")) for k in range(len(z))]
    outputs = function(inputs)
    pairs = {f"{part}{k}": value for k, v in enumerate(outputs) for part, value in zip(("re", "im"), v, strict=True)}
    scope = {name: float(value) for name, value in constants.items()}
    scope |= {f"x{k}": value.real for k, value in enumerate(z)} | {f"y{k}": value.imag for k, value in enumerate(z)}
    exec("\n".join(graph.lines(pairs)), scope)
    return np.array([scope[f"re{k}"] + 1j * scope[f"im{k}"] for k in range(len(outputs))])


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8, 15, 16, 25, 32])
def test_halves_are_the_transform_of_twice_as_many_real_samples(m):
    u = np.random.default_rng(m).standard_normal(2 * m)
    z = np.fft.fft(u[::2] + 1j * u[1::2])
    expected = 2 * np.fft.rfft(u)
    expected[(m + 1) // 2 :] = expected[(m + 1) // 2 :].conj()
    np.testing.assert_allclose(_evaluate(_halves, z), expected, atol=1e-6 * m)
    assert m == 1 or not np.allclose(_evaluate(_halves, z.conj()), expected, atol=1e-2)
