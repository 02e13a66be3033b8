"""Chapters of lines and layers and the page of the whole profile: text is escaped, figures are the records'."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from triadbench import cli
from triadbench.bench import records
from triadbench.bench.commands import profile as profile_command
from triadbench.bench.mel import own_backends
from triadbench.bench.profile import epochs, whole_machine
from triadbench.bench.profile import lines as line_profiles
from triadbench.bench.report import layers_page, lines_page, opening, profile_page

ENVIRONMENT = {
    "time": "2026-01-01T00:00:00+00:00",
    "commit": None,
    "dirty": None,
    "triadbench": "0",
    "python": "3",
    "versions": {},
    "os": "x",
    "cpu": "y",
    "cpu_features": [],
    "cores_physical": 1,
    "cores_logical": 2,
    "cores_usable": 2,
    "ram_gb": 1,
    "torch_threads": 1,
    "gpu": None,
    "gpu_driver": None,
}


def make_lines(**more):
    """A step of 10 s, of which 6 s are one line of a function that another line calls."""

    def line(function, number, text, hits, seconds, own, enters=()):
        return {
            "function": function,
            "file": "core/x.py",
            "line": number,
            "text": text,
            "hits": hits,
            "seconds": seconds,
            "own_seconds": own,
            "share": seconds / 10,
            "enters": list(enters),
        }

    f, g = "core.x:step", "core.x:Net.<load>"
    return (
        records.make(
            "lines",
            parameters={"target": "original & step", "device": "cpu"},
            unit="s",
            samples=[10.0],
            environment=ENVIRONMENT,
            told="<script>alert(1)</script>",
            clips=100,
            plain_s=[2.0, 4.0],
            profiled_s=[5.0, 5.0],
            overhead=1.25,
            disturbed=False,
            functions=[
                {"function": f, "file": "core/x.py", "line": 1, "calls": 2, "seconds": 10.0},
                {"function": g, "file": "core/x.py", "line": 9, "calls": 4, "seconds": 6.0},
            ],
            lines=[
                line(f, 1, "    def step():", 0, 0.0, 0.0),
                line(f, 2, "        a = load() < 3 and '</script>'", 4, 7.0, 1.0, [g]),
                line(f, 3, "        b = 1", 4, 3.0, 3.0),
                line(g, 9, "    x = y > 1", 4, 6.0, 6.0),
            ],
        )
        | more
    )


def make_layers(name="<Net>", **more):
    def row(layer, forward, backward, flops=0):
        return {
            "layer": layer,
            "kind": "Conv2d",
            "forward_ms": forward,
            "backward_ms": backward,
            "params": 7,
            "output_shape": [2, 3],
            "activation_bytes": 24,
            "saved_bytes": 8,
            "flops": flops,
            "backward_flops": 2 * flops,
        }

    return (
        records.make(
            "layers",
            parameters={"network": name, "device": "cpu", "batch": 2, "memory_format": "contiguous", "threads": 1},
            unit="ms",
            samples=[10.0, 12.0, 11.0],
            environment=ENVIRONMENT,
            clips=2,
            trace="t.json.gz",
            sum_ms=10.0,
            coverage=0.93,
            overhead=1.1,
            peak_bytes=5e6,
            held_bytes=1e6,
            peak_gflop_per_s=50.0,
            disturbed=False,
            rows=[row("a<b", 2.0, 6.0, flops=40_000_000), row("c", 1.0, 1.0)],
        )
        | more
    )


def test_source_text_is_escaped():
    page = lines_page.chapter([make_lines()])
    assert "a = load() &lt; 3 and &#39;&lt;/script&gt;&#39;" in page
    assert "alert(1)" in page and "<script" not in page and "</script" not in page
    assert "Net.&lt;load&gt;" in page and "<load>" not in page


def test_listing_holds_shares_times_and_runs():
    page = lines_page.chapter([make_lines()])
    hot = page[page.index('class="hot"') : page.index("</ol>")]
    assert [float(share) for share in re.findall(r"<b>([\d.]+) %</b>", hot)] == [60.0, 30.0, 10.0], "hottest first"
    row = re.search(r'<div class="row is-hot" id="lines-0-core-x-Net--load--9".*?</div>', page).group()
    assert "60.0 %" in row and ">60.0<" in row and "4×" in row, "60 ms a clip of 6 s over 100 clips"
    assert '<a href="#lines-0-core-x-Net--load-">' in page and "with it 70.0 %" in page
    assert re.search(r'<div class="row idle" id="lines-0-core-x-step-1"', page), "what never ran is listed, faintly"
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page, "every link leads somewhere"


def test_overhead_is_stated():
    sentence = lines_page.findings([make_lines()])[0]
    assert "40.0 ms a clip without the profiler, which adds 25 %" in sentence and "core/x.py:9" in sentence
    assert "other programs" in lines_page.findings([make_lines(disturbed=True)])[0]
    assert "1.10 times as long" in layers_page.findings([make_layers()])[0]


def test_nothing_measured_is_no_chapter():
    assert lines_page.chapter([]) == layers_page.chapter([]) == ""


def test_the_last_record_of_a_case_is_shown():
    page = lines_page.chapter([make_lines(told="the first"), make_lines(told="the second")])
    assert "the second" in page and "the first" not in page


def test_layers_chapter_draws_and_tells():
    page = layers_page.chapter([make_layers(), make_layers(), make_layers("Other")])
    assert page.count("data-plot=") == 6 and "<Net>" not in page and "&lt;Net&gt;" in page
    assert "<td>a&lt;b</td>" in page and 'href="t.json.gz"' in page
    # 40 MFLOP in 2 ms, 80 in 6; together 120 in 8 ms, of 50 GFLOP/s at best.
    assert "<td>20.0</td><td>13.3</td><td>30.0</td>" in page
    sentence = layers_page.findings([make_layers()])[0]
    assert "a step takes 11.0 ms (5.50 a clip)" in sentence and "a<b with 80 %" in sentence and "93 %" in sentence


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    seen = []
    begun = time.perf_counter()
    parts = whole_machine.run(
        folder,
        folder / "records.jsonl",
        whole_machine.SMOKE,
        parts=("layers", "step", "pipeline", "lines", "flame"),
        progress=lambda part: lambda *at: seen.append((part, *at)),
    )
    return folder, profile_page.write(parts, folder / "page.html", folder / "records.jsonl", begun), seen


def test_the_whole_profile_is_one_page(whole):
    folder, result, seen = whole
    made, problems = records.load(folder / "records.jsonl")
    assert not problems and {"layers", "lines", "forward", "training step", "pipeline parts"} <= {
        r["name"] for r in made
    }
    page = (folder / "page.html").read_text(encoding="utf-8")
    own = re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)
    assert "http" not in own and "src=" not in own, "nothing is fetched"
    for part in ("layers", "step", "pipeline", "lines", "flame", "environment"):
        assert f'<section id="{part}"' in own
    assert own.count("<h2") == 6, "a chapter has one title"
    assert {part for part, *_ in seen} == {"layers", "step", "pipeline", "lines", "flame"}
    assert all((folder / path).exists() for path in re.findall(r'href="([^"#]+\.gz)"', own))
    assert "never calls" not in own and result["parts"]["lines"]["records"] == 3
    assert str(folder) in profile_page.text(result) and json.dumps(result)


def test_lines_of_the_real_pipelines_are_found(whole):
    """A function renamed in core is an error in the profile, so this test fails with it."""
    found = {r["parameters"]["target"]: r for r in records.load(whole[0] / "records.jsonl")[0] if r["name"] == "lines"}
    assert list(found) == ["original training step", "fast training step", "original dataset"]
    for record in found.values():
        assert all(f["calls"] > 0 for f in record["functions"])
        assert sum(line["own_seconds"] for line in record["lines"]) == pytest.approx(record["samples"][0], rel=0.05)
        assert not any(line["file"].startswith("/") for line in record["lines"])
    backward = [line for line in found["original training step"]["lines"] if "loss.backward()" in line["text"]]
    assert backward[0]["hits"] == 1, "8 of 12 clips are trained on, in one step"
    mel = [line for line in found["original dataset"]["lines"] if "self.transform(signal)" in line["text"]]
    assert mel[0]["hits"] == 12 and mel[0]["share"] > 0


def test_flame_graphs_of_the_real_work_lie_beside_the_page_for_speedscope(whole):
    folder, result, _ = whole
    graphs = {r["parameters"]["target"]: r for r in records.load(folder / "records.jsonl")[0] if r["name"] == "flame"}
    assert list(graphs) == ["original training step", "fast training step", "infer"]
    content = json.loads(Path(result["speedscope"]).read_text())
    names = [frame["name"] for frame in content["shared"]["frames"]]
    assert not any(re.search(r"(^|[ '\"])/", name) or " object at 0x" in name for name in names), "no path of a machine"
    for profile, record in zip(content["profiles"], graphs.values(), strict=True):
        assert profile["type"] == "sampled" and profile["unit"] == "milliseconds"
        assert len(profile["samples"]) == len(profile["weights"]) > 5
        assert profile["endValue"] == pytest.approx(sum(profile["weights"]))
        assert profile["endValue"] == pytest.approx(record["samples"][0], rel=0.1)
        assert all(0 <= frame < len(names) for stack in profile["samples"] for frame in stack)
        assert {stack[0] for stack in profile["samples"]} == {names.index(record["parameters"]["target"])}
    calls = {target: " ".join(name for _, name, _ in record["calls"]) for target, record in graphs.items()}
    own = calls["original training step"]
    assert "_train_steps" in own and "aten::convolution_backward" in own and "__getitem__" in own
    assert "infer_files" in calls["infer"]
    quiet = [record | {"disturbed": False} for record in graphs.values()]
    assert re.fullmatch(r"Original training step takes [\d.,]+ ms a clip\.", opening.of_records(quiet).verdict)


def test_targets_of_a_gpu_are_named_as_core_has_them():
    for name in epochs._FAST["cuda"]:
        line_profiles.resolve(name)


@pytest.mark.gpu
def test_lines_on_a_gpu():
    made = epochs.run_lines(ENVIRONMENT, device="cuda", rounds=1)
    assert len(made) == 3 and all("Times are the host's" in record["told"] for record in made)


def test_the_quick_profile_is_less_of_every_part():
    quick = whole_machine.QUICK
    assert quick.mel.static == own_backends.ORIGINAL_CASES and quick.mel.budget_s < whole_machine.FULL.mel.budget_s
    assert set(quick.mel_specs) == {"ORIGINAL", "CHORD"} and quick.step.rounds < whole_machine.FULL.step.rounds


def test_only_chooses_a_part(monkeypatch, tmp_path):
    asked = {}

    def run(folder, records_path, effort, **more):
        asked.update(folder=folder, effort=effort, **more)
        return {"layers": ([make_layers()], 1.5)}

    monkeypatch.setattr(whole_machine, "run", run)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.main, ["profile", "--only", "layers", "--records", str(tmp_path / "r"), "--json"])
    result = json.loads(done.stdout)
    assert done.exit_code == 0 and result["page"].endswith("layers.html") and (tmp_path / result["page"]).exists()
    assert result["parts"]["layers"]["records"] == 1 and result["parts"]["layers"]["seconds"] == 1.5
    assert asked["parts"] == ("layers",) and asked["effort"] is whole_machine.FULL
    assert set(profile_command.PARTS) < set(whole_machine.PARTS) == set(profile_page.TITLES)
