"""The tree of a disjunct that second-order bounds have proved, as it is kept for a certificate."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.bab.quadratic.last_layer import FAR, LEAST, Multipliers
from prunecert.verifiers.sparse.proofs.certificate import PRECISIONS

#: How slopes are stored, a row of `PRECISIONS`. With one byte each, bounds on `cnn5` are 0.006 lower: where a line is a
#: chord, what another slope costs is of the first order.
PRECISION = 1


def stored(slopes: Float64Array) -> Float64Array:
    """Returns slopes as a reader of a certificate sees them."""
    _, _, one = PRECISIONS[PRECISION]
    result: Float64Array = np.rint(np.clip(slopes, 0.0, 1.0) * one) / one
    return result


@dataclass(frozen=True, eq=False)
class KeptLeaf:
    """Dual variables of a subdomain as coarsely as they are stored: of v the square of what is lost counts.

    Args:
        m: [n].
        p: [n].
        D: [W].
        v: [W].
    """

    m: Float32Array
    p: Float32Array
    D: Float32Array
    v: npt.NDArray[np.float16]

    @classmethod
    def of(cls, dual: Multipliers) -> KeptLeaf:
        """Rounds dual variables."""
        m, p, D = (part.astype(np.float32) for part in (dual.m, dual.p, np.maximum(dual.D, LEAST)))
        return cls(m, p, D, np.clip(dual.v, -FAR, FAR).astype(np.float16))

    @property
    def multipliers(self) -> Multipliers:
        """What is stored, in float64."""
        m, p, D, v = (part.astype(np.float64) for part in (self.m, self.p, self.D, self.v))
        return Multipliers(m, p, D, v)

    @property
    def megabytes(self) -> float:
        """What it takes."""
        return float(self.m.nbytes + self.p.nbytes + self.D.nbytes + self.v.nbytes) / 2**20


@dataclass(eq=False)
class KeptTree:
    """Splits and leaves. Part 0 is the whole box.

    Args:
        most_mb: Memory for leaves; with more of them none is kept.
        splits: For each part that is split: the neuron, by its place in [U], and the parts where it is active and not.
        leaves: The other parts.
        forgotten: Whether there were more leaves than there is room for.
    """

    most_mb: float
    splits: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    leaves: dict[int, KeptLeaf] = field(default_factory=dict)
    forgotten: bool = False
    _parts: int = 1
    _taken_mb: float = 0.0

    @property
    def megabytes(self) -> float:
        """What its leaves take."""
        return 0.0 if self.forgotten else self._taken_mb

    def split(self, part: int, place: int) -> tuple[int, int]:
        """Splits a part at a neuron, and returns the numbers of the active part and of the inactive one."""
        active, inactive = self._parts, self._parts + 1
        self._parts += 2
        self.splits[part] = (place, active, inactive)
        return active, inactive

    def prove(self, part: int, leaf: KeptLeaf) -> None:
        """Keeps a leaf if there is room for all."""
        self._taken_mb += leaf.megabytes
        if self._taken_mb > self.most_mb:
            self.forgotten = True
            self.leaves.clear()
        else:
            self.leaves[part] = leaf


@dataclass(frozen=True, eq=False)
class KeptProof:
    """A proof of a disjunct over one box.

    Args:
        tree: Its parts.
        slopes: [U] of the lines before the last hidden layer.
        nodes: [U] which neurons these are, from first to last.
        indices: [U].
        weights: Of the disjunct's rows.
        varying: Which inputs vary over the box.
        inputs: How many there are.
        improved: Whether it holds for improved hidden bounds.
    """

    tree: KeptTree
    slopes: Float64Array
    nodes: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    weights: Float32Array
    varying: npt.NDArray[np.int64]
    inputs: int
    improved: bool
