"""The mel spectrogram as an ONNX graph of matrix products, or with the STFT operator to compare it with.

waveform (batch, samples) float32 -> (log) mel (batch, n_mels, n_frames)

ONNX has an STFT operator, but ONNX Runtime runs it on the CPU alone, and slowly. Padding, slices, transposes and matrix
products run everywhere. The plan is kernels/matmul_plan.py's four-step FFT, its constants computed in float64. With
n_fft = n1 n2 and hop_length = step n2, sample n2 a + b of frame t is number step t + a of the samples b, b + n2, ...:

    phases  (batch, n2, step, hops)        the padded waveform, transposed once
    frames  (batch, n2, n1, n_frames)      shifted slices of it, one below the other: no gather of single samples
    first   matrix products over a, window folded in       -> (batch, n2, groups, 2 n_frames)
    second  one transpose, matrix products over b          -> (batch, groups, 2 slots, n_frames)
    filters a block of neighbouring filters takes only the bins that it weighs

A clip of 4 s takes about 1 MB at each step. "each" therefore scans the batch clip by clip, to stay in a CPU's cache;
"batch" hands the whole batch to every operator, which is what a GPU wants.
"""

import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from triadbench.core.errors import UserError
from triadbench.export.predict.providers import check_choice
from triadbench.kernels.matmul_plan import Plan, make_plan
from triadbench.kernels.spec import LOG_EPS, MelSpec

# The oldest that hold, for old ONNX Runtimes (`export.predict.metadata.OLDEST_RUNTIME`): torch's exporter writes no
# operators older than those of opset 18, and a runtime that knows them reads IR version 8.
OPSET = 18
IR_VERSION = 8
LAYOUTS = ("each", "batch", "stft")
_FILTERS_A_BLOCK = 24  # fewer skip more zeros; more make fewer, longer products
_FACTORS_TRIED = 5
_PAD_MODES = {"reflect": "reflect", "constant": "constant", "replicate": "edge"}


def mel_graph(spec: MelSpec, *, log: bool, layout: str) -> onnx.ModelProto:
    """A model of one input "waveform" (batch, samples) and one output "mel" (batch, n_mels, n_frames), both dynamic.

    Args:
        log: log(mel + LOG_EPS), not mel.
        layout: "each", "batch" (see above), or "stft" (the STFT operator).

    Raises:
        UserError: a setting that the graph lacks.
    """
    check_choice("layout", layout, LAYOUTS)
    if spec.window == "custom" or (spec.center and spec.pad_mode not in _PAD_MODES):
        valid = f"it has every window with a formula and pad_mode {', '.join(_PAD_MODES)}"
        raise UserError(f"no graph for window={spec.window!r}, pad_mode={spec.pad_mode!r}; {valid}")
    nodes = _Nodes()
    source, target = ("clips", "mels") if layout == "each" else ("waveform", "mel")
    if layout == "each":
        nodes.add("Unsqueeze", ["clip", nodes.ints(0)], "clips")
    (_write_stft if layout == "stft" else _write_products)(nodes, spec, source)
    if log:
        nodes.add("Add", ["filtered", nodes.constant("eps", np.array(LOG_EPS))], "floored")
        nodes.add("Log", ["floored"], target)
    else:
        nodes.add("Identity", ["filtered"], target)
    outer = nodes.nodes
    if layout == "each":
        nodes.add("Squeeze", ["mels", nodes.ints(0)], "clip_mel")
        clip, clip_mel = _value("clip", ["samples"]), _value("clip_mel", [spec.n_mels, "frames"])
        body = helper.make_graph(nodes.nodes, "mel_of_a_clip", [clip], [clip_mel])
        outer = [helper.make_node("Scan", ["waveform"], ["mel"], name="mel/each", body=body, num_scan_inputs=1)]
    waveform, mel = _value("waveform", ["batch", "samples"]), _value("mel", ["batch", spec.n_mels, "frames"])
    graph = helper.make_graph(outer, "mel", [waveform], [mel], nodes.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def plan_for(spec: MelSpec) -> Plan:
    """The plan of fewest multiplications whose second factor divides the hop, as the slices need it."""
    hop = spec.hop_length or 0  # which `MelSpec` has filled in
    factors = [n1 for n1 in range(2, spec.n_fft + 1) if spec.n_fft % n1 == 0 and hop % (spec.n_fft // n1) == 0]
    # Near the square root of n_fft lies the minimum; far from it the constants alone are large, and slow to work out.
    near = sorted(factors, key=lambda n1: abs(math.log(n1 * n1 / spec.n_fft)))[:_FACTORS_TRIED]
    window, filterbank = spec.window_array(), spec.filterbank()
    plans = [make_plan(spec, window, filterbank, n1=n1) for n1 in near]
    return min(plans, key=lambda plan: plan.multiplications)


class _Nodes:
    """Nodes and constants of a graph, in order."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._ints: dict[tuple[int, ...], str] = {}

    def add(self, op: str, inputs: list[str], output: str | list[str], **attributes) -> str:
        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(helper.make_node(op, inputs, outputs, name=f"mel/{outputs[0]}", **attributes))
        return outputs[0]

    def constant(self, name: str, values: np.ndarray) -> str:
        """float64 is rounded to float32, once."""
        values = np.ascontiguousarray(values, np.float32 if values.dtype == np.float64 else values.dtype)
        self.constants.append(numpy_helper.from_array(values, f"mel/{name}"))
        return f"mel/{name}"

    def ints(self, *values: int) -> str:
        if values not in self._ints:
            name = "int_" + "_".join(str(value).replace("-", "m") for value in values)
            self._ints[values] = self.constant(name, np.array(values, np.int64))
        return self._ints[values]


def _value(name: str, shape: list) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _write_products(nodes: _Nodes, spec: MelSpec, source: str) -> None:
    add, ints = nodes.add, nodes.ints
    plan, hop = plan_for(spec), spec.hop_length or 0
    n1, n2, groups, slots = plan.n1, plan.n2, plan.groups, plan.slots
    assert plan.first is not None  # n1 is at least 2
    step = hop // n2
    shifts = -(-n1 // step)
    padded = _padded(nodes, spec, source)
    add("Shape", [padded], "length", start=2, end=3)
    # Whole hops: the frames end where the last whole hop does. What a frame lacks in its last hop is zeros.
    fill = shifts * hop - spec.n_fft
    if fill:
        padded = add("Pad", [padded, ints(0, 0, 0, 0, 0, fill)], "filled")
        add("Add", ["length", ints(fill)], "filled_length")
    add("Div", ["filled_length" if fill else "length", ints(hop)], "hops")
    add("Mul", ["hops", ints(hop)], "whole")
    add("Slice", [padded, ints(0), "whole", ints(2)], "cut")
    add("Reshape", ["cut", ints(0, -1, n2)], "rows")
    add("Transpose", ["rows"], "by_phase", perm=[0, 2, 1])
    add("Reshape", ["by_phase", ints(0, n2, -1, step)], "steps")
    add("Transpose", ["steps"], "phases", perm=[0, 1, 3, 2])
    add("Sub", ["hops", ints(shifts - 1)], "n_frames")
    parts = []
    for shift in range(shifts):
        add("Add", ["n_frames", ints(shift)], f"end_{shift}")
        part = add("Slice", ["phases", ints(shift), f"end_{shift}", ints(3)], f"part_{shift}")
        rows = min(step, n1 - shift * step)
        if rows < step:
            part = add("Slice", [part, ints(0), ints(rows), ints(2)], f"rows_{shift}")
        parts.append(part)
    frames = add("Concat", parts, "frames", axis=2) if shifts > 1 else parts[0]
    # Rows of a residue's real and imaginary part side by side: the transpose then moves runs of 2 n_frames.
    first = plan.first.reshape(n2, 2, groups, n1).transpose(0, 2, 1, 3).reshape(n2, 2 * groups, n1)
    add("MatMul", [nodes.constant("first", first), frames], "inner")
    add("Reshape", ["inner", ints(0, n2, groups, -1)], "residues")
    add("Transpose", ["residues"], "by_residue", perm=[0, 2, 1, 3])
    add("Reshape", ["by_residue", ints(0, groups, 2 * n2, -1)], "twiddled")
    add("MatMul", [nodes.constant("second", plan.second), "twiddled"], "spectrum")
    add("Mul", ["spectrum", "spectrum"], "squares")
    add("Split", ["squares"], ["real", "imaginary"], axis=2, num_outputs=2)
    add("Add", ["real", "imaginary"], "power")
    add("Reshape", ["power", ints(0, groups * slots, -1)], "bins")
    _write_filters(nodes, spec, _powered(nodes, spec, "bins"), plan.bins)


def _write_filters(nodes: _Nodes, spec: MelSpec, bins: str, order: np.ndarray) -> None:
    """(batch, bins in `order`, n_frames) -> "filtered" (batch, n_mels, n_frames)."""
    row_of = {int(bin_): row for row, bin_ in enumerate(order) if bin_ >= 0}
    outputs = []
    for i, filters in enumerate(np.array_split(spec.filterbank(), math.ceil(spec.n_mels / _FILTERS_A_BLOCK))):
        weighed = np.flatnonzero(filters.any(axis=0))
        weighed = weighed if len(weighed) else np.array([next(iter(row_of), 0)])  # filters without any weight
        rows = np.array([row_of.get(int(bin_), 0) for bin_ in weighed], np.int64)
        block = nodes.add("Gather", [bins, nodes.constant(f"rows_{i}", rows)], f"block_{i}", axis=1)
        weights = nodes.constant(f"filters_{i}", filters[:, weighed])
        outputs.append(nodes.add("MatMul", [weights, block], f"filtered_{i}"))
    nodes.add("Concat", outputs, "filtered", axis=1)


def _write_stft(nodes: _Nodes, spec: MelSpec, source: str) -> None:
    add, ints = nodes.add, nodes.ints
    add("Squeeze", [_padded(nodes, spec, source), ints(1)], "signal")
    window = nodes.constant("window", spec.frame_window(spec.window_array()))
    hop = nodes.constant("hop", np.array(spec.hop_length))
    length = nodes.constant("n_fft", np.array(spec.n_fft))
    add("STFT", ["signal", hop, window, length], "spectrum", onesided=1)
    add("Mul", ["spectrum", "spectrum"], "squares")
    add("ReduceSum", ["squares", ints(3)], "power", keepdims=0)
    add("MatMul", [_powered(nodes, spec, "power"), nodes.constant("filters", spec.filterbank().T)], "by_frame")
    add("Transpose", ["by_frame"], "filtered", perm=[0, 2, 1])


def _padded(nodes: _Nodes, spec: MelSpec, source: str) -> str:
    """(batch, samples) -> (batch, 1, samples and what is padded)."""
    padded = nodes.add("Unsqueeze", [source, nodes.ints(1)], "signal_row")
    edge = spec.n_fft // 2 if spec.center else 0
    for name, size, mode in (("zeros", spec.pad, "constant"), ("edges", edge, _PAD_MODES.get(spec.pad_mode))):
        if size:
            padded = nodes.add("Pad", [padded, nodes.ints(0, 0, size, 0, 0, size)], name, mode=mode)
    return padded


def _powered(nodes: _Nodes, spec: MelSpec, power: str) -> str:
    if spec.power == 2.0:
        return power
    if spec.power == 1.0:
        return nodes.add("Sqrt", [power], "magnitude")
    return nodes.add("Pow", [power, nodes.constant("half_power", np.array(spec.power / 2))], "powered")
