"""Roofs and warm starts: rates from work and time, sizes from the system, reasons where something fails."""

from __future__ import annotations

import pytest
import torch

from triadbench.bench import machine, roofs
from triadbench.bench.mel import warm_start


def test_roofs_have_work_and_samples():
    before = torch.get_num_threads()
    found = roofs.measure(1, 0.0)
    assert torch.get_num_threads() == before
    assert {"memory", "arithmetic"} <= set(found)
    for name, roof in found.items():
        assert roof["samples_ms"] and roof["flops" if name == "arithmetic" else "bytes_moved"] > 0


def test_cache_sizes_are_read_and_shared_ones_divided(monkeypatch, tmp_path):
    for index, (level, kind, size, cpus) in enumerate(
        [
            (1, "Data", "32K", "0"),
            (1, "Instruction", "64K", "0"),
            (2, "Unified", "512K", "0"),
            (3, "Unified", "8192K", "0-7"),
        ]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", cpus)):
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(roofs, "_CACHES", tmp_path)
    assert roofs.cache_sizes(4) == {"L1": 32 << 10, "L2": 512 << 10, "L3": 2 << 20}
    monkeypatch.setattr(roofs, "_CACHES", tmp_path / "none")
    assert roofs.cache_sizes(4) == {}


def test_the_sweep_reads_and_writes_every_element():
    source, target = torch.arange(300.0).numpy(), torch.zeros(300).numpy()
    roofs._loop()(source, target, 3)
    assert (target == source + 2).all(), "the last turn adds 2"


def test_a_fresh_process_is_timed_or_its_complaint_kept():
    assert 0 < warm_start.measure("torchaudio", "cpu") < 120
    with pytest.raises(machine.ProcessError, match="must be one of"):
        warm_start.measure("nothing", "cpu")
