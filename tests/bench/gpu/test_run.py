"""The GPU run survives every stage: whatever one does, the others run, the summary tells, and the time is kept."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import commands
from triadbench.bench import records
from triadbench.bench.gpu import run as gpu_run
from triadbench.bench.gpu.run import Stage
from triadbench.core import workers
from triadbench.core.errors import UserError

_RECORD = """
import os, signal, subprocess, sys, time
from triadbench.bench import records
from triadbench.core.errors import UserError

def add(context, name="seen", **parameters):
    made = records.make(name, parameters=parameters, unit="s", samples=[], environment={})
    records.append(made, context.records)
"""
_BODIES = {
    "good": "add(context); print('printed by good'); return 'it went well'",
    "told": "return f'{context.device} {context.rehearse} {context.seconds} {context.left_s()}'",
    "hangs": "add(context); print('before it hangs', flush=True); time.sleep(600)",
    # It ignores SIGTERM, and so does what it starts.
    "stubborn": "signal.signal(signal.SIGTERM, signal.SIG_IGN); child = subprocess.Popen(['sleep', '600']); "
    "open(os.environ['PIDS'], 'w').write(f'{os.getpid()} {child.pid}'); time.sleep(600)",
    "exits": "print('the last line of exits'); sys.stdout.flush(); os._exit(3)",
    "raises": "raise ValueError('no such\\nthing')",
    "refuses": "raise UserError('2 of 5 failed')",
    "crashes": "add(context); os.kill(os.getpid(), signal.SIGSEGV)",
    "is_killed": "subprocess.run(['kill', '-9', str(os.getpid())]); time.sleep(600)",
    "prints": "line = 'without end ' * 100\n    while True: print(line)",
    "floods": "for number in range(20): add(context, text='x' * 1_000_000)\n    return 'all written'",
    "leaves": "child = subprocess.Popen(['sleep', '600']); open(os.environ['PIDS'], 'w').write(str(child.pid)); "
    "return 'a child is left'",
    "half": "add(context); open(context.records, 'a').write('{\"half'); os._exit(1)",
}


@pytest.fixture
def stages(tmp_path, monkeypatch):
    """Makes a table of fake stages: names to shares."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, body in _BODIES.items():
        (folder / f"fake_{name}.py").write_text(f"{_RECORD}\ndef run(context):\n    {body}\n")
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    return lambda **shares: {name: Stage(f"fake_{name}", share) for name, share in shares.items()}


def run(folder, table, seconds=100.0, rehearse=True, prepare=None):
    """(result, the run's records, what was said)."""
    said: list[str] = []
    result = gpu_run.run(folder, seconds, rehearse, table, prepare, said.append)
    assert result["seconds"] <= seconds
    lines, problems = records.load(folder / "records.jsonl")
    assert not problems
    return result, lines, "\n".join(said)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_gone(pids, within_s=60):
    """Whoever was killed is gone soon, if not at once."""
    end = time.monotonic() + within_s
    while any(map(is_running, pids)):
        assert time.monotonic() < end, f"still running: {list(filter(is_running, pids))}"
        time.sleep(0.05)


def test_whatever_a_stage_does_the_others_run_and_the_summary_tells(stages, tmp_path):
    """Hanging, deaf to SIGTERM with a child of its own, ending itself, raising, crashing, killed, printing without end,
    and writing 20 MB of records."""
    slow, quick = 4.0, 30.0
    table = stages(
        good=quick, hangs=slow, stubborn=slow, exits=quick, raises=quick, refuses=quick, crashes=quick,
        is_killed=quick, prints=slow, floods=quick, told=quick,
    )  # fmt: skip
    folder = tmp_path / "out"
    result, lines, said = run(folder, table, seconds=100)
    rows = {row["stage"]: row for row in result["stages"]}
    assert list(rows) == list(table)
    expected = {
        "good": ("done", "it went well"),
        "hangs": ("timed out", "log.txt tells where it was"),
        "stubborn": ("timed out", "log.txt"),
        "exits": ("failed", "exit code 3: the last line of exits"),
        "raises": ("failed", "ValueError: no such thing"),
        "refuses": ("failed", "2 of 5 failed"),
        "crashes": ("killed", "by SIGSEGV"),
        "is_killed": ("killed", "by SIGKILL"),
        "prints": ("timed out", "log.txt"),
        "floods": ("done", "all written"),
        "told": ("done", "cpu True"),
    }
    summary = (folder / "summary.txt").read_text()
    assert result["summary"].splitlines()[3:] == summary.splitlines()[3:]
    for name, (status, text) in expected.items():
        row = rows[name]
        assert (row["status"], text in (row.get("summary") or row["reason"])) == (status, True), row
        assert re.search(rf"^{name} +{status} .*{re.escape(text)}", summary, re.MULTILINE), summary
        assert f"{name}, at most" in said
    assert "ended after" in summary
    # What was written before the end is kept, and a record of each stage follows.
    assert [line["parameters"]["stage"] for line in lines if line["name"] == "gpu stage"] == list(table)
    seen = [line for line in lines if line["name"] == "seen" and not line["parameters"]]
    assert len(seen) == 3, "of good, hangs and crashes"
    # Six or seven of the 20 records of a million bytes fit what the three stages that were left may write.
    left_out = int(re.match(r"(\d+) records", rows["floods"]["left_out"])[1])
    assert 0 < left_out < 20 and f"{left_out} records" in summary
    assert sum(line["name"] == "seen" and "text" in line["parameters"] for line in lines) == 20 - left_out
    # The log has the end of everything.
    log = (folder / "log.txt").read_text()
    assert all(text in log for text in ("printed by good", "before it hangs", "the last line of exits", "Traceback"))
    assert "fake_hangs.py" in log, "where it was when its time was over"
    files = list(folder.iterdir())
    assert {file.name for file in files} == {"records.jsonl", "summary.txt", "log.txt"}
    assert all(file.stat().st_size < 16_000_000 for file in files) and len(log.encode()) < 4_000_000
    assert_gone(map(int, (tmp_path / "pids").read_text().split()))


def test_a_stage_has_time_to_begin_however_small_its_share(stages, tmp_path):
    first, _ = run(tmp_path / "long", stages(good=1, told=99))[0]["stages"]
    assert first["limit_s"] == 10.0
    first, _ = run(tmp_path / "short", stages(good=1, told=99), seconds=12.0)[0]["stages"]
    assert 0.4 * 12 < first["limit_s"] <= 6


def test_unused_time_goes_to_later_stages_and_a_stage_knows_a_little_less(stages, tmp_path):
    result, lines, _ = run(tmp_path / "out", stages(good=1, told=1))
    first, second = result["stages"]
    assert first["limit_s"] <= 50 and second["limit_s"] > 1.2 * first["limit_s"]
    device, rehearse, seconds, left = second["summary"].split()
    assert (device, rehearse) == ("cpu", "True")
    assert 0 < float(left) < float(seconds) < second["limit_s"]
    assert [(line["samples"][0], line["status"], line["effort"]) for line in lines if line["name"] == "gpu stage"] == [
        (row["seconds"], "done", "rehearsal") for row in result["stages"]
    ]


def test_what_a_stage_leaves_running_is_ended_and_half_a_record_is_left_out(stages, tmp_path):
    result, lines, _ = run(tmp_path / "out", stages(leaves=1, half=1, good=1))
    assert [row["status"] for row in result["stages"]] == ["done", "failed", "done"]
    assert_gone([int((tmp_path / "pids").read_text())])
    assert sum(line["name"] == "seen" for line in lines) == 2


def _start(stages_shares, out):
    """A run in a process of its own, once its stubborn stage runs: (process, the pids of that stage)."""
    script = (
        "from triadbench import cli; from triadbench.bench.gpu import run\n"
        "run.STAGES = {'stubborn': run.Stage('fake_stubborn', 1), 'good': run.Stage('fake_good', 1)}\n"
        "run.PREPARE = None\n"
        "cli.main()"
    )
    root = Path(commands.__file__).parents[1]
    path = os.pathsep.join([str(root), os.environ["PYTHONPATH"]])
    start = f"import runpy; runpy.run_path({str(root / 'cli.py')!r}, run_name='checkout'); {script}"
    process = subprocess.Popen(
        [sys.executable, "-c", start, *f"study --gpu --rehearse --seconds 600 --out {out}".split()],
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=commands.heed_interrupts,
    )
    pids, end = Path(os.environ["PIDS"]), time.monotonic() + 60
    while not (pids.exists() and len(pids.read_text().split()) == 2 and (out / "summary.txt").exists()):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    return process, [int(pid) for pid in pids.read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_stage_ends_with_the_run_and_a_summary_stays(stages, tmp_path, number):
    out = tmp_path / "out"
    process, pids = _start(stages, out)
    try:
        process.send_signal(number)
        assert process.wait(60) == (-number if number == signal.SIGKILL else 130)
        assert_gone(pids)
    finally:
        process.kill()
    summary = (out / "summary.txt").read_text()
    assert ("running after" if number == signal.SIGKILL else "interrupted after") in summary
    assert re.search(r"^stubborn +(running|not begun)", summary, re.MULTILINE)
    assert re.search(r"^good +not begun", summary, re.MULTILINE)


def test_without_a_gpu_one_line_and_no_folder(stages, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = commands.run("study", "--gpu", "--out", tmp_path / "out", code=1)
    commands.assert_one_line(done, "no NVIDIA GPU", "--rehearse")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_said_and_a_failure_to_find_out_ends_nothing(stages, tmp_path, monkeypatch):
    told = json.dumps({"gpu": True, "environment": {"gpu": "A card"}, "lacks": ["ncu: no counters"]})
    (tmp_path / "modules/fake_prepare.py").write_text(f"def run(context):\n    return {told!r}\n")
    result, lines, said = run(tmp_path / "out", stages(good=1), rehearse=False, prepare=Stage("fake_prepare", 1))
    assert result["missing"] == ["ncu: no counters"] and "ncu: no counters" in said
    assert "GPU run on A card" in result["summary"] and "  ncu: no counters\n" in result["summary"]
    assert lines[-1]["environment"]["gpu"] == "A card" and lines[-1]["effort"] == "gpu"
    result, _, _ = run(tmp_path / "next", stages(good=1), rehearse=False, prepare=Stage("fake_exits", 1))
    assert "exit code 3" in result["missing"][0] and result["stages"][0]["status"] == "done"


def test_a_folder_with_files_is_refused(stages, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/records.jsonl").write_text("")
    with pytest.raises(UserError, match="choose a new folder with --out"):
        run(tmp_path / "out", stages(good=1))
    with pytest.raises(UserError, match="choose another --out"):
        run(tmp_path / "out/records.jsonl", stages(good=1))


def test_a_folder_is_taken_before_the_first_stage(stages, tmp_path):
    out = tmp_path / "out"
    take = f"import pathlib\ndef run(context):\n    return str(pathlib.Path({str(out)!r}, 'records.jsonl').exists())\n"
    (tmp_path / "modules/fake_good.py").write_text(take)
    assert run(out, stages(good=1))[0]["stages"][0]["summary"] == "True"


def test_a_full_disk_ends_no_run(stages, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    said: list[str] = []
    monkeypatch.setattr(Path, "write_bytes", refuse)
    result = gpu_run.run(tmp_path / "out", 100, True, stages(good=1), None, said.append)
    assert result["stages"][0]["summary"] == "it went well"
    assert any("No space left" in line for line in said)
    assert "No space left" in result["unwritten"]
    monkeypatch.setattr(gpu_run, "run", lambda *arguments: result)
    done = commands.run("study", "--gpu", "--rehearse", "--out", tmp_path / "out", code=1)
    assert "No space left" in done.stdout and "Everything is in" not in done.stdout


def test_the_command_prints_one_object_and_its_exit_code_tells(stages, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_run, "STAGES", stages(good=1, raises=1))
    monkeypatch.setattr(gpu_run, "PREPARE", Stage("fake_exits", 1))
    result, _ = commands.run_json("study", "--gpu", "--rehearse", "--out", tmp_path / "a", code=1)
    assert [row["status"] for row in result["stages"]] == ["done", "failed"] and result["limit_s"] == 480
    done = commands.run("study", "--gpu", "--rehearse", "--step", "good", "--seconds", 60, "--out", tmp_path / "b")
    assert "it went well" in done.stdout and "raises" not in done.stdout
    assert "Rehearsal on the CPU (its figures say nothing)" in done.stdout
    assert "stage 1 of 1: good, at most" in done.stderr
    monkeypatch.chdir(tmp_path)
    done = commands.run("study", "--gpu", "--rehearse", "--step", "good")
    assert re.search(r"Everything is in runs/gpu/\d{8}-\d{6}$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    "options, words",
    [
        (("--gpu", "--quick"), "--quick"),
        (("--gpu", "--device", "cpu"), "--device"),
        (("--gpu", "--data", "x"), "--data"),
        (("--gpu", "--step", "ladder"), "ladder"),
        (("--gpu", "--seconds", "1"), "--seconds"),
        (("--gpu", "--rehearse", "--seconds", "nan"), "finite"),
        (("--rehearse",), "--gpu"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = commands.run("study", *options, code=2)
    assert words in done.stderr and not list(tmp_path.iterdir())


def test_the_run_itself_imports_neither_torch_nor_numpy():
    command = workers.module_command("triadbench.bench.gpu.run")
    command = [*command[:2], command[2] + "\nprint(*sys.modules)", *command[3:]]
    modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "triadbench.bench.gpu.stage" in modules and not {"torch", "numpy"} & set(modules)
