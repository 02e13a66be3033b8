"""One running app for all tests of this folder, started and stopped as a user would."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import heed_interrupts

ROOT = Path(__file__).resolve().parents[3]
MAX_MB, MAX_MINUTES = 3, 0.5


@dataclass
class App:
    """A started app: its address, and the folder that it was given for temporary files."""

    process: subprocess.Popen
    url: str
    temporary: Path
    log: Path

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        self.process.stdout.close()
        return self.process.wait(20)


def start(folder: Path, *options: str) -> App:
    temporary, log = folder / "temporary", folder / "log.txt"
    temporary.mkdir(exist_ok=True)
    # GRADIO_SHARE is what a user may have set for another app: it must not open this one.
    environment = {**os.environ, "TMPDIR": str(temporary), "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0"}
    command = [sys.executable, "cli.py", "app", "--port", "0", "--no-browser", *options]
    with open(log, "w") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            preexec_fn=heed_interrupts if os.name == "posix" else None,
        )
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), log.read_text()
    return App(process, url, temporary, log)


@pytest.fixture(scope="session")
def app(tmp_path_factory):
    if importlib.util.find_spec("gradio") is None:  # found only: to import it costs seconds
        pytest.skip('the app needs Gradio: pip install -e ".[app]"')
    started = start(tmp_path_factory.mktemp("app"), "--max-mb", str(MAX_MB), "--max-minutes", str(MAX_MINUTES))
    yield started
    assert started.process.poll() is None, "the app ended before its time"
    assert started.stop() == 130
    assert list(started.temporary.glob("triadbench-*")) == [], "files of visitors were left behind"
    assert "an answer failed" not in started.log.read_text()
