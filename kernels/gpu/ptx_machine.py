"""Runs a kernel's PTX on the CPU and finds what a GPU would not tell: `execute`.

All threads of several blocks take an instruction together, a numpy operation over their registers; where they part, the
groups take turns until they meet again. Faults raise at once: an access out of bounds or misaligned, a read of memory
that nothing wrote, a race (two threads touch a word, one of them writes, and no barrier lies between), a barrier that
not all threads of a block reach. Approximate functions (lg2, ex2, rcp, sqrt) are computed to float32's last bit, and
fma is rounded once to float64 and then to float32.

A warp's access to shared memory is served in groups of 32, 16 or 8 lanes, of 4, 8 or 16 bytes each. A group takes as
many passes as the busiest of the 32 banks has different words; one is ideal. Of global memory a warp's access counts
the 128-byte lines and 32-byte sectors that it touches.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

WARP = 32
_BANKS, LINE, _SECTOR = 32, 128, 32  # banks of 4 bytes; bytes
_THREADS_AT_ONCE = 4096
_MOST_JUMPS = 20_000  # from a barrier to the next: a program that takes more does not end
_NOBODY, _SEVERAL = -1, -2  # who touched a word since the last barrier; else the thread's number
_TYPES = {f"{kind}{8 * n}": np.dtype(f"{code}{n}") for kind, code in ("uu", "bu", "si") for n in (2, 4, 8)}
_TYPES |= {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64), "pred": np.dtype(bool)}
_WIDER = {_TYPES[f"{kind}{bits}"]: _TYPES[f"{kind}{2 * bits}"] for kind in "us" for bits in (16, 32)}
_NO_CHANGE = {"rn", "lo", "approx", "ftz", "uni", "sync", "to", "global", "shared", "param", "nc", "v2", "v4"}
_PLAIN: dict[str, Callable] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.fmin, "max": np.fmax, "neg": np.negative,
    "abs": np.abs, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "sqrt": np.sqrt, "rcp": np.reciprocal, "ex2": np.exp2, "lg2": np.log2, "mov": lambda x: x, "cvta": lambda x: x,
    "rem": np.remainder, "fma": lambda x, y, z: x.astype(np.float64) * y + z, "bfi": lambda *given: _insert(*given),
    "selp": lambda x, y, chosen: np.where(chosen, x, y),
    "div": lambda x, y: np.divide(x, y) if x.dtype.kind == "f" else np.floor_divide(x, y),
}  # fmt: skip
_COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater}
_COMPARE |= {"ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}
_ROUND = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}
_CONTROL = {"bra", "ret", "exit", "bar"}

Active = Any  # the threads that take an instruction: a slice, or ascending indices


class PtxFault(Exception):
    """What would be wrong or undefined on a GPU; names the instruction, its line, the thread and the block."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction. line: in the PTX text, from 1. guard: a predicate register, with ! before it, or ""."""

    line: int
    text: str
    opcode: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str


@dataclasses.dataclass(frozen=True)
class Program:
    """labels: index of the instruction behind each. registers: name without number -> type, how many (0: one)."""

    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    registers: dict[str, tuple[str, int]]
    parameters: tuple[tuple[str, str], ...]


@dataclasses.dataclass
class Access:
    """Counts of one instruction that touches memory, over all warps that took it: `requests`.

    passes: of shared memory, or 128-byte lines of global. ideal: passes without a conflict, 0 for global memory.
    sectors: of 32 bytes, 0 for shared. bytes: asked for by threads.
    """

    requests: int = 0
    passes: int = 0
    ideal: int = 0
    sectors: int = 0
    bytes: int = 0


@dataclasses.dataclass
class Trace:
    """What an execution did, by index of the instruction. warps: warps that took it, int64."""

    program: Program
    warps: np.ndarray
    accesses: dict[int, Access]


class Memory:
    """Bytes that a program sees from an address on, with what was written and by whom.

    array: of any dtype, contiguous; one that is written has 4-byte elements, and changes in place.
    written: whether its words hold values from the beginning; reading one that does not is a fault.
    """

    def __init__(self, array: np.ndarray, base: int, *, read_only: bool = True, written: bool = True) -> None:
        octets = array.reshape(-1).view(np.uint8)
        self.base, self.size, self.read_only = base, octets.size, read_only
        padded = np.pad(octets, (0, -octets.size % 8)) if read_only else octets
        self.views = {size: padded.view(f"u{size}") for size in (2, 4)}
        self.holds = np.full(-(-self.size // 4), written)
        self.writer, self.reader = (np.full(0 if read_only else len(self.holds), _NOBODY) for _ in range(2))

    def barrier(self) -> None:
        """What happened before is ordered before what follows."""
        self.writer[:] = self.reader[:] = _NOBODY

    def read(self, words: np.ndarray, threads: np.ndarray) -> tuple[str, np.ndarray] | None:
        """Note that these threads read these words (same shapes); what is wrong, and where, or None."""
        if not (holds := self.holds[words]).all():
            return "reads memory that nothing wrote", ~holds
        if self.read_only:
            return None
        writer = self.writer[words]
        if (race := (writer != threads) & (writer != _NOBODY)).any():
            return "race: reads what another thread wrote, without a barrier between", race
        reader = self.reader[words]
        self.reader[words] = np.where((reader == _NOBODY) | (reader == threads), threads, _SEVERAL)
        self.reader[words[self.reader[words] != threads]] = _SEVERAL  # several of this very access
        return None

    def write(self, words: np.ndarray, threads: np.ndarray) -> tuple[str, np.ndarray] | None:
        """As `read`."""
        for others, did in ((self.writer[words], "wrote"), (self.reader[words], "reads")):
            if (race := (others != threads) & (others != _NOBODY)).any():
                return f"race: writes what another thread {did}, without a barrier between", race
        self.writer[words], self.holds[words] = threads, True
        if (race := self.writer[words] != threads).any():
            return "race: another thread writes the same word at once", race
        return None


def parse(text: str) -> Program:
    """The one kernel of a PTX module."""
    before, rest = text.split(".entry", 1)
    head, body = rest.split("{", 1)
    first = (before + ".entry" + head).count("\n") + 1
    instructions: list[Instruction] = []
    labels, registers = {}, {}
    for line, raw in enumerate(body[: body.rindex("}")].split("\n"), first):
        parts = re.split(r";|(?<=:)\s|(?<=;)\s*\}|^\s*\{(?= \.)", raw.split("//")[0])  # braces: of inline assembly
        for statement in filter(None, map(str.strip, parts)):
            if match := re.fullmatch(r"(\$\w+):", statement):
                labels[match[1]] = len(instructions)
            elif match := re.fullmatch(r"\.reg \.(\w+)\s+(%?\w+)(?:<(\d+)>)?", statement):
                registers[match[2]] = (match[1], int(match[3] or 0))
            elif match := re.fullmatch(r"(?:@(!?%?\w+)\s+)?([a-z]\w*(?:\.\w+)*)\s*(.*)", statement):
                operands = tuple(part.strip() for part in re.split(r",(?![^{]*\})", match[3]) if part)
                opcode = tuple(match[2].split("."))
                instructions.append(Instruction(line, statement, opcode, operands, match[1] or ""))
            elif not statement.startswith(".pragma"):
                raise NotImplementedError(f"line {line}: {statement}")
    parameters = re.findall(r"\.param \.(\w+) (\w+)", head)
    return Program(tuple(instructions), labels, registers, tuple(parameters))


def execute(
    text: str,
    memories: Sequence[Memory],
    arguments: Sequence[float],
    *,
    n_blocks: int,
    threads: int,
    shared_bytes: int,
    blocks: Iterable[int] | None = None,
    order: str = "together",
    trace: bool = False,
) -> Trace:
    """Run blocks of threads of a kernel to their end; what it writes is in `memories`.

    Args:
        arguments: of the kernel in order; a pointer is the base of one of `memories`.
        n_blocks, threads, shared_bytes: the launch; threads in whole warps.
        blocks: numbers of those that run, default all.
        order: "together", all threads at once and who is behind first; or "apart", from each barrier to the next warp
            after warp from the last, and who is ahead first.
        trace: count accesses too; otherwise `Trace.accesses` is empty.

    Raises:
        PtxFault: the program did what is wrong or undefined. NotImplementedError: it holds an unknown instruction.
        ValueError: `order` or `threads` breaks its rule.
    """
    if order not in ("together", "apart") or threads % WARP:
        raise ValueError(f"order={order!r} must be 'together' or 'apart', threads={threads} a multiple of {WARP}")
    program = parse(text)
    result = Trace(program, np.zeros(len(program.instructions), np.int64), {})
    numbers = np.arange(n_blocks) if blocks is None else np.array(list(blocks))
    values = {name: _TYPES[kind].type(v) for (kind, name), v in zip(program.parameters, arguments, strict=True)}
    at_once = max(1, _THREADS_AT_ONCE // threads)
    with np.errstate(all="ignore"):
        for begin in range(0, len(numbers), at_once):
            batch = _Batch(result, memories, values, numbers[begin : begin + at_once], n_blocks, threads, shared_bytes)
            batch.run(order, trace)
    return result


class _Batch:
    """Some blocks on their way. Thread index: (warp, block, lane), so that one warp of all blocks is a slice."""

    def __init__(self, trace, memories, values, blocks, n_blocks, threads, shared_bytes) -> None:
        self.trace, self.program, self.memories = trace, trace.program, sorted(memories, key=lambda m: m.base)
        self.values, self.shared_bytes = values, shared_bytes
        shape = (threads // WARP, len(blocks), WARP)
        self.n, self.a_warp = threads * len(blocks), WARP * len(blocks)
        full = lambda array: np.ascontiguousarray(np.broadcast_to(array, shape)).reshape(-1)  # noqa: E731
        tid = full(np.arange(threads).reshape(shape[0], 1, WARP))
        self.block = full(blocks.reshape(1, -1, 1))
        self.thread = self.block * threads + tid  # of the whole grid
        words = -(-shared_bytes // 4)
        self.shared_start = full(4 * words * np.arange(len(blocks)).reshape(1, -1, 1))
        self.shared = Memory(np.full(words * len(blocks), np.nan, np.float32), 0, read_only=False, written=False)
        special = {"%tid.x": tid, "%ctaid.x": self.block, "%ntid.x": threads, "%nctaid.x": n_blocks}
        special |= {"%dynamic_smem_size": shared_bytes}
        self.registers = {name: np.broadcast_to(v, self.n).astype(np.uint32) for name, v in special.items()}
        for name, (kind, count) in self.program.registers.items():
            rows = np.full((count or 1, self.n), ~_TYPES[kind.replace("f", "u")].type(0))
            self.registers |= {f"{name}{i if count else ''}": row for i, row in enumerate(rows)}

    def run(self, order: str, trace: bool) -> None:
        kinds = enumerate(self.program.instructions)
        steps = [None if i.opcode[0] in _CONTROL else self._step(pc, i, trace) for pc, i in kinds]
        size, choose = (self.n, min) if order == "together" else (self.a_warp, max)
        parts = [{0: [slice(begin, begin + size)]} for begin in reversed(range(0, self.n, size))]
        while any(parts):
            arrived = [self._to_barrier(ready, steps, choose) for ready in parts]
            self._check_barrier(arrived)
            self.shared.barrier()
            parts = [{pc + 1: groups for pc, groups in places.items()} for places in arrived]

    def _to_barrier(self, ready, steps, choose) -> dict[int, list[Active]]:
        """Run threads (place in the program -> groups) until each has ended or waits: those at each barrier."""
        arrived: dict[int, list[Active]] = {}
        jumps = 0
        while ready:
            pc = choose(ready)
            active = _joined(ready.pop(pc))
            count = _n_warps(active)
            while pc not in ready:
                self.trace.warps[pc] += count
                if (step := steps[pc]) is None:
                    break
                step(active)
                pc += 1
            else:
                ready[pc].append(active)
                continue
            if (jumps := jumps + 1) > _MOST_JUMPS:
                raise PtxFault(f"the program does not end: {self._name(pc)}")
            instruction = self.program.instructions[pc]
            goes, stays = self._split(instruction.guard, active)
            if goes is not None and instruction.opcode[0] == "bra":
                ready.setdefault(self.program.labels[instruction.operands[0]], []).append(goes)
            elif goes is not None and instruction.opcode[0] == "bar":
                arrived.setdefault(pc, []).append(goes)
            if stays is not None:
                ready.setdefault(pc + 1, []).append(stays)
        return arrived

    def _split(self, guard: str, active: Active) -> tuple[Active | None, Active | None]:
        """Those of `active` whose guard holds, and the others; None for nobody."""
        if not guard:
            return active, None
        holds = self.registers[guard.lstrip("!")][active] ^ guard.startswith("!")
        if holds.all() or not holds.any():
            return (active, None) if holds[0] else (None, active)
        indices = _indices(active)
        return _compact(indices[holds]), _compact(indices[~holds])

    def _check_barrier(self, arrived: list[dict[int, list[Active]]]) -> None:
        """All threads of a block have to wait at one barrier, or all have ended."""
        for pc in set().union(*arrived):
            waiting = np.concatenate([self.block[active] for places in arrived for active in places.get(pc, [])])
            blocks, counts = np.unique(waiting, return_counts=True)
            if (missing := counts != self.n // self.a_warp * WARP).any():
                raise PtxFault(f"{self._name(pc)}: not all threads of block {blocks[missing][0]} reach this barrier")

    def _name(self, pc: int) -> str:
        return f"line {self.program.instructions[pc].line}: {self.program.instructions[pc].text}"

    # ---- one instruction as a function of the active threads

    def _step(self, pc: int, instruction: Instruction, trace: bool) -> Callable[[Active], None]:
        is_access = instruction.opcode[0] in ("ld", "st") and instruction.opcode[1] != "param"
        step = self._memory(pc, instruction, trace) if is_access else self._arithmetic(instruction)

        def guarded(active: Active) -> None:
            if (goes := self._split(instruction.guard, active)[0]) is not None:
                step(goes)

        return guarded if instruction.guard else step

    def _source(self, text: str, dtype: np.dtype) -> Callable[[Active], Any]:
        """An operand's values, as a function of the active threads."""
        if text in self.registers:
            row = self._row(text, dtype)
            return lambda active: row[active]
        if text[:2] in ("0f", "0d"):
            value = np.array(int(text[2:], 16), f"u{len(text) // 2 - 1}").view(f"f{len(text) // 2 - 1}").astype(dtype)
        elif re.fullmatch(r"-?\d+|-?0x[0-9a-fA-F]+", text):
            value = np.array(int(text, 0) % 2 ** (8 * dtype.itemsize), f"u{dtype.itemsize}").view(dtype)
        elif re.fullmatch(r"[A-Za-z_]\w*", text):  # the name of shared memory
            value = np.zeros((), dtype)
        else:
            raise NotImplementedError(text)
        return lambda active: value

    def _row(self, text: str, dtype: np.dtype) -> np.ndarray:
        row = self.registers[text]
        if row.dtype.itemsize != dtype.itemsize:
            raise NotImplementedError(f"{text} as {dtype}")
        return row.view(dtype)

    def _arithmetic(self, instruction: Instruction) -> Callable[[Active], None]:
        (kind, *modifiers), (to, *inputs) = instruction.opcode, instruction.operands
        dtype = result = _TYPES[modifiers[-1]]
        special = set(modifiers[:-1]) - _NO_CHANGE
        types = [dtype] * len(inputs)
        function = _PLAIN.get(kind)
        if kind == "ld":
            value, inputs, types = self.values[inputs[0].strip("[]")], [], []
            function = lambda: value  # noqa: E731
        elif kind in ("mul", "mad"):
            product: Callable = np.multiply
            if special & {"wide", "hi"}:
                wide, bits = _WIDER[dtype], 8 * dtype.itemsize
                result = wide if "wide" in special else dtype
                shift, special = wide.type(0 if "wide" in special else bits), special - {"wide", "hi"}
                product = lambda x, y: (x.astype(wide) * y.astype(wide) >> shift).astype(result)  # noqa: E731
                types[2:] = [result] * len(types[2:])
            function = product if kind == "mul" else lambda x, y, z: product(x, y) + z
        elif kind in ("shl", "shr"):
            types[1], function = _TYPES["u32"], _shift(kind, dtype)
        elif kind == "setp":
            special, result = special - {modifiers[0]}, _TYPES["pred"]
            function = _comparison(modifiers[0], dtype)
        elif kind == "cvt":
            result, special = _TYPES[modifiers[-2]], special - {modifiers[-2], *_ROUND}
            function = _conversion([_ROUND[name] for name in modifiers if name in _ROUND], dtype, result)
        elif kind == "selp":
            types[2] = _TYPES["pred"]
        if function is None or special or kind in ("div", "rem") and dtype.kind == "i":
            raise NotImplementedError(f"{instruction.text}: {', '.join(special)}")
        sources = [self._source(text, kind_of) for text, kind_of in zip(inputs, types, strict=True)]
        row = self._row(to, result)

        def step(active: Active) -> None:
            row[active] = function(*[source(active) for source in sources])

        return step

    def _memory(self, pc: int, instruction: Instruction, trace: bool) -> Callable[[Active], None]:
        kind, space, *modifiers, type_name = instruction.opcode
        place, values = instruction.operands[:: 1 if kind == "st" else -1]
        dtype, names = _TYPES[type_name], re.findall(r"[^{},\s]+", values)
        size = dtype.itemsize * len(names)
        base, offset = re.fullmatch(r"\[(%?\w+)(?:\+(-?\d+))?\]", place).groups()  # type: ignore[union-attr]
        address = self._source(base, _TYPES["u32" if base.startswith("%r") and base[2].isdigit() else "u64"])
        if space not in ("shared", "global") or dtype.itemsize == 8 or set(modifiers) - _NO_CHANGE:
            raise NotImplementedError(instruction.text)
        access = self.trace.accesses.setdefault(pc, Access()) if trace else None
        if kind == "ld":
            rows = [self._row(name, dtype).view(f"u{dtype.itemsize}") for name in names]
        else:
            sources = [self._source(name, dtype) for name in names]

        def step(active: Active) -> None:
            threads = self.thread[active]
            at = np.broadcast_to(address(active), threads.shape).astype(np.int64) + int(offset or 0)
            memory = self.shared if space == "shared" else self._memory_at(pc, int(at[0]), active)
            inside = at - memory.base
            limit = self.shared_bytes if space == "shared" else memory.size
            self._refuse(pc, active, (inside < 0) | (inside > limit - size), "out of bounds", at)
            self._refuse(pc, active, at % size != 0, f"not aligned to {size} bytes", at)
            if kind == "st" and memory.read_only:
                self._refuse(pc, active, at >= 0, "writes memory that is only read", at)
            if "nc" in modifiers and not memory.read_only:
                self._refuse(pc, active, at >= 0, "reads memory that is written as if it were not", at)
            if access is not None:
                _count(access, _indices(active), inside, size, space == "shared")
            if space == "shared":
                inside = inside + self.shared_start[active]
            first = inside // dtype.itemsize
            words = first[:, None] + np.arange(len(names)) if dtype.itemsize == 4 else inside[:, None] // 4
            check = memory.read if kind == "ld" else memory.write
            if (fault := check(words, np.broadcast_to(threads[:, None], words.shape))) is not None:
                self._refuse(pc, active, np.logical_or.reduce(fault[1], axis=1), fault[0], at)
            view = memory.views[dtype.itemsize]
            if kind == "ld":
                for i, row in enumerate(rows):
                    row[active] = view[first + i]
            else:
                for i, source in enumerate(sources):
                    view[first + i] = source(active).view(view.dtype)

        return step

    def _memory_at(self, pc: int, address: int, active: Active) -> Memory:
        below = [memory for memory in self.memories if memory.base <= address]
        self._refuse(pc, active, np.array([not below]), "out of bounds", np.array([address]))
        return below[-1]

    def _refuse(self, pc: int, active: Active, bad: np.ndarray, what: str, address: np.ndarray) -> None:
        if bad.any():
            i = int(np.argmax(bad))
            thread, block = (array[active][i] for array in (self.thread, self.block))
            who = f"thread {thread - block * (self.n // self.a_warp * WARP)} of block {block}"
            raise PtxFault(f"{self._name(pc)}: {what}, {who} at {address[i]}")


def _shift(kind: str, dtype: np.dtype) -> Callable:
    """Shifts by the width or more leave the sign, or zero."""
    bits, shift = 8 * dtype.itemsize, np.left_shift if kind == "shl" else np.right_shift

    def function(x, count):
        least = shift(x, np.minimum(count, bits - 1).astype(dtype))
        return np.where(count < bits, least, shift(least, dtype.type(1)))

    return function


def _insert(x, into, position, count):
    """The lowest `count` bits of x, fewer than all, in place of those of `into` from `position` on."""
    mask = (count.dtype.type(1) << count) - count.dtype.type(1) << position
    return into & ~mask | x << position & mask


def _comparison(relation: str, dtype: np.dtype) -> Callable:
    if relation in ("nan", "num"):
        return lambda x, y: (np.isnan(x) | np.isnan(y)) == (relation == "nan")
    function = _COMPARE[relation[:2]]
    if relation[2:]:  # true too where one is no number
        return lambda x, y: function(x, y) | np.isnan(x) | np.isnan(y)
    return lambda x, y: function(x, y) & ~np.isnan(x) & ~np.isnan(y) if dtype.kind == "f" else function(x, y)


def _conversion(rounding: list[Callable], dtype: np.dtype, result: np.dtype) -> Callable:
    if dtype.kind == "f" and result.kind in "iu":
        limits = np.iinfo(result)
        return lambda x: np.clip(np.nan_to_num(rounding[0](x.astype(np.float64))), limits.min, limits.max)
    return rounding[0] if rounding else lambda x: x.astype(result)


def _indices(active: Active) -> np.ndarray:
    return np.arange(active.start, active.stop) if isinstance(active, slice) else active


def _compact(indices: np.ndarray) -> Active:
    """Ascending indices as a slice where they are neighbours."""
    whole = indices[-1] - indices[0] + 1 == len(indices)
    return slice(int(indices[0]), int(indices[-1]) + 1) if whole else indices


def _joined(groups: list[Active]) -> Active:
    return groups[0] if len(groups) == 1 else _compact(np.sort(np.concatenate([*map(_indices, groups)])))


def _n_warps(active: Active) -> int:
    return 1 + int(np.count_nonzero(np.diff(_indices(active) // WARP)))


def _count(access: Access, threads: np.ndarray, address: np.ndarray, size: int, shared: bool) -> None:
    """Add what these threads' accesses of `size` bytes each take."""
    access.requests += _n_warps(threads)
    access.bytes += size * len(threads)
    every = address[:, None] + np.arange(0, size, min(size, 4))
    # Lanes that are served together, and what they touch, as one number each.
    group = (threads // (LINE // max(size, 4) if shared else WARP))[:, None] << 40
    if not shared:
        access.sectors += len(np.unique(group + every // _SECTOR))
        access.passes += len(np.unique(group + every // LINE))
        return
    words = np.unique(group + every // 4)
    groups, index = np.unique(words >> 40, return_inverse=True)
    banks = np.bincount(index * _BANKS + words % _BANKS, minlength=len(groups) * _BANKS)
    access.passes += int(banks.reshape(-1, _BANKS).max(axis=1).sum())
    access.ideal += len(groups)
