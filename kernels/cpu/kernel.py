"""The compiled loop: hands out groups of W frames, and runs the plan's program on each (see kernels/cpu/plan.py).

numba is imported with this file, and the file only where machine code is not on disk yet (kernels/object_cache.py). All
memory comes by address in the job: the compiled function needs nothing of numba, or of Python, to run.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock

from triadbench.kernels.cpu import codelets, plan
from triadbench.kernels.spec import PAD_MODES

REFLECT, CONSTANT, REPLICATE, CIRCULAR = range(len(PAD_MODES))

MOST_QUARTERS = 16.0  # |X|^2 to up to the fourth by roots and products; higher powers, and all others, by `**`

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_C_FUNCTION = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
_JOB = types.void(types.CPointer(types.int64))
_jit: Any = numba.njit(**_OPTIONS)


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
def _copy_edge(samples, clip, start, edges, target, job):
    """edges[target + i] = sample start + i of the padded clip at samples[clip]; 0 is the first before `pad` zeros."""
    pad, mode, time, rows = job[plan.PAD], job[plan.PAD_MODE], job[plan.TIME], job[plan.ROWS]
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
            codelets.symmetric_sums(lanes, 1, wide, half, turns, c + 1, radix, sums)
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
            codelets.symmetric_sums(lanes, 2, wide, half, turns, c + 1, radix, sums)
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


def mel_groups(lanes: int, in_dtype: str, dtype: str) -> Callable:
    """The function to compile for a width, the samples' and the results' dtype; a job is laid out as in plan.py."""
    number = getattr(types, dtype)
    to_samples, to_numbers = (codelets.pointer_to(kind) for kind in (getattr(types, in_dtype), number))
    to_integers, to_doubles = (codelets.pointer_to(kind) for kind in (types.int64, types.float64))

    def run(job):
        area = plan.AREAS + plan.AREA_SIZE * codelets.fetch_add(job, plan.NEXT_AREA, 1)
        work, wide, tail = to_numbers(job[area]), to_numbers(job[area + 1]), to_numbers(job[area + 2])
        edges, addresses = to_samples(job[area + 3]), to_integers(job[area + 4])
        samples, out = to_samples(job[plan.SAMPLES]), to_numbers(job[plan.OUT])
        program, index = to_integers(job[plan.PROGRAM]), to_integers(job[plan.INDEX])
        table, weights = to_numbers(job[plan.TABLE]), to_numbers(job[plan.WEIGHTS])
        bands, doubles = to_integers(job[plan.BANDS]), to_doubles(codelets.address_of(job))
        eps, half_power = number(doubles[plan.EPS]), doubles[plan.HALF_POWER]
        total, grain = job[plan.TOTAL], job[plan.GRAIN]
        n_frames, n_mels, n_freqs, n_steps = job[plan.N_FRAMES], job[plan.N_MELS], job[plan.N_FREQS], job[plan.N_STEPS]
        time, hop, lead, pad = job[plan.TIME], job[plan.HOP], job[plan.LEAD], job[plan.PAD]
        rows, stride, columns, item = job[plan.ROWS], job[plan.ROW_STRIDE], job[plan.COLUMNS], job[plan.ITEM]
        groups = (n_frames + lanes - 1) // lanes
        whole = columns - columns % lanes if columns % lanes <= 3 else columns  # columns that are moved W by W
        whole = whole if rows >= lanes else 0
        lines_a_step = min(lanes * rows * item // 64 // n_steps + 1, 32)
        while True:
            begin = codelets.fetch_add(job, plan.COUNTER, grain)
            if begin >= total:
                return
            for unit in range(begin, min(begin + grain, total)):
                clip, t = unit // groups, unit % groups * lanes
                here = clip * time
                valid = min(lanes, n_frames - t)

                # Where the columns of samples begin: in the clip, or where they cross its ends, in a padded copy.
                following = codelets.address_of(samples) + (here + (t + lanes) * hop - lead - pad) * item
                for j in range(columns):
                    start = (t + j) * hop - lead
                    first = start - pad
                    if first >= 0 and first + rows <= time:
                        addresses[j] = codelets.address_of(samples) + (here + first) * item
                    else:
                        addresses[j] = codelets.address_of(edges) + j * rows * item
                        if j < valid + columns - lanes:  # else of no frame: whatever lies there
                            _copy_edge(samples, here, start, edges, j * rows, job)

                # Rows of neighbouring frames.
                for block in range(0, whole, lanes):
                    column = min(block, columns - lanes)
                    for i in range(0, rows, lanes):
                        sample = min(i, rows - lanes)
                        into = sample * stride + column
                        codelets.transpose_block(lanes, work, addresses, edges, column, sample, into, stride)
                for column in range(whole, columns):
                    for i in range(0, rows - lanes + 1, lanes):
                        into = i * stride + column
                        codelets.place_samples(lanes, lanes, work, addresses, edges, column, i, into, stride)
                    for i in range(rows - rows % lanes, rows):
                        into = i * stride + column
                        codelets.place_samples(lanes, 1, work, addresses, edges, column, i, into, stride)

                # The transform; meanwhile the samples of the next group come in.
                for step in range(n_steps):
                    for _ in range(lines_a_step):
                        codelets.prefetch(following)
                        following += 64
                    s = step * plan.N_FIELDS
                    operation, radix, count = program[s], program[s + 1], program[s + 2]
                    base, extra = program[s + 3], program[s + 4]
                    if operation == plan.FIRST:
                        codelets.first_pass(lanes, work, table, index, program, s)
                    elif operation == plan.PASS:
                        m = program[s + 5]
                        for _ in range(count):
                            codelets.complex_pass(lanes, work, table, radix, m, base, extra)
                            base += radix * m * 2 * lanes
                    elif operation == plan.LAST:
                        codelets.last_pass(lanes, work, index, radix, count, base, extra)
                    elif operation == plan.TWIDDLE:
                        codelets.rotate_elements(lanes, work, table, count, base, extra)
                    elif operation == plan.POWERS:
                        codelets.power_of_elements(lanes, 2, work, index, count, base, extra)
                    elif operation == plan.SQUARES:
                        codelets.power_of_elements(lanes, 1, work, index, count, base, extra)
                    elif operation == plan.DIRECT_FIRST:
                        _direct_first(lanes, work, table, index, wide, program, s)
                    else:
                        _direct_pass(lanes, work, table, wide, program, s)

                # |X|^2 to |X|^power.
                quarters = 4.0 * half_power
                if half_power == 1.0:
                    pass
                elif quarters <= MOST_QUARTERS and quarters == math.floor(quarters):
                    codelets.raise_quarters(lanes, work, n_freqs, int(quarters))
                else:
                    for i in range(n_freqs * lanes):
                        work[i] = work[i] ** half_power

                # The filters; a last group with fewer frames goes through `tail`.
                row = clip * n_mels * n_frames + t
                for m in range(n_mels):
                    source, count, weight = bands[3 * m] * lanes, bands[3 * m + 1], bands[3 * m + 2]
                    if valid == lanes:
                        codelets.filter_frames(lanes, work, weights, out, source, count, weight, row, eps)
                    else:
                        codelets.filter_frames(lanes, work, weights, tail, source, count, weight, 0, eps)
                        for i in range(valid):
                            out[row + i] = tail[i]
                    row += n_frames

    return run


def compile_kernel(lanes: int, in_dtype: str, dtype: str) -> bytes:
    """Object code, for this machine, of `mel_groups` as void f(int64 *job), named `plan.ENTRY`."""
    function = numba.njit(_JOB, **_C_FUNCTION)(mel_groups(lanes, in_dtype, dtype))
    compiled: Any = next(iter(function.overloads.values()))
    library = compiled.library.codegen.create_library(plan.ENTRY)
    library.enable_object_caching()
    library.add_ir_module(_entry(compiled.fndesc.llvm_func_name))
    library.add_linking_library(compiled.library)
    with global_compiler_lock:
        library.finalize()
    return library.serialize_using_object_code()[2][0]


def _entry(name: str) -> ir.Module:
    """Calls numba's function as C does: one argument, no result. OpenMP asks this of a parallel region."""
    module, job = ir.Module(plan.ENTRY), ir.IntType(64).as_pointer()
    # numba's calling convention: where a result and an error go, then the arguments.
    nothing = ir.IntType(8).as_pointer().as_pointer()
    loop = ir.Function(module, ir.FunctionType(ir.IntType(32), [nothing, nothing, job]), name)
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), [job]), plan.ENTRY)
    builder = ir.IRBuilder(entry.append_basic_block("entry"))
    nowhere = builder.alloca(nothing.pointee)
    builder.call(loop, [nowhere, nowhere, *entry.args])
    builder.ret_void()
    return module
