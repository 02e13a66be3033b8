"""Vectors of LLVM, `<W x float>` or `<W x double>`, as Python operands: what the compiled butterflies are written with.

Code that adds, multiplies and negates runs on numpy arrays and on `Lanes` alike: with `Lanes` every operation appends
one LLVM instruction to the function being compiled. The width of a vector is in its type, so the machine code is full
width whatever the auto-vectoriser prefers, and LLVM splits a vector that is wider than the machine's registers.
"""

from __future__ import annotations

import math

from llvmlite import ir

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_LOG_COEFFICIENTS: tuple[float, ...] = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1)  # Cephes
_LOG_COEFFICIENTS += (1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)


class Lanes:
    """One vector value of a function under construction; the operands of an expression share a type."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def _of(self, other: Lanes | float) -> ir.Value:
        return other.value if isinstance(other, Lanes) else constant(self.value.type, other)

    def __add__(self, other):
        return Lanes(self.builder, self.builder.fadd(self.value, self._of(other)))

    def __sub__(self, other):
        return Lanes(self.builder, self.builder.fsub(self.value, self._of(other)))

    def __mul__(self, other):
        return Lanes(self.builder, self.builder.fmul(self.value, self._of(other)))

    def __neg__(self):
        return Lanes(self.builder, self.builder.fneg(self.value))

    def fma(self, factor, addend):
        """self * factor + addend, rounded once where the machine has the instruction."""
        return self._call("llvm.fmuladd", self._of(factor), self._of(addend))

    def sqrt(self):
        return self._call("llvm.sqrt")

    def _call(self, name: str, *more: ir.Value) -> Lanes:
        kind, module = self.value.type, self.builder.module
        name = f"{name}.v{kind.count}f{8 * size_of(kind.element)}"
        function = module.globals.get(name)
        if function is None:
            function = ir.Function(module, ir.FunctionType(kind, [kind] * (1 + len(more))), name)
        return Lanes(self.builder, self.builder.call(function, [self.value, *more]))


class Weighted(Lanes):
    """x * weight, multiplied when it is wanted: the sum of two of them is one product and one fused multiply-add."""

    __slots__ = ("x", "weight", "product")

    def __init__(self, x: Lanes, weight: Lanes) -> None:
        self.builder, self.x, self.weight, self.product = x.builder, x, weight, None

    @property
    def value(self) -> ir.Value:
        if self.product is None:
            self.product = (self.x * self.weight).value
        return self.product

    def __add__(self, other):
        if isinstance(other, Weighted):
            return other.x.fma(other.weight, self)
        return super().__add__(other)

    def __sub__(self, other):
        if isinstance(other, Weighted):
            return (-other.x).fma(other.weight, self)
        return super().__sub__(other)


def fma(a, b, c):
    """a * b + c for Lanes, arrays, numbers and whatever has a `fma` of its own."""
    return a.fma(b, c) if hasattr(a, "fma") else a * b + c


def constant(kind: ir.Type, number: float) -> ir.Constant:
    """`number` in every lane of `kind`."""
    return ir.Constant(kind, [number] * kind.count if isinstance(kind, ir.VectorType) else number)


class Memory:
    """Elements at a base address; offsets are LLVM i64 values or Python integers, counted in elements."""

    def __init__(self, builder: ir.IRBuilder, base: ir.Value, element: ir.Type, lanes: int) -> None:
        self.builder, self.element, self.lanes = builder, element, lanes
        self.base = builder.bitcast(base, ir.PointerType(element))

    def address(self, *offsets, kind: ir.Type | None = None) -> ir.Value:
        """Pointer to `base[sum of offsets]`, to elements or to `kind`."""
        pointer = self.base
        for offset in offsets:
            if isinstance(offset, int):
                offset = ir.Constant(_I64, offset)
            pointer = self.builder.gep(pointer, [offset])
        return self.builder.bitcast(pointer, ir.PointerType(kind or self.element))

    def vector(self, *offsets) -> Lanes:
        """W neighbours, at any alignment."""
        kind = ir.VectorType(self.element, self.lanes)
        return Lanes(self.builder, self.builder.load(self.address(*offsets, kind=kind), align=size_of(self.element)))

    def splat(self, *offsets) -> Lanes:
        """One element in every lane."""
        return Lanes(self.builder, broadcast(self.builder, self.scalar(*offsets), self.lanes))

    def scalar(self, *offsets) -> ir.Value:
        return self.builder.load(self.address(*offsets), align=size_of(self.element))

    def put(self, vector: Lanes, *offsets) -> None:
        pointer = self.address(*offsets, kind=vector.value.type)
        self.builder.store(vector.value, pointer, align=size_of(self.element))


def size_of(element: ir.Type) -> int:
    """Bytes of a scalar type."""
    if isinstance(element, ir.IntType):
        return element.width // 8
    return 4 if isinstance(element, ir.FloatType) else 8


def broadcast(builder: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def transpose(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """W vectors of W lanes -> their transpose: log2(W) rounds, each exchanging the off-diagonal blocks of pairs."""
    lanes = len(rows)
    # Widest blocks last: the first rounds stay inside 128-bit lanes, where a shuffle takes one cycle.
    kind, block = ir.VectorType(_I32, lanes), 1
    while block < lanes:
        low = [i + lanes - block if i & block else i for i in range(lanes)]
        high = [i + lanes if i & block else i + block for i in range(lanes)]
        new = list(rows)
        for i in range(lanes):
            if not i & block:
                a, b = rows[i], rows[i | block]
                new[i] = builder.shuffle_vector(a, b, ir.Constant(kind, low))
                new[i | block] = builder.shuffle_vector(a, b, ir.Constant(kind, high))
        rows, block = new, 2 * block
    return rows


def log(x: Lanes) -> Lanes:
    """Natural logarithm: of doubles the C library's, of floats to about one unit in the last place.

    Floats: subnormals count as 2^-126. x = 2^e m with m in [sqrt(1/2), sqrt(2)); log x = e log 2 + log m, log m
    by the polynomial of Cephes' logf.
    """
    builder, kind = x.builder, x.value.type
    if isinstance(kind.element, ir.DoubleType):
        return x._call("llvm.log")
    integers = ir.VectorType(_I32, kind.count)
    tiny, original = constant(kind, 2.0**-126), x
    x = Lanes(builder, builder.select(builder.fcmp_ordered("<", x.value, tiny), tiny, x.value))
    bits = builder.bitcast(x.value, integers)
    shifted = builder.sub(bits, constant(integers, 0x3F3504F3))  # bits of sqrt(1/2), for the exponent of such an m
    exponent = builder.ashr(shifted, constant(integers, 23))
    mantissa = builder.sub(bits, builder.shl(exponent, constant(integers, 23)))
    e = Lanes(builder, builder.sitofp(exponent, kind))
    m = Lanes(builder, builder.bitcast(mantissa, kind)) - 1.0
    z = m * m
    poly = Lanes(builder, constant(kind, _LOG_COEFFICIENTS[0]))
    for coefficient in _LOG_COEFFICIENTS[1:]:
        poly = fma(poly, m, coefficient)
    tail = fma(z, -0.5, fma(e, math.log(2.0) - 0.693359375, poly * m * z))
    result = fma(e, 0.693359375, m + tail).value
    zero, infinity = constant(kind, 0.0), constant(kind, math.inf)
    result = builder.select(builder.fcmp_ordered("==", original.value, infinity), infinity, result)
    result = builder.select(builder.fcmp_ordered("==", original.value, zero), constant(kind, -math.inf), result)
    invalid = builder.fcmp_unordered("<", original.value, zero)  # NaN or negative
    result = builder.select(invalid, constant(kind, math.nan), result)
    return Lanes(builder, result)
