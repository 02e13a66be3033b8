"""Roofs and warm starts: rates from work and time, sizes from the system, reasons where something fails."""

from __future__ import annotations

import pytest
import torch

from triadbench.bench import machine, roofs
from triadbench.bench.mel import own_backends
from triadbench.bench.mel.records import Store


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
    assert 0 < own_backends.measure_warm_start("torchaudio", "cpu") < 120
    with pytest.raises(machine.ProcessError, match="must be one of"):
        own_backends.measure_warm_start("nothing", "cpu")


def test_warm_starts_are_recorded_once_or_their_reason(monkeypatch, tmp_path):
    def measure(name, device):
        if name == "matmul":
            raise machine.ProcessError("first line\nno memory")
        return 0.25

    monkeypatch.setattr(own_backends, "measure_warm_start", measure)
    store = Store(tmp_path / "r.jsonl", {"gpu": None}, "full", fresh=False)
    assert own_backends.warm_start_tasks(store, 0, ["cpu"]) == []
    for task in own_backends.warm_start_tasks(store, 2, ["cpu"]):
        task()
    made = {record["parameters"]["backend"]: record for record in store.find(own_backends.WARM_START)}
    assert made["torchaudio"]["samples"] == [250.0, 250.0] and made["torchaudio"]["unit"] == "ms"
    assert made["matmul"]["samples"] == [] and made["matmul"]["reason"] == "first line no memory"
    assert own_backends.warm_start_tasks(store, 2, ["cpu"]) == []
    assert own_backends.warm_start_tasks(store, 2, ["cuda"]) == []


def test_a_compiler_that_is_missing_is_recorded_once(monkeypatch, tmp_path):
    store = Store(tmp_path / "r.jsonl", {"gpu": None}, "full", fresh=False)
    monkeypatch.setattr("triadbench.kernels.gpu.static_analysis.why_unavailable", lambda: "no NVVM")
    for task in own_backends.static_tasks(store, own_backends.ALL_CASES):
        task()
    (record,) = store.find(own_backends.STATIC)
    assert record["reason"] == "no NVVM" and own_backends.static_tasks(store, own_backends.ALL_CASES) == []
