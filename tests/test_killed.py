"""Twenty times SIGKILL at any moment and one more run: the files are those of a run that was never killed."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import heed_interrupts
from tests.core.toys import all_names, write_pack, write_set
from triadbench.export.app import example_sounds

ROOT = Path(__file__).resolve().parents[1]
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
    "infer": [
        "infer",
        str(example_sounds.example(example_sounds.SONG)),
        "--timeline",
        "--out",
        "out",
        "--format",
        "lab",
    ],
    "profile": ["profile", *MEL, "--out", "out/profile.html", "--records", "out/profile.jsonl"],
    "report": ["report", str(ROOT / "bench" / "results"), "--out", "out/report.html"],
}


def place(folder: Path) -> Path:
    """A folder to work in, with a set and a pack; `temporary` is for temporary files."""
    (folder / "temporary").mkdir(parents=True)
    write_set(folder / "set", all_names()[:60])
    write_pack(folder / "pack", 24)
    return folder


def start(folder: Path, arguments: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "TMPDIR": str(folder / "temporary"), "NUMBA_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command, cwd=folder, env=environment, start_new_session=True, preexec_fn=heed_interrupts, **quiet
    )


def finish(folder: Path, arguments: list[str]) -> None:
    process = start(folder, arguments)
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0, errors


def stop_in_the_midst(folder: Path, arguments: list[str], how: int, wait_s: float) -> tuple[int, str]:
    """Send a signal so long after the first unfinished file is there: (exit code, stderr)."""
    before = set(folder.rglob("*.scratch"))
    process = start(folder, arguments)
    while process.poll() is None and before.issuperset(folder.rglob("*.scratch")):
        time.sleep(0.01)
    time.sleep(wait_s)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(how)
    errors = process.communicate(timeout=120)[1]  # also until its workers have ended, who hold the pipe
    return process.returncode, errors


def names(folder: Path) -> list[str]:
    """Of all files and folders; the features' names depend on where the data set lies."""
    return sorted(re.sub(r"features-\w+", "features", str(path.relative_to(folder))) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """What a command leaves that nothing has disturbed."""
    return lambda: place(tmp_path_factory.mktemp("clean"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks on folders, so nothing is swept")
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_left_after_sigkill(command, tmp_path, clean):
    arguments, folder, draw = COMMANDS[command], place(tmp_path / "place"), random.Random(command)
    resume = ["--resume"] if command == "train" else []
    killed = 0
    for _ in range(20):
        going_on = resume if (folder / "out" / "last.safetensors").exists() else []
        code, _ = stop_in_the_midst(folder, arguments + going_on, signal.SIGKILL, draw.uniform(0, 0.3))
        killed += code == -signal.SIGKILL
        if code == 0:  # it was faster: once more from the beginning
            shutil.rmtree(folder / "out", ignore_errors=True)
    assert killed > 5
    going_on = resume if (folder / "out" / "last.safetensors").exists() else []
    finish(folder, arguments + going_on)
    undisturbed = clean()
    finish(undisturbed, arguments)
    assert names(folder) == names(undisturbed)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("command", ["data pack", "data render", "train", "export"])
def test_a_signal_leaves_nothing_unfinished(command, how, tmp_path):
    folder = place(tmp_path / "place")
    code, errors = stop_in_the_midst(folder, COMMANDS[command], how, 0.0)
    assert code == 130 and "Interrupted: " in errors and "KeyboardInterrupt" not in errors
    assert not any(folder.rglob("*.scratch")) and not any((folder / "temporary").iterdir())
