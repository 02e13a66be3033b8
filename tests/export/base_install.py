"""Programs in a process that has what `pip install triadbench` brings, and nothing more."""

import os
import subprocess
import sys
from pathlib import Path

from triadbench import cli
from triadbench.core.extras import EXTRAS

ROOT = Path(cli.__file__).resolve().parent
# Importing is as if those were not installed: the finder of the import system does not see them.
_HIDE = """
import importlib.machinery, sys
hidden = set({hidden!r})
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = staticmethod(
    lambda name, path=None, target=None: None if name.split(".")[0] in hidden else find(name, path, target)
)
"""


def run_without(hidden, code, *arguments, cwd=None):
    """The finished process of `code`, in which the packages `hidden` cannot be imported; None: those of all extras."""
    hidden = sorted({name for names in EXTRAS.values() for name in names} if hidden is None else hidden)
    command = [sys.executable, "-c", _HIDE.format(hidden=hidden) + code, *map(str, arguments)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]  # cli.py makes the checkout importable
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, timeout=120)


def command_without(hidden, *arguments, cwd=None):
    """The same of a command of ours."""
    return run_without(hidden, "import cli\nsys.argv[0] = 'cli.py'\ncli.main()", *arguments, cwd=cwd)
