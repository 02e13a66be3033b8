"""Running the program's commands in tests."""

import json
import signal

from click.testing import CliRunner

from triadbench import cli


def run(*arguments, code=0):
    """The finished command; its exit code is as expected, and no traceback is printed."""
    done = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    assert done.exit_code == code, f"{done.output}\n{done.exception!r}"
    assert "Traceback" not in done.output
    return done


def run_json(*arguments, code=0):
    """(the one object that --json prints, the finished command)."""
    done = run(*arguments, "--json", code=code)
    assert done.stdout.count("\n") == 1  # one object on a line, and nothing else
    return json.loads(done.stdout), done


def assert_one_line(done, *words):
    """It failed with one line that says all of it."""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def heed_interrupts():
    """For a new process: what a shell starts in the background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
