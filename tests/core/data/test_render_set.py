"""A rendered set: the same bytes however it was made, readable as a data set, whole or not there at all."""

import errno
import gc
import json
import os
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.core.toys import whole_note_folder
from triadbench.core.audio import io as audio
from triadbench.core.audio.io import to_int16
from triadbench.core.data import render_set as renderset
from triadbench.core.data.dataset import open_dataset
from triadbench.core.data.render_set import RenderConfig, render_dataset
from triadbench.core.data.splits import grouped_split
from triadbench.core.errors import UserError
from triadbench.core.render.chords import STYLES, Renderer, plan
from triadbench.core.render.note_banks import NoteBank, build_banks


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small set with all that a style can do but rooms (which take seconds to draw); three chunks for the workers."""
    place = tmp_path_factory.mktemp("renderset")
    sources = [f"notes:{whole_note_folder(place / 'guitar of sines')}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STYLES, "roomless", replace(STYLES["wild"], room_probability=0.0))
        yield RenderConfig(
            place / "unset",
            140,
            sources,
            style="roomless",
            voicings=None,
            variants=2,
            octaves=(4, 5),
            seed=5,
            cache=place / "banks",
            workers=1,
        )


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """The set as wav files, made by two processes."""
    out = tmp_path_factory.mktemp("whole") / "set"
    counts = []
    result = render_dataset(
        replace(base, out=out, workers=2), progress=lambda done, total: counts.append((done, total))
    )
    return out, result, counts


def samples(path: Path) -> dict[str, bytes]:
    dataset = open_dataset(path)
    return {
        clip.name.format(): np.round(dataset.read(i) * 32768).astype(np.int16).tobytes()
        for i, clip in enumerate(dataset.clips)
    }


def test_workers_and_packing_do_not_change_a_byte(base, whole, tmp_path):
    render_dataset(replace(base, out=tmp_path / "pack", pack=True))
    wav, pack = samples(whole[0]), samples(tmp_path / "pack")
    assert len(wav) == 140 and wav == pack
    again = replace(base, out=tmp_path / "again", n=20)
    render_dataset(again)
    for file in (tmp_path / "again").glob("*.wav"):
        assert file.read_bytes() == (whole[0] / file.name).read_bytes()


def test_files_hold_what_the_renderer_gives_for_the_seed(base, whole):
    banks = [NoteBank.load(path) for path in build_banks(base.sources, base.cache)]
    style = STYLES[base.style]
    clips = plan(140, banks, seed=5, variants=2, octaves=(4, 5), voicings=None, voicing_weights=style.voicings)
    renderer = Renderer(banks, style, 5)
    for planned in clips[::35]:
        stored, _ = soundfile.read(whole[0] / f"{planned.name.format()}.wav", dtype="int16")
        assert np.array_equal(stored, to_int16(renderer.clip(planned)))


def test_another_seed_is_another_set(base, tmp_path):
    sounds = []
    for seed in (5, 6):
        render_dataset(replace(base, out=tmp_path / str(seed), n=8, seed=seed))
        sounds.append(set(samples(tmp_path / str(seed)).values()))
    assert len(sounds[0] | sounds[1]) == 16


def test_what_is_said_of_the_set(whole):
    out, result, counts = whole
    assert result == {
        "path": str(out),
        "n": 140,
        "recordings": 70,
        "instruments": ["guitar of sines"],
        "seconds_of_audio": 560,
    }
    assert counts[-1] == (140, 140) and len(counts) == 3


def test_files_are_those_of_the_data_set(whole):
    files = sorted(whole[0].glob("*.wav"))
    assert len(files) == 140 and {file.name for file in whole[0].iterdir()} == {
        "clips.jsonl",
        *(file.name for file in files),
    }
    info = soundfile.info(files[0])
    assert (info.samplerate, info.channels, info.frames, info.subtype) == (16_000, 1, 64_000, "PCM_16")


def test_the_manifest_names_recordings_so_that_a_grouped_split_keeps_variants_together(whole):
    dataset = open_dataset(whole[0])
    assert not dataset.skipped and len(dataset) == 140
    lines = [json.loads(line) for line in (whole[0] / "clips.jsonl").read_text().splitlines()]
    assert {line["instrument"] for line in lines} == {"guitar of sines"}
    recordings = [clip.recording for clip in dataset.clips]
    assert len(set(recordings)) == 70 and all(recordings.count(name) == 2 for name in recordings)
    train, test, left_out = grouped_split(dataset.clips, 0.3)
    assert not {recordings[i] for i in train} & {recordings[i] for i in test} and not len(left_out)


def test_a_pack_says_how_it_was_rendered_but_not_where(base, tmp_path):
    render_dataset(replace(base, out=tmp_path / "pack", n=3, pack=True))
    meta = json.loads((tmp_path / "pack" / "meta.json").read_text())["source"]["rendered"]
    assert meta["seed"] == 5 and meta["style"] == "roomless" and meta["out"] is None and meta["cache"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"style": "loud"}, "unknown style 'loud'; choose from dry, clean, room, wild"),
        ({"sources": ()}, "no instrument to render with; give at least one note source, as synth:0"),
        ({"workers": 0}, "workers=0: at least 1 process is needed"),
        ({"voicings": ("upside down",)}, "unknown voicing upside down"),
        ({"octaves": (0,)}, "none of the instruments plays there"),
        ({"sources": ("notes:/nowhere",)}, "no such folder"),
    ],
)
def test_what_is_refused(base, change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        render_dataset(replace(base, **{"out": tmp_path / "out", "n": 4, **change}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pack", [False, True])
def test_an_output_that_exists_is_refused_before_any_work(base, pack, tmp_path, monkeypatch):
    (tmp_path / "kept.txt").write_text("mine")
    monkeypatch.setattr(renderset, "build_banks", lambda *_, **__: pytest.fail("worked for minutes, in vain"))
    with pytest.raises(UserError, match="exists already and is not empty"):
        render_dataset(replace(base, out=tmp_path, pack=pack))
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("pack", [False, True])
def test_an_interrupted_set_leaves_nothing(base, pack, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_dataset(replace(base, out=tmp_path / "out", pack=pack), progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(base, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(audio.wave.Wave_write, "writeframes", full)
    with pytest.raises(UserError, match="piano_.*: cannot write .No space left"):
        render_dataset(replace(base, out=tmp_path / "out", n=4))
    assert list(tmp_path.iterdir()) == []


def test_workers_hold_nothing_after_a_set(base, tmp_path, monkeypatch):
    renderers = []

    class Watched(Renderer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            renderers.append(weakref.ref(self))

    monkeypatch.setattr(renderset, "Renderer", Watched)
    render_dataset(replace(base, out=tmp_path / "pack", n=2, pack=True))
    render_dataset(replace(base, out=tmp_path / "folder", n=2))  # would write into the pack's rows
    gc.collect()
    assert len(samples(tmp_path / "folder")) == 2 and [renderer() for renderer in renderers] == [None, None]


def test_two_cores_would_render_300_clips_a_second(base, tmp_path):
    config = replace(base, style="clean", variants=1)
    render_dataset(replace(config, out=tmp_path / "warm", n=2))
    # Time on the processor and not on the clock, because the machine may be doing other work.
    started = time.process_time()
    render_dataset(replace(config, out=tmp_path / "set", n=200))
    assert (time.process_time() - started) / 200 < 2 / 300
