"""The most likely sequence of chords: Viterbi over 48 chords and silence, with changes that are cheap at onsets."""

import numpy as np


def viterbi(scores: np.ndarray, change_cost: np.ndarray) -> np.ndarray:
    """The states (frames,) of the best path.

    Every change costs the same whatever the states are, so a frame needs one maximum and not a table of all pairs;
    memory is a bit for each frame and state.

    Args:
        scores: log likelihoods, float (frames, states).
        change_cost: (frames,), of a change between the frame before and this one; the first is not used.
    """
    n, states = scores.shape
    stays = np.ones((n, states), dtype=bool)
    origin = np.zeros(n, dtype=np.int16)
    total = scores[0].astype(np.float64)
    for k in range(1, n):
        origin[k] = total.argmax()
        after_change = total[origin[k]] - change_cost[k]
        stays[k] = total >= after_change
        total = np.maximum(total, after_change) + scores[k]
    path = np.empty(n, dtype=np.int16)
    path[-1] = total.argmax()
    for k in range(n - 1, 0, -1):
        path[k - 1] = path[k] if stays[k, path[k]] else origin[k]
    return path
