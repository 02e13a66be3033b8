"""Several processes take the steps that one would take; one that is killed costs the epoch at work and nothing more."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from core import distributed
from core.distributed import World
from tests.core.toys import write_pack

ROOT = Path(distributed.__file__).parent.parent
SMALL_STEPS = ["--learning-rate", "1e-4"]  # large ones make of a rounding, within an epoch, another training


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("distributed") / "pack", 48)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def started(n, pack, out, *options, restarts=0):
    """`cli.py train` on n processes, in a session of its own, of which nothing is left when the block ends."""
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={n}", f"--max-restarts={restarts}",
                "--monitor-interval=0.2", f"--master-port={free_port()}"] if n > 1 else []  # fmt: skip
    command = [sys.executable, *torchrun, "cli.py", "train", pack, out, "--test-fraction", 0.25, *options]
    process = subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(n, pack, out, *options):
    """(record, stdout, stderr) of a whole training."""
    with started(n, pack, out, *options) as process:
        stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return json.loads((out / "history.json").read_text()), stdout, stderr


def worker(process, rank):
    """The process of that rank."""
    children = [child for child in psutil.Process(process.pid).children() if "cli.py" in child.cmdline()]
    (found,) = [child for child in children if child.environ()["RANK"] == str(rank)]
    return found


def curves(record):
    return [[value for key, value in point.items() if key != "seconds"] for point in record["curves"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        # 36 clips: whole batches, and a last one of a single clip, of which the second process has none.
        ["--recipe", "original", "--task", "type", "--batch-size", 7, *SMALL_STEPS],
        ["--recipe", "original", "--task", "root", "--batch-size", 5, "--switch", "mel=batch", *SMALL_STEPS],
        ["--batch-size", 13, *SMALL_STEPS],
    ],
    ids=["original", "original, mel per batch", "ours"],
)
def test_two_processes_take_the_steps_of_one(options, pack, tmp_path):
    one, *_ = run(1, pack, tmp_path / "one", "--epochs", 2, *options)
    two, stdout, stderr = run(2, pack, tmp_path / "two", "--epochs", 2, *options)
    assert np.allclose(curves(one), curves(two), rtol=1e-4, atol=0), (curves(one), curves(two))
    assert stdout.count("Checkpoints and curves in") == 1 and stderr.count("epoch 2 of 2: train loss") == 1
    assert {path.name for path in (tmp_path / "two").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_is_started_again_and_no_epoch_is_counted_twice(victim, pack, tmp_path):
    out, epochs = tmp_path / "run", 40
    with started(2, pack, out, "--recipe", "original", "--task", "type", "--epochs", epochs, restarts=1) as process:
        deadline = time.monotonic() + 60
        while not (out / "last.safetensors").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        worker(process, victim).kill()
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr
    record = json.loads((out / "history.json").read_text())
    assert [point["epoch"] for point in record["curves"]] == list(range(1, epochs + 1))
    # It went on and did not start anew: the first epoch was reported once, by the first of the two lives.
    assert stderr.count(f"epoch 1 of {epochs}:") == 1 and stderr.count(f"epoch {epochs} of {epochs}:") == 1
    whole, *_ = run(1, pack, tmp_path / "whole", "--recipe", "original", "--task", "type", "--epochs", epochs)
    assert np.allclose(curves(record), curves(whole), rtol=1e-4, atol=0)


@pytest.mark.slow
def test_without_restarts_a_killed_worker_ends_the_run(pack, tmp_path):
    out = tmp_path / "run"
    with started(2, pack, out, "--recipe", "original", "--task", "type", "--epochs", 1000) as process:
        while not (out / "last.safetensors").exists():
            assert process.poll() is None
            time.sleep(0.05)
        worker(process, 1).kill()
        process.communicate(timeout=60)
    assert process.returncode != 0


def test_a_restart_does_not_go_on_with_an_older_training(tmp_path):
    file = tmp_path / "last.safetensors"
    assert not distributed.of_this_launch(file)
    file.write_bytes(b"")
    assert distributed.of_this_launch(file)
    os.utime(file, (0, psutil.Process(os.getppid()).create_time() - 60))
    assert not distributed.of_this_launch(file)


# --- shares ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_shares_are_the_whole_batch_once(n):
    rows = np.arange(100, 100 + n)
    parts = [World(rank, 3).part(rows) for rank in range(3)]
    assert np.array_equal(np.concatenate(parts), rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_process_draws_what_one_would_draw_for_its_clips():
    torch.manual_seed(0)
    whole = torch.randn(7, 3)
    parts = []
    for rank in range(3):
        world = World(rank, 3)
        torch.manual_seed(0)
        with world.batch(7):
            parts.append(world.drawn(torch.randn, len(world.part(np.arange(7))), 3))
    assert torch.equal(torch.cat(parts), whole)


def test_shares_of_a_loss_sum_to_its_mean():
    losses = torch.tensor([1.0, 2.0, 6.0])
    parts = [World(rank, 2).part(np.arange(3)) for rank in range(2)]
    shares = [World(0, 2).share(losses[torch.from_numpy(part)].mean(), len(part), 3) for part in parts]
    assert float(sum(shares)) == pytest.approx(3.0)
    assert float(World(0, 2).share(torch.empty(0).mean(), 0, 3)) == 0.0


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # other launchers set it too
    assert distributed.join("cpu").size == 1 and distributed.is_main()
