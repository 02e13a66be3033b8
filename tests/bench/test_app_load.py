"""The load test counts answers, refusals and wrong chords, and gives percentiles of the times."""

import asyncio
import functools
import json

import pytest

from triadbench.bench import app_load

httpx = pytest.importorskip("httpx", reason='the load test needs httpx, which Gradio brings: pip install -e ".[app]"')


def server(events):
    """Answers as Gradio does: an upload, a call, and the call's events."""

    def answer(request):
        if request.url.path.endswith("/upload"):
            assert b"OggS" in request.read()
            return httpx.Response(200, json=["/tmp/clip.ogg"])
        if request.method == "POST":
            file, *menus = json.loads(request.content)["data"]
            assert file["path"] == "/tmp/clip.ogg" and menus == ["", ""]
            return httpx.Response(200, json={"event_id": "one"})
        assert request.url.path.endswith("/name_chord/one")
        return httpx.Response(200, text="".join(f"event: {kind}\ndata: {data}\n\n" for kind, data in events))

    return httpx.MockTransport(answer)


def measure(monkeypatch, *events):
    monkeypatch.setattr(httpx, "AsyncClient", functools.partial(httpx.AsyncClient, transport=server(events)))
    return asyncio.run(app_load.measure("http://app", visitors=2, seconds=0.3, pause_s=0.01))


def named(chord):
    return "complete", json.dumps([{"chord": chord, "read_ms": 1.5, "model_ms": 2.5}])


def test_answers_are_counted_and_timed(monkeypatch):
    result = measure(monkeypatch, ("generating", "null"), named("C"))
    assert result["answers"] > 2 and result["errors"] == 0 and result["visitors"] == 2
    assert result["server_ms"] == {"p50": 4.0, "p90": 4.0, "p99": 4.0, "max": 4.0}
    assert 0 < result["waited_s"]["p50"] <= result["waited_s"]["max"]


def test_a_wrong_chord_is_an_error(monkeypatch):
    result = measure(monkeypatch, named("Am"))
    assert result["errors"] == result["answers"] > 0 and result["first_errors"][0] == "wrong answer Am"


@pytest.mark.parametrize(
    ("events", "line"), [([("error", "null")], "ValueError: data: null"), ([], "ValueError: the answer ended early")]
)
def test_a_refusal_is_an_error_and_no_answer(monkeypatch, events, line):
    result = measure(monkeypatch, *events)
    assert result["answers"] == 0 and result["errors"] > 0 and result["first_errors"][0] == line
    assert result["waited_s"] == result["server_ms"] == {}


def test_percentiles():
    assert app_load.percentiles(list(map(float, range(101)))) == {"p50": 50, "p90": 90, "p99": 99, "max": 100}
