"""The promise: no command reaches for a network, natively or in Python, nor leaves another's files in the home folder.

tests/network_watch.c is preloaded into each command and its children: it writes down, and refuses, every look-up of a
name and every connection beyond this machine. `data fetch` is there to download and is left out.
"""

import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.core.toys import all_names, write_set
from triadbench import cli
from triadbench.core.files import PACKAGE, pretrained_path

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("gcc") is None, reason="needs Linux and gcc"
)
EXAMPLE = PACKAGE / "export" / "app" / "examples" / "progression-in-g-major.ogg"
OURS = {".cache/triadbench", ".nv"}  # compiled kernels: ours, and CUDA's own
QUICK = {
    "data info": "data info set",
    "data pack": "data pack set set.pack",
    "data amp": "data amp set amplified --jobs 1",
    "data degrade": "data degrade set worse",
    "evaluate": "evaluate --data set",
    "kernel": "kernel ORIGINAL",
    "infer": f"infer set {EXAMPLE}",
    "infer-bulk": "infer-bulk set --out rows",
    "infer --timeline": f"infer --timeline {EXAMPLE} --out song.lab --out song.html",
    "train": "train set run --epochs 1 --batch-size 8",
}
SLOW = {
    "calibrate": f"calibrate {pretrained_path('chordnet.safetensors')} set --out calibrated.safetensors",
    "data render": "data render rendered -n 4 -i synth:0 --jobs 1",
    "train --recipe original": "train set original --recipe original --epochs 1",
    "export": "export --onnx --torchscript --out exported",
    "evaluate-songs": "evaluate-songs -n 1 -i synth:0 --no-degraded --records songs.jsonl",
    "profile": "profile --quick --only layers",
    "benchmark": "benchmark --quick --only load --threads 1",
    "experiment": "experiment ladder --clips 16 --batch-size 4 --rounds 1 --data set",
    "study": "study --quick --seconds 10 --data set",
    "plan-bulk": "plan-bulk set --rounds 1",
    "report": "report",
}


@pytest.fixture(scope="module")
def watcher(tmp_path_factory):
    library = tmp_path_factory.mktemp("watch") / "watch.so"
    source = Path(__file__).with_name("network_watch.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def place(tmp_path, watcher):
    """A folder with a small set, and the environment of a command that is watched there."""
    write_set(tmp_path / "set", all_names())
    (tmp_path / "home").mkdir()
    hidden = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "DO_NOT_TRACK")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    environment |= {"HOME": str(tmp_path / "home"), "NETWORK_WATCH": str(tmp_path / "log"), "LD_PRELOAD": str(watcher)}
    return tmp_path, environment


def attempts(folder):
    """What was tried, and whose files lie in the home folder."""
    home = [str(path.relative_to(folder / "home")) for path in (folder / "home").rglob("*") if path.is_file()]
    strangers = [path for path in home if not any(path.startswith(f"{name}/") for name in OURS)]
    log = folder / "log"
    return (log.read_text().splitlines() if log.exists() else []) + strangers


def command(line):
    return [sys.executable, str(PACKAGE / "cli.py"), *line.split()]


@pytest.mark.parametrize(
    "code", ["urllib.request.urlopen('http://example.org')", "socket.socket().connect(('10.1.2.3', 80))"]
)
def test_the_watcher_sees_an_attempt(code, place):
    folder, environment = place
    done = subprocess.run(
        [sys.executable, "-c", f"import socket, urllib.request; {code}"], env=environment, capture_output=True
    )
    assert done.returncode == 1 and attempts(folder) in (["getaddrinfo example.org"], ["connect 10.1.2.3"])


def test_the_watcher_sees_onnx_runtimes_telemetry(place):
    folder, environment = place
    code = f"import onnxruntime; onnxruntime.InferenceSession({str(pretrained_path('chordnet.mel.onnx'))!r})"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    if not attempts(folder):
        pytest.skip("this ONNX Runtime reports nothing, or cannot be seen to")
    shutil.rmtree(folder / "home")
    subprocess.run([sys.executable, "-c", f"import triadbench; {code}"], env=environment, check=True)
    assert attempts(folder) == []


def test_every_command_is_here():
    names = {line.split()[0] for line in (*QUICK.values(), *SLOW.values())} | {"app"}
    assert names == set(cli.main.list_commands(None))


@pytest.mark.parametrize(
    "line",
    [*QUICK.values(), *(pytest.param(line, marks=pytest.mark.slow) for line in SLOW.values())],
    ids=[*QUICK, *SLOW],
)
def test_a_command_stays_on_this_machine(line, place):
    folder, environment = place
    done = subprocess.run(command(line), cwd=folder, env=environment, capture_output=True, text=True)
    # `study` ends with 1 where its seconds are over; its steps are the commands above.
    assert done.returncode == (1 if "--seconds" in line else 0), done.stderr[-2000:]
    assert "Traceback" not in done.stderr and attempts(folder) == []


@pytest.mark.slow
def test_the_app_stays_on_this_machine(place):
    pytest.importorskip("gradio")
    folder, environment = place
    start = {"cwd": folder, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command("app --port 0 --no-browser"), **start) as process:
        try:
            with urllib.request.urlopen(process.stdout.readline().strip()) as page:
                assert page.status == 200
        finally:
            process.terminate()
    assert attempts(folder) == []
