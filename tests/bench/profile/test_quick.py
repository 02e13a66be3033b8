"""The quick profile: gates that stop on wrong answers, records for every case, and a page that stands alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from triadbench.bench import cases, records
from triadbench.bench.analysis import summary
from triadbench.bench.profile import quick
from triadbench.bench.report import quick_page
from triadbench.kernels import ORIGINAL, mel_reference


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quick")
    seen = []
    result = quick.run(folder / "page.html", folder / "records.jsonl", lambda *at: seen.append(at), effort=quick.SMOKE)
    return folder, result, seen


def test_every_case_is_recorded_with_its_samples_and_error(run):
    folder, result, seen = run
    made, problems = records.load(folder / "records.jsonl")
    assert not problems
    assert [len(summary.select(made, name)) for name in ("mel", "forward", "training step")] == [8, 4, 8]
    for record in summary.select(made, "mel") + summary.select(made, "forward"):
        assert 0 < record["error"]["peak_relative"] < 1e-4 and record["flops"] > 0 and record["first_call"] > 0
    assert len(result["measurements"]) == len(made)
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1]


def test_page_stands_alone_and_reads_records(run):
    folder, result, _ = run
    page = (folder / "page.html").read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in own and "src=" not in own, "nothing is fetched"
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert page.count("Plotly.newPlot") >= 4
    assert "GPU: not measured" in own
    made, _ = records.load(folder / "records.jsonl")
    assert len(quick_page.page(made)) == len(page), "the same records give the same page"


def test_terminal_text_names_the_page(run):
    folder, result, _ = run
    text = quick.text(result)
    assert "CHORD x64 torchaudio" in text and str(folder / "page.html") in text


def test_a_wrong_mel_stops_the_run(monkeypatch, tmp_path):
    def shifted(spec):
        right = cases.torchaudio_mel(spec)
        return lambda waveform: right(waveform).roll(1, -1)

    monkeypatch.setattr("triadbench.kernels.MelSpectrogram.from_spec", shifted)
    with pytest.raises(RuntimeError, match="mel ORIGINAL batch 1 ours is wrong, so it is not timed"):
        quick.run(tmp_path / "page.html", tmp_path / "r.jsonl", effort=quick.SMOKE)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("wrong", ["nan", "scaled", "half"])
def test_mel_gate_refuses(wrong):
    waveform = cases.make_waveform(1)
    expected = mel_reference.mel_spectrogram(waveform.numpy(), ORIGINAL)
    mel = cases.torchaudio_mel(ORIGINAL)(waveform)
    assert quick.mel_error("right", mel, expected)["peak_relative"] < 1e-5
    bad = {"nan": mel.clone().fill_(float("nan")), "scaled": mel * 1.001, "half": mel.half().float()}[wrong]
    with pytest.raises(RuntimeError, match="is wrong"):
        quick.mel_error("case", bad, expected)


def test_forward_gate_refuses_half_precision():
    exact = torch.linspace(0.1, 1, 12, dtype=torch.float64).reshape(1, 12)
    assert quick.forward_error("case", exact.float(), exact)["peak_relative"] < 1e-7
    with pytest.raises(RuntimeError, match="is wrong"):
        quick.forward_error("case", exact.bfloat16().float(), exact)


def test_step_gate_wants_a_finite_loss_and_moving_parameters():
    still = [torch.ones(2)]
    quick.check_step("net", 1.0, still, [torch.tensor([1.0, 1.1])])
    for loss, after, reason in (
        (float("nan"), torch.zeros(2), "loss=nan"),
        (1.0, torch.ones(2), "no parameter moved"),
        (1.0, torch.tensor([float("inf"), 0.0]), "not finite"),
    ):
        with pytest.raises(RuntimeError, match=reason):
            quick.check_step("net", loss, still, [after])


def test_waveforms_are_seeded_and_leave_torchs_random_state_alone():
    before = torch.get_rng_state()
    assert torch.equal(cases.make_waveform(2), cases.make_waveform(2))
    cases.make_networks()
    assert torch.equal(before, torch.get_rng_state())
    assert float(cases.make_waveform(4).abs().max()) <= 1.0


def a_record(name: str, samples: list[float], **more) -> dict:
    parameters = more.pop("parameters", {})
    environment = {"gpu": None, "cores_logical": 2}
    return records.make(name, parameters=parameters, unit="ms", samples=samples, environment=environment, **more)


def mel_pair(alone_ms: float, together_ms: float, **more) -> list[dict]:
    common = {"spec": "ORIGINAL", "backend": "torchaudio"}
    return [
        a_record("mel", [alone_ms] * 3, parameters=common | {"batch": 1}, **more),
        a_record("mel", [together_ms] * 3, parameters=common | {"batch": 64}),
    ]


def test_sentences_follow_the_numbers():
    dear = " ".join(summary.findings(mel_pair(4.0, 64.0)))
    assert "4.00 ms alone and 1.00 ms a clip" in dear and "costs 4.00 times as much" in dear
    even = " ".join(summary.findings(mel_pair(1.0, 64.0)))
    assert "batching changes little" in even and "times as much" not in even
    assert "no GPU on this machine" in even and "All 2 timings are steady" in even


def test_nothing_is_concluded_from_a_disturbed_timing():
    told = " ".join(summary.findings(mel_pair(64.0, 64.0, disturbed=True, other_cores=1.02)))
    assert "1 of 2 timings are disturbed: other processes used 1.0 to 1.0 of 2 cores" in told
    assert "alone" not in told and "times as much" not in told


def test_row_figures():
    record = a_record("mel", [2.0, 2.0], flops=4e6, clips=8, audio_s=32.0, error={"peak_relative": 1e-7})
    figures = summary.row(record, peak=20.0)
    assert figures["throughput_clips_per_s"] == 4000 and figures["real_time_factor"] == 16000
    assert figures["gflop_per_s"] == pytest.approx(2.0) and figures["share_of_peak"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "—"), (0, "0"), (0.04561, "0.0456"), (1.0, "1.00"), (64.04, "64.0"), (1234.5, "1,230"), (99.96, "100.0")],
)
def test_numbers_have_three_figures(value, shown):
    assert summary.number(value) == shown


def test_array_inputs_are_float32():
    assert cases.make_waveform(1).numpy().dtype == np.float32
