"""The GPU run: every stage in a process of its own with a share of the time, and a summary that is always up to date.

Nothing that a stage does ends the run: this process imports neither torch nor numba, reads the stages' output through a
pipe, copies their records, and ends their process groups. The folder of a run gets three files, each of at most 16 MB:
`records.jsonl`, `summary.txt`, and `log.txt` with the end of what each stage printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from triadbench.bench import machine, records
from triadbench.bench.gpu import tools
from triadbench.bench.gpu.stage import RESULT
from triadbench.core import workers
from triadbench.core.commands import console
from triadbench.core.errors import UserError
from triadbench.kernels.scratch import scratch_folder

MOST_RECORDS, MOST_LOG = 15_000_000, 3_500_000
"""Bytes. What a stage writes beyond its part of these is left out: the last records, the beginning of the log."""
_LOOK_S, _END_S, _GRACE_S, _LEAST_S = 1.0, 3.0, 3.0, 10.0
"""Records and log are brought up to date this often; kept for the summary; between SIGTERM and SIGKILL; and what a
stage gets however small its share, for importing torch takes seconds, if an equal part of the time is that long."""
_ENVIRONMENT = {"PYTHONUNBUFFERED": "1", "PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "0"}
_HERE = "triadbench.bench.gpu"


class Stage(NamedTuple):
    """The module whose `run(context)` is the stage, and its share of the time."""

    module: str
    share: float


STAGES = {
    "environment": Stage(f"{_HERE}.environment", 20),
    "tests": Stage(f"{_HERE}.tests", 110),
    "sanitizer": Stage(f"{_HERE}.sanitizer", 40),
    "mel": Stage(f"{_HERE}.mel", 95),
    "counters": Stage(f"{_HERE}.counters", 30),
    "training": Stage(f"{_HERE}.training", 150),
    "inference": Stage(f"{_HERE}.inference", 50),
}
PREPARE = Stage(f"{_HERE}.lacks", 20)
"""Before the first: whether there is a GPU, and what the environment lacks."""


class Run:
    """One run into an empty `folder`; `note` gets lines for the reader while it runs."""

    def __init__(self, folder: Path, seconds: float, rehearse: bool, note: Callable[[str], None]) -> None:
        self.folder, self.seconds, self.rehearse, self.note = folder, seconds, rehearse, note
        self._begun, self._begun_at = time.monotonic(), machine.utc_now()
        self.device = "cpu" if rehearse else "cuda"
        self.results: list[dict] = []
        self.unwritten: str | None = None
        self.lacks: list[str] = []
        self._environment: dict = {}
        self.names: list[str] = []
        self._logs: dict[str, bytearray] = {}
        self._written = 0

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._begun

    def stages(self, stages: Mapping[str, Stage], prepare: Stage | None) -> None:
        """Run the stages in order. Raises UserError without a GPU, unless this is a rehearsal."""
        number = len(stages)
        with scratch_folder() as scratch:
            if prepare is not None:
                self._prepare(prepare, stages, scratch)
            self.names = list(stages)
            for index, (name, stage) in enumerate(stages.items()):
                shares = sum(later.share for later in list(stages.values())[index:])
                left_s = self._left_s()
                limit_s = max(left_s * stage.share / shares, min(_LEAST_S, left_s / (number - index)))
                self.note(f"stage {index + 1} of {number}: {name}, at most {limit_s:.0f} s")
                most = (MOST_RECORDS - self._written) // (number - index)
                result = self._stage(name, stage.module, limit_s, scratch, most)
                self._finish(name, result, limit_s)

    def _left_s(self) -> float:
        return max(0.0, self.seconds - min(_END_S, 0.1 * self.seconds) - self.elapsed_s())

    def _prepare(self, stage: Stage, stages: Mapping[str, Stage], scratch: Path) -> None:
        share = stage.share / (stage.share + sum(later.share for later in stages.values()))
        left_s = self._left_s()
        limit_s = max(2 * left_s * share, min(_LEAST_S, left_s / (1 + len(stages))))
        result = self._stage("start", stage.module, limit_s, scratch, 0)
        if result["status"] != "done":
            self.lacks = [f"what is missing could not be found out: {result['status']}, {result['reason']}"]
        else:
            told = json.loads(result["summary"])
            self._environment, self.lacks = told["environment"], told["lacks"]
            if not told["gpu"] and not self.rehearse:
                raise UserError("study --gpu: torch finds no NVIDIA GPU here; --rehearse runs every stage without one")
        for line in self.lacks:
            self.note(line)

    def _finish(self, name: str, result: dict, limit_s: float) -> None:
        row = {"stage": name, **result, "limit_s": round(limit_s, 1)}
        self.results.append(row)
        self.note(f"  {row['status']} after {row['seconds']:.1f} s: {row.get('summary') or row.get('reason')}")
        effort = "rehearsal" if self.rehearse else "gpu"
        more: dict[str, Any] = {key: row[key] for key in row if key not in ("stage", "seconds")}
        more |= {"effort": effort, "environment": {**self._environment, "time": machine.utc_now()}}
        record = records.make("gpu stage", parameters={"stage": name}, unit="s", samples=[row["seconds"]], **more)
        with self._noted():
            records.append(record, self.folder / "records.jsonl")
        self.write()

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """A disk that is full ends no run: the next stage may still print what it finds."""
        try:
            yield
        except (OSError, UserError) as error:
            self.unwritten = f"{self.folder}: cannot be written ({error})"
            self.note(self.unwritten)

    def _stage(self, name: str, module: str, limit_s: float, scratch: Path, most_bytes: int) -> dict:
        """Run a stage in a process group of its own, which is gone when this returns, `limit_s` seconds from now.

        Returns `status` ("done", "failed", "timed out", "killed"), `seconds`, and `summary` or `reason`.
        """
        begun = time.monotonic()
        grace_s = min(_GRACE_S, 0.2 * limit_s)
        place = scratch / name
        place.mkdir()
        source = place / "records.jsonl"
        fields = {"device": self.device, "rehearse": self.rehearse, "seconds": 0.95 * (limit_s - grace_s)}
        fields |= {"records": str(source), "scratch": str(place), "started": begun}
        environment = {**os.environ, **_ENVIRONMENT, "TMPDIR": str(place)}
        if self.rehearse:
            environment |= {"CUDA_VISIBLE_DEVICES": "", machine.REHEARSAL: "1"}
        command = workers.module_command(f"{_HERE}.stage", module, json.dumps(fields))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, **pipes, start_new_session=True, env=environment)
        stdin, log = cast(IO, process.stdin), bytearray()
        self._logs[name] = log
        reader = threading.Thread(target=tools.keep_end, args=(process.stdout, log, MOST_LOG // 8), daemon=True)
        reader.start()
        copy = _Copy(source, self.folder / "records.jsonl", most_bytes)
        ended = False
        self.write(name)
        try:
            while True:
                left_s = limit_s - (time.monotonic() - begun)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.01, min(_LOOK_S, left_s if ended else left_s - grace_s)))
                    break
                if left_s <= 0:
                    break
                if left_s <= grace_s and not ended:
                    ended = True
                    os.killpg(process.pid, signal.SIGTERM)
                with self._noted():
                    copy.go_on()
                self.write(name)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what the stage left running as well
            code = process.wait()
            stdin.close()
            reader.join(1)
            with self._noted():
                copy.go_on()
            self._written += copy.bytes
        result = _outcome(code, ended, place / RESULT, log)
        result["seconds"] = round(time.monotonic() - begun, 3)
        if copy.omitted:
            result["left_out"] = f"{copy.omitted} records, which did not fit {most_bytes / 1e6:.1f} MB"
        shutil.rmtree(place, ignore_errors=True)
        return result

    def write(self, running: str = "", interrupted: bool = False) -> None:
        """Bring summary and log up to date; a reader never sees half of one. Nothing before the first stage."""
        if not self.names:
            return
        log = b"".join(f"===== {name}\n".encode() + bytes(end) + b"\n" for name, end in self._logs.items())
        with self._noted():
            for name, content in (("summary.txt", self.text(running, interrupted).encode()), ("log.txt", log)):
                part = self.folder / f".{name}.part"
                part.write_bytes(content)
                part.replace(self.folder / name)

    def text(self, running: str = "", interrupted: bool = False) -> str:
        """The summary."""
        rows = {row["stage"]: [row["status"], row["seconds"], row["limit_s"], _said(row)] for row in self.results}
        for name in self.names:
            rows.setdefault(name, ["running" if name == running else "not begun", None, None, ""])
        state = "interrupted" if interrupted else "running" if len(self.results) < len(self.names) else "ended"
        what = "Rehearsal on the CPU (its figures say nothing)" if self.rehearse else "GPU run"
        gpu = self._environment.get("gpu")
        head = f"{what}{f' on {gpu}' if gpu else ''}, begun {self._begun_at}: {state} after {self.elapsed_s():.0f} s"
        head += f" of {self.seconds:.0f} s"
        missing = [f"  {line}" for line in self.lacks] or ["  nothing"]
        table = console.table(["stage", "ended", "s", "limit", "result"], [[name, *row] for name, row in rows.items()])
        return "\n".join([head, "", "Missing here, and what that changes:", *missing, "", table, ""])


def _said(row: dict) -> str:
    parts = (row.get("summary"), row.get("reason"), row.get("left_out") and f"left out: {row['left_out']}")
    return "; ".join(" ".join(part.split()) for part in parts if part)


class _Copy:
    """Copies the whole lines of a stage's records, as many as fit, to the run's."""

    def __init__(self, source: Path, target: Path, most_bytes: int) -> None:
        self._source, self._target, self._most, self._read = source, target, most_bytes, 0
        self.bytes = self.omitted = 0

    def go_on(self) -> None:
        """Copy what is new."""
        if not self._source.exists():
            return
        with open(self._source, "rb") as source, open(self._target, "ab") as target:
            source.seek(self._read)
            for line in source:
                if not line.endswith(b"\n"):  # it is being written, or was when the stage was killed
                    break
                self._read += len(line)
                if self.bytes + len(line) > self._most:
                    self.omitted += 1
                    continue
                target.write(line)
                self.bytes += len(line)


def _outcome(code: int, ended: bool, path: Path, log: bytearray) -> dict:
    told = {}
    with contextlib.suppress(OSError, ValueError):
        told = json.loads(path.read_text(encoding="utf-8"))
    if code == 0 and "summary" in told:
        return {"status": "done", **told}
    if ended:
        return {"status": "timed out", "reason": "its records until then are kept; log.txt tells where it was"}
    if code < 0:
        return {"status": "killed", "reason": f"by {signal.Signals(-code).name}; its records until then are kept"}
    last = tools.last_line(bytes(log[-2000:]).decode(errors="replace"))
    return {"status": "failed", "reason": told.get("reason") or f"exit code {code}: {last}"}


def run(
    folder: Path,
    seconds: float,
    rehearse: bool,
    stages: Mapping[str, Stage],
    prepare: Stage | None = PREPARE,
    note: Callable[[str], None] = console.note,
) -> dict:
    """Run stages in their order, within `seconds`, into `folder`.

    Returns:
        `folder`, `seconds`, `limit_s`, `rehearsal`, `missing` (lines), `stages` (a dictionary each, see `Run`),
        `unwritten` (None, or why the folder does not hold everything), and `summary`, the text of `summary.txt`.

    Raises:
        UserError: a folder that is not empty or cannot be made, or no GPU and no rehearsal.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"{folder} is not empty, and a GPU run is one whole; choose a new folder with --out")
        (folder / "records.jsonl").touch(exist_ok=False)  # from here on the folder is this run's
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror}); choose another --out") from error
    gpu_run = Run(folder, seconds, rehearse, note)
    try:
        gpu_run.stages(stages, prepare)
    except BaseException:
        gpu_run.write(interrupted=True)
        if not gpu_run.names:  # no stage has begun: nothing is left of this run
            with contextlib.suppress(OSError):
                (folder / "records.jsonl").unlink()
                folder.rmdir()
        raise
    gpu_run.write()
    result = {"folder": str(folder), "seconds": round(gpu_run.elapsed_s(), 1), "limit_s": seconds}
    result |= {
        "unwritten": gpu_run.unwritten,
        "rehearsal": rehearse,
        "missing": gpu_run.lacks,
        "stages": gpu_run.results,
    }
    return {**result, "summary": gpu_run.text()}
