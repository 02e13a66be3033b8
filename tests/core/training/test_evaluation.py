"""An evaluation counts every clip once, leaves out what has no answer, and puts the chroma template beside the model."""

import numpy as np
import pytest

from tests.core.toys import all_names, save_original, template_net, write_set
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import pack
from triadbench.core.errors import UserError
from triadbench.core.models.checkpoint import Checkpoint, load
from triadbench.core.models.chords import ROOTS, TYPES, ClipName
from triadbench.core.models.prediction import Scores
from triadbench.core.models.predictor import Predictor
from triadbench.core.training.evaluation import draw_confusions, evaluate, wilson
from triadbench.kernels.spec import CHORD

AUGMENTED = 3
SETS = {
    "m": all_names()[:40],
    "other octave and volume": [ClipName(name.root, name.type, 4, "f") for name in all_names()[::4]],
    "inversions in name": [ClipName(root, kind, 5, "p", voicing="inv1") for root in (0, 5) for kind in (0, AUGMENTED)],
    "amplifier copies": [ClipName(root, 1, kind="shred") for root in (2, 3)],
}
NAMES = [name for names in SETS.values() for name in names]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("evaluate") / "set", NAMES)


class Oracle:
    """Knows all answers; for clips in `wrong` it gives type and root one too high, for those in `off` the root alone."""

    def __init__(self, dataset, wrong=(), off=()):
        names = [clip.name for clip in dataset.clips]
        self.answers = iter(
            [((n.type + (i in wrong)) % 4, (n.root + (i in wrong or i in off)) % 12) for i, n in enumerate(names)]
        )

    def __call__(self, waveforms):
        rows = [next(self.answers) for _ in waveforms]
        types, roots = (np.eye(n)[[row[k] for row in rows]] for k, n in ((0, 4), (1, 12)))
        return Scores(types, roots, None, np.zeros(len(rows), bool))


@pytest.fixture(scope="module")
def result(folder):
    dataset = open_dataset(folder)
    return evaluate(dataset, Oracle(dataset, wrong=range(0, len(NAMES), 4)))


def test_keys(result):
    assert set(result) == {
        "n",
        "type_accuracy",
        "type_interval",
        "root_accuracy",
        "root_interval",
        "both_accuracy",
        "both_interval",
        "confusion_type",
        "confusion_root",
        "root_undefined",
        "by_octave",
        "by_volume",
        "by_voicing",
        "baseline",
        "failed",
        "skipped",
        "labels",
    }
    assert (
        result["labels"] == {"types": list(TYPES), "roots": list(ROOTS)}
        and not result["failed"]
        and not result["skipped"]
    )


def test_accuracies(result, folder):
    names = [clip.name for clip in open_dataset(folder).clips]
    n, wrong = len(names), list(range(0, len(names), 4))
    assert result["n"] == n == 58
    assert result["type_accuracy"] == pytest.approx(1 - len(wrong) / n)
    defined = [i for i, name in enumerate(names) if name.root_is_defined]
    assert result["root_undefined"] == 2 and len(defined) == n - 2
    share = 1 - len(set(wrong) & set(defined)) / len(defined)
    assert result["root_accuracy"] == pytest.approx(share) == result["both_accuracy"]
    assert result["type_interval"] == wilson(n - len(wrong), n)


def test_both_means_type_and_root(folder):
    dataset = open_dataset(folder)
    result = evaluate(dataset, Oracle(dataset, off=[k for k, clip in enumerate(dataset.clips) if clip.name.type < 2]))
    assert result["type_accuracy"] == 1 and result["both_accuracy"] == result["root_accuracy"] < 1


def test_confusions_add_up_and_lie_the_right_way_round(result, folder):
    names = [clip.name for clip in open_dataset(folder).clips]
    for key, size, total in (("type", 4, 58), ("root", 12, 56)):
        table = np.array(result[f"confusion_{key}"])
        assert table.shape == (size, size) and table.sum() == total
        true = [getattr(name, key) for name in names if key == "type" or name.root_is_defined]
        assert table.sum(axis=1).tolist() == np.bincount(true, minlength=size).tolist()
        assert np.trace(table) / total == pytest.approx(result[f"{key}_accuracy"])
        # Rows are true, columns answered: every wrong answer is one class too high.
        assert all(table[k, (k + 1) % size] == table[k].sum() - table[k, k] for k in range(size))


def test_groups_add_up(result):
    assert {key: group["n"] for key, group in result["by_octave"].items()} == {
        "4": 12,
        "5": 44,
    }  # copies name no octave
    assert {key: group["n"] for key, group in result["by_volume"].items()} == {"f": 12, "m": 40, "p": 4}
    assert {key: group["n"] for key, group in result["by_voicing"].items()} == {"root": 54, "inv1": 4}
    hits = sum(group["n"] * group["type_accuracy"] for group in result["by_voicing"].values())
    assert hits / 58 == pytest.approx(result["type_accuracy"])


def test_an_undefined_root_counts_for_the_type_alone(folder):
    dataset = open_dataset(folder)
    undefined = [i for i, clip in enumerate(dataset.clips) if not clip.name.root_is_defined]
    result = evaluate(dataset, Oracle(dataset, wrong=undefined))
    assert result["root_accuracy"] == result["both_accuracy"] == 1 and result["type_accuracy"] == pytest.approx(56 / 58)


def test_a_model_that_hears(folder):
    counts = []
    predictor = Predictor(Checkpoint(template_net(), "chordnet", "both", CHORD))
    result = evaluate(open_dataset(folder), predictor, lambda done, total: counts.append((done, total)))
    assert result["type_accuracy"] == result["both_accuracy"] == 1
    assert result["baseline"]["n"] == 58 and result["baseline"]["method"] == "chroma template, no training"
    assert result["baseline"]["type_accuracy"] == 1 and result["baseline"]["root_accuracy"] == 1
    assert counts == [(32, 58), (58, 58)]


@pytest.mark.parametrize("task", ["type", "root"])
def test_a_model_of_one_task(folder, task, tmp_path):
    predictor = Predictor(load(save_original(tmp_path / "m.safetensors", task)))
    result = evaluate(open_dataset(folder), predictor)
    other = {"type": "root", "root": "type"}[task]
    assert 0 <= result[f"{task}_accuracy"] < 1 and result[f"confusion_{task}"] is not None
    assert result[f"{other}_accuracy"] is result[f"{other}_interval"] is result[f"confusion_{other}"] is None
    assert result["both_accuracy"] is None and result["by_octave"]["5"]["both_accuracy"] is None
    assert result["baseline"]["both_accuracy"] == 1


# --- what cannot be read ---------------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path):
    """Six clips, of which two are damaged as their headers show, one as only its decoding shows; and other files."""
    folder = write_set(tmp_path / "set", all_names()[:6])
    files = sorted(folder.iterdir())
    files[1].write_bytes(files[1].read_bytes()[:2000])
    files[2].write_bytes(b"")
    header = bytearray(files[4].read_bytes())
    header[20:22] = (3).to_bytes(2, "little")  # floats, it says now, of 32 bits
    header[34:36] = (32).to_bytes(2, "little")
    header[44:48] = b"\x00\x00\xc0\x7f"  # NaN
    files[4].write_bytes(header)
    (folder / "notes.txt").write_text("x")
    (folder / "song.wav").write_bytes(files[0].read_bytes())
    (folder / "clips.jsonl").write_text('{"file": "piano_3_Af_d_m_99.wav", "recording": "r"}\n')
    return folder, [file.name for file in files]


def test_damaged_clips_are_listed_and_the_rest_is_measured(spoilt):
    folder, names = spoilt
    dataset = open_dataset(folder)
    readable = [i for i, clip in enumerate(dataset.clips) if clip.member != names[4]]
    oracle = Oracle(dataset)
    answers = list(oracle.answers)
    oracle.answers = iter([answers[i] for i in readable])
    result = evaluate(dataset, oracle)
    assert result["n"] == 3 and result["type_accuracy"] == result["root_accuracy"] == 1
    failed = {entry["file"]: entry["error"] for entry in result["failed"]}
    assert set(failed) == {names[1], names[2], names[4]}
    assert all(name in error for name, error in failed.items())
    assert "truncated" in failed[names[1]] and "empty" in failed[names[2]] and "nan" in failed[names[4]]
    skipped = {entry["file"]: entry["reason"] for entry in result["skipped"]}
    assert set(skipped) == {"notes.txt", "song.wav", "piano_3_Af_d_m_99.wav"}


def test_what_a_pack_left_out_was_said_when_it_was_packed(spoilt, tmp_path):
    pack(open_dataset(spoilt[0]), tmp_path / "pack")
    dataset = open_dataset(tmp_path / "pack")
    result = evaluate(dataset, Oracle(dataset))
    assert result["n"] == 3 and not result["failed"] and len(result["skipped"]) == 6


def test_nothing_readable(spoilt):
    folder, names = spoilt
    for k in (0, 1, 2, 3, 5):
        (folder / names[k]).unlink()
    with pytest.raises(UserError, match="none of its 1 clips could be read; the first: .*nan"):
        evaluate(open_dataset(folder), Oracle(open_dataset(folder)))


# --- interval and picture --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval(hits, n, low, high):
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_confusion_page(result, tmp_path):
    draw_confusions(result, tmp_path / "c.html", "oracle on set")
    page = (tmp_path / "c.html").read_text()
    assert "oracle on set (58 clips)" in page and "diminished" in page and "Gb" in page
    assert f"type: {100 * result['type_accuracy']:.2f} %" in page
    assert 'src="http' not in page  # it stands alone


@pytest.mark.parametrize("missing", ["type", "root"])
def test_confusion_page_of_one_task(result, tmp_path, missing):
    one = {**result, f"{missing}_accuracy": None, f"confusion_{missing}": None}
    draw_confusions(one, tmp_path / "c.html", "x")
    assert f"{missing}: " not in (tmp_path / "c.html").read_text().split("plotly.js")[-1][-20_000:]


def test_a_set_without_a_single_defined_root(tmp_path):
    names = [ClipName(root, AUGMENTED, 5, "m", voicing="inv2") for root in (0, 1)]
    dataset = open_dataset(write_set(tmp_path / "set", names))
    result = evaluate(dataset, Oracle(dataset))
    assert result["type_accuracy"] == 1 and result["root_accuracy"] is None and result["root_undefined"] == 2
    draw_confusions(result, tmp_path / "c.html", "x")
