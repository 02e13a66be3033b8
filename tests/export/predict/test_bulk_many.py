"""Many files at once: the same answers in the same order, in threads, and in bounded memory."""

import json
import os
import re
import threading
import time

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from tests.core.audio.real_files import KINDS
from tests.core.toys import chord
from tests.export.fakes import Fake
from tests.odd_files import C_MAJOR
from triadbench.cli import main
from triadbench.core.audio.io import find_files
from triadbench.core.errors import UserError
from triadbench.export.predict import bulk as infer
from triadbench.export.predict.bulk import infer_files


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """60 files: most of them short, one of 40 s, silence, two bad ones; with what `Fake` says of them one by one."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    files = []
    for i in range(60):
        n = 640_000 if i == 7 else int(rng.integers(1, 90_000)) if i % 3 else 64_000
        sound = rng.standard_normal(n) * 0.01
        sound[5000 * (i % 12) : 5000 * (i % 12 + 1)] *= 30
        files.append(folder / f"{i:02}.wav")
        soundfile.write(files[-1], sound * (i != 20), 16_000)
    files[31].write_text("no sound")
    files.insert(40, folder / "missing.wav")
    return files, [next(infer_files(Fake(), [file])) for file in files]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (1, 16), (2, 5), (4, 16), (3, 64)])
def test_the_same_answers_in_the_same_order_whatever_the_grouping(many, workers, batch, at_once):
    files, expected = many
    lazily = (file for file in files) if at_once else files
    results = list(infer_files(Fake(), lazily, workers=workers, batch=batch, at_once=at_once))
    assert [result["file"] for result in results] == [str(file) for file in files]
    for result, wanted in zip(results, expected, strict=True):
        assert (result.get("chord"), result.get("windows"), result.get("error")) == (
            wanted.get("chord"),
            wanted.get("windows"),
            wanted.get("error"),
        )
        assert result.get("agreement") == pytest.approx(wanted.get("agreement"), abs=1e-6)
    assert sum("error" in result for result in results) == 2


def test_short_files_share_batches(tmp_path):
    soundfile.write(tmp_path / "x.wav", chord(*C_MAJOR), 16_000)
    calls = []
    assert len(list(infer_files(Fake(calls=calls), [tmp_path / "x.wav"] * 500, workers=2))) == 500
    assert sum(calls) == 500 and max(calls) == 16 and calls.count(16) >= 10


@pytest.mark.parametrize("at_once", [True, False])
def test_predictors_that_need_it_are_called_by_one_thread_at_a_time(many, at_once):
    barrier = threading.Barrier(2)

    def meet(_):
        if at_once:
            barrier.wait(20)  # only two threads together get past it
        else:
            time.sleep(0.002)

    fake = Fake(meet)
    soundfile_of = many[0][0]
    list(infer_files(fake, [soundfile_of] * 8, workers=2, batch=1, at_once=at_once))
    assert fake.most_inside == (2 if at_once else 1)


def test_files_are_not_read_far_ahead_of_the_answers(many, monkeypatch):
    """Not even where one file takes longer than all the others."""
    monkeypatch.setattr(infer, "_KEPT", 50)
    asked, go_on = [], threading.Event()

    def files():
        for i in range(1000):
            asked.append(1)
            yield many[0][7 if i == 3 else 0]

    def wait_for_the_long_file(waveforms):
        if len(waveforms) == 16:
            go_on.wait(20)

    results = infer_files(Fake(wait_for_the_long_file), files(), workers=2, batch=16, at_once=True)
    assert next(results)["chord"] and len(asked) == 1
    assert next(results) and next(results)
    threading.Timer(0.5, go_on.set).start()
    assert next(results)["windows"] == 19 and 40 < len(asked) <= 50 + 16 + 3
    results.close()


def test_threads_end_when_nobody_wants_the_rest(many):
    before = threading.active_count()
    results = infer_files(Fake(lambda _: time.sleep(0.01)), [many[0][7]] * 50, workers=3)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_a_failing_predictor_is_no_matter_of_the_file(many):
    def fail(_):
        raise UserError("no memory left")

    with pytest.raises(UserError, match="no memory left"):
        list(infer_files(Fake(fail), many[0], workers=2))


def test_the_kernel_is_warmed_when_there_is_enough_to_do(many, monkeypatch):
    fake, warmed = Fake(), []
    fake.warm_kernel = lambda: warmed.append(1)
    monkeypatch.setattr(infer, "WARM_AFTER", 50)
    list(infer_files(fake, many[0][:5]))
    assert not warmed
    next(infer_files(fake, many[0]))
    assert warmed == [1]
    list(infer_files(fake, [many[0][7]] * 5))  # 19 windows each
    assert warmed == [1, 1]


def test_a_failing_disk_is_an_error_of_the_file(many, monkeypatch):
    inner = infer.iter_blocks

    def failing(source, *args, **kwargs):
        if str(source).endswith("03.wav"):
            raise OSError(5, "Input/output error")
        return inner(source, *args, **kwargs)

    monkeypatch.setattr(infer, "iter_blocks", failing)
    results = list(infer_files(Fake(), many[0][:6], workers=2))
    assert [result.get("error") for result in results] == [None] * 3 + [
        f"{many[0][3]}: cannot be read (Input/output error)",
        None,
        None,
    ]


def test_one_bad_file_in_a_thousand(tmp_path):
    soundfile.write(tmp_path / "000.wav", chord(*C_MAJOR, seconds=0.1), 16_000)
    for i in range(1, 1000):
        os.link(tmp_path / "000.wav", tmp_path / f"{i:03}.wav")
    (tmp_path / "500.wav").unlink()
    soundfile.write(tmp_path / "500.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    results = list(infer_files(Fake(), find_files([tmp_path]), workers=2, at_once=True))
    assert len(results) == 1000 and [i for i, result in enumerate(results) if "error" in result] == [500]
    assert "sample 0 is nan" in results[500]["error"]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    from triadbench.export.predict.predictor import ChordPredictor

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    soundfile.write(tmp_path / "x.wav", chord(*C_MAJOR), 16_000)
    predictor = ChordPredictor(threads=1)
    sizes = []
    for _ in infer_files(predictor, [str(tmp_path / "x.wav")] * 3000, workers=2, at_once=True):
        sizes.append(resident())
    assert max(sizes[-500:]) < max(sizes[500:1000]) + 8e6  # a batch more or less of two threads


@pytest.mark.slow
@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.seconds is None])
def test_one_bad_file_among_a_thousand(kind, tmp_path):
    soundfile.write(tmp_path / "000.wav", chord(*C_MAJOR, seconds=0.1), 16_000)
    files = [tmp_path / f"{number:03}.wav" for number in range(1000)]
    for file in files[1:]:
        os.link(files[0], file)
    files[500].unlink()
    files[500].write_bytes(KINDS[kind].make())
    done = CliRunner().invoke(main, ["infer", str(tmp_path), "--jsonl", "--threads", "2"])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == list(map(str, files)) and sum("chord" in line for line in lines) == 999
    assert re.search(KINDS[kind].reason, lines[500]["error"]) and done.exit_code == 1
    assert [line for line in done.stderr.splitlines() if "failed" in line] == [
        f"failed: {lines[500]['error']}",
        "Error: 1 of 1000 files failed",
    ]
