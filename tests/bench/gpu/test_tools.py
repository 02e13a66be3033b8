"""Stages that run NVIDIA's tools, before programs of the same names that print what those print, fail, or hang."""

import os
import stat

import pytest

from triadbench.bench import records
from triadbench.bench.gpu import counters, launches, sanitizer, tools
from triadbench.bench.gpu.context import Context
from triadbench.core.errors import UserError
from triadbench.kernels import SPECS, mel_reference


@pytest.fixture
def context(tmp_path):
    def make(seconds=100.0, **fields):
        fields = {"device": "cuda", "rehearse": False, **fields}
        return Context(**fields, seconds=seconds, records=tmp_path / "r.jsonl", scratch=tmp_path)

    return make


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Puts a shell script of a program's name on PATH; its arguments and environment go to `call`."""

    def write(name, script):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{tmp_path}/call"\nenv >>"{tmp_path}/call"\n{script}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
        return lambda: (tmp_path / "call").read_text().splitlines()

    return write


@pytest.fixture
def nothing(monkeypatch):
    monkeypatch.setattr(tools, "find", lambda name: None)


def loaded(context):
    lines, problems = records.load(context.records)
    assert not problems
    return lines


_CLEAN = """echo "========= COMPUTE-SANITIZER"
if [ "$2" = racecheck ]; then
  echo "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"
else
  echo "========= ERROR SUMMARY: 0 errors"
fi"""
_OUT_OF_BOUNDS = """if [ "$2" = memcheck ]; then
  echo "========= COMPUTE-SANITIZER"
  echo "========= Invalid __global__ read of size 4 bytes"
  echo "=========     at mel+0x1a0"
  echo "=========     by thread (31,0,0) in block (2,0,0)"
  echo "=========     Access at 0x7f6c3fa00800 is out of bounds"
  echo "========= ERROR SUMMARY: 12 errors"
  exit 86
elif [ "$2" = racecheck ]; then
  echo "========= Error: Race reported between Write access at mel+0x2b0"
  echo "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"
  exit 86
fi
echo "========= ERROR SUMMARY: 0 errors\""""
_REFUSED = """echo "========= COMPUTE-SANITIZER"
echo "========= Error: Device not supported. Please refer to the documentation"
echo "RuntimeError: CUDA error: unknown error"
exit 1"""
_WRONG = """echo "AssertionError: ORIGINAL: FAILED: peak-relative 0.2 above 1e-4"
echo "========= Target application returned an error"
echo "========= ERROR SUMMARY: 0 errors"
exit 1"""


def test_a_clean_report_of_every_check(context, fake):
    call = fake("compute-sanitizer", _CLEAN)
    given = context()
    assert sanitizer.run(given) == "memcheck, racecheck, synccheck: no errors"
    lines = loaded(given)
    assert {line["parameters"]["tool"]: line["errors"] for line in lines} == dict.fromkeys(sanitizer.CHECKS, 0)
    assert all(len(line["samples"]) == 1 and "reason" not in line for line in lines)
    assert call().count("triadbench.bench.gpu.launches") == 3 and "PYTORCH_NO_CUDA_MEMORY_CACHING=1" in call()


@pytest.mark.parametrize(
    "script, message, errors",
    [
        (_OUT_OF_BOUNDS, "memcheck: 12 errors; racecheck: 1 errors", {"memcheck": 12, "racecheck": 1, "synccheck": 0}),
        (_REFUSED, "memcheck: exit code 1: Error: Device not supported.*synccheck", {}),
        (_WRONG, "racecheck: exit code 1: AssertionError: ORIGINAL: FAILED", dict.fromkeys(sanitizer.CHECKS, 0)),
        ("kill -SEGV $$", "memcheck: exit code -11: it printed nothing", {}),
        ("echo hello", "memcheck: exit code 0: hello", {}),
    ],
    ids=["errors", "refused", "wrong mel", "crash", "no summary"],
)
def test_what_a_check_finds_or_cannot_do_fails_the_stage_and_is_recorded(context, fake, script, message, errors):
    fake("compute-sanitizer", script)
    given = context()
    with pytest.raises(UserError, match=message):
        sanitizer.run(given)
    lines = {line["parameters"]["tool"]: line for line in loaded(given)}
    assert {check: lines[check]["errors"] for check in sanitizer.CHECKS} == dict.fromkeys(sanitizer.CHECKS) | errors
    if script == _OUT_OF_BOUNDS:
        assert any("Invalid __global__ read" in line for line in lines["memcheck"]["lines"])


def test_a_check_that_hangs_is_ended_with_what_it_said(context, fake):
    fake("compute-sanitizer", 'echo "========= COMPUTE-SANITIZER"; exec sleep 600')
    given = context(seconds=3)
    with pytest.raises(UserError, match="synccheck: not finished within"):
        sanitizer.run(given)
    assert [line["lines"] for line in loaded(given)] == [["========= COMPUTE-SANITIZER"]] * 3


def test_without_the_tools_a_record_gives_the_reason(context, nothing):
    given = context()
    assert "compute-sanitizer is not installed" in sanitizer.run(given)
    assert "ncu (Nsight Compute) is not installed" in counters.run(given)
    lines = loaded(given)
    assert len(lines) == 6 and all("is not installed" in line["reason"] for line in lines)


def test_a_rehearsal_makes_the_launches_on_the_cpu(context, fake):
    call = fake("compute-sanitizer", _CLEAN)
    given = context(device="cpu", rehearse=True)
    assert sanitizer.run(given).startswith("not run: rehearsal")
    assert len(loaded(given)) == 3
    with pytest.raises(FileNotFoundError):  # the tool itself has nothing to look at
        call()


def test_a_wrong_mel_of_the_launches_is_an_error(monkeypatch, capsys):
    launches.main("cpu", "1", "8192")
    assert capsys.readouterr().out.count("passed") == len(SPECS)
    right = mel_reference.mel_spectrogram
    monkeypatch.setattr(mel_reference, "mel_spectrogram", lambda *inputs: 1.01 * right(*inputs))
    with pytest.raises(AssertionError, match="ORIGINAL.*above rtol_peak"):
        launches.main("cpu", "1", "8192")


_NAMES = (
    "dram__bytes_read.sum,gpu__time_duration.sum,l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum,"
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum,launch__occupancy_limit_registers,"
    "sm__inst_issued.sum.pct_of_peak_sustained_active,sm__warps_active.avg.pct_of_peak_sustained_active,"
    "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio,smsp__inst_executed_op_shared_ld.sum"
)
_UNITS = "byte,nsecond,,,block,%,%,inst,inst"
_IDENTITY = "ID,Process ID,Process Name,Host Name,Kernel Name,Context,Stream,Block Size,Grid Size,Device,CC"


def _quoted(text):
    return ",".join(f'"{part}"' for part in text.split(","))


def _csv(kernels, *, dropped=()):
    """What `ncu --csv --page raw` prints: names, units, and a line a kernel."""
    keep = [number for number, name in enumerate(_NAMES.split(",")) if name not in dropped]
    names, units = (",".join(text.split(",")[number] for number in keep) for text in (_NAMES, _UNITS))
    lines = [f"{_quoted(_IDENTITY)},{_quoted(names)}", f"{_quoted(',' * 10)},{_quoted(units)}"]
    for kernel in range(kernels):
        values = ['"1,234,567"', f'"{1000 + kernel}"', '"0"', '"77"', '"n/a"', '"61.5"', '"48.2"', '"0.75"', '"5"']
        identity = f'"{kernel}","123","python3","127.0.0.1","mel","1","7","(160, 1, 1)","(7680, 1, 1)","0","9.0"'
        lines.append(f"{identity},{','.join(values[number] for number in keep)}")
    return "\n".join(lines)


def _ncu(kernels=3, **options):
    text = '==PROF== Connected to process 123 (/usr/bin/python3)\n==PROF== Profiling "mel" - 0: 0%....50%....100% - 41 passes'
    done = "passed; peak-relative 1e-07, RMS 1e-07, absolute 1e-07\n==PROF== Disconnected from process 123"
    return f"cat <<'END'\n{text}\n{done}\n{_csv(kernels, **options)}\nEND"


def test_counters_of_every_spec_with_their_units(context, fake):
    call = fake("ncu", _ncu())
    given = context()
    assert counters.run(given) == "3 kernels, 7 metrics each"
    lines = loaded(given)
    assert [line["parameters"] for line in lines] == [{"spec": spec, "batch": 512} for spec in SPECS]
    assert [line["metrics"]["gpu__time_duration.sum"]["value"] for line in lines] == [1000, 1001, 1002]
    metrics = lines[0]["metrics"]
    assert metrics["dram__bytes_read.sum"] == {"value": 1234567.0, "unit": "byte"}
    assert metrics["l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum"] == {"value": 0.0, "unit": ""}
    assert metrics["smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio"]["value"] == 0.75
    assert "launch__occupancy_limit_registers" not in metrics  # n/a
    assert not any(line["missing"] for line in lines)
    arguments = call()
    assert arguments[arguments.index("--kernel-name") + 1] == "mel" and "triadbench.bench.gpu.launches" in arguments
    assert arguments[arguments.index("--clock-control") + 1] == "none", "the card's clocks are left alone"


def test_one_unknown_metric_costs_no_other(context, fake):
    names = counters.NAMED.split(",")
    refused = 'case "$*" in *--metrics*) echo "==ERROR== Failed to find metric l1tex__data_pipe"; exit 1;; esac\n'
    fake("ncu", refused + _ncu(dropped=names))
    given = context()
    assert counters.run(given) == "3 kernels, 5 metrics each"
    assert [line["missing"] for line in loaded(given)] == [["L1 wavefronts", "bank conflicts"]] * 3


@pytest.mark.parametrize(
    "script, message",
    [
        (_ncu(1) + "\nexit 9", "ncu read 1 of 3 kernels"),
        ("echo '==PROF== Connected'; echo '==ERROR== ERR_NVGPUCTRPERM - no permission'; exit 1", "ERR_NVGPUCTRPERM"),
        ("echo '==WARNING== No kernels were profiled.'", "0 of 3 kernels: ==WARNING== No kernels"),
        ("kill -SEGV $$", "0 of 3 kernels: it printed nothing"),
        ("exec sleep 600", "0 of 3 kernels: ended at the time limit"),
    ],
    ids=["half", "no permission", "no kernels", "crash", "hang"],
)
def test_what_ncu_cannot_do_fails_the_stage_and_is_recorded(context, fake, script, message):
    fake("ncu", script)
    given = context(seconds=4)
    with pytest.raises(UserError, match=message):
        counters.run(given)
    lines = loaded(given)
    assert len(lines) == 3 and all("reason" in line for line in lines[1:])


def test_a_program_that_prints_without_end_or_leaves_a_child_costs_its_time_alone():
    code, text = tools.run_tool(["sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done"], 1)
    assert code is None and 0 < len(text) <= 2_000_000
    code, text = tools.run_tool(["sh", "-c", "sleep 600 & echo done"], 60)
    assert (code, text) == (0, "done\n")
