"""Which clips train and which test.

`random_split` puts variants of one recording on both sides, as the original study's split does (`split_sizes`, and
`core.training.draws` for its very indices), so its accuracy is that of recognising recordings seen before.
`grouped_split` keeps every recording on one side.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from triadbench.core.data.clips import Clip
from triadbench.core.errors import UserError

TEST_FRACTION = 0.3
SEED = 13


def split_sizes(n: int, test_fraction: float = TEST_FRACTION) -> tuple[int, int]:
    """(train, test) clips of n, as `torch.utils.data.random_split(dataset, [1 - test_fraction, test_fraction])` counts:
    whole clips of each share, and what is over goes to training first. A UserError where a side would be empty.
    """
    _check_fraction(test_fraction)
    sizes = [math.floor(n * share) for share in (1 - test_fraction, test_fraction)]
    for side in range(n - sum(sizes)):
        sizes[side] += 1
    if min(sizes) < 1:
        raise UserError(f"{n} clips cannot be split with a test part of {test_fraction}: a side would be empty")
    return sizes[0], sizes[1]


def random_split(n: int, test_fraction: float = TEST_FRACTION, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """A random split of `n` clips: train and test, int64, in the order of
    `torch.utils.data.random_split(dataset, [int(0.7 * n), n - int(0.7 * n)], torch.Generator().manual_seed(13))`.
    A UserError where a side would be empty.
    """
    import torch

    _check_fraction(test_fraction)
    n_train = int((1 - test_fraction) * n)
    if not 0 < n_train < n:
        raise UserError(f"{n} clips cannot be split with a test part of {test_fraction}: a side would be empty")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return order[:n_train].copy(), order[n_train:].copy()


def grouped_split(
    clips: Sequence[Clip], test_fraction: float = TEST_FRACTION, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split so that no recording has a variant on the other side.

    A clip's group is the recording that the manifest names. Without one it is (octave, root, type, volume, voicing):
    the names do not say which of the 100 examples are variants of which of the 10 recordings. Where only some clips of
    such a key have a recording, their groups are joined. An amplifier copy without a manifest names no octave or
    volume; it may be a variant of anything, and is left out. Both sides keep every (type, root) that has at least two
    groups; sizes come as near to `test_fraction` as whole groups allow.

    Returns:
        train, test, left_out: int64 arrays of indices, ascending; together they are every clip once. A UserError where
        a side would be empty.
    """
    _check_fraction(test_fraction)
    groups, left_out = _groups(clips)
    rng = np.random.Generator(np.random.PCG64(seed))
    strata: dict[tuple[int, int], list[list[int]]] = defaultdict(list)
    for members in groups:
        first = clips[members[0]].name
        strata[first.type, first.root].append(members)
    test: list[int] = []
    target = 0.0
    keys = sorted(strata)
    for key in (keys[position] for position in rng.permutation(len(keys))):
        stratum = [strata[key][position] for position in rng.permutation(len(strata[key]))]
        # What earlier strata could not give in whole groups is asked of this one.
        target += test_fraction * sum(map(len, stratum))
        for group in stratum[: _choose(stratum, target - len(test))]:
            test += group
    if len(groups) > 1:
        # Where labels of one group each have left a side empty, it gets the smallest group.
        smallest = min(groups, key=len)
        if not test:
            test = smallest
        elif len(test) == sum(map(len, groups)):
            test = list(set(test).difference(smallest))
    train = sorted(set().union(*groups).difference(test))
    if not train or not test:
        raise UserError(
            f"{len(clips)} clips in {len(groups)} recordings cannot be split by recording: a side would be empty "
            f"({len(left_out)} amplifier copies name no recording); use the random split or a data set with a manifest"
        )
    return np.array(train, np.int64), np.array(sorted(test), np.int64), np.array(left_out, np.int64)


def recording_split(recordings: Sequence[str], test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`random_split` of recordings: indices (train, test) of rows, whose recordings are on one side; errors alike."""
    names, groups = np.unique(recordings, return_inverse=True)
    train, test = (np.flatnonzero(np.isin(groups, side)) for side in random_split(len(names), test_fraction, seed))
    return train, test


def _choose(groups: Sequence[Sequence[int]], target: float) -> int:
    """How many of the first groups come nearest to `target` clips; of two or more groups each side keeps one."""
    sizes = np.cumsum([0, *map(len, groups)])
    low, high = (1, len(groups) - 1) if len(groups) > 1 else (0, 1)
    return low + int(np.argmin(np.abs(sizes[low : high + 1] - target)))


def _groups(clips: Sequence[Clip]) -> tuple[list[list[int]], list[int]]:
    """Groups of clips that a split must not part, by index, and the clips whose group nobody knows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unnamed = {_key(clip) for clip in clips if clip.recording is None} - {None}
    numbers: dict[Hashable, int] = defaultdict(itertools.count().__next__)  # of recordings and of keys
    nodes, edges = {}, []
    for index, clip in enumerate(clips):
        key = _key(clip)
        if clip.recording is not None:
            nodes[index] = numbers["recording", clip.recording]
            if key in unnamed:
                edges.append((nodes[index], numbers[key]))
        elif key is not None:
            nodes[index] = numbers[key]
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(numbers), len(numbers)))
    component = connected_components(graph, directed=False)[1] if numbers else []
    groups: dict[int, list[int]] = defaultdict(list)
    for index, node in nodes.items():
        groups[component[node]].append(index)
    return list(groups.values()), [index for index in range(len(clips)) if index not in nodes]


def _key(clip: Clip) -> tuple | None:
    """What a name says of its recording, or None where it says too little."""
    name = clip.name
    key = (name.octave, name.root, name.type, name.volume, name.voicing)
    return None if None in key else key


def _check_fraction(test_fraction: float) -> None:
    if not 0 < test_fraction < 1:
        raise UserError(f"test_fraction={test_fraction} must lie between 0 and 1, both excluded")
