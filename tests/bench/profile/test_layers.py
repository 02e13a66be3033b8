"""Layer profiles: known sizes and work, times that sum to the step, a layer that is slow on purpose, a readable trace."""

from __future__ import annotations

import copy
import gzip
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from triadbench.bench import records
from triadbench.bench.profile import layers
from triadbench.core.models.networks import ChordNet, OriginalNet

BATCH = 4


class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        time.sleep(0.1)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(0.2)
        return gradient


class Pause(nn.Module):
    def forward(self, x):
        return Slow.apply(x)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU())
        self.pause = Pause()
        self.linear = nn.Linear(3 * 8 * 6, 5, bias=False)
        self.never = nn.Linear(7, 7)

    def forward(self, x):
        x = self.pause(self.body(x))
        return self.linear((x * x.sigmoid()).flatten(1))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    module = Small()
    inputs = torch.randn(BATCH, 1, 8, 6)
    return module, lambda: module(inputs), lambda answer: answer.square().mean()


@pytest.fixture(scope="module")
def found(small, tmp_path_factory):
    trace = tmp_path_factory.mktemp("trace") / "deep" / "small.trace.json.gz"
    module, forward, loss = small
    return layers.profile(module, forward, loss, 1e-3, "cpu", steps=4, trace=trace), trace


def rows_of(found):
    return {row["layer"]: row for row in found[0]["rows"]}


def test_layers_are_those_that_ran_in_their_order(found):
    assert list(rows_of(found)) == [
        "body.0",
        "body.1",
        "pause",
        "linear",
        layers.BETWEEN,
        layers.LOSS,
        layers.OPTIMIZER,
    ]
    kinds = {name: row["kind"] for name, row in rows_of(found).items()}
    assert kinds["body.0"] == "Conv2d" and kinds["pause"] == "Pause"


def test_sizes_and_work_are_those_of_the_formulas(found):
    rows = rows_of(found)
    conv, relu, linear = rows["body.0"], rows["body.1"], rows["linear"]
    assert (conv["params"], relu["params"], linear["params"]) == (3 * 9 + 3, 0, 144 * 5)
    assert conv["output_shape"] == [BATCH, 3, 8, 6] and linear["output_shape"] == [BATCH, 5]
    assert conv["activation_bytes"] == 4 * BATCH * 144 and linear["activation_bytes"] == 4 * BATCH * 5
    assert conv["flops"] == 2 * BATCH * 144 * 9 and linear["flops"] == 2 * BATCH * 144 * 5
    # The convolution's input wants no gradient, the product's does.
    assert conv["backward_flops"] == conv["flops"] and linear["backward_flops"] == 2 * linear["flops"]
    assert relu["flops"] == 0


def test_what_is_kept_is_counted_once(found):
    rows = rows_of(found)
    assert rows["body.0"]["saved_bytes"] == 4 * BATCH * 48, "its input"
    assert rows["body.1"]["saved_bytes"] == 4 * BATCH * 144, "its output"
    # x (the pause's output) and its sigmoid, and their product, which the linear layer keeps as its input.
    assert rows[layers.BETWEEN]["saved_bytes"] == 2 * 4 * BATCH * 144
    assert rows["linear"]["saved_bytes"] == 4 * BATCH * 144


def test_a_slow_layer_is_found_forward_and_backward(found):
    rows = rows_of(found)
    assert rows["pause"]["forward_ms"] > 95 and rows["pause"]["backward_ms"] > 190
    for part in ("forward_ms", "backward_ms"):
        assert max(rows, key=lambda name: rows[name][part]) == "pause"
    assert rows["linear"]["backward_ms"] > 0 and rows["body.0"]["backward_ms"] > 0
    assert rows[layers.LOSS]["backward_ms"] > 0 and rows[layers.OPTIMIZER]["forward_ms"] > 0


def test_rows_sum_to_the_step(found):
    result = found[0]
    assert 0.8 < result["coverage"] < 1.001
    assert len(result["profiled_ms"]) == 4 and len(result["plain_ms"]) == 6
    assert result["overhead"] > 0.5


def test_memory_of_a_step(small, found):
    module, result = small[0], found[0]
    n = sum(p.numel() for name, p in module.named_parameters())
    trained = sum(p.numel() for name, p in module.named_parameters() if "never" not in name)
    assert result["held_bytes"] == 4 * n + 2 * 4 * trained + 4 * 3, "weights, two moments, a step count each"
    kept = sum(row["saved_bytes"] for row in result["rows"]) - 4 * BATCH * 48
    assert kept <= result["peak_bytes"] < 10 * kept


def test_trace_is_json_with_our_layers_and_nothing_private(found):
    text = gzip.decompress(found[1].read_bytes()).decode()
    trace = json.loads(text)
    names = {event.get("name") for event in trace["traceEvents"]}
    assert {"layer pause", "layer body.0", "layer (optimizer)", "aten::conv2d"} <= names
    assert all("ts" in event and "ph" in event for event in trace["traceEvents"] if event["ph"] == "X")
    assert "/tmp" not in text and "/home" not in text and "ERROR" not in trace


def test_hooks_and_random_state_are_left_as_they_were(small, found):
    module = small[0]
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in module.modules())
    before = torch.get_rng_state()
    layers.run({"cores_usable": 2}, found[1].parent, batch=2, steps=1, layouts=("contiguous",))
    assert torch.equal(before, torch.get_rng_state())


def test_records_of_both_networks(tmp_path):
    seen = []
    made = layers.run({"cores_usable": 2}, tmp_path, batch=2, steps=1, progress=lambda *at: seen.append(at))
    assert [(r["parameters"]["network"], r["parameters"]["memory_format"]) for r in made] == [
        ("OriginalNet", "contiguous"),
        ("ChordNet", "contiguous"),
        ("OriginalNet", "channels-last"),
        ("ChordNet", "channels-last"),
    ]
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    for record in made:
        records.append(record, tmp_path / "r.jsonl")
        assert (tmp_path / record["trace"]).exists() and "/" not in record["trace"]
        network = {"OriginalNet": OriginalNet(4), "ChordNet": ChordNet()}[record["parameters"]["network"]]
        assert sum(row["params"] for row in record["rows"]) == sum(p.numel() for p in network.parameters())
        assert record["coverage"] > 0.5
    original = {row["layer"]: row for row in made[0]["rows"]}
    assert original["conv2.0"]["flops"] == 2 * 2 * 35 * 66 * 32 * 16 * 9
    assert original["conv4.2"]["output_shape"] == [2, 128, 5, 9]
    assert records.load(tmp_path / "r.jsonl") == (made, [])


def test_peak_is_the_highest_sum():
    def change(ts, n, device=0):
        return {"name": "[memory]", "ts": ts, "args": {"Bytes": n, "Device Type": device}}

    events = [change(3, -50), change(1, 100), {"name": "x", "ts": 0}, change(2, 30), change(4, 40), change(5, 1000, 1)]
    assert layers.peak_of(events) == 130


def test_profiling_says_nothing_on_stderr(tmp_path):
    code = (
        "import sys; from pathlib import Path; from triadbench.bench.profile import layers; "
        f"layers.run({{'cores_usable': 2}}, Path({str(tmp_path)!r}), batch=2, steps=1, layouts=('contiguous',))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "" and done.stdout == ""


@pytest.mark.gpu
def test_kernels_are_booked_to_their_layers(small, tmp_path):
    module = copy.deepcopy(small[0]).cuda()
    inputs = torch.randn(BATCH, 1, 8, 6, device="cuda")
    result = layers.profile(
        module, lambda: module(inputs), lambda answer: answer.square().mean(), 1e-3, "cuda", 4, tmp_path / "t.json.gz"
    )
    rows = {row["layer"]: row for row in result["rows"]}
    assert rows["body.0"]["forward_ms"] > 0 and rows["body.0"]["backward_ms"] > 0
    assert rows["pause"]["forward_ms"] < 1, "sleeping on the host is no time of the GPU"
    assert 0 < result["coverage"] < 1 and result["peak_bytes"] > 0
    assert re.search("kernel", gzip.decompress((tmp_path / "t.json.gz").read_bytes()).decode())


def make_event(name, start, end, number=-1, parent=None):
    from types import SimpleNamespace as Space

    time_range = Space(start=start, elapsed_us=lambda: end - start)
    return Space(
        name=name, time_range=time_range, sequence_nr=number, cpu_parent=parent, thread=1, device_type="DeviceType.CPU"
    )


def test_a_backward_function_belongs_to_the_operation_that_made_it():
    outer = make_event("layer (between layers)", 0, 10_000)
    first, second = make_event("layer a", 0, 2000, parent=outer), make_event("layer b", 2000, 5000, parent=outer)
    backward = "autograd::engine::evaluate_function: "
    events = [
        outer,
        first,
        second,
        make_event("aten::conv2d", 0, 1000, 6, first),
        make_event("aten::detach", 1000, 1100, 7, first),  # tells the next number, and makes nothing
        make_event("aten::relu", 2000, 2500, 7, second),
        make_event(backward + "ReluBackward0", 20_000, 21_000, 7),
        make_event(backward + "ConvolutionBackward0", 21_000, 25_000, 6),
        make_event(backward + "torch::autograd::AccumulateGrad", 25_000, 25_500),
    ]
    assert layers.attribute(events, "cpu") == {"(between layers)": [5.0, 0.0], "a": [2.0, 4.5], "b": [3.0, 1.0]}
