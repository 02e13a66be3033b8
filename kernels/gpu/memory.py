"""What the program text calls by name: pointers, 32-bit integers and groups of floats, on the GPU and in the simulator.

`device_names()` gives numba intrinsics. Pointers move by whole elements once, so that all accesses around them have
constant offsets; neighbouring floats travel together, 8 or 16 bytes at a time; tables and samples are read through the
read-only path. numba's own integers would widen every index to 64 bits.

`simulator_names()` gives the same names in plain Python for NUMBA_ENABLE_CUDASIM=1: every access is checked against
the ends of its array, and a group of floats must be aligned.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from triadbench.kernels.spec import PAD_MODES

PARAMETERS = (  # of every kernel, in order
    "wave",
    "out",
    "tables",
    "bands",
    "time",
    "n_frames",
    "n_tiles",
    "hop",
    "lead",
    "pad",
    "n_mels",
    "eps",
    "half_power",
)


def signature(in_dtype: str):
    """The kernel's type: four raw pointers, then 32-bit scalars."""
    from numba.cuda import types

    wave = types.int16 if in_dtype == "int16" else types.float32
    pointers = [types.CPointer(t) for t in (wave, types.float32, types.float32, types.int32)]
    counts = [types.uint32, types.uint32, types.uint32, types.int32, types.int32, types.int32, types.uint32]
    return types.void(*pointers, *counts, types.float32, types.float32)


@functools.cache
def device_names() -> dict:
    from llvmlite import ir
    from numba import cuda
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    def offset(context, builder, pointer, index, index_type):
        index = context.cast(builder, index, index_type, types.int64)
        return builder.gep(pointer, [index], inbounds=True)

    def vector_at(builder, pointer, count):
        return builder.bitcast(pointer, ir.VectorType(ir.FloatType(), count).as_pointer())

    def number(builder, position):
        return ir.Constant(ir.IntType(32), position)

    @intrinsic
    def advance(typingctx, pointer, count):
        def code(context, builder, sig, args):
            return offset(context, builder, *args, sig.args[1])

        return pointer(pointer, count), code

    @intrinsic
    def read(typingctx, pointer, index):
        """Of memory that nobody writes while the kernel runs; integers become floats."""
        result = types.int32 if pointer.dtype == types.int32 else types.float32

        def code(context, builder, sig, args):
            value = builder.load(offset(context, builder, *args, sig.args[1]))
            value.set_metadata("invariant.load", builder.module.add_metadata([]))
            return context.cast(builder, value, sig.args[0].dtype, sig.return_type)

        return result(pointer, index), code

    @intrinsic
    def read4(typingctx, pointer, index):
        def code(context, builder, sig, args):
            place = offset(context, builder, *args, sig.args[1])
            quad = builder.load(vector_at(builder, place, 4), align=16)
            quad.set_metadata("invariant.load", builder.module.add_metadata([]))
            parts = [builder.extract_element(quad, number(builder, i)) for i in range(4)]
            return context.make_tuple(builder, sig.return_type, parts)

        return types.UniTuple(types.float32, 4)(pointer, index), code

    @intrinsic
    def load(typingctx, pointer, index):
        def code(context, builder, sig, args):
            return builder.load(offset(context, builder, *args, sig.args[1]))

        return pointer.dtype(pointer, index), code

    @intrinsic
    def load2(typingctx, pointer, index):
        def code(context, builder, sig, args):
            pair = builder.load(vector_at(builder, offset(context, builder, *args, sig.args[1]), 2), align=8)
            parts = [builder.extract_element(pair, number(builder, i)) for i in (0, 1)]
            return context.make_tuple(builder, sig.return_type, parts)

        return types.UniTuple(types.float32, 2)(pointer, index), code

    @intrinsic
    def store(typingctx, pointer, index, value):
        def code(context, builder, sig, args):
            value = context.cast(builder, args[2], sig.args[2], sig.args[0].dtype)
            builder.store(value, offset(context, builder, *args[:2], sig.args[1]))

        return types.void(pointer, index, value), code

    @intrinsic
    def store2(typingctx, pointer, index, first, second):
        def code(context, builder, sig, args):
            pair = ir.Constant(ir.VectorType(ir.FloatType(), 2), ir.Undefined)
            for i in (0, 1):
                pair = builder.insert_element(pair, args[2 + i], number(builder, i))
            builder.store(pair, vector_at(builder, offset(context, builder, *args[:2], sig.args[1]), 2), align=8)

        return types.void(pointer, index, first, second), code

    @intrinsic
    def pointer_to(typingctx, array):
        def code(context, builder, sig, args):
            return context.make_array(sig.args[0])(context, builder, args[0]).data

        return types.CPointer(array.dtype)(array), code

    def sample(edge):
        """Sample `at` of a clip of `time` samples, padded to `length` with `pad` zeros first, then as `edge` says."""

        def code(context, builder, sig, args):
            wave, at, length, pad, time = args
            zero = ir.Constant(at.type, 0)
            below, above = builder.icmp_signed("<", at, zero), builder.icmp_signed(">=", at, length)
            before, after = {
                "reflect": lambda: (
                    builder.neg(at),
                    builder.sub(builder.sub(builder.add(length, length), number(builder, 2)), at),
                ),
                "replicate": lambda: (zero, builder.sub(length, number(builder, 1))),
                "circular": lambda: (builder.add(at, length), builder.sub(at, length)),
                "constant": lambda: (at, at),
            }[edge]()
            place = builder.sub(builder.select(below, before, builder.select(above, after, at)), pad)
            within = builder.icmp_unsigned("<", place, time)  # a negative place is a large one
            pointer = offset(context, builder, wave, builder.select(within, place, zero), types.int32)
            value = builder.load(pointer)
            value.set_metadata("invariant.load", builder.module.add_metadata([]))
            value = context.cast(builder, value, sig.args[0].dtype, types.float32)
            return builder.select(within, value, ir.Constant(ir.FloatType(), 0.0))

        def typed(typingctx, wave, at, length, pad, time):
            return types.float32(wave, types.int32, types.int32, types.int32, types.int32), code

        return intrinsic(typed)

    names = {f"sample_{edge}": sample(edge) for edge in PAD_MODES}
    names |= {"cuda": cuda, "u": types.uint32, "i32": types.int32, "i64": types.int64, "f32": types.float32}
    functions = (advance, read, read4, load, load2, store, store2, pointer_to)
    return names | {f.__name__: f for f in functions} | {"log": math.log, "sqrt": math.sqrt, "power_of": math.pow}


class SimulatedPointer:
    """An element of a flat numpy array."""

    def __init__(self, array: np.ndarray, start: int = 0) -> None:
        self.array, self.start = array, start

    def span(self, index: int, count: int = 1) -> int:
        first = self.start + index
        if not 0 <= first <= len(self.array) - count:
            raise IndexError(f"element {first} of an array of {len(self.array)} is out of bounds")
        if first % count:
            raise IndexError(f"element {first} does not begin a group of {count}")
        return first


@functools.cache
def simulator_names() -> dict:
    from numba import cuda

    def advance(pointer, count):
        return SimulatedPointer(pointer.array, pointer.start + count)

    def load(pointer, index):
        return pointer.array[pointer.span(index)]

    def load2(pointer, index):
        first = pointer.span(index, 2)
        return pointer.array[first], pointer.array[first + 1]

    def read4(pointer, index):
        first = pointer.span(index, 4)
        return tuple(pointer.array[first : first + 4])

    def read(pointer, index):
        value = load(pointer, index)
        return int(value) if pointer.array.dtype == np.int32 else np.float32(value)

    def store(pointer, index, value):
        pointer.array[pointer.span(index)] = value

    def store2(pointer, index, first, second):
        place = pointer.span(index, 2)
        pointer.array[place], pointer.array[place + 1] = first, second

    def pointer_to(array):
        return SimulatedPointer(np.asarray(getattr(array, "_item", array)))

    def sample(edge):
        def read_sample(wave, at, length, pad, time):
            if edge == "reflect":
                at = -at if at < 0 else 2 * length - 2 - at if at >= length else at
            elif edge == "replicate":
                at = min(max(at, 0), length - 1)
            elif edge == "circular":
                at = at + length if at < 0 else at - length if at >= length else at
            place = at - pad
            return read(wave, place) if 0 <= place < time else np.float32(0.0)

        return read_sample

    names = {f"sample_{edge}": sample(edge) for edge in PAD_MODES}
    names |= {"cuda": cuda, "u": int, "i32": int, "i64": int, "f32": np.dtype(np.float32)}
    functions = (advance, read, read4, load, load2, store, store2, pointer_to)
    return names | {f.__name__: f for f in functions} | {"log": np.log, "sqrt": np.sqrt, "power_of": np.power}
