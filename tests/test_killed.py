"""Twenty times SIGKILL at any moment and one more run: the files are those of a run that was never killed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.commands import heed_interrupts
from tests.core.data import test_fetch
from tests.core.toys import all_names, write_pack, write_set
from triadbench.export.app import example_sounds

ROOT = Path(__file__).resolve().parents[1]
SONG = str(example_sounds.example(example_sounds.SONG))
RENDER = ["data", "render", "out", "-n", "400", "-i", "synth:0", "--banks", "banks", "--jobs", "2"]
MEL = ["--only", "mel", "--quick", "--spec", "ORIGINAL", "--batch", "1", "--threads", "1", "--budget", "5"]
COMMANDS = {
    "data pack": ["data", "pack", "set", "out"],
    "data render": RENDER,
    "data render --pack": [*RENDER, "--pack"],
    "data amp": ["data", "amp", "set", "out", "--jobs", "2"],
    "data degrade": ["data", "degrade", "set", "out"],
    "data info": ["data", "info", "set", "--picture", "out/set.html"],
    "train": ["train", "pack", "out", "--epochs", "3", "--batch-size", "8"],
    "evaluate": ["evaluate", "--data", "pack", "--out", "out/confusion.html"],
    "export": ["export", "--onnx", "--precision", "fp32", "--out", "out", "--banks", "banks"],
    "infer --timeline": ["infer", SONG, "--timeline", "--out", "out", "--format", "lab"],
    "profile": ["profile", *MEL, "--out", "out/profile.html", "--records", "out/profile.jsonl"],
    "data fetch": ["data", "fetch", "out"],
    "evaluate-songs": [
        *("evaluate-songs", "-n", "1", "-i", "synth:0", "--no-degraded", "--banks", "banks"),
        *("--records", "out/songs.jsonl"),
    ],
    "benchmark": [
        *("benchmark", "--quick", "--only", "files", "--threads", "1", "--provider", "cpu", "--precision", "int8"),
        *("--out", "out/benchmark.html", "--records", "out/benchmark.jsonl"),
    ],
    "experiment": [
        *("experiment", "ladder", "--clips", "16", "--batch-size", "4", "--rounds", "1", "--data", "set"),
        *("--run", "out", "--records", "out/ladder.jsonl"),
    ],
    "study": ["study", "--quick", "--step", "layers", "--step", "report", "--device", "cpu", "--out", "out"],
    "report": ["report", str(ROOT / "bench" / "results"), "--out", "out/report.html"],
}


SHORT = {"data info", "data fetch", "evaluate", "infer --timeline", "report"}
"""Over before a signal would come."""


def place(folder: Path) -> Path:
    """A folder to work in, with a set and a pack; `temporary` is for temporary files."""
    (folder / "temporary").mkdir(parents=True)
    write_set(folder / "set", all_names()[:60])
    write_pack(folder / "pack", 24)
    return folder


@pytest.fixture(scope="module")
def record_url():
    """Of a record as `data fetch` asks for, on this machine."""
    with test_fetch.Server() as server:
        server.content = test_fetch.archive_bytes()
        server.record = test_fetch.record(server)
        threading.Thread(target=server.serve_forever).start()
        yield f"{server.url}/record"
        server.shutdown()


def start(folder: Path, arguments: list[str], program: tuple[str, ...] = ("cli.py",), **more: str) -> subprocess.Popen:
    environment = {**os.environ, "TMPDIR": str(folder / "temporary"), "NUMBA_CACHE_DIR": str(folder / "cache"), **more}
    command = [sys.executable, str(ROOT / program[0]), *program[1:], *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, preexec_fn=heed_interrupts, **quiet
    )


def run(folder: Path, arguments: list[str], at: int = 0, delay: float = 0.0, **more: str) -> tuple[str, int]:
    """Run a command, killed at its write number `at`: ("killed", "finished" or "there already", its writes)."""
    process = start(folder, arguments, ("tests/killing.py", str(at), str(delay)), **more)
    errors = process.communicate(timeout=600)[1]  # also until its workers have ended, who hold the pipe
    for _ in range(600):
        if not is_living(process.pid):
            break
        time.sleep(0.1)
    else:
        pytest.fail("a process outlived the one that began it by a minute")
    if process.returncode == -signal.SIGKILL:
        return "killed", at
    there = process.returncode == 1 and "exists already" in errors
    assert there or process.returncode == 0, errors
    return "there already" if there else "finished", int(errors.split()[-1])


def is_living(group: int) -> bool:
    """Whether a process of this group is running, as far as /proc tells."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(") ")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def unfinished(folder: Path) -> set[str]:
    return {path for path, _, _ in os.walk(folder) if path.endswith(".scratch")}


def stop_in_the_midst(folder: Path, arguments: list[str], how: int, group: bool = False) -> tuple[int, str]:
    """Send a signal once the first unfinished file is there: (exit code, stderr)."""
    process = start(folder, arguments)
    while process.poll() is None and not unfinished(folder):
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how) if group else process.send_signal(how)
    errors = process.communicate(timeout=120)[1]  # also until its workers have ended, who hold the pipe
    return process.returncode, errors


def names(folder: Path) -> list[str]:
    """Of all files and folders. What was killed between the last step, renaming, and the end may leave its scratch
    folder, which is empty then."""
    paths = (path for path in folder.rglob("*") if path.suffix != ".scratch" or any(path.iterdir()))
    return sorted(str(path.relative_to(folder)) for path in paths)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks on folders, so nothing is swept")
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_left_after_sigkill(command, tmp_path, record_url):
    more = {"RECORD_URL": record_url, "no_proxy": "127.0.0.1"}
    folder, undisturbed, draw = place(tmp_path / "killed"), place(tmp_path / "undisturbed"), random.Random(command)
    _, writes = run(undisturbed, COMMANDS[command], **more)

    def again(at: int = 0, delay: float = 0.0) -> str:
        going_on = ["--resume"] if (folder / "out" / "last.safetensors").exists() else []
        ended, _ = run(folder, COMMANDS[command] + going_on, at, delay, **more)
        if ended == "there already" or (at and ended == "finished"):  # once more from the beginning
            shutil.rmtree(folder / "out")
        return ended

    ends = []
    while ends.count("killed") < 20 and len(ends) < 80:
        ends.append(again(draw.randint(1, writes), draw.uniform(0, 0.3) if len(ends) % 2 else 0.0))
    assert ends.count("killed") == 20
    if again() == "there already":
        again()
    assert names(folder) == names(undisturbed)


SIGNALS = [
    *((command, signal.SIGTERM, False) for command in COMMANDS if command not in SHORT),
    *((command, how, False) for command in ("data pack", "train") for how in (signal.SIGHUP, signal.SIGINT)),
    # As a terminal that is closed and as a system that shuts down send them: to the workers as well.
    *(("data render", how, True) for how in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)),
]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize(("command", "how", "group"), SIGNALS)
def test_a_signal_leaves_nothing_unfinished(command, how, group, tmp_path):
    folder = place(tmp_path / "place")
    code, errors = stop_in_the_midst(folder, COMMANDS[command], how, group)
    assert code == 130 and errors.count("Interrupted: ") == 1 and "Traceback" not in errors, errors
    assert not unfinished(folder) and not any(path.is_file() for path in (folder / "temporary").rglob("*"))
