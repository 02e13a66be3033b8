"""The description counts what is there, and the page holds it without the network."""

import json

import numpy as np
import pytest

from tests.core.sounds import encode, make_folder, manifest, tone
from triadbench.core.audio.io import to_int16
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.describe import describe, picture
from triadbench.core.data.pack import pack
from triadbench.core.errors import UserError

SAME = to_int16(tone(64_000))
FILES = {
    "piano_3_Af_d_m_00.wav": encode(SAME),
    "piano_3_Af_d_m_01.wav": encode(SAME),
    "copy/piano_3_Af_d_m_00.flac": encode(SAME, format="FLAC"),
    "piano_4_Cn_j_f_00_inv1.wav": encode(tone(44_100, 44_100, level=0.25), 44_100),
    "piano_5_Cn_a_p_00.wav": encode(np.full((16_000, 2), 1e-4)),
    "shred___Gn_n__000.wav": encode(tone(32_000, seed=2)),
    "piano_5_Gn_n_p_00.flac": encode(tone(9000), format="FLAC")[:4000],
    "a.txt": b"",
    "song.wav": b"",
    "other.wav": b"",
    "clips.jsonl": manifest({"piano_3_Af_d_m_00.wav": "r", "piano_3_Af_d_m_01.wav": "r"}),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(make_folder(tmp_path_factory.mktemp("set"), FILES))


def test_everything_is_counted(dataset):
    seen = []
    found = describe(dataset, lambda *at: seen.append(at))
    assert json.loads(json.dumps(found)) == found and seen[-1] == (7, 7)
    assert found["n"] == 7 and found["kind"] == "folder"
    assert found["types"] == {"major": 1, "minor": 2, "diminished": 3, "augmented": 1}
    assert {root: n for root, n in found["roots"].items() if n} == {"Ab": 3, "C": 2, "G": 2}
    assert len(found["roots"]) == 12
    assert found["octaves"] == {"3": 3, "4": 1, "5": 2, "none": 1}
    assert found["volumes"] == {"f": 1, "m": 3, "none": 1, "p": 2}
    assert found["voicings"] == {"inv1": 1, "root": 6} and found["kinds"] == {"piano": 6, "shred": 1}
    assert found["type_by_root"][2][0] == 3 and np.sum(found["type_by_root"]) == 7
    assert found["recordings"] == {"named": 2, "distinct": 1}
    assert found["sample_rates"] == {"16000": 5, "44100": 1}


def test_lengths_levels_silence_and_damage(dataset):
    found = describe(dataset)
    lengths = found["durations_s"]
    assert (lengths["min"], lengths["median"], lengths["max"]) == (1.0, 3.0, 4.0)
    assert sum(lengths["histogram"]["counts"]) == 6
    assert found["peak_db"]["max"] == pytest.approx(-5.4, abs=0.5)
    assert found["peak_db"]["min"] == pytest.approx(-80, abs=3)
    assert found["rms_db"]["max"] == pytest.approx(-9, abs=0.2)
    assert found["silent"] == {"n": 1, "files": ["piano_5_Cn_a_p_00.wav"]}
    assert found["unreadable"]["n"] == 1 and found["unreadable"]["files"][0][0] == "piano_5_Gn_n_p_00.flac"
    assert found["skipped"]["n"] == 3 and max(found["skipped"]["reasons"].values()) == 2
    assert ["a.txt", found["skipped"]["files"][0][1]] == found["skipped"]["files"][0]


def test_duplicates_are_the_same_sound_whatever_the_file(dataset):
    found = describe(dataset)["duplicates"]
    assert (found["groups"], found["clips"]) == (1, 3)
    first = "copy/piano_3_Af_d_m_00.flac"
    assert found["pairs"] == [[first, "piano_3_Af_d_m_00.wav"], [first, "piano_3_Af_d_m_01.wav"]]


def test_a_pack_is_described_as_its_clips(dataset, tmp_path):
    pack(dataset, tmp_path / "p")
    packed, loose = describe(open_dataset(tmp_path / "p")), describe(dataset)
    assert packed["n"] == 6 and packed["duplicates"]["clips"] == 3
    assert packed["peak_db"]["max"] == pytest.approx(loose["peak_db"]["max"], abs=0.001)
    assert packed["skipped"]["n"] == 4 and packed["unreadable"]["n"] == 0


def test_the_page_needs_no_network_and_shows_the_counts(dataset, tmp_path):
    picture(describe(dataset), dataset, tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text("utf-8")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "<script src=" not in page and "<link" not in page
    assert "7 clips, 3 files skipped, 1 silent, 3 in 1 groups of duplicates" in page
    assert page.count("plotly-graph-div") >= 2 and "piano_4_Cn_j_f_00_inv1.wav" in page
    assert [path.name for path in tmp_path.iterdir()] == ["x.html"]


def test_a_picture_of_another_kind_is_refused(dataset, tmp_path):
    with pytest.raises(UserError, match=r"ends in .html"):
        picture(describe(dataset), dataset, tmp_path / "x.png")


def test_a_set_in_which_nothing_can_be_read_is_described_and_drawn(tmp_path):
    dataset = open_dataset(make_folder(tmp_path / "set", {"piano_3_Af_d_m_00.wav": b""}), check="none")
    found = describe(dataset)
    assert found["unreadable"]["n"] == 1 and found["durations_s"]["median"] is None
    picture(found, dataset, tmp_path / "x.html")
    assert (tmp_path / "x.html").stat().st_size > 10_000
