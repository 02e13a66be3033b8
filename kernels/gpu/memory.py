"""What the program text calls by name: pointers, 32-bit integers and groups of floats, as numba intrinsics.

Pointers move by whole elements once, so that all accesses around them have constant offsets; neighbouring floats travel
together, 8 or 16 bytes at a time; tables and samples are read through the read-only path. numba's own integers would
widen every index to 64 bits.
"""

import functools
import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

from triadbench.kernels.spec import PAD_MODES

# Of every kernel, in order: raw pointers, with the type behind the star, and 32-bit scalars. A wave may be *int16 too.
PARAMETERS = {"wave": "*float32", "out": "*float32", "tables": "*float32", "bands": "*int32", "time": "uint32"}
PARAMETERS |= {"n_frames": "uint32", "n_tiles": "uint32", "hop": "int32", "lead": "int32", "pad": "int32"}
PARAMETERS |= {"eps": "float32", "half_power": "float32"}


def signature(in_dtype: str) -> Any:
    """The kernel's type, as numba has it."""
    types: Any = importlib.import_module("numba.cuda.types")  # made at run time

    def of(kind: str) -> Any:
        return types.CPointer(of(kind[1:])) if kind[0] == "*" else getattr(types, kind)

    return types.void(*(of(kind) for kind in {**PARAMETERS, "wave": f"*{in_dtype}"}.values()))


@functools.cache
def device_names() -> dict[str, Any]:
    """The names as numba intrinsics."""
    from llvmlite import ir
    from numba import cuda
    from numba.cuda.extending import intrinsic

    types, number = importlib.import_module("numba.cuda.types"), ir.IntType(32)
    names: dict[str, Any] = {"cuda": cuda, "u": types.uint32, "i32": types.int32, "i64": types.int64}
    names |= {"f32": types.float32, "log": math.log, "sqrt": math.sqrt, "power_of": math.pow}

    def device_function(result: Callable) -> Callable:
        """Adds an intrinsic to `names`: `write(context, builder, signature, *arguments)`, typed by `result`."""

        def add(write: Callable) -> None:
            def typed(typingctx, *arguments):
                def codegen(context, builder, signature, values):
                    return write(context, builder, signature, *values)

                return result(*arguments)(*arguments), codegen

            # numba does not take *arguments: it wants to see a typing context, then the arguments by name.
            parameters = list(inspect.signature(write).parameters.values())[2:]
            typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            names[write.__name__] = intrinsic(typed)

        return add

    def place(context, builder, signature, pointer, index):
        """Where element `index` lies; the index is the signature's second argument."""
        index = context.cast(builder, index, signature.args[1], types.int64)
        return builder.gep(pointer, [index], inbounds=True)

    def group(context, builder, signature, pointer, index, count):
        """Pointer to `count` neighbours from element `index` on."""
        vector = ir.VectorType(ir.FloatType(), count)
        return builder.bitcast(place(context, builder, signature, pointer, index), vector.as_pointer())

    def parts_of(context, builder, signature, values, count):
        parts = [builder.extract_element(values, number(i)) for i in range(count)]
        return context.make_tuple(builder, signature.return_type, parts)

    def read_only(builder, pointer, align=None):
        """Load from memory that nobody writes while the kernel runs."""
        value = builder.load(pointer, align=align)
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
        return value

    place.__name__ = "advance"
    device_function(lambda pointer, count: pointer)(place)

    @device_function(lambda pointer, index: types.int32 if pointer.dtype == types.int32 else types.float32)
    def read(context, builder, signature, pointer, index):
        """Integers but those of 32 bits become floats."""
        value = read_only(builder, place(context, builder, signature, pointer, index))
        return context.cast(builder, value, signature.args[0].dtype, signature.return_type)

    @device_function(lambda pointer, index: types.UniTuple(types.float32, 4))
    def read4(context, builder, signature, pointer, index):
        quad = read_only(builder, group(context, builder, signature, pointer, index, 4), align=16)
        return parts_of(context, builder, signature, quad, 4)

    @device_function(lambda pointer, index: pointer.dtype)
    def load(context, builder, signature, pointer, index):
        return builder.load(place(context, builder, signature, pointer, index))

    @device_function(lambda pointer, index, value: types.void)
    def store(context, builder, signature, pointer, index, value):
        value = context.cast(builder, value, signature.args[2], signature.args[0].dtype)
        builder.store(value, place(context, builder, signature, pointer, index))

    def add_group(count: int) -> None:
        """load2, store4 and so on: `count` neighbours at once."""

        def load_group(context, builder, signature, pointer, index):
            values = builder.load(group(context, builder, signature, pointer, index, count), align=4 * count)
            return parts_of(context, builder, signature, values, count)

        def store_group(context, builder, signature, pointer, index, values):
            vector = ir.Constant(ir.VectorType(ir.FloatType(), count), ir.Undefined)
            for i in range(count):
                vector = builder.insert_element(vector, builder.extract_value(values, i), number(i))
            builder.store(vector, group(context, builder, signature, pointer, index, count), align=4 * count)

        load_group.__name__, store_group.__name__ = f"load{count}", f"store{count}"
        device_function(lambda pointer, index: types.UniTuple(types.float32, count))(load_group)
        device_function(lambda pointer, index, values: types.void)(store_group)

    for count in (2, 4):
        add_group(count)

    @device_function(lambda value: value)
    def opaque(context, builder, signature, value):
        """The value, as if it came from elsewhere: a loop that it counts is left as it is, not unrolled."""
        kind = ir.FunctionType(number, [number])
        return builder.asm(kind, "mov.b32 $0, $1;", "=r,r", [value], side_effect=False)

    @device_function(lambda array: types.CPointer(array.dtype))
    def pointer_to(context, builder, signature, array):
        return context.make_array(signature.args[0])(context, builder, array).data

    formats = {types.float32: (ir.FloatType(), 32, "f"), types.int16: (ir.IntType(16), 16, "h")}

    def add_sample(edge: str) -> None:
        """Sample `at` of a clip of `time` samples, padded to `length` with `pad` zeros first, then as `edge` says."""

        def outside(builder, at, length) -> tuple:
            """Where a sample below 0 and one from `length` on are found."""
            if edge == "reflect":
                twice = builder.sub(builder.add(length, length), number(2))
                return builder.neg(at), builder.sub(twice, at)
            if edge == "replicate":
                return number(0), builder.sub(length, number(1))
            return (builder.add(at, length), builder.sub(at, length)) if edge == "circular" else (at, at)

        def sample(context, builder, signature, wave, at, length, pad, time):
            below, above = builder.icmp_signed("<", at, number(0)), builder.icmp_signed(">=", at, length)
            before, after = outside(builder, at, length)
            position = builder.sub(builder.select(below, before, builder.select(above, after, at)), pad)
            # Read only if it is there: a choice afterwards would keep its condition in a register for each sample.
            # A negative position is a large one.
            address = builder.ptrtoint(place(context, builder, signature, wave, position), ir.IntType(64))
            kind, bits, constraint = formats[signature.args[0].dtype]
            assembly = (
                "{ .reg .pred there; setp.lt.u32 there, $2, $3; "
                f"mov.b{bits} $0, 0; @there ld.global.nc.b{bits} $0, [$1]; }}"
            )
            form = ir.FunctionType(kind, [address.type, number, number])
            value = builder.asm(form, assembly, f"=&{constraint},l,r,r", [address, position, time], side_effect=False)
            return context.cast(builder, value, signature.args[0].dtype, types.float32)

        sample.__name__ = f"sample_{edge}"
        device_function(lambda wave, *_: types.float32)(sample)

    for edge in PAD_MODES:
        add_sample(edge)
    return names
