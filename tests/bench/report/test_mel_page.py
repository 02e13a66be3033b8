"""Figures of mel spectrograms: labels that cannot overlap, and views that open where our kernel was timed."""

from __future__ import annotations

from tests.bench import report_records as made
from triadbench.bench.analysis import mel
from triadbench.bench.report import mel_page


def test_roofs_are_named_in_the_legend_and_specs_in_rows_of_their_own():
    records = made.mel(made.environment())
    figure, _ = mel_page.roofline(mel.rows(records), records, "cpu")
    roofs = [trace for trace in figure.data if trace.mode == "lines"]
    assert roofs and all(trace.showlegend is not False and trace.name for trace in roofs)
    assert not any(trace.text for trace in figure.data)
    rows = [(note.y, note.yshift) for note in figure.layout.annotations]
    assert len(rows) == len(set(rows)) >= 1 and figure.layout.margin.t >= 14 * len(rows)


def test_views_open_on_a_case_where_our_kernel_was_timed_undisturbed():
    records = made.mel(made.environment())
    rows = mel.rows(records)
    (first, *others) = list(dict.fromkeys(map(mel.case, rows)))
    assert others, "there is a choice"
    for record in records:
        if record["name"] == "mel" and record["parameters"]["ours"]:
            record["disturbed"] = mel.case(record["parameters"]) != first
    rows = mel.rows(records)
    for choices in (mel_page.roofline(rows, records, "cpu")[1], mel_page.times(rows, records)[1]):
        assert f"{first.batch}, {first.place}" in choices[0]["label"]
