"""What balls round several images have in common: stable neurons, composed networks, and hulls that are proved at once.

`groups` makes a table of it, and says what each column is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import scipy.sparse

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import BoolArray, Float32Array, Float64Array, Int8Array, Int64Array
from prunecert.verifiers.sparse.bab.counterexamples import Attackable, Hunt
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import CrownBounds, Engine, Question
from prunecert.verifiers.sparse.network import Network, Node, Term

#: Rows of a node that are walked back to estimate what all of them cost.
_SEEDS = 4
#: Points of a hull that are tried before it is bounded.
_TRIED = 16


@dataclass(frozen=True, eq=False)
class BallFacts:
    """One question, and what CROWN says of it.

    Args:
        label: The image's class.
        lower: Flat float32 corner of the ball.
        upper: Likewise.
        bounds: CROWN's.
        signs: By node with a ReLU: 1 where a neuron is active over the ball, -1 inactive, 0 neither, [size].
        rows: By node, neurons that intervals leave open, from which CROWN walks back; of the outputs, all but one.
        work: Multiply-adds of these walks.
    """

    label: int
    lower: Float32Array
    upper: Float32Array
    bounds: CrownBounds
    signs: dict[int, Int8Array]
    rows: dict[int, Int64Array]
    work: int

    @property
    def pattern(self) -> Int8Array:
        """All signs, one node after the other."""
        return np.concatenate(list(self.signs.values()))

    @property
    def proved(self) -> bool:
        """Whether CROWN proves it."""
        return bool(self.bounds.rows.min() > 0)


@dataclass(frozen=True)
class ComposeCost:
    """What composing takes: multiply-adds, and numbers that are left."""

    work: float
    numbers: float


def signs_of(bounds: CrownBounds, nodes: Sequence[int]) -> dict[int, Int8Array]:
    """Returns which neurons are stable, and how."""
    return {
        node: np.where(bounds.lower[node] >= 0, 1, np.where(bounds.upper[node] <= 0, -1, 0)).astype(np.int8)
        for node in nodes
    }


def shared(patterns: Sequence[Int8Array]) -> Int8Array:
    """Returns the signs that hold in all balls, 0 where there is none.

    >>> shared([np.array([1, -1, 0, 1], np.int8), np.array([1, 1, 0, 0], np.int8)]).tolist()
    [1, 0, 0, 0]
    """
    alike = np.all([pattern == patterns[0] for pattern in patterns], axis=0)
    return np.where(alike, patterns[0], 0).astype(np.int8)


def neighbours(patterns: Sequence[Int8Array], labels: Sequence[int], count: int) -> list[list[int]]:
    """Returns, for each ball, itself and so many of its class that are nearest in activation pattern.

    >>> patterns = [np.array(signs, np.int8) for signs in ([1, 1], [-1, -1], [1, 0], [1, 1])]
    >>> neighbours(patterns, [0, 0, 0, 1], 1)
    [[0, 2], [1, 2], [2, 0], [3]]
    """
    groups = []
    for place, label in enumerate(labels):
        others = [other for other in range(len(labels)) if other != place and labels[other] == label]
        apart = [int((patterns[other] != patterns[place]).sum()) for other in others]
        groups.append([place, *(others[index] for index in np.argsort(apart, kind="stable")[:count])])
    return groups


class Composing:
    """Estimates what composing a network's stable neurons away takes, from the structure of its weights.

    Args:
        network: The network.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._ones: list[list[scipy.sparse.csr_array]] = []
        self._counts: list[Float64Array] = []
        for node in network.nodes:
            ones = [scipy.sparse.csr_array(abs(term.matrix) > 0, dtype=np.float32) for term in node.terms]
            self._ones.append(ones)
            counts = np.zeros(node.size)
            for matrix in ones:
                counts += np.diff(matrix.indptr)
            self._counts.append(counts)

    def cost(self, signs: Mapping[int, Int8Array], rows: Mapping[int, Int64Array], seed: int = 0) -> ComposeCost:
        """Walks some rows of each node back, and counts.

        Args:
            signs: By node with a ReLU: 1 where a walk goes on through a neuron, 0 where it ends, and -1 where there is
                nothing.
            rows: By node, those that are walked back.
            seed: Of the choice of those that stand for all.
        """
        rng = np.random.default_rng(seed)
        work = numbers = 0.0
        for node, own in rows.items():
            some = rng.permutation(own)[:_SEEDS]
            if len(some):
                one = self._walk(node, some, signs)
                work += one.work * len(own) / len(some)
                numbers += one.numbers * len(own) / len(some)
        return ComposeCost(work, numbers)

    def composed(self, signs: Mapping[int, Int8Array]) -> ComposeCost:
        """Counts for the network that is left of neurons that are active (1), inactive (-1) and kept (0)."""
        last = len(self._network.nodes) - 1
        rows = {node: np.flatnonzero(own == 0) for node, own in signs.items()}
        return self.cost(signs, {**rows, last: np.arange(self._network.nodes[last].size)})

    def common(self, one: BallFacts, *others: BallFacts) -> float:
        """Returns the share of CROWN's walks over a ball that is the same over others: from the same rows, through
        neurons that are active over all, up to the first that isn't.
        """
        passed = {node: np.where(own == 0, np.int8(1), own) for node, own in one.signs.items()}
        alike = {node: shared([own, *(other.signs[node] for other in others)]) for node, own in one.signs.items()}
        rows = dict(one.rows)
        for other in others:
            rows = {node: np.intersect1d(own, other.rows[node]) for node, own in rows.items()}
        return self.cost(alike, rows).work / max(self.cost(passed, one.rows).work, 1.0)

    def _walk(self, node: int, rows: Int64Array, signs: Mapping[int, Int8Array]) -> ComposeCost:
        seeds = np.zeros((len(rows), self._network.nodes[node].size), dtype=bool)
        seeds[np.arange(len(rows)), rows] = True
        linear: dict[int, BoolArray] = {node: seeds}
        relu: dict[int, BoolArray] = {}
        work = numbers = 0.0
        for at in range(node, 0, -1):
            value, through = linear.pop(at, None), relu.pop(at, None)
            if through is not None:
                numbers += float(through[:, signs[at] == 0].sum())
                through = through & (signs[at] > 0)
                value = through if value is None else value | through
            if value is None:
                continue
            work += float(value.sum(axis=0) @ self._counts[at])
            for term, ones in zip(self._network.nodes[at].terms, self._ones[at], strict=True):
                target = relu if term.activated else linear
                part = (ones.T @ value.T.astype(np.float32)).T > 0
                target[term.source] = target[term.source] | part if term.source in target else part
        return ComposeCost(work, numbers + float(linear[0].sum() if 0 in linear else 0.0))


def tail(network: Network, node: int) -> Network | None:
    """Returns what follows a node's ReLU, as a network of its own; None where something goes round it."""
    entry = network.nodes[node]
    zeros = np.zeros(entry.size, dtype=np.float32)
    nodes = [Node("tail", entry.size, (entry.size,), (), zeros, zeros)]
    for later in network.nodes[node + 1 :]:
        if any(term.source < node or (term.source == node and not term.activated) for term in later.terms):
            return None
        terms = tuple(
            Term(term.source - node, term.activated and term.source > node, term.matrix, term.exact)
            for term in later.terms
        )
        nodes.append(replace(later, terms=terms))
    return Network(f"{network.name} behind {entry.name}", (entry.size,), tuple(nodes))


class Part:
    """A network, or the tail of one, and the means to bound boxes of its input.

    Args:
        network: The network.
    """

    def __init__(self, network: Network) -> None:
        self.checker = Checker(network)
        self.engine = Engine(network, 1)

    def proves(self, low: Float64Array, high: Float64Array, label: int) -> bool:
        """Whether CROWN proves that a class is kept in a box, in which no point is seen that shows the contrary."""
        network = self.checker.network
        spec = OutputSpec.robustness(label, network.nodes[-1].size)
        rows = np.concatenate([a for a, _ in spec.disjuncts])
        if (self.engine.bound(Question(low, high, rows, np.zeros(len(rows))), "ibp").rows > 0).all():
            return True
        shares = np.random.default_rng(0).random((_TRIED, len(low)))
        shares[::2] = np.round(shares[::2])
        points = np.concatenate([low + shares * (high - low), 0.5 * (low + high)[None]])
        if (network.evaluate(points) @ rows.T <= 0).any():
            return False
        small, large = low.astype(np.float32), high.astype(np.float32)
        everything = Attackable(rows, np.zeros(len(rows)), np.arange(len(rows) + 1))
        hunt = Hunt(self.checker, spec, small, large, Limits(), None)
        if hunt.quick(np.arange(len(rows)), everything) is not None:
            return False
        return bool((self.engine.bound(Question(low, high, rows, np.zeros(len(rows)))).rows > 0).all())

    def work(self, low: Float64Array, high: Float64Array) -> int:
        """Returns the multiply-adds that CROWN takes for a box."""
        outputs = self.checker.network.nodes[-1].size
        before = self.engine.multiplications()
        self.engine.bound(Question(low, high, np.eye(outputs - 1, outputs), np.zeros(outputs - 1)))
        return self.engine.multiplications() - before


@dataclass(frozen=True)
class HullCounts:
    """How many boxes are proved at once: of a single ball's and of pairs' hulls, by the layer they are taken at.

    Args:
        layer: Its name; the input's first.
        single: Of balls.
        pairs: Of pairs.
        work: Multiply-adds that CROWN takes for what is behind the layer, of a ball: what one of two hulls spares.
    """

    layer: str
    single: int
    pairs: int
    work: float


def hulls(whole: Part, balls: Sequence[BallFacts], pairs: Sequence[tuple[int, int]]) -> list[HullCounts]:
    """Counts what is proved over hulls, at the input and behind each layer; only pairs of proved balls are tried."""
    network, counts = whole.checker.network, []
    both = [pair for pair in pairs if balls[pair[0]].proved and balls[pair[1]].proved]
    for node in (0, *network.activated()):
        cut = network if node == 0 else tail(network, node)
        if cut is None:
            continue
        part = whole if node == 0 else Part(cut)
        boxes = [_reach(ball, node) for ball in balls]
        single = sum(part.proves(*boxes[one], balls[one].label) for one, _ in pairs)
        together = 0
        for one, other in both:
            low, high = np.minimum(boxes[one][0], boxes[other][0]), np.maximum(boxes[one][1], boxes[other][1])
            together += part.proves(low, high, balls[one].label)
        work = fmean(part.work(*boxes[one]) for one, _ in pairs[:_TRIED])
        counts.append(HullCounts(network.nodes[node].name, single, together, work))
    return counts


def _reach(ball: BallFacts, node: int) -> tuple[Float64Array, Float64Array]:
    """Returns the box of what reaches the layers behind a node's ReLU, or of the input."""
    if node == 0:
        return ball.lower.astype(np.float64), ball.upper.astype(np.float64)
    return np.maximum(ball.bounds.lower[node], 0.0), np.maximum(ball.bounds.upper[node], 0.0)
