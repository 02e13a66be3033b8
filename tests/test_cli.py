"""The command line: light help, exit codes 0, 1, 2 and 130, one line for a mistake, JSON alone on stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from triadbench import cli
from triadbench.core.commands import console
from triadbench.core.constants import VERSION
from triadbench.core.errors import UserError

ROOT = Path(cli.__file__).parent
HEAVY = ("torch", "numpy", "scipy", "plotly", "numba", "torchaudio", "tqdm")


def all_commands(group: click.Group = cli.main, path: tuple[str, ...] = ()):
    for name in group.commands:
        _, command, _ = group.resolve_command(click.Context(group), [name])
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))


def test_help_imports_nothing_heavy():
    program = (
        "import sys, cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"heavy = sorted(set(sys.modules) & set({HEAVY!r}))\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "command"), list(all_commands()), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_with_an_example_and_json(path, command):
    done = CliRunner().invoke(cli.main, [*path, "--help"])
    assert done.exit_code == 0
    assert f"python cli.py {path[0]}" in done.output
    assert isinstance(command, click.Group) or "--json" in done.output


def test_commands_are_imported_when_they_are_called():
    program = (
        "import sys, cli\n"
        "try: cli.main(['data', '--help'])\n"
        "except SystemExit: pass\n"
        "commands = sorted(name for name in sys.modules if '.commands.' in name)\n"
        "assert commands == ['triadbench.core.commands.console', 'triadbench.core.commands.data'], commands\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_list_of_commands_has_a_line_for_each():
    listed = CliRunner().invoke(cli.main, ["--help"]).output.partition("Commands:")[2].splitlines()
    assert len(listed) == 1 + len(cli.main.commands)
    assert all(line.rstrip().endswith(".") and "..." not in line for line in listed[1:])


def test_version():
    assert CliRunner().invoke(cli.main, ["--version"]).output == f"triadbench {VERSION}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["data", "pack"], ["data", "amp", "a", "b", "--seed", "x"], ["profile", "--only"]]
)
def test_wrong_usage_is_exit_2(arguments):
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 2 and "Traceback" not in done.output


@pytest.mark.parametrize("command", [["info"], ["pack"], ["amp"]])
def test_a_missing_path_is_exit_1_and_one_line_on_stderr(command, tmp_path):
    outputs = [] if command == ["info"] else [str(tmp_path / "out")]
    done = CliRunner().invoke(cli.main, ["data", *command, str(tmp_path / "none"), *outputs, "--json"])
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1 and "does not exist" in done.stderr


def group_that(action) -> click.Group:
    group = console.Group("group")
    group.add_command(click.Command("do", callback=action))
    return group


def test_a_user_error_of_several_lines_is_printed_as_one():
    def fail():
        raise UserError("first\n  second")

    done = CliRunner().invoke(group_that(fail), ["do"])
    assert (done.exit_code, done.stderr) == (1, "Error: first second\n")


def test_a_defect_is_not_hidden_as_a_user_error():
    def fail():
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(group_that(fail), ["do"]).exception, ZeroDivisionError)


@pytest.mark.parametrize("hint", [None, "half is kept"])
def test_interrupt_is_exit_130_and_says_what_remains(hint):
    def stop():
        if hint:
            console.resume_hint(hint)
        raise KeyboardInterrupt

    done = CliRunner().invoke(group_that(stop), ["do"])
    assert done.exit_code == 130 and "Traceback" not in done.stderr
    assert f"Interrupted: {hint or 'no finished output was changed'}" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_as_an_interrupt_unless_it_is_ignored(name):
    ending = getattr(signal, name)
    before = signal.signal(ending, signal.SIG_DFL)
    try:
        done = CliRunner().invoke(group_that(lambda: signal.raise_signal(ending)), ["do"])
        assert done.exit_code == 130 and "Interrupted: " in done.stderr and signal.getsignal(ending) == signal.SIG_DFL
        signal.signal(ending, signal.SIG_IGN)  # nohup
        assert CliRunner().invoke(group_that(lambda: signal.raise_signal(ending)), ["do"]).exit_code == 0
    finally:
        signal.signal(ending, before)


def test_progress_goes_to_stderr_in_coarse_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress("pack", "clips") as progress:
        progress(1, 100)
        now[0] = 6.0
        progress(50, 100)
        progress(51, 100)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err == "pack: 50 clips of 100 clips (50 %)\n"


def test_table_aligns():
    assert (
        console.table(["name", "n"], [["a", 5], ["long", 12345]])
        == "name      n\n----  -----\na         5\nlong  12345"
    )


def test_json_has_no_nan():
    with pytest.raises(ValueError):
        console.print_json({"x": float("nan")})


def test_profile_quick_prints_one_json_object(monkeypatch, tmp_path):
    from triadbench.bench.profile import whole_machine

    def run(folder, records_path, effort, *, parts, fresh, progress, note):
        assert (effort, parts, fresh) == (whole_machine.QUICK, whole_machine.PARTS, False)
        progress("mel")(1, 1)
        progress("lines")(1, 1)
        return {"mel": ([], 0.0)}

    monkeypatch.setattr(whole_machine, "run", run)
    done = CliRunner().invoke(cli.main, ["profile", "--quick", "--json", "--out", str(tmp_path / "p.html")])
    assert done.exit_code == 0 and json.loads(done.stdout)["page"] == str(tmp_path / "p.html")


def write_set(folder: Path) -> Path:
    import numpy as np

    from triadbench.core.audio.io import write_wav

    for number, name in enumerate(["piano_3_Af_d_m_45", "piano_4_Cn_j_f_01"]):
        tone = np.sin(np.arange(64_000, dtype=np.float32) * 0.05 * (number + 1)) * 0.5
        folder.mkdir(exist_ok=True)
        write_wav(folder / f"{name}.wav", tone)
    return folder


def test_info_and_pack_end_to_end(tmp_path):
    source = write_set(tmp_path / "set")
    (source / "notes.txt").write_text("not a clip")
    done = CliRunner().invoke(cli.main, ["data", "info", str(source), "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 2
    plain = CliRunner().invoke(cli.main, ["data", "info", str(source)])
    assert "2 clips, folder, 1 files skipped" in plain.stdout and "notes.txt" in plain.stderr
    done = CliRunner().invoke(cli.main, ["data", "pack", str(source), str(tmp_path / "pack"), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["n"] == 2
    done = CliRunner().invoke(cli.main, ["data", "info", str(tmp_path / "pack"), "--json"])
    assert json.loads(done.stdout)["kind"] == "pack"


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--only", "mel", "--budget", "nan"], 2, "nan must be a finite number"),
        (["--quick", "--out", "/proc/none/page.html"], 1, "cannot be written"),
        (["--quick", "--out", "tests"], 1, "is a folder"),
    ],
)
def test_profile_refuses_before_it_measures(options, code, message):
    done = subprocess.run([sys.executable, "cli.py", "profile", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code and message in done.stderr and not done.stdout


@pytest.mark.parametrize("command", sorted(cli.main.commands))
def test_help_of_every_command_needs_no_pytorch(command):
    """The base install shows what every command does, also those whose extra is missing."""
    program = f"import sys; sys.modules['torch'] = None; from triadbench import cli; cli.main([{command!r}, '--help'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Usage:" in done.stdout, done.stderr
