"""The original's random split to the index, and a grouped one in which no recording is on both sides."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from triadbench.core.data.dataset import Clip
from triadbench.core.data.splits import grouped_split, random_split, recording_split
from triadbench.core.errors import UserError
from triadbench.core.models.chords import ClipName

EXAMPLES = 20


def clip(octave=3, root=0, kind=0, volume="m", example=0, voicing="root", recording=None):
    name = ClipName(root=root, type=kind, octave=octave, volume=volume, example=example, voicing=voicing)
    return Clip(name, f"{name.format()}.wav", recording)


def shred(root=0, kind=0, example=0, recording=None):
    name = ClipName(root=root, type=kind, example=example, kind="shred")
    return Clip(name, f"{name.format()}.wav", recording)


def original_protocol():
    """3 octaves x 12 roots x 4 types x 3 volumes x 20 examples, as the archive but smaller."""
    return [
        clip(octave, root, kind, volume, example)
        for octave in (3, 4, 5)
        for root in range(12)
        for kind in range(4)
        for volume in "fmp"
        for example in range(EXAMPLES)
    ]


def key(item):
    return (item.name.octave, item.name.root, item.name.type, item.name.volume, item.name.voicing)


@pytest.mark.parametrize("n", [2, 7, 90, 432, 8192])
@pytest.mark.parametrize("seed", [13, 0])
def test_random_split_is_torchs_own(n, seed):
    n_train = int(0.7 * n)
    expected = torch.utils.data.random_split(
        range(n), [n_train, n - n_train], generator=torch.Generator().manual_seed(seed)
    )
    train, test = random_split(n, seed=seed)
    assert train.tolist() == list(expected[0].indices) and test.tolist() == list(expected[1].indices)
    assert train.dtype == test.dtype == np.int64


def test_random_split_puts_variants_of_one_recording_on_both_sides():
    clips = [clip(recording=f"r{number // 10}", example=number) for number in range(1000)]
    train, test = random_split(len(clips))
    both = {clips[i].recording for i in train} & {clips[i].recording for i in test}
    assert len(both) > 90


def test_grouped_split_of_the_originals_protocol():
    clips = original_protocol()
    train, test, left_out = grouped_split(clips)
    assert not {key(clips[i]) for i in train} & {key(clips[i]) for i in test}
    assert sorted([*train, *test]) == list(range(len(clips))) and len(left_out) == 0
    assert len(test) / len(clips) == pytest.approx(0.3, abs=0.005)
    for side in (train, test):
        assert len({(clips[i].name.type, clips[i].name.root) for i in side}) == 48


def test_recordings_of_a_manifest_make_smaller_groups():
    clips = [clip(example=number, recording=f"r{number // 10}") for number in range(100)]
    train, test, _ = grouped_split(clips)
    assert len(test) == 30 and len({clips[i].recording for i in test}) == 3


def test_the_seed_decides():
    clips = original_protocol()
    assert all((a == b).all() for a, b in zip(grouped_split(clips), grouped_split(clips), strict=True))
    assert grouped_split(clips)[1].tolist() != grouped_split(clips, seed=14)[1].tolist()


def test_amplifier_copies_without_a_recording_are_left_out_and_others_follow_theirs():
    clips = [clip(example=number, recording=f"r{number}") for number in range(20)]
    clips += [shred(example=number, recording=f"r{number}") for number in range(20)]
    clips += [shred(example=100 + number) for number in range(5)]
    train, test, left_out = grouped_split(clips)
    assert left_out.tolist() == list(range(40, 45))
    for side in (set(train), set(test)):
        assert all((number in side) == (number + 20 in side) for number in range(20))


def test_a_clip_without_a_recording_joins_all_that_it_may_be_a_variant_of():
    named = [clip(recording=f"r{number}", example=number) for number in range(10)]
    clips = [*named, clip(example=50), *[clip(octave=5, example=number, recording="other") for number in range(10)]]
    train, test, _ = grouped_split(clips)
    assert {frozenset(train), frozenset(test)} == {frozenset(range(11)), frozenset(range(11, 21))}


clips_of_any_kind = st.lists(
    st.one_of(
        st.builds(
            clip,
            octave=st.integers(3, 4),
            root=st.integers(0, 2),
            kind=st.integers(0, 1),
            volume=st.sampled_from("fm"),
            example=st.integers(0, 99),
            recording=st.one_of(st.none(), st.sampled_from([f"r{number}" for number in range(12)])),
        ),
        st.builds(
            shred,
            root=st.integers(0, 2),
            example=st.integers(0, 99),
            recording=st.one_of(st.none(), st.sampled_from(["r1", "r2"])),
        ),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(clips_of_any_kind, st.floats(0.05, 0.95), st.integers(0, 50))
def test_no_recording_is_ever_on_both_sides(clips, fraction, seed):
    try:
        train, test, left_out = grouped_split(clips, fraction, seed)
    except UserError as error:
        assert "a side would be empty" in str(error)
        return
    assert sorted([*train, *test, *left_out]) == list(range(len(clips)))
    assert len(train) and len(test)
    for one in train:
        for other in test:
            a, b = clips[one], clips[other]
            assert a.recording is None or a.recording != b.recording
            if (a.recording is None or b.recording is None) and "piano" == a.name.kind == b.name.kind:
                assert key(a) != key(b)
    assert all(clips[i].recording is None and clips[i].name.kind == "shred" for i in left_out)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=40), st.integers(0, 3))
def test_both_sides_keep_every_label_that_has_two_groups(sizes, seed):
    clips = [
        clip(root=number % 3, example=example, recording=f"r{number}")
        for number, size in enumerate(sizes)
        for example in range(size)
    ]
    train, test, _ = grouped_split(clips, seed=seed)
    for root in range(3):
        if len(sizes[root::3]) >= 2:
            assert all(any(clips[i].name.root == root for i in side) for side in (train, test))


def test_rows_are_split_by_recording():
    recordings = [f"song {k // 25}" for k in range(1000)] + [f"clip {k}" for k in range(3000)]
    train, test = recording_split(recordings, 0.1, seed=1)
    assert sorted([*train, *test]) == list(range(4000)) and len(test) == pytest.approx(400, abs=100)
    assert not {recordings[row] for row in train} & {recordings[row] for row in test}
    assert not np.array_equal(test, recording_split(recordings, 0.1, seed=2)[1])
    with pytest.raises(UserError, match="1 clips cannot be split"):
        recording_split(["a", "a"], 0.5, seed=1)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_a_fraction_outside_is_refused(fraction):
    with pytest.raises(UserError, match="test_fraction"):
        random_split(10, fraction)
    with pytest.raises(UserError, match="test_fraction"):
        grouped_split(original_protocol()[:100], fraction)


def test_what_cannot_be_split_is_refused():
    for n in (0, 1):
        with pytest.raises(UserError, match="cannot be split"):
            random_split(n)
    with pytest.raises(UserError, match="amplifier copies name no recording"):
        grouped_split([shred(example=number) for number in range(100)])
