"""The mel profile's sentences: what they conclude is in the records, and what is missing is said."""

from __future__ import annotations

import pytest

from tests.bench import report_records
from triadbench.bench import records
from triadbench.bench.analysis import mel
from triadbench.bench.report import mel_page

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


def test_the_kernel_before_the_present_one_is_neither_ours_nor_a_rival():
    three = [timing(name, ms, 64) for name, ms in ((mel.EAGER, 8.0), ("ours: cuda", 2.0), ("ours: cuda, before", 1.0))]
    for record in three[1:]:
        record["parameters"]["ours"] = True
    (duel,) = mel.duels(mel.rows(three))
    assert duel["ours"]["contestant"] == "ours: cuda" and duel["against_rival"] == duel["against_eager"] == 4.0


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


# ---- on a GPU


def on_gpu(contestant: str, ms: float, batch: int = 64, dtype: str = "float32", **more: object) -> dict:
    record = timing(contestant, ms, batch)
    parameters = record["parameters"] | {"device": "cuda", "dtype": dtype, "ours": contestant.startswith("ours")}
    return record | {"parameters": parameters, **more}


def replayed(contestant: str, ms: float, **more) -> dict:
    return on_gpu(contestant + ", CUDA graph", ms, graph_of=contestant, **more)


GPU = [
    on_gpu("ours: cuda", 0.2),
    replayed("ours: cuda", 0.1),
    on_gpu(mel.EAGER, 1.0),
    replayed(mel.EAGER, 0.8),
    on_gpu("torch by hand", 0.15),
    on_gpu("MelT", 0.01, approximate=True),
    replayed("MelT", 0.005, approximate=True),
]


WORK = {
    "phases": [
        {"phase": "real", "issue_slots": 92664.0, "l1_bytes": 29652480.0, "shared_bytes": 0.0, "conflicts": None},
        {"phase": "filters", "issue_slots": 92664.0, "l1_bytes": 0.0, "shared_bytes": 2965248.0, "conflicts": 1.5},
    ],
    "hbm_bytes": 300000,
    "worst_conflicts": 1.75,
}


def static(spec: str, arch: str = "sm_90", **analysis: object) -> dict:
    more = {"parameters": {"spec": spec, "arch": arch}, "reason": None}
    more["analysis"] = {"mix": {}, "blocks_per_sm": 2, "threads_per_block": 256, **analysis}
    return records.make("mel cuda static", unit="ms", samples=[], environment=ENVIRONMENT, **more)


def test_the_cost_model_stands_beside_the_measurement():
    """An H100's rates: 231.66 clocks a nanosecond, 128 bytes and 4 instructions each; 3,000 bytes of memory."""
    spec = GPU[0]["parameters"]["spec"]
    found = [static(spec, cost=WORK), static(spec, "sm_80"), static("WHISPER", cost=WORK)]
    ours, other = mel.modelled([*GPU, on_gpu("ours: cuda", 9.0, 8), on_gpu("ours: cuda", 9.0, 512, "int16"), *found])
    assert (ours["issue"], ours["l1_shared"], ours["hbm"]) == pytest.approx((200.0, 1100.0, 100.0))
    assert (ours["bound"], ours["ns"]) == ("l1_shared", pytest.approx(1100.0))
    assert [phase["conflicts"] for phase in ours["phases"]] == [None, 1.5] and ours["worst_conflicts"] == 1.75
    assert ours["measured_ns"] == pytest.approx(1e5 / 64) and ours["case"].batch == 64  # the replays of the largest
    assert (other["spec"], other["measured_ns"], other["case"]) == ("WHISPER", None, None)
    page = mel_page.chapter([*GPU, *found])
    assert "What the CUDA kernel asks" in page and f" ({spec} x64, GPU)</td>" in page and "H100 SXM" in page
    assert "What the CUDA kernel asks" not in mel_page.chapter([*GPU, static(spec)])


def test_replays_are_compared_with_replays():
    rows = {row["contestant"]: row for row in mel.rows(GPU)}
    assert rows["ours: cuda"]["against_eager"] == pytest.approx(5)
    assert rows["ours: cuda, CUDA graph"]["against_eager"] == pytest.approx(8)
    (duel,) = mel.duels(mel.rows(GPU))
    assert duel["ours"]["contestant"] == "ours: cuda, CUDA graph"
    assert duel["rival"]["contestant"] == f"{mel.EAGER}, CUDA graph" and duel["against_rival"] == pytest.approx(8)
    (duel,) = mel.duels(mel.rows([GPU[0], *GPU[2:]]))
    assert duel["rival"]["contestant"] == "torch by hand", "without a replay of ours all compare by calls"


def test_other_values_have_no_rank_and_show_their_error():
    rows = {row["contestant"]: row for row in mel.rows(GPU)}
    assert rows["MelT"]["badge"] == "other values" and rows["ours: cuda"]["badge"] == ""
    text = told(GPU)
    assert "best rival (MelT" not in text
    assert "MelT gives other values, off by 0.00000010 of the mel (relative RMS), at 100 to 160 times the speed" in text
    only = [GPU[0], *GPU[5:]]
    assert mel.duels(mel.rows(only)) == []


def test_int16_is_another_case():
    rows = mel.rows([*GPU, on_gpu("ours: cuda", 0.1, dtype="int16")])
    assert [row["against_eager"] for row in rows if row["dtype"] == "int16"] == [None]
    label = "CHORD x64 int16, GPU" if rows[0]["spec"] == "CHORD" else "ORIGINAL x64 int16, GPU"
    assert mel.case(rows[-1]).label == label


def test_the_table_of_a_gpu_pairs_replays_and_calls():
    roof = records.make(
        "mel roof",
        parameters={"roof": "memory", "threads": 2, "device": "cuda"},
        unit="ms",
        samples=[1.0],
        environment=ENVIRONMENT,
        bytes_moved=GPU[0]["bytes_moved"] * 20,
    )
    table = mel.on_gpu(mel.rows([*GPU, timing(mel.EAGER, 9.0, 64), roof]))
    assert [(name, bool(graph), bool(call)) for _, name, graph, call in table] == [
        ("MelT", True, True),
        ("ours: cuda", True, True),
        ("torch by hand", False, True),
        (mel.EAGER, True, True),
    ]
    assert table[1][2]["roof_ms"] == pytest.approx(0.05) and table[1][3]["p50_ms"] == 0.2


def test_a_disturbed_timing_has_no_ratio():
    quiet = [timing("ours: numba", 0.1, 1), timing(mel.EAGER, 1.0, 1)]
    quiet[0]["parameters"]["ours"] = True
    (duel,) = mel.duels(mel.rows(quiet))
    assert duel["against_eager"] == pytest.approx(10) == duel["against_rival"]
    for index in (0, 1):
        one = [record | {"disturbed": record is quiet[index]} for record in quiet]
        (duel,) = mel.duels(mel.rows(one))
        assert duel["against_eager"] is None is duel["against_rival"]
