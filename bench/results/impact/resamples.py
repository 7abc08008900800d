"""Bootstrap resamples that all tests of a board share, since to draw them takes longer than to use them."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

CountArray = npt.NDArray[np.uint16]
#: In how many numbers a slice of resamples is drawn or used, so that many images don't ask for gigabytes.
SLICE = 4_000_000


@functools.lru_cache(maxsize=8)
def draws(count: int, repeats: int, seed: int) -> CountArray:
    """Returns how often each of `count` things is drawn when as many are, with replacement.

    >>> draws(3, 2, 0).sum(axis=1).tolist()
    [3, 3]

    Args:
        count: Images, or seeds; at most 65,535.
        repeats: Resamples.
        seed: Of the draws; another one is independent.

    Returns:
        [repeats, count], not to be written to.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty((repeats, count), dtype=np.uint16)
    for part in slices(count, repeats):
        drawn[part] = rng.multinomial(count, np.full(count, 1 / count), size=len(drawn[part]))
    drawn.flags.writeable = False
    return drawn


def slices(count: int, repeats: int) -> list[slice]:
    """Returns the parts of resamples of `count` things that are handled at once."""
    step = max(1, SLICE // count)
    return [slice(start, min(repeats, start + step)) for start in range(0, repeats, step)]
