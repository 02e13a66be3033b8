"""Of each case the latest record: int16 samples are a case of their own, float32 that an old record leaves unsaid is not."""

from __future__ import annotations

from tests.bench import report_records
from triadbench.bench.analysis import gather
from triadbench.bench.analysis.summary import select


def test_int16_does_not_replace_float32():
    old = next(record for record in report_records.mel(report_records.environment()) if record["name"] == "mel")
    unsaid = {name: value for name, value in old["parameters"].items() if name != "dtype"}
    made = [
        old | {"parameters": unsaid, "samples": [1.0]},
        old | {"parameters": unsaid | {"dtype": "float32"}, "samples": [2.0]},
        old | {"parameters": unsaid | {"dtype": "int16"}, "samples": [3.0]},
    ]
    assert [record["samples"] for record in select(gather.latest(made), "mel")] == [[2.0], [3.0]]


def test_the_gpu_runs_mels_are_shown_before_a_quick_profiles():
    made = report_records.mel(report_records.environment("Test GPU"))
    quick, gpu = ([record | {"effort": effort} for record in made] for effort in ("quick", "gpu"))
    assert {record["effort"] for record in gather.latest([*gpu, *quick])} == {"gpu"}
