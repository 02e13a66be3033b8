"""The program text of the mel kernel for one plan: one launch from samples to (log) mel.

A block takes `frames` consecutive frames of one clip, through phases with a barrier between them:
    real      thread (f, b): r samples m apart x window -> real r-point transform -> x w_N^(b c) -> shared memory
    middle    for each radix but the last, thread (f, c, e, b): complex transform x twiddle, in place
    last      thread (f, c, e): complex transform, |X|^2 in registers; after a barrier, to its bin, over the same memory
    filters   thread (mel, f): sum of powers x weights, log, stored; neighbouring threads hold neighbouring frames
A frame that lies wholly inside its clip reads samples at constant offsets; the others find the
place of each sample by the pad mode (`sample_reflect` and so on).

The text is made for one plan: every size is a constant, every transform is straight-line code (gpu/codelets.py), and
each memory access is a pointer moved once plus a constant (gpu/memory.py). In the text u, i32 and f32 are the 32-bit
types: numba computes integers in 64 bits unless each result is cut back.
"""

import textwrap

import numpy as np

from triadbench.kernels.gpu.codelets import Graph, dft, real_dft
from triadbench.kernels.gpu.memory import PARAMETERS
from triadbench.kernels.gpu.plan import TAIL, Plan, table_offsets

_HEAD = """
def kernel({parameters}):
    shared = pointer_to(cuda.shared.array(0, f32))
    thread = u(cuda.threadIdx.x)
    block = u(cuda.blockIdx.x)
    clip = u(block // n_tiles)
    first = u(u(block - u(clip * n_tiles)) * {plan.frames})
    wave = advance(wave, i64(clip) * i64(time))
    out = advance(out, i64(clip) * i64(u(n_mels * n_frames)))
    length = i32(i32(time) + i32(2 * pad))
"""

_REAL = """
item = thread
while item < {items}:
    frame = u(item // {plan.m})
    b = u(item - u(frame * {plan.m}))
    t = u(first + frame)
    if t < n_frames:
        window = advance(tables, u(4 * b))
{windows}
        start = i32(i32(i32(t) * hop) - lead)
        if start >= pad and i32(i32(start - pad) + {plan.n_fft}) <= i32(time):
            samples = advance(wave, i32(i32(start - pad) + i32(b)))
{inside}
        else:
            start = i32(start + i32(b))
{outside}
{transform}
        here = advance(shared, u(2 * u(u(frame * {plan.frame}) + {place})))
        turn = advance(tables, u({turns} + 4 * b))
{stores}
    item = u(item + {plan.threads})
cuda.syncthreads()
"""

_MIDDLE = """
item = thread
while item < {items}:
    group = u(item // {size})
    b = u(item - u(group * {size}))
    here = advance(shared, u(2 * u(u(group * {stride}) + {place})))
{loads}
{transform}
    turn = advance(tables, u({turns} + 4 * b))
{stores}
    item = u(item + {plan.threads})
cuda.syncthreads()
"""

_LAST = """
here = advance(shared, u(u(thread if thread < {items} else 0) * {run}))
{loads}
{transform}
cuda.syncthreads()
if thread < {items}:
    residue = u(thread // {plan.groups})
    e = u(thread - u(residue * {plan.groups}))
    frame = u(residue // {plan.n_residues})
    residue = u(residue - u(frame * {plan.n_residues}))
    digits = {digits}
    bin = u(residue + u({plan.real_radix} * digits))
    whole = residue != 0 and 2 * residue != {plan.real_radix}
    low = advance(shared, u(u(frame * {plan.power_frame}) + {low}))
    high = advance(shared, i32(i32(u(frame * {plan.power_frame})) - i32({high})))
{stores}
{gaps}
cuda.syncthreads()
"""

_TAIL = """
item = thread
while item < {items}:
    store(shared, u(u(u(u(item // {tail}) * {plan.power_frame}) + u(item % {tail})) + {first}), zero)
    item = u(item + {plan.threads})
"""

_GAPS = """
item = thread
while item < {items}:
    frame = u(item // {gaps})
    gap = u(u(u(item - u(frame * {gaps})) * {step}) + {plan.real_radix})
    store(shared, u(u(frame * {plan.power_frame}) + gap), zero)
    item = u(item + {plan.threads})
"""

_FILTERS = """
item = thread
while item < u(n_mels * {plan.frames}):
    mel = u(item // {plan.frames})
    frame = u(item - u(mel * {plan.frames}))
    t = u(first + frame)
    if t < n_frames:
        band = advance(bands, u(2 * mel))
        quads = read(band, 1)
        powers = advance(shared, u(u(frame * {plan.power_frame}) + u(read(band, 0))))
        weights = advance(tables, u({weights} + u(4 * mel)))
        total = zero
        other = zero
        while quads > 0:
            w0, w1, w2, w3 = read4(weights, 0)
            total += load(powers, 0) * w0
            other += load(powers, 1) * w1
            total += load(powers, 2) * w2
            other += load(powers, 3) * w3
            powers = advance(powers, 4)
            weights = advance(weights, u(4 * n_mels))
            quads = i32(quads - 1)
        store(out, u(u(mel * n_frames) + t), {result})
    item = u(item + {plan.threads})
"""


def program(plan: Plan) -> tuple[str, dict[str, np.float32]]:
    """The text of `kernel`, and the float32 constants that it names."""
    constants = {"zero": np.float32(0.0)}
    phases = [_real(plan, constants)]
    phases += [_middle(plan, position, constants) for position in range(len(plan.radices) - 1)]
    phases += [_last(plan, constants), _filters(plan)]
    text = _HEAD.format(parameters=", ".join(PARAMETERS), plan=plan)
    return text + "".join(textwrap.indent(phase, "    ") for phase in phases), constants


def _real(plan: Plan, constants: dict) -> str:
    radix, m = plan.real_radix, plan.m
    graph = Graph(constants)
    lines = graph.lines(_named(real_dft(graph.inputs([f"x{a}" for a in range(radix)]))))
    stores = ["store2(here, 0, re0, zero)"]
    for c in range(1, plan.n_residues):
        stores += _turned(c, m, 2 * c * plan.residue, real=2 * c == radix)
    windows = [f"w{a}, w{a + 1}, w{a + 2}, w{a + 3} = read4(window, {a * m})" for a in range(0, radix, 4)]
    inside = [f"x{a} = read(samples, {a * m}) * w{a}" for a in range(radix)]
    sample = f"sample_{plan.edge}(wave, i32(start + {{}}), length, pad, i32(time))"
    outside = [f"x{a} = {sample.format(a * m)} * w{a}" for a in range(radix)]
    blocks = {"windows": _block(windows, 2), "inside": _block(inside, 3), "outside": _block(outside, 3)}
    blocks |= {"transform": _block(lines, 2), "stores": _block(stores, 2)}
    items, place, turns = plan.frames * m, _place(plan), table_offsets(plan)[0]
    return _REAL.format(plan=plan, items=items, place=place, turns=turns, **blocks)


def _turned(k: int, size: int, to: int, real: bool = False) -> list[str]:
    """Output k times its twiddle, stored at offset `to`; twiddles k and k + 1 are read together, for odd k."""
    lines = [f"c{k}, s{k}, c{k + 1}, s{k + 1} = read4(turn, {2 * (k - 1) * size})"] if k % 2 else []
    if real:
        return [*lines, f"store2(here, {to}, re{k} * c{k}, re{k} * s{k})"]
    return [*lines, f"store2(here, {to}, re{k} * c{k} - im{k} * s{k}, re{k} * s{k} + im{k} * c{k})"]


def _middle(plan: Plan, position: int, constants: dict) -> str:
    radix = plan.radices[position]
    size = plan.m // int(np.prod(plan.radices[: position + 1]))
    step = 2 * plan.place(size)
    stores = ["store2(here, 0, re0, im0)"]
    for e in range(1, radix):
        stores += _turned(e, size, e * step)
    loads = [f"x{j}, y{j} = load2(here, {j * step})" for j in range(radix)]
    blocks = {"loads": loads, "transform": _complex(radix, range(radix), constants), "stores": stores}
    sizes = {"items": plan.frames * plan.n_residues * plan.m // radix, "size": size, "stride": plan.place(size * radix)}
    turns = table_offsets(plan)[position + 1]
    text = {name: _block(lines, 1) for name, lines in blocks.items()}
    return _MIDDLE.format(plan=plan, place=_place(plan), turns=turns, **sizes, **text)


def _last(plan: Plan, constants: dict) -> str:
    radix, real_radix, groups = plan.last, plan.real_radix, plan.groups
    step = real_radix * groups  # bins from one output to the next
    outputs, stores = [], []
    for j in range(radix):
        up, down = plan.spread(step * j), plan.spread(plan.n_fft - step * j)
        least_up, least_down = step * j, plan.n_fft - step * j - (real_radix // 2 + real_radix * (groups - 1))
        lower, mirrored = f"store(low, {up}, p{j})", f"store(high, {down}, p{j})"
        lines = []
        if 2 * j + 1 < radix:  # every thread's bin is at most N / 2
            lines = [lower] if least_up < plan.n_bins else []
        elif 2 * j + 1 == radix:  # some threads' are
            if min(least_up, least_down) < plan.n_bins:
                lines = [
                    f"if 2 * bin <= {plan.n_fft - 2 * step * j}:",
                    f"    {lower}",
                    "elif whole:",
                    f"    {mirrored}",
                ]
        else:
            if least_down < plan.n_bins:
                lines = ["if whole:", f"    {mirrored}"]
            if 2 * step * j == plan.n_fft and plan.n_bins == plan.n_freqs:
                lines += ["if bin == 0:", f"    {lower}"]
        stores += lines
        outputs += [j] if lines else []
    transform = _complex(radix, outputs, constants) + [f"p{j} = {_power(plan.power, j)}" for j in outputs]
    loads = [f"x{j}, y{j} = load2(here, {2 * j})" for j in range(radix)]
    gaps = _TAIL.format(plan=plan, items=plan.frames * TAIL, tail=TAIL, first=plan.spread(plan.n_freqs - 1) + 1)
    low = high = "bin"
    if groups > 1:
        n_gaps = plan.n_fft // 2 // real_radix
        gaps += _GAPS.format(plan=plan, items=plan.frames * n_gaps, gaps=n_gaps, step=real_radix + 1)
        low, high = "u(bin + digits)", "u(u(bin + digits) + u(1 if residue > 0 else 0))"
    blocks = {"loads": _block(loads, 0), "transform": _block(transform, 0), "stores": _block(stores or ["pass"], 1)}
    items, run = plan.frames * plan.n_residues * groups, 2 * plan.place(radix)
    return _LAST.format(plan=plan, items=items, run=run, digits=_digits(plan), low=low, high=high, gaps=gaps, **blocks)


def _filters(plan: Plan) -> str:
    result = "log(total + other + eps)" if plan.log else "total + other"
    return _FILTERS.format(plan=plan, weights=table_offsets(plan)[-1], result=result)


def _complex(radix: int, outputs, constants: dict) -> list[str]:
    graph = Graph(constants)
    real, imaginary = (graph.inputs([f"{name}{j}" for j in range(radix)]) for name in "xy")
    transform = dft(list(zip(real, imaginary, strict=True)))
    return graph.lines(_named({k: transform[k] for k in outputs}))


def _named(values) -> dict:
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    return {f"{part}{k}": value for k, v in pairs for part, value in zip(("re", "im"), v, strict=True)}


def _power(power: str, j: int) -> str:
    squares = f"re{j} * re{j} + im{j} * im{j}"
    if power == "magnitude":
        return f"sqrt({squares})"
    return squares if power == "power" else f"power_of({squares}, half_power)"


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
