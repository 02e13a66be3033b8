"""The original study's random numbers: one generator, torch's default, seeded once, serves everything in turn.

That is: which clips are used, which of them train, the network's weights, and in every epoch the order of training; the
loaders draw as well, a number each time they start. Torch's own loaders draw here too: every version of torch gives
what the original's notebook gives with it.
"""

import numpy as np
import torch
from torch.utils.data import DataLoader

from triadbench.core.constants import ALL_CLIPS
from triadbench.core.data.splits import TEST_FRACTION, split_sizes
from triadbench.core.models.networks import OriginalNet


def draw_clips(n_all: int, seed: int) -> list[int]:
    """All `n_all` clips in the order in which the original draws them: of a subset of n clips, the first n."""
    return torch.randperm(n_all, generator=torch.Generator().manual_seed(seed)).tolist()


class Draws:
    """What the original's notebook draws from a seed.

    Args:
        n: clips that are used. n_all: the set that they are drawn from; by default the original's 86,400, or n if that
            is more. n_classes: of the network.

    Attributes:
        rows: (train, test) int64 indices: where n is n_all into the set, else into the n clips in the order of
            `draw_clips`. model: the network with its first weights, on the CPU.

    Raises:
        UserError: too few clips to split.
    """

    def __init__(
        self, n: int, n_classes: int, seed: int, *, n_all: int | None = None, test_fraction: float = TEST_FRACTION
    ):
        n_all, (n_train, _) = n_all or max(n, ALL_CLIPS), split_sizes(n, test_fraction)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            chosen, split = torch.randperm(n_all).numpy(), torch.randperm(n).numpy()
            rows = chosen[split] if n == n_all else split
            self.rows = rows[:n_train].copy(), rows[n_train:].copy()
            self.model = OriginalNet(n_classes)
            self._state = torch.get_rng_state()

    def order(self, n: int, epoch: int) -> np.ndarray:
        """The order (n,) in which an epoch (from 0) trains on its n clips."""
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            for size in [1] * epoch + [n]:  # of the epochs before no more than a loader's start is drawn
                order = next(iter(DataLoader(range(n), size, shuffle=True, collate_fn=np.array)))  # type: ignore[arg-type]
                iter(DataLoader(range(1)))  # type: ignore[arg-type]  # the test follows
        return order
