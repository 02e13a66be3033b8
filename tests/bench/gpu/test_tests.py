"""The stage that runs the GPU tests: every result is recorded, also of a run that crashes, hangs or cannot collect."""

import importlib.util

import pytest

from triadbench.bench import records
from triadbench.bench.gpu import tests as gpu_tests
from triadbench.bench.gpu.context import Context
from triadbench.core.errors import UserError

_HEAD = "import os, signal, time, warnings\nimport pytest\n"
_GOOD = """
@pytest.mark.gpu
@pytest.mark.parametrize("size", ["small one", "large - 1"])
def test_passes(size):
    warnings.warn("not fatal")
    import triadbench  # the checkout's own, whatever else is installed
    assert "scratch" in triadbench.__path__[0]
    print("PASSED by no means")

@pytest.mark.gpu
@pytest.mark.skip(reason="not here")
def test_skipped():
    pass

def test_without_the_marker():
    raise AssertionError("must not run")
"""
_BAD = """
@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["a b"])
def test_fails(backend):
    assert 1 == 2, "the mel is wrong"

@pytest.fixture
def broken():
    raise OSError("no such device")

@pytest.mark.gpu
def test_errs(broken):
    pass

@pytest.mark.gpu
@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""
_ENDS = """
@pytest.mark.gpu
def test_before():
    pass

@pytest.mark.gpu
def test_ends_it():
    {}
"""
_CRASH = _ENDS.format("os.kill(os.getpid(), signal.SIGSEGV)")
_HANG = _ENDS.format("time.sleep(600)")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Makes a checkout of these test files, and a context of some seconds for it."""
    monkeypatch.setattr(gpu_tests, "PACKAGE", tmp_path / "checkout")
    folder = tmp_path / "checkout/tests/kernels/gpu"
    folder.mkdir(parents=True)
    (tmp_path / "checkout/__init__.py").write_text("")
    settings = '[tool.pytest.ini_options]\nfilterwarnings = ["error"]\nmarkers = ["gpu: here"]\n'
    (tmp_path / "checkout/pyproject.toml").write_text(settings + 'addopts = ["-rfE", "--import-mode=importlib"]\n')

    def make(seconds=100.0, **files):
        for name, text in files.items():
            (folder / f"test_{name}.py").write_text(_HEAD + text)
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        return Context("cpu", True, seconds, tmp_path / "r.jsonl", scratch)

    return make


def loaded(context):
    (line,), problems = records.load(context.records)
    assert line["name"] == "gpu tests" and not problems
    return line


def test_results_are_counted_and_warnings_are_not_fatal(checkout):
    context = checkout(good=_GOOD)
    assert gpu_tests.run(context) == "2 of 3 passed, 1 skipped"
    line = loaded(context)
    assert {name: line[name] for name in ("passed", "skipped", "failed", "errors")} == {
        "passed": 2, "skipped": 1, "failed": 0, "errors": 0,
    }  # fmt: skip
    assert line["failures"] == [] and line["running"] is None and line["exit_code"] == 0 and "reason" not in line


def test_failures_have_their_name_and_one_line(checkout):
    context = checkout(good=_GOOD, bad=_BAD)
    with pytest.raises(UserError, match=r"^2 of 6 failed: test_fails\[a b\], test_errs$"):
        gpu_tests.run(context)
    line = loaded(context)
    assert (line["passed"], line["failed"], line["errors"], line["skipped"]) == (3, 1, 1, 1)
    reasons = {failure["name"].rpartition("::")[2]: failure["reason"] for failure in line["failures"]}
    assert "the mel is wrong" in reasons["test_fails[a b]"] and "no such device" in reasons["test_errs"]


def test_a_file_that_cannot_be_imported_costs_no_other(checkout):
    context = checkout(a="import triadbench.no_such_module\n" + _BAD, good=_GOOD)
    with pytest.raises(UserError, match="1 of 4 failed: tests/kernels/gpu/test_a.py"):
        gpu_tests.run(context)
    line = loaded(context)
    assert (line["passed"], line["errors"]) == (2, 1)


def test_a_file_that_needs_a_package_which_is_not_here_is_no_failure(checkout):
    context = checkout(a="import no_such_package.part\n" + _BAD, good=_GOOD)
    assert gpu_tests.run(context) == "2 of 3 passed, 1 skipped; files not run without no_such_package: 1"
    line = loaded(context)
    assert line["not_imported"] == [{"name": "tests/kernels/gpu/test_a.py", "lacks": "no_such_package"}]
    assert line["errors"] == 0 and "reason" not in line


def test_a_crash_leaves_what_passed_and_names_the_test(checkout):
    context = checkout(crash=_CRASH)
    with pytest.raises(UserError, match="exit code -11 during .*test_crash.py::test_ends_it"):
        gpu_tests.run(context)
    line = loaded(context)
    assert line["passed"] == 1 and line["running"].endswith("::test_ends_it") and "exit code -11" in line["reason"]


def test_a_hang_leaves_what_passed_and_names_the_test(checkout):
    context = checkout(hang=_HANG, seconds=12)
    with pytest.raises(UserError, match="ended at the time limit during .*test_hang.py::test_ends_it"):
        gpu_tests.run(context)
    line = loaded(context)
    assert line["passed"] == 1 and line["exit_code"] is None


@pytest.mark.parametrize("lacking", ["pytest", "tests"])
def test_without_pytest_or_tests_a_record_gives_the_reason(checkout, monkeypatch, lacking):
    context = checkout(**({"good": _GOOD} if lacking == "pytest" else {}))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == lacking else find(name))
    reason = {"pytest": "pytest is not installed", "tests": "an installed copy"}[lacking]
    assert reason in gpu_tests.run(context) and reason in loaded(context)["reason"]
