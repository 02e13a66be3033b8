"""The mel profile: a wrong contestant has no time, a missing one a reason, and a second run measures what is left."""

from __future__ import annotations

import dataclasses
import json
import re
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from triadbench import cli
from triadbench.bench import cases, records
from triadbench.bench.analysis import mel as mel_summary
from triadbench.bench.commands import profile as profile_command
from triadbench.bench.mel import measure as mel
from triadbench.bench.mel import own_backends, rivals
from triadbench.bench.mel import records as mel_records
from triadbench.bench.report import mel_page
from triadbench.core.constants import usable_cores
from triadbench.core.errors import UserError
from triadbench.kernels import SPECS, WHISPER, mel_reference

CONTEST = mel_records.Contest(("WHISPER",), (1, 2), (1,))
EVERY = rivals.all_rivals()
STATIC = {
    "registers": 101,
    "spill_store_bytes": 0,
    "spill_load_bytes": 0,
    "shared_bytes": 58344,
    "stack_bytes": 0,
    "threads_per_block": 224,
    "frames_per_block": 13,
    "instructions": 2216,
    "mix": {"FFMA": 493, "integer": 578},
    "blocks_per_sm": 2,
    "occupancy": 0.22,
}


COST = {"phases": [{"phase": "real", "issue_slots": 1.0, "l1_bytes": 1.0, "shared_bytes": 1.0, "conflicts": 1.0}]}
COST |= {"worst_conflicts": 1.0}


def contestants() -> dict[str, rivals.Rival]:
    def shifted(spec, waveform, threads):
        right = cases.torchaudio_mel(spec)
        return lambda waveform: right(waveform).roll(1, -1)

    def broken(spec, waveform, threads):
        raise OSError("libnothing.so\nis not there")

    made = [
        EVERY["ours: numba"],
        EVERY["torchaudio eager"],
        rivals.Rival("shifted", "one frame late", shifted),
        rivals.Rival("broken", "does not start", broken),
        rivals.Rival("absent", "nobody has it", broken, modules=("no_such_module.at_all",)),
    ]
    return {rival.name: rival for rival in made}


def run(folder, effort=mel.SMOKE, **more) -> dict:
    return profile_command.run_mel(folder / "page.html", folder / "r.jsonl", CONTEST, effort, **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, patch, seen = tmp_path_factory.mktemp("mel"), pytest.MonkeyPatch(), []
    effort = dataclasses.replace(mel.SMOKE, static=own_backends.ORIGINAL_CASES)
    patch.setattr(rivals, "all_rivals", contestants)
    patch.setattr("triadbench.kernels.gpu.static_analysis.why_unavailable", lambda: None)
    patch.setattr("triadbench.kernels.gpu.static_analysis.analyse", fake_analysis)
    patch.setattr(
        "triadbench.kernels.gpu.cost_model.count", lambda spec, *, n_samples, arch: COST | {"hbm_bytes": n_samples}
    )
    try:
        result = run(folder, effort, progress=lambda *at: seen.append(at))
        again = run(folder, effort)
    finally:
        patch.undo()
    return folder, result, again, seen


def fake_analysis(spec, *, arch):
    """In place of the compiler, which takes half a minute."""
    if arch == "sm_120":
        raise RuntimeError("ptxas does not know sm_120")
    return {"arch": arch, **STATIC}


def test_every_case_has_a_timing_or_a_reason(finished):
    folder, result, _, seen = finished
    made, problems = records.load(folder / "r.jsonl")
    assert not problems
    timed = mel_summary.select(made, "mel")
    assert {(r["parameters"]["contestant"], r["parameters"]["batch"]) for r in timed} == {
        (name, batch) for name in ("ours: numba", "torchaudio eager") for batch in (1, 2)
    }
    for record in timed:
        assert record["samples"] and record["first_call"] > 0 and record["flops"] > 0 and record["bytes_moved"] > 0
        assert 0 < record["error"]["rms_relative"] < 1e-5 and 0 < record["error"]["tilted_log"] < 1e-2
    reasons = {gap["contestant"]: gap["reason"] for gap in result["left_out"]}
    assert reasons["shifted"].startswith("wrong: FAILED") and "peak_relative" in reasons["shifted"]
    assert reasons["broken"] == "failed: libnothing.so is not there"
    assert reasons["absent"] == "not installed: no_such_module.at_all"
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1]
    json.dumps(result, allow_nan=False)


def test_a_second_run_measures_nothing_again(finished):
    folder, first, again, _ = finished
    assert first["skipped_groups"] == 0 and again["skipped_groups"] == 2
    made, _ = records.load(folder / "r.jsonl")
    assert len(again["measurements"]) == len(mel_summary.select(made, "mel")) == 4
    assert len(mel_summary.select(made, "mel cuda static")) == 3


def test_an_interrupted_run_goes_on_and_fresh_starts_anew(monkeypatch, tmp_path):
    monkeypatch.setattr(rivals, "all_rivals", contestants)
    right, calls, notes = mel.Run.measure_group, [], []

    def interrupted(self, group, group_s):
        calls.append(group)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return right(self, group, group_s)

    monkeypatch.setattr(mel.Run, "measure_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    kept = (tmp_path / "r.jsonl").read_bytes()
    result = run(tmp_path, note=notes.append)
    assert result["skipped_groups"] == 1 and "1 of 2 groups" in notes[0]
    assert (tmp_path / "r.jsonl").read_bytes().startswith(kept)
    assert [group.batch for group in calls] == [1, 2, 2]
    assert run(tmp_path, fresh=True)["skipped_groups"] == 0


@pytest.mark.parametrize(("key", "value"), [("code", "other"), ("cpu", "another"), ("versions", {"torch": "1.0"})])
def test_records_of_another_machine_or_code_do_not_count(finished, tmp_path, key, value):
    folder, *_ = finished
    made, _ = records.load(folder / "r.jsonl")
    group = mel_records.Group("WHISPER", 1, 1, "cpu")
    same = made[0]["environment"]
    store = lambda environment, effort: mel_records.Store(folder / "r.jsonl", environment, effort, fresh=False)  # noqa: E731
    assert store({**same, "time": "later", "dirty": None}, "smoke").has_group(group, contestants())
    assert not store({**same, key: value}, "smoke").has_group(group, contestants())
    assert not store(same, "full").has_group(group, contestants())
    assert not store(same, "smoke").has_group(group, {**contestants(), "new": None})


def test_page_stands_alone_and_shows_what_was_found(finished):
    folder, result, *_ = finished
    page = (folder / "page.html").read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in own and "src=" not in own, "nothing is fetched"
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page
    assert page.count("data-plot=") >= 5 and "What the CUDA kernel asks of a GPU" in page
    for text in (
        "not installed: no_such_module.at_all",
        "ptxas does not know sm_120",
        "58,344",
        "times torchaudio eager",
        "GPU: not measured",
        "<select",
        'tabindex="0"',
    ):
        assert text in own, text
    assert "WHISPER x2" in mel_summary.text(result) and str(folder / "page.html") in mel_summary.text(result)


def test_a_page_without_records_says_so():
    assert "Nothing is measured yet" in mel_page.chapter([])


# ---- figures and sentences


def a_timing(contestant: str, ms: float, *, ours=False, disturbed=False, threads=2, batch=64, device="cpu") -> dict:
    return records.make(
        "mel",
        parameters={
            "contestant": contestant,
            "ours": ours,
            "spec": "ORIGINAL",
            "batch": batch,
            "threads": threads,
            "device": device,
        },
        unit="ms",
        samples=[ms] * 4,
        first_call=1.0,
        prepare_ms=2.0,
        first_in_process=True,
        error={"rms_relative": 1e-7, "peak_relative": 2e-7, "tilted_log": 1e-4},
        disturbed=disturbed,
        other_cores=0.5,
        clips=batch,
        audio_s=4.0 * batch,
        flops=3.2e8,
        bytes_moved=1.6e7,
        environment={"gpu": None},
    )


def a_roof(name: str, **work) -> dict:
    parameters = {"roof": name, "threads": 2, "device": "cpu"}
    return records.make(
        "mel roof", parameters=parameters, unit="ms", samples=[2.0, 1.0], environment={"gpu": None}, **work
    )


def test_rows_and_sentences_follow_the_numbers():
    made = [
        a_roof("memory", bytes_moved=2e7),
        a_roof("arithmetic", flops=1e8),
        a_timing("torchaudio eager", 64.0),
        a_timing("ours: numba", 4.0, ours=True),
        a_timing("DALI", 32.0),
    ]
    rows = {row["contestant"]: row for row in mel_summary.rows(made)}
    ours = rows["ours: numba"]
    assert ours["against_eager"] == 16 and ours["clips_per_s"] == 16_000 and ours["real_time_factor"] == 64_000
    assert ours["gb_per_s"] == pytest.approx(4) and ours["gflop_per_s"] == pytest.approx(80)
    assert ours["share_of_memory"] == pytest.approx(0.2) and ours["share_of_arithmetic"] == pytest.approx(0.8)
    told = " ".join(mel_summary.findings(made))
    assert "batch 64: 16 times torchaudio eager, 8.0 times the best rival (DALI)" in told
    assert "80 % of the measured arithmetic peak; there the best rival reaches 10 %" in told


def test_nothing_is_concluded_from_disturbed_timings():
    made = [a_timing("torchaudio eager", 64.0), a_timing("ours: numba", 4.0, ours=True, disturbed=True)]
    told = " ".join(mel_summary.findings(made))
    assert "1 of 2 timings are disturbed" in told and "times torchaudio eager" not in told
    for record in made:
        record |= {"what": "", "versions": {}, "threads_by": ""}
        record["error"] |= {"tolerance": 1e-4, "tolerance_reason": ""}
    page = mel_page.chapter(made)
    assert '<td>ours: numba<span class="badge warn">disturbed</span></td>' in page


def test_a_gpus_cases_stand_apart():
    made = [
        a_timing(name, ms, ours=name.startswith("ours"), device=device)
        for name, ms, device in (
            ("torchaudio eager", 9.0, "cpu"),
            ("ours: numba", 3.0, "cpu"),
            ("torchaudio eager", 1.0, "cuda"),
            ("ours: cuda", 0.1, "cuda"),
        )
    ]
    duels = {duel["case"][3]: duel["against_eager"] for duel in mel_summary.duels(mel_summary.rows(made))}
    assert duels == {"cpu": pytest.approx(3), "cuda": pytest.approx(10)}
    assert any(sentence.startswith("ORIGINAL, GPU, ours: cuda") for sentence in mel_summary.findings(made))


# ---- what is asked for


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"specs": ["NONE"]}, "spec 'NONE' is unknown; choose of ORIGINAL, CHORD, WHISPER"),
        ({"batches": [0]}, "batch=0 must be in 1 to 65,536"),
        ({"threads": [usable_cores() + 1]}, "the cores of this machine"),
    ],
)
def test_a_contest_checks_itself(given, told):
    with pytest.raises(UserError, match=re.escape(told)):
        mel.make_contest(mel.FULL, **given)


def test_a_contest_fills_in_what_is_not_given():
    contest = mel.make_contest(mel.FULL)
    assert contest.specs == tuple(SPECS) and contest.batches == (1, 8, 64, 512) and contest.threads[0] == 1
    assert mel.make_contest(mel.FULL, batches=[8, 1, 8]).batches == (1, 8)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--only", "nothing"], "'mel'"),
        (["--only", "mel", "--spec", "NONE"], "choose of ORIGINAL"),
        (["--only", "mel", "--batch", "0"], "batch=0"),
        (["--only", "mel", "--batch", "1;2"], "whole numbers"),
        (["--only", "mel", "--threads", "4096"], "cores of this machine"),
        (["--quick", "--threads", "1"], "--threads belongs to --only mel"),
        (["--only", "lines", "--fresh"], "--fresh belongs to --only mel"),
    ],
)
def test_wrong_usage_is_exit_2(arguments, told):
    done = CliRunner().invoke(cli.main, ["profile", *arguments])
    assert done.exit_code == 2 and told in done.output and "Traceback" not in done.output


def test_the_command_hands_on_what_it_was_given(monkeypatch, tmp_path):
    asked = {}

    def run(out, records_path, contest, effort, **more):
        asked.update(contest=contest, effort=effort, **more)
        return {"page": str(out)}

    monkeypatch.setattr(profile_command, "run_mel", run)
    arguments = ["--only", "mel", "--quick", "--spec", "CHORD", "--batch", "8,1", "--threads", "1", "--budget", "9"]
    done = CliRunner().invoke(cli.main, ["profile", *arguments, "--out", str(tmp_path / "m.html"), "--fresh", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout) == {"page": str(tmp_path / "m.html")}
    assert asked["contest"] == mel_records.Contest(("CHORD",), (1, 8), (1,)) and asked["fresh"]
    assert asked["effort"].name == "quick" and asked["effort"].budget_s == 9


def test_a_device_can_be_asked_for(monkeypatch):
    done = CliRunner().invoke(cli.main, ["profile", "--only", "mel", "--device", "cuda"])
    assert done.exit_code == 2 and "check the driver with nvidia-smi" in done.output
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device, devices in (("all", ("cpu", "cuda")), ("cpu", ("cpu",)), ("cuda", ("cuda",))):
        contest = mel.make_contest(mel.FULL, ["CHORD"], [1], device=device)
        assert contest.devices == devices == tuple(dict.fromkeys(group.device for group in contest.groups()))


def test_of_the_gpu_alone_nothing_is_done_on_the_cpu(monkeypatch, tmp_path):
    groups, tasks = [], []
    monkeypatch.setattr(mel.Run, "add_group", lambda self, group: groups.append(group))
    monkeypatch.setattr(mel.Run, "add_roofs", lambda self, threads, device: tasks.append(device))
    monkeypatch.setattr("triadbench.kernels.available_backends", lambda: dict.fromkeys(("cuda", "numba")))
    monkeypatch.setattr(own_backends, "_add_warm_start", lambda store, name, times: tasks.append(name))
    monkeypatch.setattr(own_backends, "static_tasks", lambda store, given: tasks.extend(given) or [])
    contest = mel_records.Contest(("CHORD",), (1,), (1, 2), ("cuda",))
    mel.measure(tmp_path / "r.jsonl", contest, mel.FULL)
    assert groups == [mel_records.Group("CHORD", 1, 2, "cuda")] and tasks == ["cuda", "cuda"]


def test_int16_is_a_case_of_its_own(tmp_path):
    store = mel_records.Store(tmp_path / "r.jsonl", {"gpu": None}, "full", fresh=False)
    floats = mel_records.Group("CHORD", 1, 1, "cpu")
    given = {"contestant": "librosa", "spec": "CHORD", "batch": 1, "threads": 1, "device": "cpu", "ours": False}
    store.add(store.make("mel", given, [1.0]))  # as an earlier version wrote it
    assert store.has_group(floats, ["librosa"]) and not store.has_group(floats._replace(dtype="int16"), ["librosa"])
    store.add(
        store.make("mel", {**given, "dtype": "int16"}, [2.0]), store.make("mel", {**given, "dtype": "float32"}, [3.0])
    )
    assert store.has_group(floats._replace(dtype="int16"), ["librosa"])
    shown = store.current(mel_records.Contest(("CHORD",), (1,), (1,)))
    assert sorted(record["samples"] for record in shown) == [[2.0], [3.0]]
    larger = floats._replace(batch=8)
    assert [store.predict_s(larger._replace(dtype=d), "librosa") for d in ("float32", "int16")] == [0.008, 0.016]


def test_int16_is_converted_within_the_call_or_taken_as_it_is(monkeypatch, tmp_path):
    seen = []

    def noting(spec, example, threads):
        right = cases.torchaudio_mel(spec)
        return lambda waveform: (seen.append((example.dtype, waveform.dtype)), right(waveform))[1]

    known = {"noting": rivals.Rival("noting", "", noting), "ours: numba": EVERY["ours: numba"]}
    store = mel_records.Store(tmp_path / "r.jsonl", mel_records.environment(known), "smoke", fresh=True)
    group = mel_records.Group("WHISPER", 2, 1, "cpu", "int16")
    timed = {
        r["parameters"]["contestant"]: r for r in mel.Run(store, known, mel.SMOKE, [group]).measure_group(group, 1.0)
    }
    assert set(seen) == {(torch.float32, torch.float32)}
    assert all(record["error"]["rms_relative"] < 1e-5 for record in timed.values()) and set(timed) == set(known)
    assert {record["bytes_moved"] for record in timed.values()} == {2 * (64_000 * 2 + 80 * 401 * 4)}


def test_large_batches_repeat_the_clips(monkeypatch, tmp_path):
    monkeypatch.setattr(mel, "_DIFFERENT_CLIPS", 2)
    known = {"torchaudio eager": EVERY["torchaudio eager"]}
    store = mel_records.Store(tmp_path / "r.jsonl", mel_records.environment(known), "smoke", fresh=True)
    group = mel_records.Group("WHISPER", 5, 1, "cpu")
    run = mel.Run(store, known, mel.SMOKE, [group])
    [waveform], expected = run._inputs(group)
    assert len(waveform) == len(expected) == 5 and waveform[0].equal(waveform[4]) and not waveform[0].equal(waveform[1])
    assert run.measure_group(group, 1.0)[0]["name"] == "mel"


def test_a_folder_for_records_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        profile_command.run_mel(tmp_path / "p.html", tmp_path, CONTEST, mel.SMOKE)


# ---- the parts


def test_slow_calls_are_foreseen_from_smaller_batches(finished, tmp_path):
    store = mel_records.Store(tmp_path / "r.jsonl", {"gpu": None}, "full", fresh=False)
    given = {"contestant": "nnAudio", "spec": "CHORD", "threads": 1, "device": "cpu", "ours": False}
    for batch, ms in ((1, 30.0), (8, 160.0), (8, 5000.0), (512, 1.0)):
        store.add(store.make("mel", {**given, "batch": batch}, [ms, 2 * ms]))
    group = mel_records.Group("CHORD", 64, 1, "cpu")
    assert store.predict_s(group, "nnAudio") == pytest.approx(1.28)
    assert store.predict_s(group, "librosa") is None
    rival = rivals.Rival("nnAudio", "", None)
    assert "1.3 s, too long" in mel._why_skip(rival, group, mel.FULL, 5.0, store)
    assert mel._why_skip(rival, group, mel.FULL, 7.0, store) is None
    assert mel._why_skip(dataclasses.replace(rival, baseline=True), group, mel.FULL, 5.0, store) is None


def test_a_call_that_turns_out_slow_is_not_sampled(monkeypatch, tmp_path):
    def slow(spec, waveform, threads):
        right = cases.torchaudio_mel(spec)
        return lambda waveform: (time.sleep(0.3), right(waveform))[1]

    known = {"slow": rivals.Rival("slow", "sleeps", slow), "torchaudio eager": EVERY["torchaudio eager"]}
    monkeypatch.setattr(rivals, "all_rivals", lambda: known)
    effort = dataclasses.replace(mel.SMOKE, budget_s=0.4)
    result = profile_command.run_mel(
        tmp_path / "p.html", tmp_path / "r.jsonl", mel_records.Contest(("WHISPER",), (2,), (1,)), effort
    )
    assert [row["contestant"] for row in result["measurements"]] == ["torchaudio eager"]
    assert [gap["reason"] for gap in result["left_out"]] == ["one call would take too long for the time given"]


def test_tilted_tones_fall_by_what_was_asked():
    waveform, filters = cases.tilted_tones(WHISPER, 80)
    assert waveform.shape == (1, 16_000) and waveform.dtype == torch.float32
    level = np.log10(mel_reference.mel_spectrogram(waveform.numpy(), WHISPER)[0, filters, 2:-3].mean(axis=-1))
    widths = WHISPER.filterbank().max(axis=1)[filters]  # slaney filters are lower where they are wide
    fall = 10 * (level - np.log10(widths))
    assert fall[0] - fall[-1] == pytest.approx(80, abs=3)
