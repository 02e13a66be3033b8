"""The compiled pieces of the CPU kernel: numba intrinsics that write straight-line LLVM code over vectors of W frames.

In numba code each takes the arguments of its definition here without the builder: the width `w` (W) and other literals,
pointers, and offsets in elements. None checks bounds: the plan owns them. `work` is the scratch memory, `table` and
`index` are the plan's. Called from kernels/cpu/kernel.py only.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from triadbench.kernels.cpu import dft
from triadbench.kernels.cpu.plan import LAST_RADICES, N_FIELDS, PASS_RADICES, RADICES
from triadbench.kernels.cpu.simd import Lanes, Memory, Weighted, broadcast, constant, fma, log, size_of, transpose

_I64 = ir.IntType(64)
_LLVM_TYPES = {types.int16: ir.IntType(16), types.int64: _I64, types.float32: ir.FloatType()}
_LLVM_TYPES[types.float64] = ir.DoubleType()


def _codelet(write: Callable[..., Any], result: types.Type = types.void) -> Any:
    """Intrinsic from `write(builder, *arguments)`, which gets literals as int, pointers as Memory, others as i64.

    Numbers behind the first pointer are never literals. `write` returns what the intrinsic does, as LLVM's value.
    """

    def typed(typingctx, *arguments):
        def codegen(context, builder, signature, values):
            converted: list[Any] = []
            literal = True
            for kind, value in zip(signature.args, values, strict=True):
                if isinstance(kind, types.CPointer):
                    lanes = next((width for width in converted if isinstance(width, int)), 1)
                    value, literal = Memory(builder, value, context.get_value_type(kind.dtype), lanes), False
                elif isinstance(kind, types.IntegerLiteral):
                    value = kind.literal_value if literal else _I64(kind.literal_value)
                elif isinstance(kind, types.Integer):
                    value = context.cast(builder, value, kind, types.int64)
                converted.append(value)
            written = write(builder, *converted)
            return context.get_dummy_value() if written is None else written

        return result(*arguments), codegen

    typed.__name__ = write.__name__
    typed.__signature__ = inspect.signature(write)  # type: ignore[attr-defined]  # numba does not take *arguments
    return intrinsic(prefer_literal=True)(typed)


def _for_radix(builder, radices, radix, count, write) -> None:
    """The loops `for i in range(count): write(r, i)` of every r of `radices`, behind a switch on the i64 `radix`."""
    done = builder.append_basic_block("radix.done")
    switch = builder.switch(radix, done)
    for r in radices:
        block = builder.append_basic_block(f"radix.{r}")
        switch.add_case(_I64(r), block)
        builder.position_at_end(block)
        with cgutils.for_range(builder, count) as loop:
            write(r, loop.index)
        builder.branch(done)
    builder.position_at_end(done)


def _times(builder, value, factor: int):
    return builder.mul(value, _I64(factor))


@_codelet
def first_pass(builder, w, work, table, index, program, step):
    """The plan's FIRST: `count` real butterflies on samples times window values, outputs rotated as the table says."""
    radix, count, rows, sources, source_step, zero, blocks, apart, middle, middle_step, row_size = (
        program.scalar(step, field) for field in range(1, N_FIELDS)
    )

    def butterfly(r, i):
        shift, row = builder.mul(i, source_step), builder.add(rows, builder.mul(i, row_size))
        x = [Weighted(work.vector(index.scalar(sources, a), shift), table.splat(row, a)) for a in range(r)]
        y = dft.real_dft(x)
        work.put(y[0][0], zero, _times(builder, i, w))
        at, position = builder.add(blocks, _times(builder, i, 2 * w)), r
        for c in range(1, (r - 1) // 2 + 1):
            re, im = dft.rotate(y[c], table.splat(row, position), table.splat(row, position + 1))
            work.put(re, at)
            work.put(im, at, w)
            at, position = builder.add(at, apart), position + 2
        if r % 2 == 0:
            work.put(y[r // 2][0] * table.splat(row, position), middle, builder.mul(i, middle_step))

    _for_radix(builder, RADICES, radix, count, butterfly)


@_codelet
def complex_pass(builder, w, work, table, radix, count, base, rows):
    """The plan's PASS on one sub-block: `count` complex butterflies in place, outputs rotated by the table's rows."""
    step = _times(builder, count, 2 * w)

    def butterfly(r, i):
        row = builder.add(rows, _times(builder, i, 2 * r - 2))
        at = [builder.add(base, _times(builder, i, 2 * w))]
        for _ in range(r - 1):
            at.append(builder.add(at[-1], step))
        y = dft.complex_dft([(work.vector(offset), work.vector(offset, w)) for offset in at])
        for c in range(r):
            if c:
                y[c] = dft.rotate(y[c], table.splat(row, 2 * c - 2), table.splat(row, 2 * c - 1))
            work.put(y[c][0], at[c])
            work.put(y[c][1], at[c], w)

    _for_radix(builder, PASS_RADICES, radix, count, butterfly)


@_codelet
def last_pass(builder, w, work, index, radix, count, base, targets):
    """The plan's LAST: `count` complex butterflies on r neighbours; |X[c]|^2 goes to work[index[targets + i r + c]]."""

    def butterfly(r, i):
        at, target = builder.add(base, _times(builder, i, 2 * w * r)), builder.add(targets, _times(builder, i, r))
        x = [(work.vector(at, 2 * w * a), work.vector(at, 2 * w * a + w)) for a in range(r)]
        for c, (re, im) in enumerate(dft.complex_dft(x)):
            work.put(fma(re, re, im * im), index.scalar(target, c))

    _for_radix(builder, LAST_RADICES, radix, count, butterfly)


@_codelet
def symmetric_sums(builder, w, parts, wide, half, turns, residue, radix, into):
    """sum_n plus[n] cos(2 pi n c / r), then sum_n minus[n] sin(2 pi n c / r); 0 < n <= half, c residue, r radix.

    plus[n] and minus[n], of `parts` vectors (re, or re and im), follow one another from wide[0] on for n = 1, 2, ...;
    wide[turns + 2 i] and its neighbour are cosine and sine of 2 pi i / r; the sums go to wide[into].
    """
    zero = constant(ir.VectorType(wide.element, w), 0.0)
    sums = [cgutils.alloca_once_value(builder, zero) for _ in range(2 * parts)]
    turn = cgutils.alloca_once_value(builder, _I64(0))
    for slot in sums:
        builder.store(zero, slot)
    builder.store(_I64(0), turn)
    with cgutils.for_range(builder, half) as loop:
        further = builder.add(builder.load(turn), residue)
        back = builder.sub(further, radix)
        position = builder.select(builder.icmp_signed("<", back, _I64(0)), further, back)
        builder.store(position, turn)
        at = _times(builder, position, 2)
        factors = [wide.splat(turns, at)] * parts + [wide.splat(turns, at, 1)] * parts
        pair = _times(builder, loop.index, 2 * parts * w)
        for i, (slot, factor) in enumerate(zip(sums, factors, strict=True)):
            builder.store(fma(wide.vector(pair, i * w), factor, Lanes(builder, builder.load(slot))).value, slot)
    for i, slot in enumerate(sums):
        wide.put(Lanes(builder, builder.load(slot)), into, i * w)


@_codelet
def rotate_elements(builder, w, work, table, count, base, rows):
    """The plan's TWIDDLE: element i at base times table[rows + 2 i] - i table[rows + 2 i + 1], in place."""
    with cgutils.for_range(builder, count) as loop:
        at, row = _times(builder, loop.index, 2 * w), _times(builder, loop.index, 2)
        x = (work.vector(base, at), work.vector(base, at, w))
        re, im = dft.rotate(x, table.splat(rows, row), table.splat(rows, row, 1))
        work.put(re, base, at)
        work.put(im, base, at, w)


@_codelet
def power_of_elements(builder, w, parts, work, index, count, base, targets):
    """The plan's POWERS (2 parts, re and im) and SQUARES (1, real): |X|^2 of element i to work[index[targets + i]]."""
    with cgutils.for_range(builder, count) as loop:
        at = _times(builder, loop.index, parts * w)
        re = work.vector(base, at)
        power = re * re
        if parts == 2:
            im = work.vector(base, at, w)
            power = fma(im, im, power)
        work.put(power, index.scalar(targets, loop.index))


@_codelet
def raise_quarters(builder, w, work, count, quarters):
    """`count` vectors of work to the power quarters / 4, in place: square roots for the fraction, then products."""
    kind, three = ir.VectorType(work.element, w), _I64(3)
    whole, fraction = builder.lshr(quarters, _I64(2)), builder.and_(quarters, three)
    result = cgutils.alloca_once(builder, kind)

    def vector(part, i):
        at = _times(builder, i, w)
        x = work.vector(at)
        root = x.sqrt()
        fourth = root.sqrt()
        start = (Lanes(builder, constant(kind, 1.0)), fourth, root, root * fourth)[part]  # LLVM drops the others
        builder.store(start.value, result)
        with cgutils.for_range(builder, whole):
            builder.store((Lanes(builder, builder.load(result)) * x).value, result)
        work.put(Lanes(builder, builder.load(result)), at)

    _for_radix(builder, range(4), fraction, count, vector)


@_codelet
def transpose_block(builder, w, work, addresses, like, column, sample, into, stride):
    """W x W samples to rows: work[into + i * stride + j] = (the type of `like`) at addresses[column + j], i-th on from
    `sample`; converted to the type of `work`."""
    samples = []
    for j in range(w):
        pointer = builder.inttoptr(addresses.scalar(column, j), ir.PointerType(like.element))
        line = Memory(builder, pointer, like.element, w)
        samples.append(line.vector(sample).value)
    kind = ir.VectorType(work.element, w)
    if like.element != work.element:
        samples = [builder.sitofp(value, kind) for value in samples]
    for i, row in enumerate(transpose(builder, samples)):
        work.put(Lanes(builder, row), into, builder.mul(stride, _I64(i)))


@_codelet
def place_samples(builder, w, count, work, addresses, like, column, sample, into, stride):
    """`count` (a literal) samples of a column: work[into + i * stride] = the (sample + i)-th at addresses[column]."""
    pointer = builder.inttoptr(addresses.scalar(column), ir.PointerType(like.element))
    values = Memory(builder, pointer, like.element, count).vector(sample).value
    if like.element != work.element:
        values = builder.sitofp(values, ir.VectorType(work.element, count))
    for i in range(count):
        value = builder.extract_element(values, ir.IntType(32)(i))
        at = work.address(into, builder.mul(stride, _I64(i)))
        builder.store(value, at, align=size_of(work.element))


@_codelet
def filter_frames(builder, w, work, weights, out, source, count, weight, target, eps):
    """out[target : target + W] = sum_i work[source + i W] weights[weight + i], i < count; its log with eps, if >= 0."""
    zero, pairs = constant(ir.VectorType(work.element, w), 0.0), builder.and_(count, _I64(-2))
    even, odd = (cgutils.alloca_once_value(builder, zero) for _ in range(2))  # so that neither sum waits for the other

    def add(total, i, further=0):
        x, factor = work.vector(source, _times(builder, i, w), further * w), weights.splat(weight, i, further)
        builder.store(fma(x, factor, Lanes(builder, builder.load(total))).value, total)

    for total in (even, odd):
        builder.store(zero, total)
    with cgutils.for_range_slice(builder, _I64(0), pairs, _I64(2)) as (i, _):
        add(even, i)
        add(odd, i, 1)
    builder.store(builder.fadd(builder.load(even), builder.load(odd)), even)
    with builder.if_then(builder.icmp_signed("<", pairs, count)):
        add(even, pairs)
    mel = Lanes(builder, builder.load(even))
    out.put(mel, target)
    with builder.if_then(builder.fcmp_ordered(">=", eps, ir.Constant(eps.type, 0.0))):
        out.put(log(mel + Lanes(builder, broadcast(builder, eps, w))), target)


@functools.partial(_codelet, result=types.int64)
def address_of(builder, memory):
    """A pointer as int64."""
    return builder.ptrtoint(memory.base, _I64)


@functools.partial(_codelet, result=types.int64)
def fetch_add(builder, memory, position, amount):
    """memory[position] += amount, atomically; the value before."""
    return builder.atomic_rmw("add", memory.address(position), amount, "monotonic")


def pointer_to(kind: types.Type) -> Any:
    """Intrinsic from an address, int64, to a pointer to `kind`."""

    def pointer(builder, address):
        return builder.inttoptr(address, ir.PointerType(_LLVM_TYPES[kind]))

    return _codelet(pointer, types.CPointer(kind))


@_codelet
def prefetch(builder, address):
    """Ask for the cache line of an address; any address will do."""
    i32, pointer = ir.IntType(32), builder.inttoptr(address, ir.PointerType(ir.IntType(8)))
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
    name = "llvm.prefetch.p0"
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    builder.call(function, [pointer, i32(0), i32(2), i32(1)])
