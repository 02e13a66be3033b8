"""What all analyses share: figures in words, and one rule for the marks of doubtful timings."""

from __future__ import annotations

import pytest

from triadbench.bench.analysis import summary


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "—"), (0, "0"), (0.04561, "0.0456"), (1.0, "1.00"), (64.04, "64.0"), (1234.5, "1,230"), (99.96, "100.0")],
)
def test_numbers_have_three_figures(value, shown):
    assert summary.number(value) == shown


@pytest.mark.parametrize(
    ("samples", "disturbed", "word"),
    [
        ([1.0, 1.0, 1.0], False, ""),
        ([1.0, 2.0, 4.0], False, "unstable"),
        ([1.0, 4.0], False, ""),
        ([1.0, 2.0, 4.0], True, "disturbed"),
        ([], False, ""),
    ],
)
def test_a_doubtful_timing_has_a_badge(samples, disturbed, word):
    assert summary.badge({"samples": samples, "disturbed": disturbed}) == word


def test_absent_figures_are_dashes():
    assert (summary.percent(None), summary.percent(0.1234), summary.percent(0.1234, 1)) == ("—", "12 %", "12.3 %")
    assert (summary.scientific(None), summary.scientific(1.24e-7)) == ("—", "1.2e-07")
