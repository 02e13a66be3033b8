"""Read from the system's own files, cores, memory and times are what psutil finds."""

import os
import time

import psutil
import pytest

from triadbench.core import system


def test_cores_and_memory():
    assert system.physical_cores() == psutil.cpu_count(logical=False)
    total, available = system.memory_bytes()
    assert total == psutil.virtual_memory().total
    assert available == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_processor_time_is_that_of_all_processes():
    times = psutil.cpu_times()
    before = system.busy_s()
    assert before == pytest.approx(times.user + times.system + times.nice + getattr(times, "steal", 0.0), abs=2)
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    assert system.busy_s() >= before + 0.1


@pytest.mark.parametrize("number", [os.getpid, os.getppid, lambda: 1], ids=["this", "parent", "first"])
def test_when_a_process_began(number):
    process = number()
    assert system.started_at(process) == pytest.approx(psutil.Process(process).create_time(), abs=1.5)


def test_a_process_whose_name_looks_like_fields(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "_PROC", tmp_path)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text(f"7 (a) S 1 (b c) {' '.join(map(str, range(3, 60)))}\n")
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 8\nbtime 1000\n")
    assert system.started_at(7) == 1000 + 22 / os.sysconf("SC_CLK_TCK")
    assert system.busy_s() == (1 + 2 + 3 + 8) / os.sysconf("SC_CLK_TCK")


def test_cores_that_the_system_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "_CPUS", tmp_path)
    assert system.physical_cores() is None


def test_the_most_memory_held_is_remembered():
    held = b"x" * (256 << 20)
    with_it = psutil.Process().memory_info().rss
    del held
    lag = 8 << 20  # of the kernel's counters
    assert system.peak_memory_bytes() >= with_it - lag > psutil.Process().memory_info().rss + lag
