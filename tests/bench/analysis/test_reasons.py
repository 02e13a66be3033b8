"""The four reasons: work is counted as torch counts it, the model fits what it is fitted on and predicts the rest, and
every guess has its share."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.bench import report_records as made
from triadbench import bench
from triadbench.bench.analysis import published, reasons
from triadbench.bench.analysis.published import Setting
from triadbench.bench.analysis.reasons import EPOCH, LAPTOP_GPU, Costs, Peak
from triadbench.bench.report import reasons_page
from triadbench.core.models.networks import OriginalNet, original_loss

GPU = Costs(
    {"reading": 4.3e-4, "resampling": 2.9e-5, "mel": 3.7e-4, "copy": 9.9e-5, "forward": 3.6e-5, "backward": 6.7e-5}
    | {"optimizer": 2.3e-5, "synchronisation": 2e-6, "idle": 3.4e-5},
    6 / 179,
    "a GPU",
)
"""As an H100's machine measured them."""
MONITOR = {
    "seconds": 2.0,
    "other_cpu_percent": 3.0,
    "steal_percent": 0.5,
    "cpu_mhz": [[0.0, 3000.0], [1.0, 2000.0]],
    "cpu_temperature_c": None,
    "cpu_temperature_reason": "no sensor here",
    "gpu": None,
}
ON_GPU = {"other_percent": 0.0, "sm_mhz": [[0, 1900.0]], "temperature_c": [[0, 71.0]], "power_w": None, "throttle": []}


@pytest.fixture(scope="module")
def cpu():
    """The committed ladder of two cores."""
    lines = (Path(bench.__file__).parent / "results/amd-epyc-2-cores/study.jsonl").read_text().splitlines()
    return reasons.costs([json.loads(line) for line in lines], "cpu")


@pytest.fixture(scope="module")
def model(cpu):
    return reasons.fit(cpu, GPU)


# --- the device ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["train", "test"])
def test_operations_are_those_that_torch_counts(phase):
    network, mel = OriginalNet(12), torch.randn(1, 1, 64, 126)
    with FlopCounterMode(display=False) as counter:
        loss = original_loss(network(mel), torch.zeros(1, dtype=torch.int64))
        if phase == "train":
            loss.backward()
    assert sum(flops for flops, _ in reasons.network_work(phase)) == counter.get_total_flops()


def test_bytes_of_the_first_layers_by_hand():
    inputs, outputs, weights = 64 * 126, 16 * 66 * 128, 16 * 9 + 16
    test, train = (reasons.network_work(phase, 32) for phase in ("test", "train"))
    assert test[0][1] == 4 * (inputs + outputs + weights / 32)
    assert train[0][1] == 4 * (2 * inputs + 2 * outputs + 3 * weights / 32)  # no gradient of the mel
    assert test[1][1] == 4 * 2 * outputs and train[1][1] == 4 * 5 * outputs  # ReLU: also both gradients, and its input
    assert train[2][1] == 4 * (2 * outputs + 2 * outputs / 4) + 8 * outputs / 4  # pooling: indices of 8 bytes
    n_weights = sum(parameter.numel() for parameter in OriginalNet(12).parameters())
    assert len(train) == len(test) + 1 and train[-1] == (0.0, 28 * n_weights / 32)


def test_a_bound_is_arithmetic_or_memory_layer_by_layer():
    work = reasons.network_work("test")
    flops, moved = (sum(values) for values in zip(*work, strict=True))
    assert reasons.bound_s("test", Peak("", 1.0, 1e9)) == pytest.approx(flops / 1e9, rel=1e-3)
    assert reasons.bound_s("test", Peak("", 1e9, 1.0)) == pytest.approx(moved / 1e9, rel=1e-3)
    assert reasons.bound_s("test", LAPTOP_GPU) > max(flops / 5460e9, moved / 384e9)


def test_devices_are_bounded_by_their_own_peaks_and_compared_with_their_own_epochs():
    env = made.environment()
    roofs = [
        {"name": "mel roof", "samples": [2.0, 1.0], "parameters": {"roof": roof, "threads": 2, "device": "cpu"}, **work}
        for roof, work in (("arithmetic", {"flops": 3e6}), ("memory", {"bytes_moved": 2e6}))
    ]
    laptop, here = reasons.devices([*made.ladder(env), *roofs])
    assert laptop == ["RTX 2070 Max-Q, published peaks", "5,460", "384", "68.8", "1,690", "4.1 %"]
    bound_us = 1e6 * reasons.bound_s("train", Peak("", 3.0, 2.0))
    assert here[:4] == ["this CPU, measured", "3.00", "2.00", f"{round(bound_us, -2):,.0f}"]
    assert float(here[4].replace(",", "")) == pytest.approx(1e6 * 76 / 5734, rel=0.03)
    assert len(reasons.devices([*made.ladder(env), *(roof | {"disturbed": True} for roof in roofs)])) == 1


# --- the model -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clips", [4096, 8192, 16384, 86400])
def test_clips_are_split_as_torch_splits_them(clips):
    train, test = torch.utils.data.random_split(range(clips), [0.7, 0.3])
    phases = [EPOCH._replace(num_items=clips, phase=phase) for phase in ("train", "test")]
    assert [setting.clips for setting in phases] == [len(train), len(test)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_factors_are_fitted_on_training_at_batch_size_32_alone(device, model, monkeypatch):
    ratios = model.ratios(device, True)
    assert len(ratios) == 25 and fmean(ratios) == pytest.approx(1)
    fitted = {key: trials for key, trials in published.load().items() if key[0][2::2] == (32, "train")}
    table = {key: fitted.get(key, (99.0,) * 5) for key in published.load()}
    monkeypatch.setattr(published, "load", lambda: table)
    assert reasons.fit(model.cpu, GPU)[2:] == pytest.approx(model[2:])


def test_of_slower_machines_the_factors_are_smaller_and_the_model_the_same(cpu, model):
    slow = [costs._replace(parts={part: 3 * s for part, s in costs.parts.items()}) for costs in (cpu, GPU)]
    other = reasons.fit(*slow)
    assert (3 * other.factor, 3 * other.launch) == pytest.approx((model.factor, model.launch))
    assert other.epoch_s(EPOCH, "cuda") == pytest.approx(model.epoch_s(EPOCH, "cuda"))


def test_the_model_is_near_the_rows_that_it_was_not_fitted_on(model):
    assert len(model.errors()) == 170 and fmean(model.errors()) < 0.07
    assert model.final_error() == pytest.approx(-0.5, abs=0.1)


def test_a_wrong_model_is_far_from_them(cpu):
    """Without the time to prepare clips there is nothing that tests and training share."""
    wrong = [costs._replace(parts=costs.parts | {"mel": 0.0, "reading": 0.0, "copy": 0.0}) for costs in (cpu, GPU)]
    assert fmean(reasons.fit(*wrong).errors()) > 0.15


def test_a_large_batch_launches_less_and_computes_as_much(model):
    small, large = (model.causes(EPOCH._replace(batch_size=size), "cuda") for size in (32, 256))
    assert small["launching the network"] > 0 == large["launching the network"] == large["waiting for the loss"]
    assert large["computing the network"] == pytest.approx(small["computing the network"], rel=0.05)
    for cause in ("reading files", "launching mel", "copies"):
        assert small[cause] == large[cause]


def test_a_test_has_no_backward_pass(model):
    test = EPOCH._replace(phase="test")
    causes = model.causes(test, "cpu")
    parts = model.cpu.parts
    assert causes["the network"] == pytest.approx(2457 * model.factor * parts["forward"], rel=1e-3)
    train_ms, test_ms = (model.causes(s, "cpu")["preparing clips"] / s.clips for s in (EPOCH, test))
    assert train_ms == pytest.approx(test_ms)


# --- what is said ----------------------------------------------------------------------------------------------------


def test_every_reason_has_its_share(cpu, monkeypatch):
    monkeypatch.setattr(reasons, "costs", lambda records, device, label="": cpu if device == "cpu" else GPU)
    page = re.sub(r"(<script.*?</script>|<[^>]+>|\s)+", " ", reasons_page.chapter([], []), flags=re.S)
    shares = re.findall(r"([^.:]+) : ([\d. to]+) % of its GPU epoch.*?would be ([\d.]+) times", page)
    names = ["A laptop&#39;s GPU", "Transfers", "Background programs", "Heat", "What it was"]
    assert [name.strip() for name, *_ in shares] == names
    assert shares[0][1].startswith("4.1 to") and [share for _, share, _ in shares[2:4]] == ["0 to 3.5", "0 to 2.1"]
    assert float(shares[4][1]) > 50 and max(float(gain) for *_, gain in shares[:4]) < 3 < 5 < float(shares[4][2])
    assert "-8 % (root) and +2 % (type)" in page and "1.47 GB an epoch, 0.093 s" in page
    assert "235 million operations and 12.2 MB" in page and "19.2 s" in page and "took 9.7 s" in page


def test_of_a_disturbed_ladder_nothing_is_concluded():
    records = made.ladder(made.environment())
    assert reasons.costs(records, "cpu") is not None
    records[0]["disturbed"] = "other processes used 80 % of a core"
    assert reasons.costs(records, "cpu") is None


def test_copies_are_bounded_by_their_time():
    records = made.ladder(made.environment("Test GPU"), "cuda")[:3]
    records[0]["copies"] = {"n": 7, "bytes": 1000, "seconds": 19.0}
    records[1]["copies"] = {"n": 0, "bytes": 0, "seconds": None}
    records[0]["samples"] = [76.0]
    (row,) = reasons.transfers(records)
    assert row == ["original", 5734, 7, "0.00100", "19.0", "76.0", "1.33"]


def test_what_was_watched_is_said():
    records = made.experiments(made.environment())[:2]
    records[0]["monitor"], records[1]["monitor"] = (
        [MONITOR, MONITOR | {"gpu": ON_GPU}],
        [MONITOR],
    )  # the same trial's test
    watched = reasons.trials(records)
    assert [trial["name"].rpartition(", ")[2] for trial in watched] == ["1", "2"]
    load, warmth = reasons.watched_here(watched)
    assert "In 2 trials" in load and "3.0 % of a core" in load and "0 % of the GPU" in load
    assert "2,000 to 3,000 (at its highest throughout, a trial is 16.7 % shorter at most)" in warmth
    assert (
        "No temperature of the CPU: no sensor here." in warmth and "71" in warmth and "throttled by nothing" in warmth
    )
    assert "throttled" not in reasons.watched_here(watched[:1])[1]


def test_epoch_that_is_explained_is_published():
    assert isinstance(EPOCH, Setting) and published.gpu_over_cpu(EPOCH) == pytest.approx(2, abs=0.05)
