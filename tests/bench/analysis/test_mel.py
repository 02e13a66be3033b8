"""The mel profile's sentences: what they conclude is in the records, and what is missing is said."""

from __future__ import annotations

import pytest

from tests.bench import report_records
from triadbench.bench import records
from triadbench.bench.analysis import mel

ENVIRONMENT = report_records.environment()


def timing(contestant: str, ms: float, batch: int, *, disturbed: bool = False) -> dict:
    record = next(record for record in report_records.mel(ENVIRONMENT) if record["name"] == "mel")
    parameters = record["parameters"] | {"contestant": contestant, "batch": batch, "threads": 2, "ours": False}
    return record | {"parameters": parameters, "samples": [ms] * 3, "disturbed": disturbed, "other_cores": 1.0}


def told(found: list[dict]) -> str:
    return " ".join(mel.findings(found))


def test_what_a_batch_gains_torchaudio_is_told():
    dear = told([timing(mel.EAGER, 4.0, 1), timing(mel.EAGER, 64.0, 64)])
    assert "4.00 ms alone and 1.00 ms a clip" in dear and "costs 4.00 times as much" in dear
    even = told([timing(mel.EAGER, 1.0, 1), timing(mel.EAGER, 64.0, 64)])
    assert "batching changes little" in even and "times as much" not in even
    assert "the large batch costs 2.00 times as much a clip" in told(
        [timing(mel.EAGER, 1.0, 1), timing(mel.EAGER, 128.0, 64)]
    )
    assert "no GPU on this machine" in even and "All 2 timings are steady" in even


def test_nothing_is_concluded_from_a_disturbed_timing():
    text = told([timing(mel.EAGER, 64.0, 1, disturbed=True), timing(mel.EAGER, 64.0, 64)])
    assert "1 of 2 timings are disturbed: other processes used 1.0 to 1.0 cores" in text
    assert "alone" not in text and "times as much" not in text


def test_the_roofs_are_told():
    # 7e9 operations in 15 ms, 2e8 bytes in 15 ms
    assert "matrix product ran at 467 GFLOP/s and its best copy at 13.3 GB/s" in told(report_records.mel(ENVIRONMENT))


def test_what_was_left_out_is_told_with_its_reason():
    def gap(contestant: str, reason: str, batch: int = 1) -> dict:
        parameters = {"contestant": contestant, "spec": "CHORD", "batch": batch, "threads": 1, "device": "cpu"}
        return records.make(
            "mel left out", parameters=parameters, unit="ms", samples=[], environment=ENVIRONMENT, reason=reason
        )

    gaps = [
        gap("DALI", "not installed: no module"),
        gap("nnAudio", "failed: no"),
        gap("librosa", "one call would take about 3 s, too long for the time given"),
        gap("librosa", "one call would take about 4 s, too long for the time given", 8),
    ]
    entries = {entry["contestant"]: entry for entry in mel.left_out(gaps)}
    assert entries["librosa"]["reason"] == "one call would take too long for the time given"
    assert entries["librosa"]["cases"] == "all" and entries["DALI"]["cases"] == "CHORD x1"
    text = told([*gaps, timing(mel.EAGER, 1.0, 1)])
    assert "Not installed: DALI." in text and "Wrong or failed, so not timed: nnAudio." in text


def test_the_cuda_kernel_is_called_analysed_only_where_it_was():
    static = records.make(
        "mel cuda static", parameters={}, unit="ms", samples=[], environment=ENVIRONMENT, analysis={"mix": {}}
    )
    found = report_records.mel(ENVIRONMENT)
    assert "is analysed" not in told(found) and "is analysed as the compiler left it" in told([*found, static])


@pytest.mark.parametrize(
    ("threads", "device", "place"), [(1, "cpu", "1 thread"), (2, "cpu", "2 threads"), (2, "cuda", "GPU")]
)
def test_a_case_says_where_it_ran(threads, device, place):
    assert mel.Case("CHORD", 64, threads, device).label == f"CHORD x64, {place}"
