"""The compiled loop: hands out groups of W frames, and runs the plan's program on each (see kernels/cpu/plan.py).

numba is imported with this file, and the file only where machine code is not on disk yet (kernels/object_cache.py). All
memory comes in by pointer: the compiled function needs nothing of numba, or of Python, to run.
"""

from __future__ import annotations

import math

import numba
from llvmlite import ir
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock

from triadbench.kernels.cpu.codelets import (
    address_of,
    complex_pass,
    fetch_add,
    filter_frames,
    first_pass,
    last_pass,
    place_samples,
    power_of_elements,
    prefetch,
    raise_quarters,
    rotate_elements,
    symmetric_sums,
    transpose_block,
)
from triadbench.kernels.cpu.plan import (
    AREA_SIZE,
    AREAS,
    ARRAYS,
    COLUMNS,
    COUNTER,
    DIRECT_FIRST,
    EPS,
    FIRST,
    GRAIN,
    HALF_POWER,
    HOP,
    ITEM,
    LAST,
    LEAD,
    N_FIELDS,
    N_FRAMES,
    N_FREQS,
    N_MELS,
    N_STEPS,
    NEXT_AREA,
    OUT,
    PAD,
    PAD_MODE,
    PASS,
    POWERS,
    ROW_STRIDE,
    ROWS,
    SAMPLES,
    SQUARES,
    TIME,
    TOTAL,
    TWIDDLE,
)
from triadbench.kernels.spec import PAD_MODES

REFLECT, CONSTANT, REPLICATE, CIRCULAR = range(len(PAD_MODES))

MOST_QUARTERS = 16.0  # |X|^2 to up to the fourth by roots and products; higher powers, and all others, by `**`
_ENTRY = "mel_entry"

_jit = numba.njit(nogil=True, error_model="numpy")


@_jit
def _edge_index(s, length, mode):
    """Where sample s of the clip extended by its padding is found in 0..length - 1; -1 for a zero."""
    if 0 <= s < length:
        return s
    if mode == REFLECT:
        s = -s if s < 0 else 2 * (length - 1) - s
    elif mode == REPLICATE:
        s = 0 if s < 0 else length - 1
    elif mode == CIRCULAR:
        s = s + length if s < 0 else s - length
    else:
        return -1
    return s if 0 <= s < length else -1  # beyond: a sample of no frame


@_jit
def _copy_edge(samples, clip, start, edges, target, sizes):
    """edges[target + i] = sample start + i of the padded clip at samples[clip]; 0 is the first before `pad` zeros."""
    pad, mode, time, rows = sizes[PAD], sizes[PAD_MODE], sizes[TIME], sizes[ROWS]
    begin = min(max(pad - start, 0), rows)
    end = min(max(pad + time - start, begin), rows)
    for i in range(begin, end):
        edges[target + i] = samples[clip + start - pad + i]
    if mode == REFLECT and pad == 0:  # the usual case, in loops without a question
        for i in range(max(0, -start - (time - 1)), begin):
            edges[target + i] = samples[clip - start - i]
        for i in range(end, min(rows, 2 * (time - 1) - start + 1)):
            edges[target + i] = samples[clip + 2 * (time - 1) - start - i]
        return
    for i in range(rows):
        if not begin <= i < end:
            s = _edge_index(start + i, time + 2 * pad, mode) - pad
            edges[target + i] = samples[clip + s] if 0 <= s < time else 0


@_jit
def _direct_first(lanes, work, table, index, wide, program, s):
    """`first_pass` of any odd radix: every output is a sum over all inputs, those of n and r - n folded together."""
    radix, count, rows, sources, shift = program[s + 1], program[s + 2], program[s + 3], program[s + 4], program[s + 5]
    zero, blocks, apart, row_size = program[s + 6], program[s + 7], program[s + 8], program[s + 11]
    half, turns = radix // 2, _tabulate(lanes, radix, wide)
    sums = 4 * half * lanes
    for i in range(count):
        row, target, origin = rows + i * row_size, zero + i * lanes, index[sources] + i * shift
        for j in range(lanes):
            work[target + j] = work[origin + j] * table[row]
        for n in range(half):
            a, b = index[sources + n + 1] + i * shift, index[sources + radix - n - 1] + i * shift
            for j in range(lanes):
                x, y = work[a + j] * table[row + n + 1], work[b + j] * table[row + radix - n - 1]
                wide[2 * n * lanes + j], wide[(2 * n + 1) * lanes + j] = x + y, x - y
        for c in range(half):
            symmetric_sums(lanes, 1, wide, half, turns, c + 1, radix, sums)
            at = blocks + i * 2 * lanes + c * apart
            cosine, sine = table[row + radix + 2 * c], table[row + radix + 2 * c + 1]
            for j in range(lanes):
                re, im = work[target + j] + wide[sums + j], -wide[sums + lanes + j]
                work[at + j], work[at + lanes + j] = re * cosine + im * sine, im * cosine - re * sine
        for n in range(half):
            for j in range(lanes):
                work[target + j] += wide[2 * n * lanes + j]


@_jit
def _direct_pass(lanes, work, table, wide, program, s):
    """`complex_pass` of any odd radix on all sub-blocks, summed like `_direct_first`."""
    radix, count, base, rows, m = program[s + 1], program[s + 2], program[s + 3], program[s + 4], program[s + 5]
    half, turns, size = radix // 2, _tabulate(lanes, radix, wide), 2 * lanes
    sums, step = 2 * half * size, m * size
    for i in range(count * m):
        at, row = base + (i // m * radix * m + i % m) * size, rows + i % m * (2 * radix - 2)
        for n in range(half):
            a, b = at + (n + 1) * step, at + (radix - n - 1) * step
            for j in range(size):
                x, y = work[a + j], work[b + j]
                wide[2 * n * size + j], wide[(2 * n + 1) * size + j] = x + y, x - y
        for c in range(half):
            symmetric_sums(lanes, 2, wide, half, turns, c + 1, radix, sums)
            for mirrored in range(2):
                sign, k = 1 - 2 * mirrored, radix - c - 1 if mirrored else c + 1
                cosine, sine = table[row + 2 * k - 2], table[row + 2 * k - 1]
                for j in range(lanes):
                    re = work[at + j] + wide[sums + j] + sign * wide[sums + 3 * lanes + j]
                    im = work[at + lanes + j] + wide[sums + lanes + j] - sign * wide[sums + 2 * lanes + j]
                    work[at + k * step + j] = re * cosine + im * sine
                    work[at + k * step + lanes + j] = im * cosine - re * sine
        for n in range(half):
            for j in range(size):
                work[at + j] += wide[2 * n * size + j]


@_jit
def _tabulate(lanes, radix, wide):
    """Cosines and sines of 2 pi i / radix, in pairs; where they begin in `wide`, behind the folded inputs and sums."""
    begin = (2 * radix + 4) * lanes
    for i in range(radix):
        wide[begin + 2 * i] = math.cos(2 * math.pi * i / radix)
        wide[begin + 2 * i + 1] = math.sin(2 * math.pi * i / radix)
    return begin


def mel_groups(lanes: int):
    """The function to compile for a width; its arguments are those of `signature`.

    samples, out    (clips, TIME) and (clips, N_MELS, N_FRAMES), contiguous
    program, index, table, weights, bands, sizes, half_power    what kernels/cpu/mel_numba.py prepares
    work, wide, tail, edges, addresses    scratch memory of the calling thread
    counter         the next group to do; many threads may share it, samples and out
    eps             of log(mel + eps); negative for mel itself
    total, grain    groups in all, and to take at once
    """

    def run(
        samples,
        out,
        counter,
        sizes,
        program,
        index,
        table,
        weights,
        bands,
        work,
        wide,
        tail,
        edges,
        addresses,
        eps,
        half_power,
        total,
        grain,
    ):
        n_frames, n_mels, n_freqs, n_steps = sizes[N_FRAMES], sizes[N_MELS], sizes[N_FREQS], sizes[N_STEPS]
        rows, stride, columns, item = sizes[ROWS], sizes[ROW_STRIDE], sizes[COLUMNS], sizes[ITEM]
        groups = (n_frames + lanes - 1) // lanes
        whole = columns - columns % lanes if columns % lanes <= 3 else columns  # columns that are moved W by W
        whole = whole if rows >= lanes else 0
        lines_a_step = min(lanes * rows * item // 64 // n_steps + 1, 32)
        while True:
            begin = fetch_add(counter, grain)
            if begin >= total:
                return
            for unit in range(begin, min(begin + grain, total)):
                clip, t = unit // groups, unit % groups * lanes
                here = clip * sizes[TIME]
                valid = min(lanes, n_frames - t)

                # Where the columns of samples begin: in the clip, or where they cross its ends, in a padded copy.
                following = address_of(samples) + (here + (t + lanes) * sizes[HOP] - sizes[LEAD] - sizes[PAD]) * item
                for j in range(columns):
                    start = (t + j) * sizes[HOP] - sizes[LEAD]
                    first = start - sizes[PAD]
                    if first >= 0 and first + rows <= sizes[TIME]:
                        addresses[j] = address_of(samples) + (here + first) * item
                    else:
                        addresses[j] = address_of(edges) + j * rows * item
                        if j < valid + columns - lanes:  # else of no frame: whatever lies there
                            _copy_edge(samples, here, start, edges, j * rows, sizes)

                # Rows of neighbouring frames.
                for block in range(0, whole, lanes):
                    column = min(block, columns - lanes)
                    for i in range(0, rows, lanes):
                        sample = min(i, rows - lanes)
                        transpose_block(lanes, work, addresses, edges, column, sample, sample * stride + column, stride)
                for column in range(whole, columns):
                    for i in range(0, rows - lanes + 1, lanes):
                        place_samples(lanes, lanes, work, addresses, edges, column, i, i * stride + column, stride)
                    for i in range(rows - rows % lanes, rows):
                        place_samples(lanes, 1, work, addresses, edges, column, i, i * stride + column, stride)

                # The transform; meanwhile the samples of the next group come in.
                for step in range(n_steps):
                    for _ in range(lines_a_step):
                        prefetch(following)
                        following += 64
                    s = step * N_FIELDS
                    operation, radix, count, base, extra = (
                        program[s],
                        program[s + 1],
                        program[s + 2],
                        program[s + 3],
                        program[s + 4],
                    )
                    if operation == FIRST:
                        first_pass(
                            lanes,
                            work,
                            table,
                            index,
                            radix,
                            count,
                            base,
                            extra,
                            program[s + 5],
                            program[s + 6],
                            program[s + 7],
                            program[s + 8],
                            program[s + 9],
                            program[s + 10],
                            program[s + 11],
                        )
                    elif operation == PASS:
                        m = program[s + 5]
                        for block in range(count):
                            complex_pass(lanes, work, table, radix, m, base + block * radix * m * 2 * lanes, extra)
                    elif operation == LAST:
                        last_pass(lanes, work, index, radix, count, base, extra)
                    elif operation == TWIDDLE:
                        rotate_elements(lanes, work, table, count, base, extra)
                    elif operation == POWERS:
                        power_of_elements(lanes, 2, work, index, count, base, extra)
                    elif operation == SQUARES:
                        power_of_elements(lanes, 1, work, index, count, base, extra)
                    elif operation == DIRECT_FIRST:
                        _direct_first(lanes, work, table, index, wide, program, s)
                    else:
                        _direct_pass(lanes, work, table, wide, program, s)

                # |X|^2 to |X|^power.
                quarters = 4.0 * half_power
                if half_power == 1.0:
                    pass
                elif quarters <= MOST_QUARTERS and quarters == math.floor(quarters):
                    raise_quarters(lanes, work, n_freqs, int(quarters))
                else:
                    for i in range(n_freqs * lanes):
                        work[i] = work[i] ** half_power

                # The filters; a last group with fewer frames goes through `tail`.
                row = clip * n_mels * n_frames + t
                for m in range(n_mels):
                    source, count, weight = bands[3 * m] * lanes, bands[3 * m + 1], bands[3 * m + 2]
                    if valid == lanes:
                        filter_frames(lanes, work, weights, out, source, count, weight, row, eps)
                    else:
                        filter_frames(lanes, work, weights, tail, source, count, weight, 0, eps)
                        for i in range(valid):
                            out[row + i] = tail[i]
                    row += n_frames

    return run


def signature(in_dtype: str, dtype: str) -> types.Signature:
    """Of `mel_groups` for samples and results of these dtypes."""
    a, b, integers = (types.CPointer(kind) for kind in (getattr(types, in_dtype), getattr(types, dtype), types.int64))
    number = getattr(types, dtype)
    return types.void(
        a,
        b,
        integers,
        integers,
        integers,
        integers,
        b,
        b,
        integers,
        b,
        b,
        b,
        a,
        integers,
        number,
        types.float64,
        types.int64,
        types.int64,
    )


def compile_kernel(lanes: int, in_dtype: str, dtype: str) -> tuple[str, bytes]:
    """Name and object code (for this machine) of void f(int64 *job): the loop on a job laid out as numba_plan says."""
    function = numba.njit(
        signature(in_dtype, dtype),
        nogil=True,
        error_model="numpy",
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
        _nrt=False,
    )(mel_groups(lanes))
    (compiled,) = function.overloads.values()
    library = compiled.library.codegen.create_library("mel_entry")
    library.enable_object_caching()
    library.add_ir_module(_entry(compiled.fndesc.llvm_func_name, in_dtype, dtype))
    library.add_linking_library(compiled.library)
    with global_compiler_lock:
        library.finalize()
    _, _, (code, _) = library.serialize_using_object_code()
    return _ENTRY, code


def _entry(name: str, in_dtype: str, dtype: str) -> ir.Module:
    """The function that threads are given: it takes the next scratch memory of the job and calls the loop.

    One argument, no result: what OpenMP asks of a parallel region, and the cheapest call from Python.
    """
    module, i64, byte = ir.Module("mel_entry"), ir.IntType(64), ir.IntType(8)
    kinds = {"float32": ir.FloatType(), "float64": ir.DoubleType(), "int16": ir.IntType(16)}
    number, sample, integers = kinds[dtype], kinds[in_dtype].as_pointer(), i64.as_pointer()
    numbers = number.as_pointer()
    # numba's calling convention: where a result and an error go, then the arguments of `signature`.
    arguments = [
        byte.as_pointer().as_pointer(),
        byte.as_pointer().as_pointer(),
        sample,
        numbers,
        integers,
        integers,
        integers,
        integers,
        numbers,
        numbers,
        integers,
        numbers,
        numbers,
        numbers,
        sample,
        integers,
        number,
        ir.DoubleType(),
        i64,
        i64,
    ]
    loop = ir.Function(module, ir.FunctionType(ir.IntType(32), arguments), name)
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), [integers]), _ENTRY)
    builder, (job,) = ir.IRBuilder(entry.append_basic_block("entry")), entry.args

    def slot(position, kind=i64):
        offset = position if isinstance(position, ir.Value) else ir.Constant(i64, position)
        return builder.bitcast(builder.gep(job, [offset]), kind.as_pointer())

    def field(position, kind):
        return builder.load(slot(position, kind))

    area = builder.atomic_rmw("add", slot(NEXT_AREA), ir.Constant(i64, 1), "monotonic")
    areas = builder.add(builder.mul(area, ir.Constant(i64, AREA_SIZE)), ir.Constant(i64, AREAS))
    work = [builder.add(areas, ir.Constant(i64, i)) for i in range(5)]
    eps = field(EPS, ir.DoubleType())
    nowhere = builder.alloca(byte.as_pointer())
    values = [
        nowhere,
        nowhere,
        field(SAMPLES, sample),
        field(OUT, numbers),
        slot(COUNTER),
        job,
        *(field(position, kind) for position, kind in zip(ARRAYS, arguments[6:11], strict=True)),
        *(field(position, kind) for position, kind in zip(work, arguments[11:16], strict=True)),
        eps if dtype == "float64" else builder.fptrunc(eps, number),
        field(HALF_POWER, ir.DoubleType()),
        field(TOTAL, i64),
        field(GRAIN, i64),
    ]
    builder.call(loop, values)
    builder.ret_void()
    return module
