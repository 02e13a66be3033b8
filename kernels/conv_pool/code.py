"""The compiled functions behind kernels/conv_pool/blocks.py, written as LLVM vectors of W channels.

Four functions void f(int64 *job), made for many threads at once: each takes the next clip (or group of clips) from the
job's counter until none is left, so one call does all the work if the others come late. Arrays are channels-last,
float32, and channels a multiple of W. `conv_pool.FIELDS` names the job's slots.

A cell is one output of the pooling at one channel. Its code says which of its four inputs won (0-3, row by row; the
first of equal ones, as in torch), or 4 where the ReLU gave zero: no gradient passes there. Outputs, codes and their
gradients lie in arrays of place_height x place_width cells a clip, of which out_height x out_width are written.

`block_backward` is a convolution's backward pass for a gradient of which at most a quarter is not zero. For some rows
of cells and one channel it lists the cells that are open, where their 3 x 3 x in_channels inputs begin, and their
gradients; each then adds its inputs to the weights' gradient, which stays in registers, and its weights to the inputs'.
"""

import itertools
from collections.abc import Callable

from llvmlite import ir

from triadbench.kernels.conv_pool import FIELDS
from triadbench.kernels.cpu.simd import Lanes, broadcast

INACTIVE = 4
KERNEL = 3  # of the first block's convolution
_SUMS = 12  # vectors of the weights' gradient that are kept in registers at once; AVX2 has 16
_I8, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()


class _Function:
    """A function under construction: the job's fields, loops, and vectors of `lanes` channels."""

    def __init__(self, module: ir.Module, name: str, lanes: int) -> None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_I64.as_pointer()]), name)
        self.module, self.lanes, self.job = module, lanes, function.args[0]
        self.b = ir.IRBuilder(function.append_basic_block("entry"))
        self.vector, self.codes = ir.VectorType(_F32, lanes), ir.VectorType(_I8, lanes)
        self.zeros = ir.Constant(self.vector, [0.0] * lanes)
        self.fields = {name: self.b.load(self.slot(name)) for name in FIELDS if name != "counter"}

    def __getitem__(self, field: str) -> ir.Value:
        return self.fields[field]

    def slot(self, name: str) -> ir.Value:
        return self.b.gep(self.job, [_i64(FIELDS.index(name))])

    def at(self, base: str, kind: ir.Type, *offsets) -> ir.Value:
        """Pointer to `kind`, `offsets` (IR values or integers) elements of it behind a field's address."""
        element = kind.element if isinstance(kind, ir.VectorType) else kind
        pointer = self.b.inttoptr(self[base], element.as_pointer())
        for offset in offsets:
            pointer = self.b.gep(pointer, [_i64(offset) if isinstance(offset, int) else offset])
        return self.b.bitcast(pointer, kind.as_pointer())

    def load(self, base: str, *offsets, kind: ir.Type | None = None) -> ir.Value:
        kind = kind or self.vector
        return self.b.load(self.at(base, kind, *offsets), align=1 if kind == self.codes else 4)

    def store(self, value: ir.Value, base: str, *offsets) -> None:
        self.b.store(value, self.at(base, value.type, *offsets), align=1 if value.type == self.codes else 4)

    def splat(self, base: str, *offsets) -> ir.Value:
        return broadcast(self.b, self.load(base, *offsets, kind=_F32), self.lanes)

    def times(self, *factors) -> ir.Value:
        product = None
        for factor in factors:
            value = _i64(factor) if isinstance(factor, int) else factor
            product = value if product is None else self.b.mul(product, value)
        return product

    def least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed("<", a, b), a, b)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        return Lanes(self.b, a).fma(Lanes(self.b, b), Lanes(self.b, c)).value

    def loop(self, begin, end, step, body: Callable, *carried: ir.Value) -> list[ir.Value]:
        """for i in range(begin, end, step): carried = body(i, *carried); the last values."""
        begin, end, step = (_i64(v) if isinstance(v, int) else v for v in (begin, end, step))
        before = self.b.block
        head, inside, after = (self.b.append_basic_block(name) for name in ("head", "inside", "after"))
        self.b.branch(head)
        self.b.position_at_end(head)
        i = self.b.phi(_I64)
        phis = [self.b.phi(value.type) for value in carried]
        self.b.cbranch(self.b.icmp_signed("<", i, end), inside, after)
        self.b.position_at_end(inside)
        results = body(i, *phis) or ()
        firsts, lasts = [begin, *carried], [self.b.add(i, step), *results]
        for phi, first, last in zip([i, *phis], firsts, lasts, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(last, self.b.block)
        self.b.branch(head)
        self.b.position_at_end(after)
        return phis

    def units(self, body: Callable, count: str = "clips") -> None:
        """body(unit) for every one of the `count` that this thread gets hold of; then the function returns."""
        head, inside, after = (self.b.append_basic_block(name) for name in ("take", "unit", "done"))
        self.b.branch(head)
        self.b.position_at_end(head)
        unit = self.b.atomic_rmw("add", self.slot("counter"), _i64(1), "monotonic")
        self.b.cbranch(self.b.icmp_signed("<", unit, self[count]), inside, after)
        self.b.position_at_end(inside)
        body(unit)
        self.b.branch(head)
        self.b.position_at_end(after)
        self.b.ret_void()

    def places(self, body: Callable) -> None:
        """body(i, j) for every place of the output."""
        self.loop(0, self["out_height"], 1, lambda i: self.loop(0, self["out_width"], 1, lambda j: body(i, j)))

    def clear(self, base: str, begin, count) -> None:
        """Set `count` elements to zero, `begin` behind a field's address."""
        self.loop(0, count, self.lanes, lambda c: self.store(self.zeros, base, begin, c))

    def first_place(self, clip) -> ir.Value:
        """Offset of a clip's output."""
        return self.times(clip, self["place_height"], self["place_width"], self["channels"])

    def window(self, x, i, j) -> list[ir.Value]:
        """Where the four rows of the first block's input begin that the place (i, j) looks at; `x` is the clip's."""
        at = self.b.add(x, self.b.add(self.times(i, 2, self["x_row"]), self.times(j, 2)))
        return [self.b.add(at, self.times(r, self["x_row"])) for r in range(KERNEL + 1)]

    def place(self, i, j) -> ir.Value:
        """Offset in a clip's output of its first channel at (i, j)."""
        return self.times(self.b.add(self.times(i, self["place_width"]), j), self["channels"])

    def pool(self, inputs: list[ir.Value], bias: ir.Value, *where) -> None:
        """Write relu(max of four inputs + bias) and its code to `where` in out and code."""
        b = self.b
        best, code = inputs[0], ir.Constant(self.codes, [0] * self.lanes)
        for k, value in enumerate(inputs[1:], 1):
            # What is no number wins and stays, as in torch: training has to see it.
            larger = b.or_(b.fcmp_ordered(">", value, best), b.fcmp_unordered("uno", value, value))
            best = b.select(larger, value, best)
            code = b.select(larger, ir.Constant(self.codes, [k] * self.lanes), code)
        shifted = b.fadd(best, bias)
        closed = b.fcmp_ordered("<=", shifted, self.zeros)
        self.store(b.select(closed, self.zeros, shifted), "out", *where)
        self.store(b.select(closed, ir.Constant(self.codes, [INACTIVE] * self.lanes), code), "code", *where)

    def shares(self, *where) -> tuple[ir.Value, list[ir.Value]]:
        """The gradient at `where` as far as the ReLU lets it pass, and the part of each of the four inputs in it."""
        b = self.b
        grad, code = self.load("grad", *where), self.load("code", *where, kind=self.codes)
        wide = b.zext(code, ir.VectorType(_I32, self.lanes))
        is_k = [b.icmp_signed("==", wide, ir.Constant(wide.type, [k] * self.lanes)) for k in range(INACTIVE + 1)]
        shares = [b.select(hit, grad, self.zeros) for hit in is_k[:INACTIVE]]
        return b.select(is_k[INACTIVE], self.zeros, grad), shares


def _i64(value: int) -> ir.Constant:
    return ir.Constant(_I64, value)


def _pool_forward(f: _Function, _: int) -> None:
    b, row = f.b, f.times(f["width"], f["channels"])

    def clip_body(clip) -> None:
        x, out = f.times(clip, f["height"], row), f.first_place(clip)

        def cell(i, j, c) -> None:
            at = b.add(b.add(x, b.add(f.times(i, 2, row), f.times(j, 2, f["channels"]))), c)
            inputs = [f.load("x", at, *further) for further in ((), (f["channels"],), (row,), (row, f["channels"]))]
            to = b.add(b.add(out, f.place(i, j)), c)
            f.pool(inputs, f.load("bias", c), to)

        f.places(lambda i, j: f.loop(0, f["channels"], f.lanes, lambda c: cell(i, j, c)))

    f.units(clip_body)


def _first_forward(f: _Function, channels: int) -> None:
    """x is padded by the caller: (clips, x_clip) with rows x_row apart; weight (9, channels)."""
    b, n_vectors = f.b, channels // f.lanes

    def clip_body(clip) -> None:
        x, out = f.times(clip, f["x_clip"]), f.first_place(clip)

        def cell(i, j) -> None:
            rows = f.window(x, i, j)
            to = b.add(out, f.place(i, j))
            x_at = [[f.splat("x", row, c) for c in range(KERNEL + 1)] for row in rows]
            sums = [[f.zeros for _ in range(4)] for _ in range(n_vectors)]
            for r, c, v in itertools.product(range(KERNEL), range(KERNEL), range(n_vectors)):
                w = f.load("weight", f.times(r * KERNEL + c, f["channels"]), v * f.lanes)
                for k in range(4):
                    sums[v][k] = f.fma(x_at[r + k // 2][c + k % 2], w, sums[v][k])
            for v in range(n_vectors):
                f.pool(sums[v], f.load("bias", v * f.lanes), b.add(to, _i64(v * f.lanes)))

        f.places(cell)

    f.units(clip_body)


def _first_backward(f: _Function, _: int) -> None:
    """grad_weight (clips, 9, channels) and grad_bias (clips, channels): sums over each clip's cells."""
    b, taps = f.b, KERNEL * KERNEL

    def clip_body(clip) -> None:
        x, grad = f.times(clip, f["x_clip"]), f.first_place(clip)

        def channels(c) -> None:
            def cell(i, j, *carried) -> list[ir.Value]:
                rows, where, sums = f.window(x, i, j), b.add(grad, f.place(i, j)), list(carried)
                total, shares = f.shares(b.add(where, c))
                for r, q in itertools.product(range(KERNEL + 1), range(KERNEL + 1)):
                    value = f.splat("x", rows[r], q)
                    for k in range(4):
                        down, right = r - k // 2, q - k % 2
                        if 0 <= down < KERNEL and 0 <= right < KERNEL:
                            n = down * KERNEL + right
                            sums[n] = f.fma(value, shares[k], sums[n])
                sums[-1] = b.fadd(sums[-1], total)
                return sums

            def row(i, *sums) -> list[ir.Value]:
                return f.loop(0, f["out_width"], 1, lambda j, *sums: cell(i, j, *sums), *sums)

            sums = f.loop(0, f["out_height"], 1, row, *[f.zeros] * (taps + 1))
            for n, value in enumerate(sums[:-1]):
                f.store(value, "grad_weight", f.times(b.add(f.times(clip, taps), _i64(n)), f["channels"]), c)
            f.store(sums[-1], "grad_bias", f.times(clip, f["channels"]), c)

        f.loop(0, f["channels"], f.lanes, channels)

    f.units(clip_body)


def _block_backward(f: _Function, in_channels: int) -> None:
    """x is the convolution's input with its border; weight and grad_weight (groups,) lie as (channels, 3, 3, inputs).

    grad_x, and the sums of each group's clips in grad_weight and grad_bias (groups, channels), are written.
    """
    b, zero = f.b, ir.Constant(_F32, 0.0)
    row_elements, vectors = KERNEL * in_channels, KERNEL * KERNEL * in_channels // f.lanes

    def inputs_of(clip, at, v) -> list:
        """Offsets in x of vector v of the 3 x 3 x in_channels inputs that begin at `at` in the clip."""
        r, within = divmod(v * f.lanes, row_elements)
        return [clip, at, f.times(f["x_row"], r), within]

    def listed(lists, e) -> tuple[ir.Value, ir.Value]:
        """Where the inputs of the e-th open cell begin, and its gradient."""
        return b.load(f.at("list_at", _I64, lists, e)), f.splat("list_grad", lists, e)

    def list_cells(lists, places, c, i_begin, i_end) -> list[ir.Value]:
        """(how many cells of channel c in these rows are open, the sum of their gradients); they are listed."""

        def row(i, *carried) -> list[ir.Value]:
            begin = f.times(i, 2, f["x_row"])

            def cell(j, count, total) -> list[ir.Value]:
                where = b.add(b.add(places, f.place(i, j)), c)
                grad, code = f.load("grad", where, kind=_F32), b.load(f.at("code", _I8, where), align=1)
                code = b.zext(code, _I64)
                is_open = b.icmp_signed("<", code, _i64(INACTIVE))
                down, right = b.lshr(code, _i64(1)), b.and_(code, _i64(1))
                column = b.mul(b.add(f.times(j, 2), right), _i64(in_channels))
                # Written in any case, and kept if it counts: a branch here would often be guessed wrongly.
                b.store(b.add(b.add(begin, f.times(down, f["x_row"])), column), f.at("list_at", _I64, lists, count))
                f.store(grad, "list_grad", lists, count)
                return [b.add(count, b.zext(is_open, _I64)), b.fadd(total, b.select(is_open, grad, zero))]

            return f.loop(0, f["out_width"], 1, cell, *carried)

        return f.loop(i_begin, i_end, 1, row, _i64(0), zero)

    def add_to_weights(lists, count, clip, weights) -> None:
        for first in range(0, vectors, _SUMS):
            some = range(first, min(first + _SUMS, vectors))

            def add(e, *sums, some=some) -> list[ir.Value]:
                at, grad = listed(lists, e)
                return [f.fma(f.load("x", *inputs_of(clip, at, v)), grad, s) for v, s in zip(some, sums, strict=True)]

            sums = f.loop(0, count, 1, add, *(f.load("grad_weight", weights, v * f.lanes) for v in some))
            for v, value in zip(some, sums, strict=True):
                f.store(value, "grad_weight", weights, v * f.lanes)

    def add_to_inputs(lists, count, clip, weights) -> None:
        def add(e) -> None:
            at, grad = listed(lists, e)
            for v in range(vectors):
                where = inputs_of(clip, at, v)
                f.store(f.fma(f.load("weight", weights, v * f.lanes), grad, f.load("grad_x", *where)), "grad_x", *where)

        f.loop(0, count, 1, add)

    def group_body(group):
        size = f.times(f["channels"], KERNEL * KERNEL * in_channels)
        sums, biases = f.times(group, size), f.times(group, f["channels"])
        f.clear("grad_weight", sums, size)
        f.clear("grad_bias", biases, f["channels"])
        lists = f.times(group, f["list_rows"], f["out_width"])

        def clip_body(clip) -> None:
            x, places = f.times(clip, f["x_clip"]), f.first_place(clip)
            f.clear("grad_x", x, f["x_clip"])

            def rows(i) -> None:
                end = f.least(b.add(i, f["list_rows"]), f["out_height"])

                def channel(c) -> None:
                    count, total = list_cells(lists, places, c, i, end)
                    f.store(b.fadd(f.load("grad_bias", biases, c, kind=_F32), total), "grad_bias", biases, c)
                    weights = f.times(c, KERNEL * KERNEL * in_channels)
                    add_to_weights(lists, count, x, b.add(sums, weights))
                    add_to_inputs(lists, count, x, weights)

                f.loop(0, f["channels"], 1, channel)

            f.loop(0, f["out_height"], f["list_rows"], rows)

        begin = f.times(group, f["group_clips"])
        f.loop(begin, f.least(b.add(begin, f["group_clips"]), f["clips"]), 1, clip_body)

    f.units(group_body, "groups")


_WRITERS = {"pool_forward": _pool_forward, "block_backward": _block_backward}
_WRITERS |= {"first_forward": _first_forward, "first_backward": _first_backward}


def llvm_ir(name: str, lanes: int, unrolled: int) -> str:
    """The module that defines one of the functions, in LLVM's language.

    Args:
        name: pool_forward, block_backward, first_forward or first_backward.
        lanes: W, the floats of a vector.
        unrolled: the channels that the code is unrolled for: the first block's, or the inputs of a later one.
    """
    module = ir.Module("conv_pool")
    _WRITERS[name](_Function(module, name, lanes), unrolled)
    return str(module)
