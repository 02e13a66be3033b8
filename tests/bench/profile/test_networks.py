"""The networks' profile: gates that stop on wrong results, records for every case, and a chapter from records alone."""

from __future__ import annotations

import pytest
import torch

from triadbench.bench import cases, machine, records
from triadbench.bench.analysis import summary
from triadbench.bench.profile import networks
from triadbench.bench.report import networks_page


@pytest.fixture(scope="module")
def run():
    seen = []
    return networks.run(machine.environment(), networks.SMOKE, lambda *at: seen.append(at)), seen


def test_every_case_is_recorded_with_its_samples_and_error(run):
    found, seen = run
    assert [len(summary.select(found, name)) for name in networks_page.NAMES] == [4, 8] and len(found) == 12
    for record in summary.select(found, "forward"):
        assert 0 < record["error"]["peak_relative"] < 1e-4 and record["flops"] > 0 and record["first_call"] > 0
        assert record["peak_gflop_per_s"] > 0
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1]


def test_chapter_is_made_of_records_alone(run):
    found, _ = run
    page = networks_page.chapter(found)
    assert page.count("data-plot=") == 2 and "OriginalNet x32 backward" in page and "% of peak" in page
    assert networks_page.chapter(found) == page, "the same records give the same chapter"
    assert networks_page.chapter([]) == ""


@pytest.mark.parametrize("wrong", ["nan", "scaled", "bfloat16"])
def test_a_wrong_forward_pass_stops_the_run(monkeypatch, wrong):
    damage = {
        "nan": lambda result: result * float("nan"),
        "scaled": lambda result: result * 1.001,
        "bfloat16": lambda result: result.bfloat16().float(),
    }[wrong]
    right = networks.make_networks

    def damaged():
        found = right()
        # The float64 reference, a copy of the module, stays right.
        found[0].module.register_forward_hook(
            lambda module, inputs, result: damage(result) if result.dtype == torch.float32 else None
        )
        return found

    monkeypatch.setattr(networks, "make_networks", damaged)
    with pytest.raises(RuntimeError, match="forward OriginalNet batch 1 is wrong, so it is not timed"):
        networks.run(machine.environment(), networks.SMOKE, lambda *at: None)


def test_forward_gate_refuses_half_precision():
    exact = torch.linspace(0.1, 1, 12, dtype=torch.float64).reshape(1, 12)
    assert networks.forward_error("case", exact.float(), exact)["peak_relative"] < 1e-7
    with pytest.raises(RuntimeError, match="is wrong"):
        networks.forward_error("case", exact.bfloat16().float(), exact)


def test_step_gate_wants_a_finite_loss_and_moving_parameters():
    still = [torch.ones(2)]
    networks.check_step("net", 1.0, still, [torch.tensor([1.0, 1.1])])
    for loss, after, reason in (
        (float("nan"), torch.zeros(2), "loss=nan"),
        (1.0, torch.ones(2), "no parameter moved"),
        (1.0, torch.tensor([float("inf"), 0.0]), "not finite"),
    ):
        with pytest.raises(RuntimeError, match=reason):
            networks.check_step("net", loss, still, [after])


def test_waveforms_are_seeded_and_leave_torchs_random_state_alone():
    before = torch.get_rng_state()
    assert torch.equal(cases.make_waveform(2), cases.make_waveform(2))
    cases.make_networks()
    assert torch.equal(before, torch.get_rng_state())
    assert float(cases.make_waveform(4).abs().max()) <= 1.0 and cases.make_waveform(1).dtype == torch.float32


def a_record(name: str, samples: list[float], part: str = "", **more) -> dict:
    parameters = {"network": "Net", "batch": 8} | ({"part": part} if part else {})
    return records.make(name, parameters=parameters, unit="ms", samples=samples, environment={}, clips=8, **more)


def test_row_figures():
    record = a_record("forward", [2.0, 2.0], flops=4e6, error={"peak_relative": 1e-7}, peak_gflop_per_s=20.0)
    figures = networks_page.row(record)
    assert figures["clips_per_s"] == 4000 and figures["error"] == 1e-7 and figures["case"] == "Net x8"
    assert figures["gflop_per_s"] == pytest.approx(2.0) and figures["share_of_peak"] == pytest.approx(0.1)


def test_records_without_a_measured_peak_are_shown():
    """As those of the quick profile before it was made of the same parts as the whole."""
    old = a_record("forward", [2.0, 2.0, 2.0], flops=4e6)
    assert networks_page.row(old)["share_of_peak"] is None and "Net x8" in networks_page.chapter([old])


def test_sentences_follow_the_numbers():
    steps = [a_record("training step", [ms] * 3, part) for part, ms in (("forward", 3.0), ("backward", 5.0))]
    forward = a_record("forward", [2.0] * 3, flops=4e6, peak_gflop_per_s=20.0)
    told = " ".join(networks_page.findings([forward, *steps]))
    assert "reach 10 % to 10 % of the matrix product's rate" in told
    assert "A training step of Net on 8 clips takes 8.00 ms (forward 38 %, backward 62 %); the most is backward" in told
    assert "All 3 timings are steady" in told
    unstable = a_record("forward", [1.0, 2.0, 4.0, 8.0])
    assert "1 of 1 timings are unstable" in " ".join(networks_page.findings([unstable]))


def test_nothing_is_concluded_from_a_disturbed_timing():
    steps = [a_record("training step", [3.0] * 3, "forward", disturbed=True, other_cores=1.02)]
    told = " ".join(networks_page.findings(steps))
    assert "1 of 1 timings are disturbed: other processes used 1.0 to 1.0 cores" in told
    assert "A training step" not in told
