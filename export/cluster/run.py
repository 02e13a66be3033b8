"""Recognition of very many files on Ray Data: one predictor an actor, a part of the list of files at a time.

An actor reads, decodes, predicts and writes its part itself, so that no sound travels between processes and memory does
not grow with the number of files. The engine places the actors, hands out parts as they are asked for, and gives the
parts of a process or machine that died to another; `Destination` sees to it that this makes no row twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from triadbench.core import system
from triadbench.core.constants import VERSION, usable_cores
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE, file_digest, only_one
from triadbench.export.cluster.destination import CHORDS, LOCK, RUN, TIMELINES, Destination
from triadbench.export.cluster.sources import Reader, StorageFailure, printable
from triadbench.export.predict.bulk import BATCH, infer_files
from triadbench.export.predict.predictor import ChordPredictor
from triadbench.kernels.scratch import scratch_folder

MOST_FILES, MOST_SONGS = 1024, 32
"""In a part, of files and of songs: some seconds of work, up to a minute, which is what a killed process loses."""
PARTS_A_CORE = 4
_READERS = 4  # threads that wait for a storage while another decodes
_GPU_BATCH = 64
_ACTORS_A_GPU = 4  # while one copies another computes
_CAREFUL_AFTER = 3  # attempts at a part that ended with their process: then one file at a time
_CONNECT_S, _LOOK_S, _PATIENCE_S = 5, 5, 60
_CLIENT_PORT = 10001  # of ray://
_SHARE = "give a bucket, or a folder that all machines share"
_LONGEST_FOLDER = 36  # of Ray's sockets, whose paths must stay below 104 characters
_STORAGE_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Told to the actors of a cluster; keys are not: every machine has its own."""
_STORE_BYTES = 256 << 20  # of Ray's object store on this machine: little but the list of files goes through it


@dataclasses.dataclass(frozen=True)
class Job:
    """What every actor is told.

    Attributes:
        out, timeline, provider: as of `recognise`. model: what each row says of it.
        model_files: {name: bytes} of a model and of the network beside it; empty for the shipped model.
        front_end: as of `ChordPredictor`, the same for all. elsewhere: actors may run on other machines.
        threads: that an actor decodes with.
    """

    out: str
    timeline: bool
    provider: str
    model: str
    model_files: dict[str, bytes]
    front_end: str
    elsewhere: bool
    threads: int = 1


class Recogniser:
    """The actor: `files` is a reference to the table of `Destination.write_plan`."""

    def __init__(self, job: Job, files: Any):
        self._job, self._reference = job, files
        self._predictor: ChordPredictor | None = None

    def __call__(self, row: dict) -> dict:
        """Do part `row["part"]`; {"began" (seconds since 1970), "files", "failure"}: why no part can be done, or None.
        Ray would lose what an exception says."""
        result: dict[str, Any] = {"began": 0.0, "files": 0, "failure": None}
        try:
            self._prepare()
            result["began"] = time.time()
            result["files"] = self._do(int(row["part"]))
        except (UserError, StorageFailure) as error:
            result["failure"] = " ".join(str(error).split())
        return result

    def _prepare(self) -> None:
        """Load the model and the list, once."""
        import ray

        job = self._job
        if self._predictor is not None:
            return
        self._out, self._files = Destination(job.out), ray.get(self._reference)
        if RUN not in self._out.names():
            where = f"--out {self._out.uri}: {socket.gethostname()} does not see what was begun there"
            raise UserError(f"{where}; {_SHARE}")
        with scratch_folder() as folder:
            for name, content in job.model_files.items():
                (folder / name).write_bytes(content)
            model = folder / next(iter(job.model_files)) if job.model_files else None
            self._predictor = ChordPredictor(model, job.provider, threads=1, front_end=job.front_end)

    def _do(self, part: int) -> int:
        files = self._files.filter(pc.equal(self._files["part"], part))
        ids, paths = files["id"].to_pylist(), [os.fsdecode(path) for path in files["path"].to_pylist()]
        if self._job.elsewhere and not any("://" in path or os.path.exists(path) for path in paths):
            raise UserError(f"{paths[0]}: {socket.gethostname()} sees no file of this part; {_SHARE}")
        out, reader = self._out, Reader()
        start, attempts = time.perf_counter(), [*out.read_attempts(part), ""]
        out.write_attempts(part, attempts)
        careful = len(attempts) > _CAREFUL_AFTER
        results = self._one_by_one(part, paths, attempts, reader) if careful else self._recognise(paths, reader)
        rows = []
        for id, path, result in zip(ids, map(printable, paths), results, strict=True):
            messages = {key: printable(result[key]) for key in ("error", "note") if result.get(key)}
            rows.append({**result, **messages, "id": id, "path": path, "model": self._job.model})
        statistics = {
            "files": len(rows),
            "failed": sum("error" in row for row in rows),
            "bytes": sum(reader.sizes),
            "sound_s": sum(row.get("duration_s", 0.0) for row in rows),
            "memory_bytes": system.peak_memory_bytes(),
            "seconds": time.perf_counter() - start,
        }
        out.write_part(part, rows, TIMELINES if self._job.timeline else CHORDS, statistics)
        return len(rows)

    def _one_by_one(self, part: int, paths: Sequence[str], attempts: list[str], reader: Reader) -> Iterator[dict]:
        """As `_recognise`; a file at which two attempts ended with their process is not tried again."""
        for path in paths:
            if attempts[:-1].count(path) >= 2:
                yield {"error": f"{path}: twice the process that read it was killed; too large, or it crashes FFmpeg"}
                continue
            self._out.write_attempts(part, [*attempts[:-1], path])
            yield from self._recognise([path], reader)

    def _recognise(self, paths: Sequence[str], reader: Reader) -> Iterator[dict]:
        assert self._predictor is not None
        if self._job.timeline:
            yield from (read_timeline(path, self._predictor, reader) for path in paths)
            return
        batch = _GPU_BATCH if self._job.provider == "cuda" else BATCH
        threads = max(self._job.threads, _READERS if any("://" in path for path in paths) else 1)
        yield from infer_files(self._predictor, paths, 0, workers=threads, batch=batch, source=reader)


def read_timeline(path: str, predictor: ChordPredictor, reader: Reader) -> dict:
    """The fields of `TIMELINES` that a song gives, or {"error"}."""
    from triadbench.export.songs.timeline import find_timeline

    notes: list[str] = []
    try:
        sound, name = reader(path)
        timeline = find_timeline(sound, predictor, name=name, note=notes.append).as_dict()
    except (UserError, OSError) as error:
        return {"error": " ".join(str(error).split())}
    return {**timeline, "beats": list(map(tuple, timeline["beats"])), "note": "; ".join(notes) or None}


def recognise(
    files: pa.Table,
    out: str,
    *,
    model: Path | None = None,
    provider: str = "cpu",
    timeline: bool = False,
    retry: bool = False,
    address: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> dict:
    """Recognise all files that have no row in `out` yet.

    Args:
        files: columns `id` and `path`, as of `sources.list_files`.
        out: folder or bucket of `Destination`. address: of a running Ray; None starts one here, with one actor a core.
        model, provider, timeline: as of `infer`. progress: called with (files done, files).
        retry: do parts in which files failed again.

    Returns:
        `out`, `files`, `failed`, `model`, `kept` (files with a row before this call); and unless all had one `start_s`
        until the first part began, `seconds` from then on, `cores`.

    Raises:
        UserError: no Ray answers, there is no GPU for provider "cuda", `out` is another run's or cannot be written, or
            a storage does not answer.
    """
    start, destination = time.time(), Destination(out)
    predictor = ChordPredictor(model, provider if address is None else "cpu", threads=1)  # tells what is not here
    predictor.warm_kernel(wait=True)
    front_end = predictor.front_end
    model_label = f"{'chordnet' if model is None else predictor.path.name} {file_digest(predictor.path)[:12]}"
    run = {"model": model_label, "version": VERSION, "timeline": timeline}
    only = only_one(Path(destination.uri), "--out", LOCK) if destination.is_local else contextlib.nullcontext()
    with only:
        table, done = destination.plan(files, run), destination.parts()
        if retry:
            done = {part for part, statistics in destination.statistics().items() if statistics["failed"] == 0}
        kept = sum(part in done for part in table["part"].to_pylist())
        result = {"out": destination.uri, "files": len(table), "kept": kept, "model": model_label}
        if kept:
            note(f"{kept:,} of {len(table):,} files have their rows already")
        if kept < len(table):
            with running_ray(address, table.nbytes, note) as cores:
                table = destination.write_plan(table, run, part_size(table["part"].null_count, timeline, cores))
                todo = sorted({*table["part"].to_pylist()} - done)
                model_files = {} if model is None else _model_files(model)
                job = Job(destination.uri, timeline, provider, model_label, model_files, front_end, bool(address))
                work = _work_there if _is_client(address) else _work
                patience = threading.Timer(_PATIENCE_S, note, ["No part has been done yet; is this Ray at other work?"])
                patience.start()

                def report(n: int) -> None:
                    if n:
                        patience.cancel()
                    progress(kept + n, len(table))

                try:
                    began = work(job, table, todo, report)
                finally:
                    patience.cancel()
                result |= {"start_s": began - start, "seconds": time.time() - began, "cores": cores}
        rows, ids, result["failed"] = destination.count()
    if not rows == ids == len(table):
        raise UserError(f"{out}: {rows:,} rows of {ids:,} ids, where {len(table):,} files were recognised")
    return result


def _is_client(address: str | None) -> bool:
    """Whether Ray is reached through its client, behind which Ray Data does not run."""
    return address is not None and address.startswith("ray://")


def part_size(n_files: int, timeline: bool, cores: int) -> int:
    """Files in each part: all cores get some parts, so that they end together."""
    return max(1, min(MOST_SONGS if timeline else MOST_FILES, n_files // (PARTS_A_CORE * cores)))


def _model_files(model: Path) -> dict[str, bytes]:
    """Of a model's file, and of the network alone beside it, which the mel kernel needs."""
    from triadbench.export.predict.models import network_beside

    return {path.name: path.read_bytes() for path in (model, network_beside(model)) if path.is_file()}


def _work(job: Job, table: pa.Table, todo: list[int], done: Callable[[int], None]) -> float:
    """Have the parts done by a pool of actors; `done` is called with the number of files so far. Returns when the first
    part began, in seconds since 1970."""
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # after the import, which sets it
    ray.data.DataContext.get_current().enable_progress_bars = False
    actors = int(ray.cluster_resources().get("CPU", 1))
    resources: dict[str, Any] = {"num_cpus": 1}
    if job.provider == "cuda":
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
        if not nodes:
            raise UserError("provider cuda: this Ray has no GPU; use --provider cpu")
        threads = max(1, int(min(node.get("CPU", 1) // (_ACTORS_A_GPU * node["GPU"]) for node in nodes)))
        job, actors = dataclasses.replace(job, threads=threads), int(_ACTORS_A_GPU * sum(n["GPU"] for n in nodes))
        resources = {"num_cpus": threads, "num_gpus": 1 / _ACTORS_A_GPU}
    pool = ray.data.ActorPoolStrategy(min_size=1, initial_size=actors, max_size=actors, max_tasks_in_flight_per_actor=2)
    parts = ray.data.from_items([{"part": part} for part in todo], override_num_blocks=len(todo))
    recogniser: Any = Recogniser  # Ray's types know functions alone
    work = parts.map(recogniser, fn_constructor_args=(job, ray.put(table)), compute=pool, **resources)
    n, began = 0, float("inf")
    for row in work.iter_rows():
        if row["failure"] is not None:
            raise UserError(f"{row['failure']}; the same command goes on from there")
        n, began = n + row["files"], min(began, row["began"])
        done(n)
    return began


def _work_there(job: Job, table: pa.Table, todo: list[int], done: Callable[[int], None]) -> float:
    """As `_work`, in a task of the cluster."""
    import ray

    def work(table: pa.Table) -> tuple[float, str]:
        try:
            return _work(job, table, todo, lambda n: None), ""
        except UserError as error:
            return 0.0, str(error)

    sizes = Counter(table["part"].to_pylist())
    there: Any = ray.remote(num_cpus=0)(work)
    end = there.remote(table)
    while not ray.wait([end], timeout=_LOOK_S)[0]:
        done(sum(sizes[part] for part in Destination(job.out).parts().intersection(todo)))
    began, failure = ray.get(end)
    if failure:
        raise UserError(failure)
    return began


@contextlib.contextmanager
def running_ray(
    address: str | None = None, list_bytes: int = 0, note: Callable[[str], None] = lambda text: None
) -> Iterator[int]:
    """Connect to a Ray, or start one here that ends with the block; its CPU cores. Its workers import this package."""
    before, home = dict(os.environ), str(Path.home())
    with scratch_folder() as scratch, contextlib.ExitStack() as stack:
        stack.callback(os.environ.update, before)
        stack.callback(os.environ.clear)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_DEDUP_LOGS"] = "0"  # or some would be kept and told at the end
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails is told by what Ray raises
        if address is None:  # for this machine alone; else Ray looks for its address among those of a network
            os.environ |= {
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": _token(),
            }
        has_token = "RAY_AUTH_TOKEN" in os.environ or Path.home().joinpath(".ray", "auth_token").is_file()
        if _is_client(address) and has_token:
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # without it no token is sent
        import ray  # which reads all of these

        # In a thread of its own, which has to outlive its processes, Ray leaves our handlers of signals alone.
        pool = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(lambda: pool.submit(ray.shutdown).result())
        stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))  # Ray talks
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if address is None:
            (scratch / "triadbench").symlink_to(PACKAGE)
            os.environ["TMPDIR"] = str(scratch)  # what its processes leave goes with it
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(scratch), os.environ.get("PYTHONPATH")]))
            options |= {"address": "local", "num_cpus": usable_cores(), "include_dashboard": True}
            # Finding this in its home, Ray asks no cloud's server where it is; its workers get theirs back.
            (scratch / "ray_bootstrap_config.yaml").write_text("{}")
            options["runtime_env"] = {"env_vars": {"HOME": home}}
            os.environ["HOME"] = str(scratch)
            options["object_store_memory"] = _STORE_BYTES + 4 * list_bytes
            if len(str(scratch)) < _LONGEST_FOLDER:
                options["_temp_dir"] = str(scratch)
        else:
            package = scratch / "triadbench"  # without what a checkout holds besides
            package.mkdir()
            for name in ("__init__.py", "core", "kernels", "export", "bench"):
                (package / name).symlink_to(PACKAGE / name)
            where = {name: os.environ[name] for name in _STORAGE_VARIABLES if name in os.environ}
            options |= {"address": address}
            ignored = ["__pycache__", "results"]
            options["runtime_env"] = {"py_modules": [str(package)], "excludes": ignored, "env_vars": where}
        try:
            if address is not None:
                _knock(address)
            with _without_stderr():  # a line of how it logs
                context = pool.submit(ray.init, **options).result()
            os.environ["HOME"] = home
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            if address is None:
                raise UserError(f"Ray does not start here ({reason})") from error
            way_out = "start one with `ray start --head`"
            raise UserError(f"--address {address}: no Ray can be used there ({reason}); {way_out}") from error
        try:
            if link := getattr(context, "dashboard_url", None):
                note(f"Dashboard: http://{link}{'' if address else f', with the token {_token()}'}")
            yield int(ray.cluster_resources().get("CPU", 1))
        except ray.exceptions.RayError as error:
            raise UserError(f"Ray gave up: {' '.join(str(error).split())[-300:]}") from error


@functools.cache
def _token() -> str:
    """The password of a Ray here; Ray itself would leave one in the home folder, and remembers the first."""
    return secrets.token_hex(16)


def _knock(address: str) -> None:
    """Raise OSError or ValueError where nobody answers: Ray itself would try for minutes."""
    from ray._private.services import canonicalize_bootstrap_address

    at = urlsplit(address if _is_client(address) else f"ray://{canonicalize_bootstrap_address(address)}")
    socket.create_connection((at.hostname or "", at.port or _CLIENT_PORT), _CONNECT_S).close()


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Nothing that libraries in C++ print reaches the terminal in this block."""
    with open(os.devnull, "wb") as nowhere, os.fdopen(os.dup(2), "wb") as stderr:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr.fileno(), 2)
