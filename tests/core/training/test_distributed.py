"""Several processes take the steps that one would take; one that is killed costs the epoch at work and nothing more."""

import contextlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.core.toys import write_excerpts, write_pack
from triadbench.core.data.dataset import open_dataset
from triadbench.core.errors import UserError
from triadbench.core.files import PACKAGE
from triadbench.core.models.networks import ChordNet, OriginalNet, chord_loss
from triadbench.core.models.vocabulary import N_CLASSES
from triadbench.core.training import distributed
from triadbench.core.training.distributed import SharedEpochs, World
from triadbench.core.training.draws import Draws
from triadbench.core.training.settings import ORIGINAL_PIPELINE, fast_pipeline
from triadbench.core.training.train import augment, augmentation
from triadbench.kernels.spec import CHORD

HANGS = 500  # seconds; no measure of speed, several processes that compile on a busy machine take minutes
STUDY = ["--recipe", "original", "--task", "type", "--switch", "fused_blocks=false"]  # without a compilation
DYING = "tests/core/dying.py"
SMALL_STEPS = ["--learning-rate", "1e-4"]  # large ones make of a rounding, within an epoch, another training


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return write_pack(tmp_path_factory.mktemp("distributed") / "pack", 48)


@contextlib.contextmanager
def started(command, logs, **environment):
    """A process and its descendants, of which nothing is left when the block ends; it writes `logs`.out and .err."""
    with open(f"{logs}.out", "w") as stdout, open(f"{logs}.err", "w") as stderr:  # pipes would fill while nobody reads
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=PACKAGE,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            agent = psutil.Process(process.pid)
            agent.suspend()  # it starts no others meanwhile
            for descendant in [*agent.children(recursive=True), agent]:  # torchrun's workers have their own sessions
                with contextlib.suppress(psutil.NoSuchProcess):
                    descendant.kill()
        process.wait()


def command(n, program, *arguments, options=("--standalone", "--local-addr=127.0.0.1")):
    """A Python program, alone or as `n` processes of torchrun; standalone, it finds a port that stays its own."""
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={n}", "--monitor-interval=0.2", *options]
    return [sys.executable, *(torchrun if n else []), *program, *arguments]


def train_arguments(pack, out, *options):
    return ["train", pack, out, "--test-fraction", 0.25, *options]


def run(n, pack, out, *options):
    """(record, stdout, stderr) of a whole training by cli.py: of one process (n=0: without torchrun) or of several."""
    with started(command(n, ["cli.py"], *train_arguments(pack, out, *options)), out) as process:
        code = process.wait(timeout=HANGS)
    stdout, stderr = (Path(f"{out}.{end}").read_text() for end in ("out", "err"))
    assert code == 0, stderr
    return json.loads((out / "history.json").read_text()), stdout, stderr


def curves(record):
    return [[value for key, value in point.items() if key != "seconds"] for point in record["curves"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "options"),
    [
        # 36 clips: whole batches, and a last one of a single clip, of which the second process has none.
        (2, ["--recipe", "original", "--task", "type", "--batch-size", 7, *SMALL_STEPS]),
        (2, ["--recipe", "original", "--task", "root", "--batch-size", 5, "--switch", "mel=batch", *SMALL_STEPS]),
        (2, ["--batch-size", 13, *SMALL_STEPS]),
        # 2 clips a step and 2 clips to test: the third process has none at all.
        (3, [*STUDY, "--batch-size", 2, "--test-fraction", 0.05, *SMALL_STEPS]),
        (3, ["--batch-size", 2, "--split", "random", "--test-fraction", 0.05, "--learning-rate", "1e-6"]),
    ],
    ids=["original", "original, mel per batch", "ours", "original, more than clips", "ours, more than clips"],
)
def test_processes_take_the_steps_of_one(n, options, pack, tmp_path):
    one, *_ = run(0, pack, tmp_path / "one", "--epochs", 2, *options)
    more, stdout, stderr = run(n, pack, tmp_path / "more", "--epochs", 2, *options)
    assert np.allclose(curves(one), curves(more), rtol=1e-4, atol=0), (curves(one), curves(more))
    assert (one["processes"], more["processes"]) == (1, n)
    assert stdout.count("Checkpoints and curves in") == 1 and stderr.count("epoch 2 of 2: train loss") == 1
    assert {path.name for path in (tmp_path / "more").iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}


@pytest.mark.slow
def test_processes_share_songs_as_well(tmp_path):
    data = write_excerpts(tmp_path / "excerpts")
    one, more = (run(n, data, tmp_path / str(n), "--epochs", 2, "--batch-size", 5, *SMALL_STEPS)[0] for n in (0, 2))
    assert np.allclose(curves(one), curves(more), rtol=1e-4, atol=0), (curves(one), curves(more))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_is_started_again_and_no_epoch_is_counted_twice(victim, pack, tmp_path):
    out, epochs = tmp_path / "run", 4
    dying = [DYING, tmp_path, f"RANK={victim}", "epoch 2"]
    arguments = train_arguments(pack, out, *STUDY, "--epochs", epochs)
    options = ("--standalone", "--local-addr=127.0.0.1", "--max-restarts=1")
    with started(command(2, dying, *arguments, options=options), out) as process:
        code = process.wait(timeout=HANGS)
    stderr = Path(f"{out}.err").read_text()
    assert code == 0 and (tmp_path / "epoch 2").exists(), stderr
    record = json.loads((out / "history.json").read_text())
    assert [point["epoch"] for point in record["curves"]] == list(range(1, epochs + 1))
    # It went on and did not start anew: the first epoch was reported once, by the first of the two lives.
    assert stderr.count(f"epoch 1 of {epochs}:") == 1 and stderr.count(f"epoch {epochs} of {epochs}:") == 1
    whole, *_ = run(0, pack, tmp_path / "whole", *STUDY, "--epochs", epochs)
    assert np.allclose(curves(record), curves(whole), rtol=1e-4, atol=0)


@pytest.mark.slow
def test_machines_that_count_their_restarts_differently_go_on(pack, tmp_path):
    """A worker of machine b dies before it joins: b restarts and counts, a is asked to meet again and counts nothing."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    options = [
        "--nnodes=2",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{store.port}",
        "--rdzv-conf=is_host=0",
        "--rdzv-id=test",
        "--local-addr=127.0.0.1",
        "--max-restarts=3",
    ]
    dying = [DYING, tmp_path, "MACHINE=b", "start,epoch 2"]
    arguments = train_arguments(pack, tmp_path / "run", *STUDY, "--epochs", 3)
    with contextlib.ExitStack() as stack:
        agents = [
            stack.enter_context(
                started(command(1, dying, *arguments, options=options), tmp_path / machine, MACHINE=machine)
            )
            for machine in "ab"
        ]
        codes = [agent.wait(timeout=HANGS) for agent in agents]
    logs = [(tmp_path / f"{machine}.err").read_text() for machine in "ab"]
    assert codes == [0, 0] and (tmp_path / "start").exists() and (tmp_path / "epoch 2").exists(), logs
    record = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [point["epoch"] for point in record["curves"]] == [1, 2, 3]
    assert "".join(logs).count("epoch 1 of 3:") == 1


@pytest.mark.slow
def test_without_restarts_a_killed_worker_ends_the_run(pack, tmp_path):
    out = tmp_path / "run"
    arguments = train_arguments(pack, out, *STUDY, "--epochs", 1000)
    with started(command(2, [DYING, tmp_path, "RANK=1", "epoch 2"], *arguments), out) as process:
        assert process.wait(timeout=HANGS) != 0
    assert (tmp_path / "epoch 2").exists() and not (out / "final.safetensors").exists()


def test_a_restart_does_not_go_on_with_an_older_training(tmp_path):
    file = tmp_path / "last.safetensors"
    assert not distributed.of_this_launch(file)
    file.write_bytes(b"")
    assert distributed.of_this_launch(file)
    os.utime(file, (0, psutil.Process(os.getppid()).create_time() - 60))
    assert not distributed.of_this_launch(file)


# --- one life after another ------------------------------------------------------------------------------------------


def met(store, ranks, size=3):
    """What `_meet` tells each of the processes, here threads."""
    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(lambda rank: distributed._meet(store, rank, size), ranks))


def test_processes_of_a_life_agree_on_its_number_and_no_two_lives_share_it():
    store = torch.distributed.HashStore()
    assert [met(store, [0, 1, 2]) for _ in range(3)] == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]


def test_a_quick_process_waits_for_the_first_one_of_its_own_life(monkeypatch):
    monkeypatch.setattr(distributed, "_TIMEOUT", timedelta(minutes=1))  # of a test that fails
    store = torch.distributed.HashStore()
    met(store, [0, 1, 2])
    with ThreadPoolExecutor(3) as pool:
        quick = pool.submit(distributed._meet, store, 1, 3)
        time.sleep(0.1)  # long enough for a wrong answer; it must wait, however long
        assert not quick.done()
        first = pool.submit(distributed._meet, store, 0, 3)
        time.sleep(0.1)
        assert not first.done()  # what the third one of the life before left is no sign of life
        assert [distributed._meet(store, 2, 3), first.result(), quick.result()] == [2, 2, 2]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stays_alone_says_so(rank, monkeypatch):
    monkeypatch.setattr(distributed, "_TIMEOUT", timedelta(seconds=0.05))
    with pytest.raises(UserError, match="not all of the 2 processes have come within 0:00:00.05"):
        distributed._meet(torch.distributed.HashStore(), rank, 2)


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
            parts.append(world.drawn(torch.randn, 3))
            assert len(parts[-1]) == len(world.part(np.arange(7)))
    assert torch.equal(torch.cat(parts), whole)


def test_shares_of_a_loss_sum_to_its_mean():
    losses = torch.tensor([1.0, 2.0, 6.0])
    parts = [World(rank, 2).part(np.arange(3)) for rank in range(2)]
    shares = [World(0, 2).share(losses[torch.from_numpy(part)].mean(), len(part), 3) for part in parts]
    assert float(sum(shares)) == pytest.approx(3.0)
    assert float(World(0, 2).share(torch.empty(0).mean(), 0, 3)) == 0.0


@pytest.mark.parametrize(
    "switches",
    [
        fast_pipeline("cpu").with_(fused_blocks=False),
        fast_pipeline("cpu").with_(mel="batch", fused_blocks=False),
        fast_pipeline("cpu").with_(mel="batch", fused_blocks=False, prefetch=True),
        ORIGINAL_PIPELINE.with_(packed=True),
    ],
    ids=["cached", "batch", "ahead", "original"],
)
def test_a_process_without_a_clip_computes_and_adds_nothing(switches, pack, monkeypatch):
    """Two clips to learn from, two to test with, and this is the third process; its peers' sums are left out."""
    monkeypatch.setattr(distributed, "_all_reduce", lambda tensor: tensor)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    epochs = SharedEpochs(
        World(2, 3),
        open_dataset(pack),
        OriginalNet(4),
        (np.arange(2), np.arange(2, 4)),
        task="type",
        batch_size=8,
        draws=Draws(4, 4, 0),
        switches=switches,
        device=torch.device("cpu"),
        learning_rate=1e-4,
    )
    trained, tested = epochs.train_epoch(), epochs.test_epoch()
    assert (trained.loss, trained.n_clips, tested.loss, tested.accuracy) == (0.0, 2, 0.0, 0.0)


def test_our_network_without_a_clip_computes_and_adds_nothing(monkeypatch):
    monkeypatch.setattr(distributed, "_all_reduce", lambda tensor: tensor)
    world, net, none = World(2, 3), ChordNet(width=2, hidden=8), torch.zeros(0, dtype=torch.int64)
    distributed.share_batches(net, world)
    with world.batch(2):
        drawn = (part[world.span] for part in augmentation(2))
        mel = augment(torch.zeros(0, CHORD.n_mels, 126), *drawn)
        targets = torch.zeros(0, N_CLASSES, dtype=torch.bool), none, torch.zeros(0, 12)
        loss = world.share(chord_loss(net.train().heads(mel), *targets), 0, 2)
    loss.backward()
    world.sum_gradients(net)
    assert float(loss.detach()) == 0.0 and all(bool((p.grad == 0).all()) for p in net.parameters())


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # other launchers set it too
    assert distributed.join("cpu").size == 1 and distributed.is_main()
