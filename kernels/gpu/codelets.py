"""Straight-line Fourier transforms as program text: `dft` and `real_dft` build a graph of + - x, `lines` writes it.

Sizes are products of 2, 3 and 5. Even sizes split into their even and odd samples, and a butterfly u +- w v with
w = (c, s) is six fused operations, a quarter fewer than a product and two sums (E. Linzer, E. Feig, 1993):
    t = v (1 + i s / c),  u +- c t     or, where |c| < |s|,     t = v (c / s + i),  u +- s t
The ratio is at most 1, so no rounding error is magnified. Real input keeps half the spectrum at every level: nothing
is computed twice, and no output is the difference of two larger ones.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

Complex = tuple["Node", "Node"]


class Node:
    """A value of the graph. Numbers are folded; equal operations on equal nodes are not shared (they do not occur)."""

    def __init__(self, graph: Graph, text: str, inputs: tuple[Node, ...] = (), value: float | None = None) -> None:
        self.graph, self.text, self.inputs, self.value = graph, text, inputs, value
        self.order = next(graph.counter)

    def __add__(self, other: Node) -> Node:
        if self.value == 0.0:
            return other
        return self if other.value == 0.0 else Node(self.graph, "{} + {}", (self, other))

    def __sub__(self, other: Node) -> Node:
        if self.value == 0.0:
            return -other
        return self if other.value == 0.0 else Node(self.graph, "{} - {}", (self, other))

    def __neg__(self) -> Node:
        return self if self.value == 0.0 else Node(self.graph, "-{}", (self,))

    def times(self, factor: float) -> Node:
        """This times a number known now, rounded to float32 once."""
        if self.value == 0.0 or factor == 0.0:
            return self.graph.zero
        if abs(factor) == 1.0:
            return self if factor == 1.0 else -self
        return Node(self.graph, "{} * " + self.graph.constant(factor), (self,))


class Graph:
    """`constants`: the float32 numbers that the text names, name -> value."""

    def __init__(self, constants: dict[str, np.float32]) -> None:
        self.counter = itertools.count()
        self.constants = constants
        self.zero = Node(self, "", value=0.0)

    def inputs(self, names: list[str]) -> list[Node]:
        return [Node(self, name) for name in names]

    def constant(self, value: float) -> str:
        rounded = np.float32(value)
        for name, known in self.constants.items():
            if known == rounded:
                return name
        name = f"k{len(self.constants)}"
        self.constants[name] = rounded
        return name

    def lines(self, results: dict[str, Node]) -> list[str]:
        """Assignments that compute `results` (name -> node), each value once, no value that is not needed."""
        needed: dict[int, Node] = {}
        waiting = list(results.values())
        while waiting:
            node = waiting.pop()
            if node.order not in needed:
                needed[node.order] = node
                waiting.extend(node.inputs)
        names, text = {self.zero.order: "zero"}, []
        for order in sorted(needed):
            node = needed[order]
            if node.inputs:
                names[order] = f"v{order}"
                text.append(f"{names[order]} = {node.text.format(*(names[i.order] for i in node.inputs))}")
            elif node.value is None:
                names[order] = node.text
        return text + [f"{name} = {names[node.order]}" for name, node in results.items()]


def dft(x: list[Complex]) -> list[Complex]:
    """X[k] = sum_n x[n] exp(-2 pi i k n / len(x)), all k."""
    n = len(x)
    if n == 1:
        return x
    p = smallest_prime(n)
    q = n // p
    parts = [dft(x[s::p]) for s in range(p)]
    out: list = [None] * n
    for k in range(q):
        out[k::q] = _butterfly([part[k] for part in parts], k, n)
    return out


def real_dft(x: list[Node]) -> list[Complex]:
    """The same of real x, k = 0..len(x) // 2."""
    n = len(x)
    if n == 1:
        return [(x[0], x[0].graph.zero)]
    p = smallest_prime(n)
    q = n // p
    parts = [real_dft(x[s::p]) for s in range(p)]
    out: list = [None] * (n // 2 + 1)
    for k in range(q // 2 + 1):
        for j, value in enumerate(_butterfly([part[k] for part in parts], k, n)):
            place = k + q * j
            if place <= n // 2:
                out[place] = value
            elif out[n - place] is None:
                out[n - place] = (value[0], -value[1])
    return out


def smallest_prime(n: int) -> int:
    return next(p for p in (2, 3, 5, n) if n % p == 0)


@functools.cache
def unit(k: int, n: int) -> tuple[float, float]:
    """cos and sin of -2 pi k / n in float64, exact at the eighths."""
    k %= n
    exact = {0: (1.0, 0.0), 2: (0.0, -1.0), 4: (-1.0, 0.0), 6: (0.0, 1.0)}
    if 8 * k % n == 0 and 8 * k // n in exact:
        return exact[8 * k // n]
    angle = -2.0 * math.pi * k / n
    return math.cos(angle), math.sin(angle)


def _butterfly(parts: list[Complex], k: int, n: int) -> list[Complex]:
    """p-point transform of parts[s] times w_n^(k s), s = 0..p - 1."""
    if len(parts) == 2:
        return _radix_2(parts[0], parts[1], *unit(k, n))
    turned = [_turn(part, *unit(k * s, n)) for s, part in enumerate(parts)]
    return _radix_3(*turned) if len(parts) == 3 else _radix_5(*turned)


def _turn(v: Complex, c: float, s: float) -> Complex:
    return v[0].times(c) - v[1].times(s), v[0].times(s) + v[1].times(c)


def _radix_2(u: Complex, v: Complex, c: float, s: float) -> list[Complex]:
    if 0.0 in (c, s):
        t, scale = _turn(v, c, s), 1.0
    elif abs(c) >= abs(s):
        t, scale = (v[0] - v[1].times(s / c), v[1] + v[0].times(s / c)), c
    else:
        t, scale = (v[0].times(c / s) - v[1], v[1].times(c / s) + v[0]), s
    return [(u[0] + t[0].times(scale), u[1] + t[1].times(scale)), (u[0] - t[0].times(scale), u[1] - t[1].times(scale))]


def _radix_3(a: Complex, b: Complex, c: Complex) -> list[Complex]:
    half, root = 0.5, math.sqrt(0.75)
    total = (b[0] + c[0], b[1] + c[1])
    middle = (a[0] - total[0].times(half), a[1] - total[1].times(half))
    side = ((b[1] - c[1]).times(root), (c[0] - b[0]).times(root))  # -i root (b - c)
    return [
        (a[0] + total[0], a[1] + total[1]),
        (middle[0] + side[0], middle[1] + side[1]),
        (middle[0] - side[0], middle[1] - side[1]),
    ]


def _radix_5(a: Complex, b: Complex, c: Complex, d: Complex, e: Complex) -> list[Complex]:
    (c1, s1), (c2, s2) = (unit(-j, 5) for j in (1, 2))
    outer, inner = (b[0] + e[0], b[1] + e[1]), (c[0] + d[0], c[1] + d[1])
    outer_side, inner_side = (b[0] - e[0], b[1] - e[1]), (c[0] - d[0], c[1] - d[1])
    out: list = [(a[0] + outer[0] + inner[0], a[1] + outer[1] + inner[1])] + [None] * 4
    for k, (p, q, r, s) in {1: (c1, c2, s1, s2), 2: (c2, c1, s2, -s1)}.items():
        middle = [a[i] + outer[i].times(p) + inner[i].times(q) for i in (0, 1)]
        side = [outer_side[i].times(r) + inner_side[i].times(s) for i in (0, 1)]
        out[k] = (middle[0] + side[1], middle[1] - side[0])  # middle - i side
        out[5 - k] = (middle[0] - side[1], middle[1] + side[0])
    return out
