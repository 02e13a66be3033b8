"""The original's 220 figures are all there, and give the ratios that it published."""

from __future__ import annotations

import pytest

from triadbench.bench.analysis import published
from triadbench.bench.analysis.published import Setting


def test_all_220_rows_five_trials_each():
    found = published.load()
    assert sum(map(len, found.values())) == 220
    assert {len(trials) for trials in found.values()} == {5}
    settings = [setting for setting, device in found if device == "cpu"]
    assert [sum(at.experiment == name for at in settings) for name in ("batch-size", "data-size")] == [16, 6]


def test_one_figure_by_hand():
    setting = Setting("batch-size", "root", 32, 8192, "train")
    assert published.load()[setting, "cuda"][0] == 9.4113 and published.load()[setting, "cpu"][0] == 19.3856
    assert published.seconds(setting, "cuda") == pytest.approx(9.553, abs=5e-4)
    assert published.gpu_over_cpu(setting) == pytest.approx(19.441 / 9.553, abs=1e-3)


def test_the_published_ratios():
    assert published.ratio_range("train") == pytest.approx((1.99, 2.27), abs=0.005)
    assert published.ratio_range("test") == pytest.approx((1.26, 1.52), abs=0.005)


def test_what_was_not_measured_is_none():
    setting = Setting("data-size", "root", 32, 8192, "train")
    assert published.seconds(setting, "cpu") is None and published.gpu_over_cpu(setting) is None
    assert published.clip_ms(setting, "cpu") is None


def test_milliseconds_a_clip_count_the_clips_of_the_phase():
    setting = Setting("data-size", "type", 32, 4096, "test")
    assert published.clip_ms(setting, "cpu") == pytest.approx(1e3 * published.seconds(setting, "cpu") / 1228)


def test_the_hint_is_computed_from_the_figures():
    assert "takes 89 % of the time of training on it" in published.hint() and "(on the CPU 61 %)" in published.hint()
