"""The promise: the chapter of a GPU run tells how every stage ended, what the checks found and what is missing."""

from tests.bench.report_records import environment
from triadbench.bench import records
from triadbench.bench.report import gpu_page

ENVIRONMENT = environment(gpu="Test GPU")
STATE = {"sm_clock_mhz": 1980.0, "temperature_c": 41.0}


def record(name, parameters, samples=(), unit="s", **more):
    return records.make(
        name, parameters=parameters, samples=samples, unit=unit, environment=ENVIRONMENT, **{"effort": "gpu", **more}
    )


def stage(name, status="done", **more):
    return record("gpu stage", {"stage": name}, [12.0], status=status, limit_s=30.0, **more)


def counters(spec, **metrics):
    return record(
        "gpu counters",
        {"spec": spec, "batch": 512},
        metrics={name: {"value": value, "unit": "byte"} for name, value in metrics.items()},
    )


TRAINING = record(
    "gpu final training",
    {"device": "cuda", "clips": 86400, "epochs": 30, "batch_size": 32, "task": "type", "pipeline": "fast"},
    [2.0, 1.0, 1.2],
    test_accuracy=[0.3, 0.5, 0.912],
    states=[STATE, None, STATE],
)
RUN = [
    stage("environment", summary="Test GPU: copy 3 TB/s"),
    stage("mel", "timed out", reason="its records until then are kept"),
    record("gpu roof", {"what": "copy", "dtype": "float32"}, [2.0, 1.0], "ms", bytes_moved=3 * 10**9),
    record("gpu roof", {"what": "matmul", "dtype": "tf32"}, [1.0], "ms", flops=4 * 10**11),
    record(
        "gpu tests", {}, passed=40, failed=1, errors=0, skipped=2, failures=[{"name": "test_a", "reason": "<b>wrong"}]
    ),
    record("gpu sanitizer", {"tool": "memcheck"}, [9.0], errors=0, lines=[]),
    record("gpu sanitizer", {"tool": "racecheck"}, reason="compute-sanitizer is not installed"),
    counters("ORIGINAL", a=1.0, b=2.0),
    counters("CHORD", b=3.0),
    record("gpu counters", {"spec": "WHISPER", "batch": 512}, reason="ended at the time limit"),
    TRAINING,
    record("gpu training left out", {"part": "ladder on cpu"}, reason="it would take 90 s and 20 s are left"),
    record("gpu command", {"command": "infer --provider cuda"}, reason="onnxruntime has no CUDA provider"),
]


def test_without_a_run_nothing_is_shown():
    assert gpu_page.chapter([]) == ""


def test_every_result_and_every_gap_is_told():
    html = str(gpu_page.chapter(RUN))
    for words in (
        "not finished: mel",
        "timed out",
        "40 passed, 1 failed, 0 errors, 2 skipped",
        "&lt;b&gt;wrong",
        "0 errors",
        "sanitizer racecheck: compute-sanitizer is not installed",
        "counters WHISPER 512: ended at the time limit",
        "training left out ladder on cpu: it would take 90 s",
        "command infer --provider cuda: onnxruntime has no CUDA provider",
    ):
        assert words in html, words
    assert "rehearsal" not in html


def test_peaks_are_of_the_best_sample():
    rows = [gpu_page.roof(entry) for entry in RUN if entry["name"] == "gpu roof"]
    assert [(row["rate"], row["unit"]) for row in rows] == [(3.0, "TB/s"), (400.0, "TFLOP/s")]


def test_the_final_training_in_a_sentence():
    (sentence,) = [text for text in gpu_page.findings(RUN) if "final training" in text]
    assert "86,400 clips" in sentence and "took 1.20 s an epoch on the Test GPU" in sentence
    assert "3 of 30 epochs 4.20 s, to 91.2 %" in sentence


def test_the_picture_shows_what_the_gpu_told():
    figure, choices = gpu_page.training_figure(TRAINING)
    assert [trace.name for trace in figure.data] == ["seconds", "SM clock, MHz", "temperature, °C"]
    assert list(figure.data[1].y) == [1980.0, None, 1980.0]
    shown = [choice["args"][0]["visible"] for choice in choices]
    assert shown == [[True, False, False], [True, True, False], [True, False, True]]


def test_a_training_on_a_cpu_says_so():
    entry = {**TRAINING, "parameters": {**TRAINING["parameters"], "device": "cpu"}}
    assert "on the CPU" in gpu_page.findings([entry])[0]
