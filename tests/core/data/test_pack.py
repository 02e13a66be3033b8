"""A pack is whole or absent, holds what was packed to the bit, and a damaged one is refused."""

import json
import multiprocessing

import numpy as np
import pytest

from tests.core.sounds import NAMES, encode, make_folder, manifest, short_wav, tone
from triadbench.core.audio.io import to_int16
from triadbench.core.constants import CLIP_SAMPLES
from triadbench.core.data import pack as pack_module
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.pack import new_pack, open_rows, pack
from triadbench.core.errors import UserError


def source(tmp_path, extra=None):
    files = {name: short_wav(seed) for seed, name in enumerate(NAMES)}
    return make_folder(tmp_path / "set", files | {"clips.jsonl": manifest({NAMES[0]: "r1"})} | (extra or {}))


def test_a_pack_holds_the_clips_to_the_bit(tmp_path):
    folder = open_dataset(source(tmp_path))
    seen = []
    summary = pack(folder, tmp_path / "out" / "set.pack", lambda *at: seen.append(at))
    packed = open_dataset(summary["path"])
    assert packed.clips == folder.clips and packed.kind == "pack"
    for index in range(4):
        np.testing.assert_array_equal(packed.read(index), folder.read(index))
        assert (packed.header(index).frames, packed.header(index).sample_rate) == (CLIP_SAMPLES, 16_000)
    np.testing.assert_array_equal(packed.read_many([2, 0, 2]), np.stack([folder.read(i) for i in (2, 0, 2)]))
    assert isinstance(packed.rows, np.memmap) and not packed.rows.flags.writeable
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    meta = json.loads((tmp_path / "out" / "set.pack" / "meta.json").read_text())
    assert meta["n"] == 4 and meta["source"] == {"name": "set", "kind": "folder", "digest": folder.digest()}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["set.pack"]
    assert summary["n"] == 4 and summary["bytes"] > 4 * 128_000


def test_a_pack_packs_again_to_the_same_rows(tmp_path):
    pack(open_dataset(source(tmp_path)), tmp_path / "a")
    pack(open_dataset(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a" / "clips.npy").read_bytes() == (tmp_path / "b" / "clips.npy").read_bytes()


def test_unreadable_clips_are_left_out_and_the_array_shortened(tmp_path):
    bad = {"piano_3_Cn_d_m_00.wav": b"", "piano_4_An_d_m_00.flac": encode(tone(5000), format="FLAC")[:3000]}
    dataset = open_dataset(source(tmp_path, bad))
    assert len(dataset) == 5
    summary = pack(dataset, tmp_path / "p")
    packed = open_dataset(tmp_path / "p")
    assert [clip.member for clip in packed.clips] == sorted(NAMES) and packed.rows.shape == (4, CLIP_SAMPLES)
    assert (tmp_path / "p" / "clips.npy").stat().st_size == 128 + 4 * CLIP_SAMPLES * 2
    np.testing.assert_array_equal(packed.read(3), open_dataset(tmp_path / "set").read(4))
    reasons = {name: reason for name, reason in summary["skipped"]}
    assert reasons == dict(packed.skipped) and set(reasons) == set(bad)
    assert reasons["piano_4_An_d_m_00.flac"].startswith("truncated or damaged")


def test_no_readable_clip_is_no_pack(tmp_path):
    dataset = open_dataset(make_folder(tmp_path / "set", {NAMES[0]: b""}), check="none")
    with pytest.raises(UserError, match="none of 1 clips could be read"):
        pack(dataset, tmp_path / "p")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def _fill(path, rows):
    array = open_rows(path)
    for row in rows:
        array[row] = row
    array.flush()


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
def test_several_processes_write_one_pack(method, tmp_path):
    index = [{"file": f"piano_3_Cn_j_m_{row:02d}.wav", "recording": f"r{row}", "seed": row} for row in range(6)]
    context = multiprocessing.get_context(method)
    with new_pack(tmp_path / "p", 6) as writer:
        workers = [context.Process(target=_fill, args=(writer.clips_path, range(k, 6, 2))) for k in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not (tmp_path / "p").exists()
        writer.finish(index)
    dataset = open_dataset(tmp_path / "p")
    assert dataset.rows[:, 5].tolist() == list(range(6))
    assert dataset.clips[3].recording == "r3"
    assert json.loads((tmp_path / "p" / "index.jsonl").read_text().splitlines()[4])["seed"] == 4


def test_rows_written_out_of_order_and_clipped(tmp_path):
    with new_pack(tmp_path / "p", 2) as writer:
        writer.write(1, np.full(CLIP_SAMPLES, 2.0, dtype=np.float32))
        with pytest.raises(ValueError, match=r"\(64000,\)"):
            writer.write(0, np.zeros(10))
        writer.finish([{"file": NAMES[0]}, {"file": NAMES[1]}])
    assert open_dataset(tmp_path / "p").rows[:, 0].tolist() == [0, 32767]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), new_pack(tmp_path / "p", 2) as writer:
        writer.write(0, np.zeros(CLIP_SAMPLES))
        raise RuntimeError
    with pytest.raises(UserError, match="without an index"), new_pack(tmp_path / "p", 2):
        pass
    with pytest.raises(UserError, match="not a name of the data set"), new_pack(tmp_path / "p", 2) as writer:
        writer.finish([{"file": "song.wav"}])
    for count in (0, 3):
        with pytest.raises(UserError, match="does not fit"), new_pack(tmp_path / "p", 2) as writer:
            writer.finish([{"file": NAMES[0]}] * count)
    with pytest.raises(UserError, match="at least one"):
        with new_pack(tmp_path / "p", 0):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_and_a_full_disk_are_refused(tmp_path, monkeypatch):
    make_folder(tmp_path / "p", {"x": b""})
    with pytest.raises(UserError, match="not empty"), new_pack(tmp_path / "p", 1):
        pytest.fail("entered")
    with pytest.raises(UserError, match=r"GB are needed and .* GB are free"), new_pack(tmp_path / "q", 10**12):
        pytest.fail("entered")
    monkeypatch.setattr(pack_module, "_reserve", lambda path: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError, match="No space left"), new_pack(tmp_path / "q", 1):
        pytest.fail("entered")
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def change_meta(**changes):
    def damage(folder):
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps(meta | changes))

    return damage


def save(array, **options):
    return lambda folder: np.save(folder / "clips.npy", array, **options)


def write_index(folder, names):
    (folder / "index.jsonl").write_text("".join(json.dumps({"file": name}) + "\n" for name in names))


DAMAGE = {
    "no array": (lambda f: (f / "clips.npy").unlink(), "cannot be read"),
    "no index": (lambda f: (f / "index.jsonl").unlink(), "index.jsonl is missing"),
    "no meta": (lambda f: (f / "meta.json").unlink(), "meta.json is missing"),
    "short array": (lambda f: cut(f / "clips.npy"), "damaged pack"),
    "empty array": (lambda f: (f / "clips.npy").write_bytes(b""), "damaged pack"),
    "pickled array": (save(np.array([{}], dtype=object), allow_pickle=True), "damaged pack"),
    "float array": (save(np.zeros((4, CLIP_SAMPLES), dtype=np.float32)), "is float32"),
    "narrow array": (save(np.zeros((4, 100), dtype=np.int16)), "not int16"),
    "column order": (save(np.zeros((4, CLIP_SAMPLES), dtype=np.int16, order="F")), "not int16"),
    "other byte order": (save(np.zeros((4, CLIP_SAMPLES), dtype=">i2")), "is >i2"),
    "fewer rows": (save(np.zeros((3, CLIP_SAMPLES), dtype=np.int16)), "4 names for 3 clips"),
    "short index": (lambda f: (f / "index.jsonl").write_text(json.dumps({"file": NAMES[0]})), "1 names for 4 clips"),
    "index of junk": (lambda f: (f / "index.jsonl").write_text("[]\n" * 4), "line 1: damaged index"),
    "index of songs": (lambda f: (f / "index.jsonl").write_text('{"file": "song.wav"}\n' * 4), "not a name"),
    "one name many times": (lambda f: write_index(f, [NAMES[0]] * 4), "names two clips"),
    "a name that climbs": (lambda f: write_index(f, [*NAMES[1:], f"../../{NAMES[0]}"]), "no path below a folder"),
    "a Windows name that climbs": (lambda f: write_index(f, [*NAMES[1:], f"a\\..\\/{NAMES[0]}"]), "no path below"),
    "an absolute name": (lambda f: write_index(f, [*NAMES[1:], f"/etc/{NAMES[0]}"]), "no path below a folder"),
    "index not text": (lambda f: (f / "index.jsonl").write_bytes(b"\xff\xff"), "cannot be read"),
    "meta of junk": (lambda f: (f / "meta.json").write_text("{"), "damaged"),
    "meta of another": (lambda f: (f / "meta.json").write_text("[]"), "not the description of a pack"),
    "newer version": (change_meta(version=2), r"reads \(1, 16000, 64000\)"),
    "another rate": (change_meta(sample_rate=44_100), "44100"),
    "wrong n": (change_meta(n=5), r"\(5 stated\)"),
    "skipped of junk": (change_meta(skipped=[1]), "skipped"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_pack_is_refused(case, tmp_path):
    damage, message = DAMAGE[case]
    pack(open_dataset(source(tmp_path)), tmp_path / "p")
    damage(tmp_path / "p")
    with pytest.raises(UserError, match=message) as caught:
        open_dataset(tmp_path / "p")
    assert "\n" not in str(caught.value)


def test_int16_and_float_rows_are_the_same():
    waveform = np.array([0.5, -1.0, 1 / 32768], dtype=np.float32)
    assert to_int16(waveform).tolist() == [16384, -32768, 1]
    np.testing.assert_array_equal(to_int16(to_int16(waveform)) / 32768, waveform)


@pytest.mark.parametrize("name", [NAMES[0], f"../{NAMES[1]}"])
def test_a_pack_that_would_be_refused_is_not_written(name, tmp_path):
    with pytest.raises(UserError, match="index.jsonl: .*(two clips|no path)"), new_pack(tmp_path / "p", 2) as writer:
        writer.finish([{"file": NAMES[0]}, {"file": name}])
    assert list(tmp_path.iterdir()) == []
