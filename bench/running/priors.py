"""What verifiers have cost in recorded runs: the first guess of a run's time, until it has measured itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Prior(NamedTuple):
    """What is known of a verifier before it is asked.

    Args:
        seconds: Of an image that it is asked about, without starting and loading.
        undecided: Share of these images that it leaves open.
    """

    seconds: float
    undecided: float


#: Means over the leaderboard's entries of the two CNNs of `cifar10-4nets` (1,000 images of each, two cores) with 20 s
#: at most, where it was asked there; the sparse bounds are the library's but for their time, other complete verifiers
#: are given what NeuralSAT took.
PRIORS: Mapping[str, Prior] = {
    "ibp": Prior(0.0019, 0.43),
    "crown-ibp": Prior(0.007, 0.31),
    "crown": Prior(0.047, 0.68),
    "alpha-crown": Prior(0.30, 0.70),
    "pgd": Prior(0.029, 0.80),
    "autoattack": Prior(2.0, 0.8),
    "sparse-ibp": Prior(0.003, 0.44),
    "sparse-crown-ibp": Prior(0.006, 0.31),
    "sparse-crown": Prior(0.0136, 0.42),
    "sparse-alpha-crown": Prior(0.1, 0.3),
    "sparse-bab": Prior(1.7, 0.06),
    "neuralsat": Prior(21.0, 0.95),
    "abcrown": Prior(21.0, 0.95),
    "marabou": Prior(21.0, 0.95),
}
#: These two, of which the first guess is good from the start; networks like `cnn5` take many times as long.
SHIPPED = frozenset({"cnn-small", "cnn-large"})
#: A network that is cheaper or dearer than those is believed to be so by these factors at most.
LEAST, MOST = 0.02, 50.0
