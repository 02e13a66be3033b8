"""The program text of the mel kernel for one plan: one launch from samples to (log) mel.

A block takes `frames` consecutive frames of one clip, through phases with a barrier between them:
    real      thread (frames, b): r samples m apart x window -> real r-point transform -> x w_N^(b c) -> shared memory
    middle    for each radix but the last, thread (frames, c, e, b): complex transform x twiddle, in place
    last      thread (e, c, frames): complex transform, |X|^2 in registers; where residues 0 and r / 2 are packed, the
              thread of c = 0 first takes their bins apart (`_halves`)
    powers    each to the row of its bin, over the same memory; the first weights are asked for
    filters   thread (segment, frames): a segment's powers x weights, for the filter that rises there and the one that
              falls, `step` rows at once, with the weights of the next ones on their way; the sums to shared memory
    output    thread (mel, frame): both sums of a filter, log, stored; neighbouring threads hold neighbouring frames
A thread takes some frames at once, which share window, twiddles, weights and, where the hop is so many columns of m
samples, samples. Where a phase has more items than the block has threads, they take turns (`_each`). Frames that lie
inside their clip read samples at constant offsets; the others find the place of each sample by the pad mode
(`sample_reflect` and so on). Frames of the last block beyond the clip's end are computed from whatever samples lie
there, or zeros, so that no phase reads what nothing wrote; they are not stored.

The text is made for one plan: every size is a constant, every transform is straight-line code, and each memory access
is a pointer moved once plus a constant (gpu/memory.py). In the text u, i32 and f32 are the 32-bit types: numba computes
integers in 64 bits unless each result is cut back.

Transforms: `_dft` and `_real_dft` build a graph of + - x, which `Graph.lines` writes. Sizes are products of 2, 3 and 5.
Even sizes split into their even and odd samples, and a butterfly u +- w v with w = (c, s) is six fused operations, a
quarter fewer than a product and two sums (E. Linzer, E. Feig, 1993):
    t = v (1 + i s / c),  u +- c t     or, where |c| < |s|,     t = v (c / s + i),  u +- s t
The ratio is at most 1, so no rounding error is magnified. Real input keeps half the spectrum at every level: nothing
is computed twice.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import textwrap

import numpy as np

from triadbench.kernels.gpu.memory import PARAMETERS
from triadbench.kernels.gpu.plan import Plan, table_offsets

_HEAD = """
def kernel({parameters}):
    shared = pointer_to(cuda.shared.array(0, f32))
    thread = u(cuda.threadIdx.x)
    block = u(cuda.blockIdx.x)
    clip = u(block // n_tiles)
    first = u(u(block - u(clip * n_tiles)) * {plan.frames})
    wave = advance(wave, i64(clip) * i64(time))
    out = advance(out, i64(clip) * i64(u({plan.n_mels} * n_frames)))
    length = i32(i32(time) + i32(2 * pad))
"""

_REAL = """
tile = u(item // {plan.m})
b = u(item - u(tile * {plan.m}))
window = advance(tables, u(4 * b))
{windows}
start = i32(i32(i32(u(first + u(tile * {together}))) * hop) - lead)
if start >= pad and i32(i32(start - pad) + i32(i32({more} * hop) + {plan.n_fft})) <= i32(time):
    samples = advance(wave, i32(i32(start - pad) + i32(b)))
{inside}
else:
    start = i32(start + i32(b))
{outside}
{transform}
here = advance(shared, u(2 * u(u(tile * {tile}) + {place})))
turn = advance(tables, u({turns} + 4 * b))
{stores}
"""

_MIDDLE = """
group = u(item // {size})
b = u(item - u(group * {size}))
residue = u(group // {parts})
tile = u(residue // {plan.n_residues})
place = u(u(u(group - u(residue * {parts})) * {stride}) + {place})
residue = u(u(residue - u(tile * {plan.n_residues})) * {plan.residue})
here = advance(shared, u(2 * u(u(u(tile * {tile}) + residue) + place)))
turn = advance(tables, u({turns} + 4 * b))
{transform}
"""

_LAST = """
item = u(thread if thread < {items} else {items} - 1)
rest = u(item // {tiles})
tile = u(item - u(rest * {tiles}))
e = u(rest // {plan.n_residues})
residue = u(rest - u(e * {plan.n_residues}))
here = advance(shared, u(2 * u(u(u(tile * {tile}) + u(residue * {plan.residue})) + u(e * {run}))))
{transform}
cuda.syncthreads()
if thread < {items}:
    digits = {digits}
    bin = u(residue + u({plan.real_radix} * digits))
    whole = residue != 0 and 2 * residue != {plan.real_radix}
    shift = u({together} * tile)
    low = advance(shared, u(u({plan.frames} * {low}) + shift))
    high = advance(shared, i32(i32(shift) - i32(u({plan.frames} * {high}))))
{stores}
{zeros}
"""

_ZERO = """
run = u(item // {plan.frames})
store(shared, u(u(u(run * {step}) + {first}) + u(item - u(run * {plan.frames}))), zero)
"""

_PREPARE = """
chosen = u(item if item < {items} else {items} - 1)
segment = u(chosen // {quads})
shift = u({plan.quad} * u(chosen - u(segment * {quads})))
segment = u({plan.n_mels} - segment)
band = advance(bands, u(2 * segment))
steps = read(band, 1)
powers = advance(shared, u(u({plan.frames} * u(read(band, 0))) + shift))
weights = advance(tables, u({weights} + u(4 * segment)))
{read}
"""

_FILTERS = """
{begin}
while steps > 0:
    if steps > 1:
        weights = advance(weights, {next_weights})
{read_next}
    else:
{no_next}
{add}
{shift_weights}
    powers = advance(powers, {step})
    steps = opaque(i32(steps - 1))
sums = advance(shared, u(u({plan.sums} + u({plan.frames} * segment)) + shift))
{sums}
"""

_OUTPUT = """
mel = u(item // {plan.frames})
t = u(first + u(item - u(mel * {plan.frames})))
if t < n_frames:
    sums = advance(shared, u({plan.sums} + item))
    total = load(sums, 0) + load(sums, {fall})
    store(out, u(u(mel * n_frames) + t), {result})
"""


def program(plan: Plan) -> tuple[str, dict[str, np.float32]]:
    """The text of `kernel`, and the float32 constants that it names."""
    constants = {"zero": np.float32(0.0), "quarter": np.float32(0.25)}
    middle = [_middle(plan, position, constants) for position in range(len(plan.radices) - 1)]
    prepare, *sums = _filters(plan)
    phases = [_real(plan, constants), *middle, _last(plan, constants) + prepare, *sums]
    # Each with names of its own: numba is slow where a name is assigned twice.
    phases = [re.sub(r"\b(re|im|[cpsvwxyz])(\d\w*)\b", rf"\g<1>{n}_\2", phase) for n, phase in enumerate(phases)]
    text = "cuda.syncthreads()\n".join(phases)
    return _HEAD.format(parameters=", ".join(PARAMETERS), plan=plan) + textwrap.indent(text, "    "), constants


def _each(items: int, plan: Plan, body: str, before_next: str = "") -> str:
    """The body for each item: once where the threads suffice, else in turns."""
    if items == plan.threads:
        return f"item = thread{body}"
    if items < plan.threads:
        return f"item = thread\nif item < {items}:{textwrap.indent(body, '    ')}"
    body += f"item = u(item + {plan.threads}){before_next}\n"
    return f"item = thread\nwhile item < {items}:{textwrap.indent(body, '    ')}"


def _real(plan: Plan, constants: dict) -> str:
    radix, m, together = plan.real_radix, plan.m, plan.together(plan.real_radix)
    stores, transform = [], []
    if plan.packed:  # outputs 0 and r / 2 of column b: samples b and m + b of the 2 m that `_halves` speaks of
        stores.append(f"both = advance(shared, u(u({2 * together * plan.frame} * tile) + b))")
        for f in range(together):
            at, even, odd = 2 * f * plan.frame, f"re{f}_0", f"re{f}_{radix // 2} * quarter"
            stores += [f"{even} = {even} * quarter", f"store(both, {at}, {even} + {odd})"]
            stores += [f"store(both, {at + m}, {even} - {odd})"]
    for c in range(int(plan.packed), plan.n_residues):
        stores += _turned(c, m, together, plan.frame, c * plan.residue, real=c == 0 or 2 * c == radix)
    named = {  # sample -> where it is, in columns of m samples from the first frame's, and in frames
        f"z{f}_{a}" if not plan.shift else f"z{a + f * plan.shift}": (a + f * plan.shift, 0 if plan.shift else f)
        for f in range(together)
        for a in range(radix)
    }
    windows = [f"w{a}, w{a + 1}, w{a + 2}, w{a + 3} = read4(window, {a * m})" for a in range(0, radix, 4)]
    sample, apart = f"sample_{plan.edge}(wave, i32(start + {{}}), length, pad, i32(time))", "i32(i32({} * hop) + {})"
    inside = [] if plan.shift else [f"samples{f} = advance(samples, i32({f} * hop))" for f in range(together)]
    inside += [f"{z} = read(samples{'' if plan.shift else f}, {a * m})" for z, (a, f) in named.items()]
    outside = [f"{z} = {sample.format(apart.format(f, a * m) if f else a * m)}" for z, (a, f) in named.items()]
    name = (lambda f, a: f"z{a + f * plan.shift}") if plan.shift else (lambda f, a: f"z{f}_{a}")
    order = sorted(itertools.product(range(together), range(radix)), key=lambda fa: (fa[1] + fa[0] * plan.shift, fa))
    transform += [f"x{f}_{a} = {name(f, a)} * w{a}" for f, a in order]
    for f in range(together):
        graph = Graph(constants, f)
        transform += graph.lines(_named(_real_dft([Node(graph, f"x{f}_{a}") for a in range(radix)]), f))
    blocks = {"windows": _block(windows, 0), "inside": _block(inside, 1), "outside": _block(outside, 1)}
    blocks |= {"transform": _block(transform, 0), "stores": _block(stores, 0)}
    sizes = {"together": together, "more": together - 1, "tile": together * plan.frame, "turns": table_offsets(plan)[0]}
    return _each(plan.frames // together * m, plan, _REAL.format(plan=plan, place=_place(plan), **sizes, **blocks))


def _turned(k: int, size: int, together: int, frame: int, to: int, real: bool = False) -> list[str]:
    """Output k of each frame times its twiddle, stored at place `to`; twiddles k and k + 1 are read together."""
    lines = [f"c{k}, s{k}, c{k + 1}, s{k + 1} = read4(turn, {2 * (k - 1) * size})"] if k % 2 else []
    for f in range(together):
        re, im = f"re{f}_{k}", f"im{f}_{k}"
        value = f"{re} * c{k} - {im} * s{k}, {re} * s{k} + {im} * c{k}"
        if k == 0:
            value = f"{re}, {'zero' if real else im}"
        elif real:
            value = f"{re} * c{k}, {re} * s{k}"
        lines.append(f"store2(here, {2 * (f * frame + to)}, ({value}))")
    return lines


def _middle(plan: Plan, position: int, constants: dict) -> str:
    radix = plan.radices[position]
    together, size = plan.together(2 * radix), plan.m // int(np.prod(plan.radices[: position + 1]))
    step, transform = plan.place(size), []
    for f in range(together):
        transform += _loads(radix, f, f * plan.frame, step) + _complex(radix, range(radix), constants, f)
    for e in range(radix):
        transform += _turned(e, size, together, plan.frame, e * step)
    parts = plan.m // (size * radix)
    sizes = {"size": size, "parts": parts, "stride": plan.place(size * radix), "tile": together * plan.frame}
    sizes |= {"turns": table_offsets(plan)[position + 1], "transform": _block(transform, 0)}
    items = plan.frames // together * plan.n_residues * plan.m // radix
    return _each(items, plan, _MIDDLE.format(plan=plan, place=_place(plan), **sizes))


def _loads(radix: int, f: int, at: int, step: int) -> list[str]:
    return [f"x{f}_{j}, y{f}_{j} = load2(here, {2 * (at + j * step)})" for j in range(radix)]


def _last(plan: Plan, constants: dict) -> str:
    radix, real_radix, groups, together = plan.last, plan.real_radix, plan.groups, plan.together(2 * plan.last)
    step = real_radix * groups  # bins from one output to the next

    def stored(pointer: str, row: int, j: int | str) -> str:
        return _stored(pointer, plan.frames * row, [f"p{f}_{j}" for f in range(together)])

    outputs, stores = [], []
    for j in range(radix):
        lower = stored("low", plan.spread(step * j), j)
        mirrored = stored("high", plan.spread(plan.n_fft - step * j), j)
        least_up = step * j
        least_down = plan.n_fft - least_up - (plan.n_residues - 1 + real_radix * (groups - 1))
        lines = []
        if 2 * j + 1 < radix + plan.packed:  # every thread's bin is at most N / 2
            lines = [lower] if least_up < plan.n_bins else []
        elif plan.packed:  # every thread's is above it
            lines = [mirrored] if least_down < plan.n_bins else []
        elif 2 * j + 1 == radix:  # some threads' are
            if min(least_up, least_down) < plan.n_bins:
                lines = [f"if 2 * bin <= {plan.n_fft - 2 * step * j}:", f"    {lower}"]
                lines += ["elif whole:", f"    {mirrored}"]
        else:
            if least_down < plan.n_bins:
                lines = ["if whole:", f"    {mirrored}"]
            if 2 * step * j == plan.n_fft and plan.n_bins == plan.n_freqs:
                lines += ["if bin == 0:", f"    {lower}"]
        stores += lines
        outputs += [j] if lines else []
    power = {"power": "{}", "magnitude": "sqrt({})", "other": "power_of({}, half_power)"}[plan.power]
    square = "re{0}_{1} * re{0}_{1} + im{0}_{1} * im{0}_{1}"
    transform, powers, split = [], [], []
    for f in range(together):
        transform += _loads(radix, f, f * plan.frame, 1)
        transform += _complex(radix, range(radix) if plan.packed else outputs, constants, f)
        squares = [f"p{f}_{j} = {power.format(square.format(f, j))}" for j in outputs]
        if not plan.packed:
            transform += squares
        else:  # residue 0 stores the bins of c = r / 2 where others store theirs, then bin 0
            graph = Graph(constants, together + f)
            bins = _halves([(Node(graph, f"re{f}_{j}"), Node(graph, f"im{f}_{j}")) for j in range(radix)])
            places = {2 * j + 1 if 2 * j < radix else 2 * (radix - j): j for j in outputs} | {0: "first"}
            split += graph.lines(_named({f"s{k}": bins[k] for k in places}, f))
            split += [f"p{f}_{j} = {power.format(square.format(f, f's{k}'))}" for k, j in places.items()]
            powers += [*squares, f"p{f}_first = zero"]
    low, high = "bin", "bin"
    zeros = [_zeros(plan, plan.spread(plan.n_freqs - 1) + 1, plan.step - 1)]
    if groups > 1:
        low, high = "u(bin + digits)", "u(u(bin + digits) + u(1 if residue > 0 else 0))"
        zeros.append(_zeros(plan, real_radix, plan.n_fft // 2 // real_radix, real_radix + 1))
    if plan.packed:
        low = f"u({real_radix // 2} if residue == 0 else residue)"
        powers = ["if residue == 0:", _block(split, 1), "else:", _block(powers, 1)]
        stores += ["if residue == 0:", "    " + stored("low", -(real_radix // 2), "first")]
    tiles = plan.frames // together
    sizes = {"items": tiles * plan.n_residues * groups, "tiles": tiles, "together": together}
    sizes |= {"tile": together * plan.frame, "run": plan.place(radix)}
    blocks = {
        "transform": _block(transform + powers, 0),
        "stores": _block(stores or ["pass"], 1),
        "low": low,
        "high": high,
    }
    return _LAST.format(plan=plan, digits=_digits(plan), zeros="".join(zeros), **sizes, **blocks)


def _stored(pointer: str, at: int, values: list[str]) -> str:
    """A store of one float, or of neighbours."""
    several = f"{len(values)}({pointer}, {at}, ({', '.join(values)}))"
    return f"store{several}" if len(values) > 1 else f"store({pointer}, {at}, {values[0]})"


def _zeros(plan: Plan, row: int, count: int, step: int = 1) -> str:
    """Zeros in so many rows of powers that no bin has, every `step` rows from `row` on."""
    body = _ZERO.format(plan=plan, first=plan.frames * row, step=plan.frames * step)
    return _each(plan.frames * count, plan, body)


def _halves(z: list[Complex]) -> list[Complex]:
    """Bins 0..m of twice the 2 m real samples u whose pairs u[2 n] + i u[2 n + 1] have the transform z.

    From bin m / 2 on their conjugates: the powers are the same.
    """
    m = len(z)
    out: list = [None] * (m + 1)
    for k in range(m // 2 + 1):
        (a, b), (c, d) = z[k], z[-k % m]
        even, odd = (a + c, b - d), _turn((b + d, c - a), *_unit(k, 2 * m))
        out[k] = even[0] + odd[0], even[1] + odd[1]
        out[m - k] = even[0] - odd[0], even[1] - odd[1]
    return out


def _filters(plan: Plan) -> tuple[str, str, str]:
    """What reads the first weights, which need not wait for the powers, and the phases themselves.

    ptxas may move the reading behind the barrier, to the loop's guard: on sm_90 it does.
    """
    frames, lanes, n_segments = plan.frames, range(plan.quad), plan.n_mels + 1
    row_of_powers = ", ".join(f"p{i}" for i in lanes)
    ways = [f"{way}{row}" for row in range(plan.step) for way in ("up", "down")]
    read = [f"{', '.join(ways[i : i + 4])} = read4(weights, {i * n_segments})" for i in range(0, len(ways), 4)]
    begin = [f"{name}{i} = zero" for name in ("rise", "fall") for i in lanes]
    add = []
    for row in range(plan.step):
        add.append(f"{row_of_powers} = load{plan.quad if plan.quad > 1 else ''}(powers, {row * frames})")
        add += [f"{name}{i} += p{i} * {way}{row}" for name, way in (("rise", "up"), ("fall", "down")) for i in lanes]
    falls = frames * n_segments
    sums = [_stored("sums", at, [f"{name}{i}" for i in lanes]) for at, name in ((0, "rise"), (falls, "fall"))]
    items = n_segments * frames // plan.quad
    sizes = {"items": items, "quads": frames // plan.quad, "step": plan.step * frames, "fall": falls + frames}
    sizes |= {"next_weights": 2 * plan.step * n_segments, "weights": table_offsets(plan)[-1]}
    prepare = _PREPARE.format(plan=plan, read="\n".join(read), **sizes)
    blocks = {"begin": _block(begin, 0), "add": _block(add, 1), "sums": _block(sums, 0)}
    blocks |= {"read_next": _block([re.sub(r"\b(up|down)", r"next_\1", line) for line in read], 2)}
    blocks |= {"no_next": _block([f"next_{way} = zero" for way in ways], 2)}
    blocks |= {"shift_weights": _block([f"{way} = next_{way}" for way in ways], 1)}
    filters = _each(items, plan, _FILTERS.format(plan=plan, **sizes, **blocks), before_next=prepare.rstrip("\n"))
    output = _OUTPUT.format(plan=plan, result="log(total + eps)" if plan.log else "total", **sizes)
    return "item = thread" + prepare, filters, _each(plan.n_mels * frames, plan, output)


def _complex(radix: int, outputs, constants: dict, f: int) -> list[str]:
    graph = Graph(constants, f)
    real, imaginary = ([Node(graph, f"{name}{f}_{j}") for j in range(radix)] for name in "xy")
    transform = _dft(list(zip(real, imaginary, strict=True)))
    return graph.lines(_named({k: transform[k] for k in outputs}, f))


def _named(values, f: int) -> dict:
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    return {f"{part}{f}_{k}": value for k, v in pairs for part, value in zip(("re", "im"), v, strict=True)}


def _place(plan: Plan) -> str:
    return f"u(b + u(b // {plan.last}))" if plan.pad and plan.groups > 1 else "b"


def _digits(plan: Plan) -> str:
    """The part of d that a thread's position e stands for: e is written in the digits of the radices, d reversed."""
    text, weight, rest = [], 1, plan.groups
    for radix in plan.radices[:-1]:
        rest //= radix
        text.append(f"u({weight} * u(u(e // {rest}) % {radix}))")
        weight *= radix
    return f"u({' + '.join(text)})" if text else "u(0)"


def _block(lines: list[str], depth: int) -> str:
    return textwrap.indent("\n".join(lines), "    " * depth)


Complex = tuple["Node", "Node"]


class Node:
    """A value of the graph. Numbers are folded; equal operations on equal nodes are not shared (they do not occur)."""

    def __init__(self, graph: Graph, text: str, inputs: tuple[Node, ...] = (), value: float | None = None) -> None:
        self.graph, self.text, self.inputs, self.value = graph, text, inputs, value
        self.order = next(graph.counter)

    def __add__(self, other: Node) -> Node:
        if self.value == 0.0:
            return other
        return self if other.value == 0.0 else Node(self.graph, "{} + {}", (self, other))

    def __sub__(self, other: Node) -> Node:
        if self.value == 0.0:
            return -other
        return self if other.value == 0.0 else Node(self.graph, "{} - {}", (self, other))

    def __neg__(self) -> Node:
        return self if self.value == 0.0 else Node(self.graph, "-{}", (self,))

    def times(self, factor: float) -> Node:
        """This times a number known now, rounded to float32 once."""
        if self.value == 0.0 or factor == 0.0:
            return self.graph.zero
        if abs(factor) == 1.0:
            return self if factor == 1.0 else -self
        return Node(self.graph, "{} * " + self.graph.constant(factor), (self,))


class Graph:
    """`constants`: the float32 numbers that the text names, name -> value. number: of the graph in its phase."""

    def __init__(self, constants: dict[str, np.float32], number: int) -> None:
        self.number = number
        self.counter = itertools.count()
        self.constants = constants
        self.zero = Node(self, "", value=0.0)

    def constant(self, value: float) -> str:
        rounded = np.float32(value)
        for name, known in self.constants.items():
            if known == rounded:
                return name
        name = f"k{len(self.constants)}"
        self.constants[name] = rounded
        return name

    def lines(self, results: dict[str, Node]) -> list[str]:
        """Assignments that compute `results` (name -> node), each value once, no value that is not needed."""
        needed: dict[int, Node] = {}
        waiting = list(results.values())
        while waiting:
            node = waiting.pop()
            if node.order not in needed:
                needed[node.order] = node
                waiting.extend(node.inputs)
        names, text = {self.zero.order: "zero"}, []
        for order in sorted(needed):
            node = needed[order]
            if node.inputs:
                names[order] = f"v{self.number}_{order}"
                text.append(f"{names[order]} = {node.text.format(*(names[i.order] for i in node.inputs))}")
            elif node.value is None:
                names[order] = node.text
        return text + [f"{name} = {names[node.order]}" for name, node in results.items()]


def _dft(x: list[Complex]) -> list[Complex]:
    """X[k] = sum_n x[n] exp(-2 pi i k n / len(x)), all k."""
    n = len(x)
    if n == 1:
        return x
    p = _smallest_prime(n)
    q = n // p
    parts, out = [_dft(x[s::p]) for s in range(p)], x.copy()
    for k in range(q):
        out[k::q] = _butterfly([part[k] for part in parts], k, n)
    return out


def _real_dft(x: list[Node]) -> list[Complex]:
    """The same of real x, k = 0..len(x) // 2."""
    n = len(x)
    if n == 1:
        return [(x[0], x[0].graph.zero)]
    p = _smallest_prime(n)
    q = n // p
    parts = [_real_dft(x[s::p]) for s in range(p)]
    out: list = [None] * (n // 2 + 1)
    for k in range(q // 2 + 1):
        for j, value in enumerate(_butterfly([part[k] for part in parts], k, n)):
            place = k + q * j
            if place <= n // 2:
                out[place] = value
            elif out[n - place] is None:
                out[n - place] = (value[0], -value[1])
    return out


def _smallest_prime(n: int) -> int:
    return next(p for p in (2, 3, 5, n) if n % p == 0)


@functools.cache
def _unit(k: int, n: int) -> tuple[float, float]:
    """cos and sin of -2 pi k / n in float64, exact at the quarters."""
    k %= n
    exact = {0: (1.0, 0.0), 2: (0.0, -1.0), 4: (-1.0, 0.0), 6: (0.0, 1.0)}
    if 8 * k % n == 0 and 8 * k // n in exact:
        return exact[8 * k // n]
    angle = -2.0 * math.pi * k / n
    return math.cos(angle), math.sin(angle)


def _butterfly(parts: list[Complex], k: int, n: int) -> list[Complex]:
    """p-point transform of parts[s] times w_n^(k s), s = 0..p - 1."""
    if len(parts) == 2:
        return _radix_2(parts[0], parts[1], *_unit(k, n))
    turned = [_turn(part, *_unit(k * s, n)) for s, part in enumerate(parts)]
    return _radix_3(*turned) if len(parts) == 3 else _radix_5(*turned)


def _turn(v: Complex, c: float, s: float) -> Complex:
    return v[0].times(c) - v[1].times(s), v[0].times(s) + v[1].times(c)


def _radix_2(u: Complex, v: Complex, c: float, s: float) -> list[Complex]:
    if 0.0 in (c, s):
        t, scale = _turn(v, c, s), 1.0
    elif abs(c) >= abs(s):
        t, scale = (v[0] - v[1].times(s / c), v[1] + v[0].times(s / c)), c
    else:
        t, scale = (v[0].times(c / s) - v[1], v[1].times(c / s) + v[0]), s
    return [(u[0] + t[0].times(scale), u[1] + t[1].times(scale)), (u[0] - t[0].times(scale), u[1] - t[1].times(scale))]


def _radix_3(a: Complex, b: Complex, c: Complex) -> list[Complex]:
    half, root = 0.5, math.sqrt(0.75)
    total = (b[0] + c[0], b[1] + c[1])
    middle = (a[0] - total[0].times(half), a[1] - total[1].times(half))
    side = ((b[1] - c[1]).times(root), (c[0] - b[0]).times(root))  # -i root (b - c)
    first = (a[0] + total[0], a[1] + total[1])
    return [first, (middle[0] + side[0], middle[1] + side[1]), (middle[0] - side[0], middle[1] - side[1])]


def _radix_5(a: Complex, b: Complex, c: Complex, d: Complex, e: Complex) -> list[Complex]:
    (c1, s1), (c2, s2) = (_unit(-j, 5) for j in (1, 2))
    outer, inner = (b[0] + e[0], b[1] + e[1]), (c[0] + d[0], c[1] + d[1])
    outer_side, inner_side = (b[0] - e[0], b[1] - e[1]), (c[0] - d[0], c[1] - d[1])
    out: list = [(a[0] + outer[0] + inner[0], a[1] + outer[1] + inner[1])] + [None] * 4
    for k, (p, q, r, s) in {1: (c1, c2, s1, s2), 2: (c2, c1, s2, -s1)}.items():
        middle = [a[i] + outer[i].times(p) + inner[i].times(q) for i in (0, 1)]
        side = [outer_side[i].times(r) + inner_side[i].times(s) for i in (0, 1)]
        out[k] = (middle[0] + side[1], middle[1] - side[0])  # middle - i side
        out[5 - k] = (middle[0] - side[1], middle[1] + side[0])
    return out
