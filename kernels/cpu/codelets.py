"""The compiled pieces of the CPU kernel: numba intrinsics that write straight-line LLVM code over vectors of W frames.

Every one takes `lanes` (W) as a literal, then pointers and offsets in elements; none checks bounds: the plan owns them.
`work` is the scratch memory, `table` and `index` are the plan's. Called from kernels/cpu/mel_numba.py only.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from triadbench.kernels.cpu import dft
from triadbench.kernels.cpu.plan import LAST_RADICES, PASS_RADICES, RADICES
from triadbench.kernels.cpu.simd import Lanes, Memory, Weighted, broadcast, constant, fma, log, size_of, transpose

_I64 = ir.IntType(64)


def _codelet(write):
    """Intrinsic from `write(literals, builder, memories, offsets)`: literal ints, then pointers, then int64 offsets."""

    def typed(typingctx, *arguments):
        signature = types.void(*arguments)

        def codegen(context, builder, signature, values):
            literals, memories, offsets = [], [], []
            for kind, value in zip(signature.args, values, strict=True):
                if isinstance(kind, types.IntegerLiteral) and not memories:
                    literals.append(kind.literal_value)
                elif isinstance(kind, types.CPointer):
                    memories.append(Memory(builder, value, context.get_value_type(kind.dtype), literals[0]))
                elif isinstance(kind, types.IntegerLiteral):
                    offsets.append(ir.Constant(_I64, kind.literal_value))
                elif isinstance(kind, types.Integer):
                    offsets.append(context.cast(builder, value, kind, types.int64))
                else:
                    offsets.append(value)
            write(literals, builder, memories, offsets)
            return context.get_dummy_value()

        return signature, codegen

    return typed


def _for_radix(builder, radices, radix, count, write):
    """The loops `for i in range(count): write(r, i)` of every r of `radices`, behind a switch on the i64 `radix`."""
    done = builder.append_basic_block("radix.done")
    switch = builder.switch(radix, done)
    for r in radices:
        block = builder.append_basic_block(f"radix.{r}")
        switch.add_case(ir.Constant(_I64, r), block)
        builder.position_at_end(block)
        with cgutils.for_range(builder, count) as loop:
            write(r, loop.index)
        builder.branch(done)
    builder.position_at_end(done)


def _times(builder, value, factor: int):
    return builder.mul(value, ir.Constant(_I64, factor))


@intrinsic(prefer_literal=True)
def first_pass(
    typingctx,
    lanes,
    work,
    table,
    index,
    radix,
    count,
    rows,
    sources,
    source_step,
    zero,
    blocks,
    apart,
    middle,
    middle_step,
    row_size,
):
    """The plan's FIRST: `count` real butterflies on samples times window values, outputs rotated as the table says."""

    def write(literals, builder, memories, offsets):
        (w,), (work, table, index) = literals, memories
        radix, count, rows, sources, source_step, zero, blocks, apart, middle, middle_step, row_size = offsets

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

    return _codelet(write)(
        typingctx,
        lanes,
        work,
        table,
        index,
        radix,
        count,
        rows,
        sources,
        source_step,
        zero,
        blocks,
        apart,
        middle,
        middle_step,
        row_size,
    )


@intrinsic(prefer_literal=True)
def complex_pass(typingctx, lanes, work, table, radix, count, base, rows):
    """The plan's PASS on one sub-block: `count` complex butterflies in place, outputs rotated by the table's rows."""

    def write(literals, builder, memories, offsets):
        (w,), (work, table), (radix, count, base, rows) = literals, memories, offsets
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

    return _codelet(write)(typingctx, lanes, work, table, radix, count, base, rows)


@intrinsic(prefer_literal=True)
def last_pass(typingctx, lanes, work, index, radix, count, base, targets):
    """The plan's LAST: `count` complex butterflies on r neighbours; |X[c]|^2 goes to work[index[targets + i r + c]]."""

    def write(literals, builder, memories, offsets):
        (w,), (work, index), (radix, count, base, targets) = literals, memories, offsets

        def butterfly(r, i):
            at, target = builder.add(base, _times(builder, i, 2 * w * r)), builder.add(targets, _times(builder, i, r))
            x = [(work.vector(at, 2 * w * a), work.vector(at, 2 * w * a + w)) for a in range(r)]
            for c, (re, im) in enumerate(dft.complex_dft(x)):
                work.put(fma(re, re, im * im), index.scalar(target, c))

        _for_radix(builder, LAST_RADICES, radix, count, butterfly)

    return _codelet(write)(typingctx, lanes, work, index, radix, count, base, targets)


@intrinsic(prefer_literal=True)
def symmetric_sums(typingctx, lanes, parts, wide, half, turns, residue, radix, into):
    """sum_n plus[n] cos(2 pi n c / r), then sum_n minus[n] sin(2 pi n c / r); 0 < n <= half, c residue, r radix.

    plus[n] and minus[n], of `parts` vectors (re, or re and im), follow one another from wide[0] on for n = 1, 2, ...;
    wide[turns + 2 i] and its neighbour are cosine and sine of 2 pi i / r; the sums go to wide[into].
    """

    def write(literals, builder, memories, offsets):
        (w, parts), (wide,), (half, turns, residue, radix, into) = literals, memories, offsets
        zero = constant(ir.VectorType(wide.element, w), 0.0)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(2 * parts)]
        turn = cgutils.alloca_once_value(builder, ir.Constant(_I64, 0))
        for slot in sums:
            builder.store(zero, slot)
        builder.store(ir.Constant(_I64, 0), turn)
        with cgutils.for_range(builder, half) as loop:
            further = builder.add(builder.load(turn), residue)
            back = builder.sub(further, radix)
            now = builder.select(builder.icmp_signed("<", back, ir.Constant(_I64, 0)), further, back)
            builder.store(now, turn)
            at = _times(builder, now, 2)
            factors = [wide.splat(turns, at)] * parts + [wide.splat(turns, at, 1)] * parts
            pair = _times(builder, loop.index, 2 * parts * w)
            for i, (slot, factor) in enumerate(zip(sums, factors, strict=True)):
                builder.store(fma(wide.vector(pair, i * w), factor, Lanes(builder, builder.load(slot))).value, slot)
        for i, slot in enumerate(sums):
            wide.put(Lanes(builder, builder.load(slot)), into, i * w)

    return _codelet(write)(typingctx, lanes, parts, wide, half, turns, residue, radix, into)


@intrinsic(prefer_literal=True)
def rotate_elements(typingctx, lanes, work, table, count, base, rows):
    """The plan's TWIDDLE: element i at base times table[rows + 2 i] - i table[rows + 2 i + 1], in place."""

    def write(literals, builder, memories, offsets):
        (w,), (work, table), (count, base, rows) = literals, memories, offsets
        with cgutils.for_range(builder, count) as loop:
            at, row = _times(builder, loop.index, 2 * w), _times(builder, loop.index, 2)
            x = (work.vector(base, at), work.vector(base, at, w))
            re, im = dft.rotate(x, table.splat(rows, row), table.splat(rows, row, 1))
            work.put(re, base, at)
            work.put(im, base, at, w)

    return _codelet(write)(typingctx, lanes, work, table, count, base, rows)


@intrinsic(prefer_literal=True)
def power_of_elements(typingctx, lanes, parts, work, index, count, base, targets):
    """The plan's POWERS (2 parts, re and im) and SQUARES (1, real): |X|^2 of element i to work[index[targets + i]]."""

    def write(literals, builder, memories, offsets):
        (w, parts), (work, index), (count, base, targets) = literals, memories, offsets
        with cgutils.for_range(builder, count) as loop:
            at = _times(builder, loop.index, parts * w)
            re = work.vector(base, at)
            power = re * re
            if parts == 2:
                im = work.vector(base, at, w)
                power = fma(im, im, power)
            work.put(power, index.scalar(targets, loop.index))

    return _codelet(write)(typingctx, lanes, parts, work, index, count, base, targets)


@intrinsic(prefer_literal=True)
def raise_quarters(typingctx, lanes, work, count, quarters):
    """`count` vectors of work to the power quarters / 4, in place: square roots for the fraction, then products."""

    def write(literals, builder, memories, offsets):
        (w,), (work,), (count, quarters) = literals, memories, offsets
        kind, three = ir.VectorType(work.element, w), ir.Constant(_I64, 3)
        whole, fraction = builder.lshr(quarters, ir.Constant(_I64, 2)), builder.and_(quarters, three)
        result = cgutils.alloca_once(builder, kind)

        def vector(part, i):
            at = _times(builder, i, w)
            x = work.vector(at)
            root = x.sqrt() if part else None
            factors = {0: [], 1: [root and root.sqrt()], 2: [root], 3: [root, root and root.sqrt()]}[part]
            start = constant(kind, 1.0) if not factors else factors[0].value
            builder.store((factors[0] * factors[1]).value if len(factors) == 2 else start, result)
            with cgutils.for_range(builder, whole):
                builder.store((Lanes(builder, builder.load(result)) * x).value, result)
            work.put(Lanes(builder, builder.load(result)), at)

        _for_radix(builder, range(4), fraction, count, vector)

    return _codelet(write)(typingctx, lanes, work, count, quarters)


@intrinsic(prefer_literal=True)
def transpose_block(typingctx, lanes, work, addresses, like, column, sample, into, stride):
    """W x W samples to rows: work[into + i * stride + j] = (the type of `like`) at addresses[column + j], i-th on from
    `sample`; converted to the type of `work`."""

    def write(literals, builder, memories, offsets):
        (w,), (work, addresses, like), (column, sample, into, stride) = literals, memories, offsets
        samples = []
        for j in range(w):
            pointer = builder.inttoptr(addresses.scalar(column, j), ir.PointerType(like.element))
            line = Memory(builder, pointer, like.element, w)
            samples.append(line.vector(sample).value)
        kind = ir.VectorType(work.element, w)
        if like.element != work.element:
            samples = [builder.sitofp(value, kind) for value in samples]
        for i, row in enumerate(transpose(builder, samples)):
            work.put(Lanes(builder, row), into, builder.mul(stride, ir.Constant(_I64, i)))

    return _codelet(write)(typingctx, lanes, work, addresses, like, column, sample, into, stride)


@intrinsic(prefer_literal=True)
def place_samples(typingctx, lanes, count, work, addresses, like, column, sample, into, stride):
    """`count` (a literal) samples of a column: work[into + i * stride] = the (sample + i)-th at addresses[column]."""

    def write(literals, builder, memories, offsets):
        (_, count), (work, addresses, like), (column, sample, into, stride) = literals, memories, offsets
        pointer = builder.inttoptr(addresses.scalar(column), ir.PointerType(like.element))
        values = Memory(builder, pointer, like.element, count).vector(sample).value
        if like.element != work.element:
            values = builder.sitofp(values, ir.VectorType(work.element, count))
        for i in range(count):
            value = builder.extract_element(values, ir.Constant(ir.IntType(32), i))
            at = work.address(into, builder.mul(stride, ir.Constant(_I64, i)))
            builder.store(value, at, align=size_of(work.element))

    return _codelet(write)(typingctx, lanes, count, work, addresses, like, column, sample, into, stride)


@intrinsic(prefer_literal=True)
def filter_frames(typingctx, lanes, work, weights, out, source, count, weight, target, eps):
    """out[target : target + W] = sum_i work[source + i W] weights[weight + i], i < count; its log with eps, if >= 0."""

    def write(literals, builder, memories, offsets):
        (w,), (work, weights, out), (source, count, weight, target, eps) = literals, memories, offsets
        kind = ir.VectorType(work.element, w)
        entry, two = builder.block, ir.Constant(_I64, 2)
        pairs = builder.and_(count, ir.Constant(_I64, -2))
        loop, tail = builder.append_basic_block("pairs"), builder.append_basic_block("odd")
        last, done = builder.append_basic_block("last"), builder.append_basic_block("done")
        zero = constant(kind, 0.0)
        builder.cbranch(builder.icmp_signed("<", ir.Constant(_I64, 0), pairs), loop, tail)

        builder.position_at_end(loop)  # two sums, so that neither waits for the other
        i, a, b = builder.phi(_I64), builder.phi(kind), builder.phi(kind)
        at = builder.add(source, builder.mul(i, ir.Constant(_I64, w)))
        new_a = fma(work.vector(at), weights.splat(weight, i), Lanes(builder, a))
        new_b = fma(work.vector(at, w), weights.splat(weight, i, 1), Lanes(builder, b))
        following = builder.add(i, two)
        for phi, start, again in ((i, ir.Constant(_I64, 0), following), (a, zero, new_a.value), (b, zero, new_b.value)):
            phi.add_incoming(start, entry)
            phi.add_incoming(again, loop)
        builder.cbranch(builder.icmp_signed("<", following, pairs), loop, tail)

        builder.position_at_end(tail)
        c, d = builder.phi(kind), builder.phi(kind)
        for phi, value in ((c, new_a.value), (d, new_b.value)):
            phi.add_incoming(zero, entry)
            phi.add_incoming(value, loop)
        total = Lanes(builder, c) + Lanes(builder, d)
        builder.cbranch(builder.icmp_signed("<", pairs, count), last, done)

        builder.position_at_end(last)
        at = builder.add(source, builder.mul(pairs, ir.Constant(_I64, w)))
        more = fma(work.vector(at), weights.splat(weight, pairs), total)
        builder.branch(done)

        builder.position_at_end(done)
        result = builder.phi(kind)
        result.add_incoming(total.value, tail)
        result.add_incoming(more.value, last)
        mel = Lanes(builder, result)
        out.put(mel, target)
        with builder.if_then(builder.fcmp_ordered(">=", eps, ir.Constant(eps.type, 0.0))):
            out.put(log(mel + Lanes(builder, broadcast(builder, eps, w))), target)

    return _codelet(write)(typingctx, lanes, work, weights, out, source, count, weight, target, eps)


@intrinsic
def address_of(typingctx, pointer):
    """A pointer as int64."""

    def codegen(context, builder, signature, values):
        return builder.ptrtoint(values[0], _I64)

    return types.int64(pointer), codegen


@intrinsic
def fetch_add(typingctx, counter, amount):
    """counter[0] += amount, atomically; the value before."""

    def codegen(context, builder, signature, values):
        return builder.atomic_rmw("add", values[0], values[1], "monotonic")

    return types.int64(counter, types.int64), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line of an address; any address will do."""

    def codegen(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], ir.PointerType(ir.IntType(8)))
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, i32, i32, i32])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(function, [pointer, i32(0), i32(2), i32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
