"""The machine code behind kernels/conv_pool.py, written as LLVM vectors of W channels; llvmlite alone compiles it.

Four functions void f(int64 *job), made for many threads at once: each takes the next clip from the job's counter until
none is left, so one call does all the work if the others come late. Arrays are channels-last, float32, and channels a
multiple of W. `FIELDS` names the job's slots; addresses, and sizes in elements.

A cell is one output of the pooling at one channel. Its code says which of its four inputs won (0-3, row by row; the
first of equal ones, as in torch), or 4 where the ReLU gave zero: no gradient passes there. Outputs, codes and their
gradients lie in arrays of place_height x place_width cells a clip, of which out_height x out_width are written.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable

import llvmlite.binding as llvm
from llvmlite import ir

from kernels.numba_simd import broadcast

FIELDS = (
    "counter", "clips", "x", "weight", "bias", "out", "code", "grad", "grad_x", "grad_weight", "grad_bias",
    "height", "width", "channels", "out_height", "out_width", "place_height", "place_width", "x_row", "x_clip",
)  # fmt: skip
INACTIVE = 4
KERNEL = 3  # of the first block's convolution
_I8, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()


class _Function:
    """A function under construction: the job's fields, loops, and vectors of `lanes` channels."""

    def __init__(self, module: ir.Module, name: str, lanes: int) -> None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64.as_pointer()]), name)
        self.module, self.lanes, self.job = module, lanes, function.args[0]
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.vector, self.codes = ir.VectorType(_F32, lanes), ir.VectorType(_I8, lanes)
        self.f = {name: self.b.load(self.slot(name)) for name in FIELDS if name != "counter"}

    def slot(self, name: str) -> ir.Value:
        return self.b.gep(self.job, [_number(FIELDS.index(name))])

    def at(self, base: str, kind: ir.Type, *offsets) -> ir.Value:
        """Pointer to `kind`, `offsets` (IR values or integers) elements of it behind a field's address."""
        element = kind.element if isinstance(kind, ir.VectorType) else kind
        pointer = self.b.inttoptr(self.f[base], element.as_pointer())
        for offset in offsets:
            pointer = self.b.gep(pointer, [_number(offset) if isinstance(offset, int) else offset])
        return self.b.bitcast(pointer, kind.as_pointer())

    def load(self, base: str, *offsets, kind: ir.Type | None = None) -> ir.Value:
        kind = kind or self.vector
        return self.b.load(self.at(base, kind, *offsets), align=1 if kind == self.codes else 4)

    def store(self, value: ir.Value, base: str, *offsets) -> None:
        self.b.store(value, self.at(base, value.type, *offsets), align=1 if value.type == self.codes else 4)

    def splat(self, base: str, *offsets) -> ir.Value:
        return broadcast(self.b, self.load(base, *offsets, kind=_F32), self.lanes)

    def zeros(self) -> ir.Constant:
        return ir.Constant(self.vector, [0.0] * self.lanes)

    def times(self, *factors) -> ir.Value:
        product = None
        for factor in factors:
            value = _number(factor) if isinstance(factor, int) else factor
            product = value if product is None else self.b.mul(product, value)
        return product

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        name = f"llvm.fmuladd.v{self.lanes}f32"
        function = self.module.globals.get(name)
        if function is None:
            function = ir.Function(self.module, ir.FunctionType(self.vector, [self.vector] * 3), name)
        return self.b.call(function, [a, b, c])

    def loop(self, begin, end, step, body: Callable, carried: list[ir.Value] = ()) -> list[ir.Value]:
        """for i in range(begin, end, step): carried = body(i, carried); the last values."""
        begin, end, step = (_number(v) if isinstance(v, int) else v for v in (begin, end, step))
        before = self.b.block
        head, inside, after = (self.b.append_basic_block(name) for name in ("head", "inside", "after"))
        self.b.branch(head)
        self.b.position_at_end(head)
        i = self.b.phi(_I64)
        phis = [self.b.phi(value.type) for value in carried]
        self.b.cbranch(self.b.icmp_signed("<", i, end), inside, after)
        self.b.position_at_end(inside)
        results = body(i, phis) if phis else body(i) and None
        following = self.b.add(i, step)
        for phi, first, last in zip([i, *phis], [begin, *carried], [following, *(results or ())], strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)
        return phis

    def clips(self, body: Callable) -> None:
        """body(clip) for every clip that this thread gets hold of; then the function returns."""
        head, inside, after = (self.b.append_basic_block(name) for name in ("take", "clip", "done"))
        self.b.branch(head)
        self.b.position_at_end(head)
        clip = self.b.atomic_rmw("add", self.slot("counter"), _number(1), "monotonic")
        self.b.cbranch(self.b.icmp_signed("<", clip, self.f["clips"]), inside, after)
        self.b.position_at_end(inside)
        body(clip)
        self.b.branch(head)
        self.b.position_at_end(after)
        self.b.ret_void()

    def places(self, body: Callable) -> None:
        """body(i, j) for every place of the output."""

        def row(i) -> None:
            self.loop(0, self.f["out_width"], 1, lambda j: body(i, j))

        self.loop(0, self.f["out_height"], 1, row)

    def place(self, i, j) -> ir.Value:
        """Offset in a clip's output of its first channel at (i, j)."""
        return self.times(self.b.add(self.times(i, self.f["place_width"]), j), self.f["channels"])

    def pool(self, inputs: list[ir.Value], bias: ir.Value, *where) -> None:
        """Write relu(max of four inputs + bias) and its code to `where` in out and code."""
        b = self.b
        best, code = inputs[0], ir.Constant(self.codes, [0] * self.lanes)
        for k, value in enumerate(inputs[1:], 1):
            larger = b.fcmp_ordered(">", value, best)
            best = b.select(larger, value, best)
            code = b.select(larger, ir.Constant(self.codes, [k] * self.lanes), code)
        shifted = b.fadd(best, bias)
        closed = b.fcmp_ordered("<=", shifted, self.zeros())  # NaN stays NaN: training has to see it
        self.store(b.select(closed, self.zeros(), shifted), "out", *where)
        self.store(b.select(closed, ir.Constant(self.codes, [INACTIVE] * self.lanes), code), "code", *where)

    def shares(self, *where) -> tuple[ir.Value, list[ir.Value]]:
        """The gradient at `where` as far as the ReLU lets it pass, and the part of each of the four inputs in it."""
        b = self.b
        grad, code = self.load("grad", *where), self.load("code", *where, kind=self.codes)
        wide = b.zext(code, ir.VectorType(_I32, self.lanes))
        is_k = [b.icmp_signed("==", wide, ir.Constant(wide.type, [k] * self.lanes)) for k in range(INACTIVE + 1)]
        shares = [b.select(hit, grad, self.zeros()) for hit in is_k[:INACTIVE]]
        return b.select(is_k[INACTIVE], self.zeros(), grad), shares


def _number(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _pool_forward(f: _Function) -> None:
    b, row = f.b, f.times(f.f["width"], f.f["channels"])

    def clip_body(clip):
        x = f.times(clip, f.f["height"], row)
        out = f.times(clip, f.f["place_height"], f.f["place_width"], f.f["channels"])

        def cell(i, j, c):
            at = b.add(b.add(x, b.add(f.times(i, 2, row), f.times(j, 2, f.f["channels"]))), c)
            inputs = [f.load("x", at), f.load("x", at, f.f["channels"]), f.load("x", at, row),
                      f.load("x", at, row, f.f["channels"])]  # fmt: skip
            to = b.add(b.add(out, f.place(i, j)), c)
            f.pool(inputs, f.load("bias", c), to)

        _cells(f, cell)

    f.clips(clip_body)


def _pool_backward(f: _Function) -> None:
    b, row = f.b, f.times(f.f["width"], f.f["channels"])

    def clip_body(clip):
        x = f.times(clip, f.f["height"], row)
        grad = f.times(clip, f.f["place_height"], f.f["place_width"], f.f["channels"])
        bias = f.times(clip, f.f["channels"])
        f.loop(0, f.f["channels"], f.lanes, lambda c: f.store(f.zeros(), "grad_bias", bias, c))

        def cell(i, j, c):
            at = b.add(b.add(x, b.add(f.times(i, 2, row), f.times(j, 2, f.f["channels"]))), c)
            total, shares = f.shares(b.add(b.add(grad, f.place(i, j)), c))
            for share, offsets in zip(shares, ((), (f.f["channels"],), (row,), (row, f.f["channels"])), strict=True):
                f.store(share, "grad_x", at, *offsets)
            f.store(b.fadd(f.load("grad_bias", bias, c), total), "grad_bias", bias, c)

        _cells(f, cell)
        # What the pooling leaves over, at the right and at the bottom.
        used = f.times(f.f["out_width"], 2, f.f["channels"])
        rest = f.times(f.f["out_height"], 2)
        f.loop(0, rest, 1, lambda i: _fill(f, b.add(x, f.times(i, row)), used, row))
        f.loop(rest, f.f["height"], 1, lambda i: _fill(f, b.add(x, f.times(i, row)), _number(0), row))

    f.clips(clip_body)


def _fill(f: _Function, base, begin, end) -> None:
    f.loop(begin, end, f.lanes, lambda c: f.store(f.zeros(), "grad_x", base, c))


def _cells(f: _Function, cell: Callable) -> None:
    """cell(i, j, c) for every place of the output and every W channels."""

    def place(i, j) -> None:
        f.loop(0, f.f["channels"], f.lanes, lambda c: cell(i, j, c))

    f.places(place)


def _first_forward(f: _Function, n_vectors: int) -> None:
    """x is padded by the caller: (clips, x_clip) with rows x_row apart; weight (9, channels)."""
    b = f.b

    def clip_body(clip):
        x, out = f.times(clip, f.f["x_clip"]), f.times(clip, f.f["place_height"], f.f["place_width"], f.f["channels"])

        def cell(i, j):
            at = b.add(x, b.add(f.times(i, 2, f.f["x_row"]), f.times(j, 2)))
            to = b.add(out, f.place(i, j))
            rows = [b.add(at, f.times(r, f.f["x_row"])) for r in range(KERNEL + 1)]
            x_at = [[f.splat("x", rows[r], c) for c in range(KERNEL + 1)] for r in range(KERNEL + 1)]
            sums = [[f.zeros() for _ in range(4)] for _ in range(n_vectors)]
            for r in range(KERNEL):
                for c in range(KERNEL):
                    for v in range(n_vectors):
                        w = f.load("weight", f.times(r * KERNEL + c, f.f["channels"]), v * f.lanes)
                        for k in range(4):
                            sums[v][k] = f.fma(x_at[r + k // 2][c + k % 2], w, sums[v][k])
            for v in range(n_vectors):
                f.pool(sums[v], f.load("bias", v * f.lanes), b.add(to, _number(v * f.lanes)))

        f.places(cell)

    f.clips(clip_body)


def _first_backward(f: _Function) -> None:
    """grad_weight (clips, 9, channels) and grad_bias (clips, channels): sums over each clip's cells."""
    b = f.b

    def clip_body(clip):
        x, grad = f.times(clip, f.f["x_clip"]), f.times(clip, f.f["place_height"], f.f["place_width"], f.f["channels"])

        def channels(c):
            def row(i, sums):
                def cell(j, sums):
                    at = b.add(x, b.add(f.times(i, 2, f.f["x_row"]), f.times(j, 2)))
                    rows = [b.add(at, f.times(r, f.f["x_row"])) for r in range(KERNEL + 1)]
                    where = b.add(grad, f.place(i, j))
                    total, shares = f.shares(b.add(where, c))
                    sums = list(sums)
                    for r in range(KERNEL + 1):
                        for q in range(KERNEL + 1):
                            value = f.splat("x", rows[r], q)
                            for k in range(4):
                                tap = (r - k // 2, q - k % 2)
                                if 0 <= tap[0] < KERNEL and 0 <= tap[1] < KERNEL:
                                    n = tap[0] * KERNEL + tap[1]
                                    sums[n] = f.fma(value, shares[k], sums[n])
                    sums[-1] = b.fadd(sums[-1], total)
                    return sums

                return f.loop(0, f.f["out_width"], 1, cell, sums)

            sums = f.loop(0, f.f["out_height"], 1, row, [f.zeros()] * (KERNEL * KERNEL + 1))
            for n, value in enumerate(sums[:-1]):
                f.store(
                    value, "grad_weight", f.times(b.add(f.times(clip, KERNEL * KERNEL), _number(n)), f.f["channels"]), c
                )
            f.store(sums[-1], "grad_bias", f.times(clip, f.f["channels"]), c)

        f.loop(0, f.f["channels"], f.lanes, channels)

    f.clips(clip_body)


_compiling = threading.Lock()
_engines: list = []  # they own the code


@functools.cache
def functions(lanes: int, first_vectors: int) -> dict[str, int]:
    """Addresses of the four functions for vectors of `lanes` floats.

    Args:
        first_vectors: the first block has first_vectors * lanes channels.
    """
    writers = {
        "pool_forward": _pool_forward,
        "pool_backward": _pool_backward,
        "first_forward": functools.partial(_first_forward, n_vectors=first_vectors),
        "first_backward": _first_backward,
    }
    module = ir.Module("conv_pool")
    for name, write in writers.items():
        write(_Function(module, name, lanes))
    with _compiling:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=features, opt=3
        )
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(str(module)), target)
        engine.finalize_object()
        _engines.append(engine)
    return {name: engine.get_function_address(name) for name in writers}
