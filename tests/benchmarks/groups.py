"""What questions about several images of a class have in common: how much one proof for many could spare at best.

    python -m tests.benchmarks.groups models/checkpoints/cnn-small_mtl-ibp_eps2_lwm_x10_s0.safetensors --images 100

Takes held-out images that the network classifies correctly, gives each its neighbour, the image of its class nearest in
activation pattern, and counts; no time is measured. A network is a row of the Markdown table at the end:

- *same sign*: hidden neurons that are stable with one sign over both balls, and over four; *unstable*: over one ball;
  *kept*: what a composed network that serves both must keep, which are also the neurons stable with opposite signs.
- *compose*: multiply-adds of composing both networks by themselves, over those of composing the one that serves both;
  *size*: numbers of the latter over those of one's own, which is what every bound of a subdomain costs more.
- *hulls*: of the pairs, how many are proved at once, by intervals or CROWN, over the smallest box round both balls, and
  over the smallest box round what reaches some hidden layer (BaVerLy: Tzour-Shaday and Drachsler-Cohen 2025). Hulls in
  which a point is of another class are proved by nothing, so that CROWN is asked about the others only.
- *tree*: subdomains of a search that starts from the neighbour's tree and its dual variables, over those of one that
  doesn't (where both images take splits and hold); *splits*: how many of the first seven splits are the neighbour's.
- *at best*: multiply-adds of all questions one by one, over the same less all that could be spared, if everything in
  favour of sharing were free: finding partners, hulls that fail, and the larger network.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import numpy as np
import scipy.sparse

from prunecert.models.data import load
from prunecert.models.export import export_onnx
from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import LANES32, BoolArray, Float32Array, Float64Array, Int8Array, Int64Array
from prunecert.verifiers.sparse.bab.counterexamples import Attackable, Hunt
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import CrownBounds, Engine, Question
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.neuron_names import Names, names_of
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.proofs.store import Store
from prunecert.verifiers.sparse.warmup import warm_up

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
        work: Multiply-adds of CROWN's walks.
    """

    label: int
    lower: Float32Array
    upper: Float32Array
    bounds: CrownBounds
    signs: dict[int, Int8Array]
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

    def cost(self, signs: Mapping[int, Int8Array], seed: int = 0) -> ComposeCost:
        """Walks some rows of each node back, and counts.

        Args:
            signs: By node with a ReLU: 1 active, -1 inactive, 0 kept.
            seed: Of the choice of rows.
        """
        rng, last = np.random.default_rng(seed), len(self._network.nodes) - 1
        work = numbers = 0.0
        for node in (*signs, last):
            rows = np.flatnonzero(signs[node] == 0) if node in signs else np.arange(self._network.nodes[last].size)
            some = rng.permutation(rows)[:_SEEDS]
            if len(some):
                one = self._walk(node, some, signs)
                work += one.work * len(rows) / len(some)
                numbers += one.numbers * len(rows) / len(some)
        return ComposeCost(work, numbers)

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


@dataclass(frozen=True, eq=False)
class TreeCost:
    """What one search takes.

    Args:
        outcome: Of the search.
        cost: Multiply-adds of a walk forwards and backwards over what is left of the network, for one subdomain.
        first: Node and index of the first splits, at most seven of a disjunct.
    """

    outcome: Outcome
    cost: int
    first: frozenset[tuple[int, int, int]]

    @property
    def holds(self) -> bool:
        """Whether it is proved by splits."""
        return self.outcome.status is Status.UNSAT and self.outcome.rounds > 0


def search(whole: Part, ball: BallFacts, names: Names, folder: Path, own: str, before: str, seconds: float) -> TreeCost:
    """Asks about one ball, starting from the tree that is kept under `before`, and keeps its own under `own`."""
    spec = OutputSpec.robustness(ball.label, whole.checker.network.nodes[-1].size)
    store = Store(folder, names)
    run = Search(
        whole.engine, whole.checker, ball.lower, ball.upper, spec, Limits(), time.monotonic() + seconds,
        store.find(before), names,
    )  # fmt: skip
    outcome = run.run()
    if run.branched is None or not outcome.rounds:
        return TreeCost(outcome, 0, frozenset())
    net, tree = run.branched.composed.net, run.branched.tree
    depth: list[int] = []
    for parent in tree.parent:
        depth.append(0 if parent < 0 else depth[parent] + 1)
    first = frozenset(
        (tree.disjunct[entry], int(net.nodes[tree.neuron[entry]]), int(net.indices[tree.neuron[entry]]))
        for entry in range(len(depth))
        if 0 < depth[entry] <= 3
    )
    proof = run.pack(own, names)
    if proof is not None:
        store.keep_tree(own, proof)
    return TreeCost(outcome, run.branched.composed.dual.cost, first)


@dataclass(frozen=True, eq=False)
class TreeFacts:
    """What searches of neighbours share.

    Args:
        fresh: Of each ball that CROWN leaves open, by its place.
        planted: Of those that hold and whose neighbour holds, too, starting from the neighbour's tree.
        overlap: Shares of the first splits that are the neighbour's.
    """

    fresh: dict[int, TreeCost]
    planted: dict[int, TreeCost]
    overlap: list[float]


def trees(whole: Part, balls: Sequence[BallFacts], names: Names, folder: Path, seconds: float) -> TreeFacts:
    """Searches all open balls by themselves, then those that hold from the tree of the nearest other one that does."""
    fresh = {
        place: search(whole, ball, names, folder, str(place), "none", seconds)
        for place, ball in enumerate(balls)
        if not ball.proved
    }
    held = [place for place, cost in fresh.items() if cost.holds]
    groups = neighbours([balls[place].pattern for place in held], [balls[place].label for place in held], 1)
    planted, overlap = {}, []
    for own, *rest in groups:
        if not rest or not Store(folder, names).paths(str(held[rest[0]]))[1].exists():
            continue
        place, other = held[own], held[rest[0]]
        planted[place] = search(whole, balls[place], names, folder, f"from {place}", str(other), seconds)
        overlap.append(len(fresh[place].first & fresh[other].first) / max(len(fresh[place].first), 1))
    return TreeFacts(fresh, planted, overlap)


def tree_work(cost: TreeCost, limits: Limits) -> float:
    """Estimates the multiply-adds of a tree: of a pair of children their ascent, the parent's look, its candidates."""
    ascent = (limits.steps + 0.5) * cost.cost
    look = cost.cost + limits.candidates * 2 * cost.cost / 2
    return cost.outcome.domains * (ascent + look / 2) + 2 * limits.root_steps * cost.cost


def filled(cost: TreeCost) -> float:
    """Returns the share of lanes that hold a subdomain where a round's are bounded together."""
    each = cost.outcome.domains / max(cost.outcome.rounds, 1)
    return each / (LANES32 * np.ceil(each / LANES32))


def facts(whole: Part, images: int, eps: float) -> list[BallFacts]:
    """Bounds the balls round the first held-out images that are classified correctly, until there are so many."""
    data, network = load("val", download=False), whole.checker.network
    balls: list[BallFacts] = []
    for pixels, number in zip(data.images, data.labels, strict=True):
        image, label = pixels.astype(np.float32).reshape(-1), int(number)
        if len(balls) == images:
            break
        if int(network.evaluate(image[None])[0].argmax()) != label:
            continue
        lower, upper = (np.clip(image + side * np.float32(eps), 0, 1).astype(np.float32) for side in (-1, 1))
        spec = OutputSpec.robustness(label, network.nodes[-1].size)
        rows = np.concatenate([a for a, _ in spec.disjuncts])
        before = whole.engine.multiplications()
        bounds = whole.engine.bound(Question(lower, upper, rows, np.zeros(len(rows))))
        work = whole.engine.multiplications() - before
        balls.append(BallFacts(label, lower, upper, bounds, signs_of(bounds, network.activated()), work))
    return balls


def row_of(checkpoint: Path, options: argparse.Namespace, folder: Path) -> str:
    """Measures one network; returns its row of the table."""
    path = folder / f"{checkpoint.stem}.onnx"
    export_onnx(checkpoint, path)
    network = read_network(path)
    whole, composing = Part(network), Composing(network)
    everything = facts(whole, max(options.images, options.trees), options.eps / 255)
    balls = everything[: options.images]
    groups = neighbours([ball.pattern for ball in balls], [ball.label for ball in balls], 3)
    pairs = [(group[0], group[1]) for group in groups if len(group) > 1]
    count = len(balls[0].pattern)
    same = [float((shared([balls[i].pattern for i in pair]) != 0).sum()) / count for pair in pairs]
    four = [float((shared([balls[i].pattern for i in group]) != 0).sum()) / count for group in groups if len(group) > 3]
    unstable = [float((ball.pattern == 0).sum()) / count for ball in balls]
    kept = [1 - share for share in same]
    alone, both = [], []
    for one, other in pairs[: options.composed]:
        alone.append([composing.cost(balls[one].signs), composing.cost(balls[other].signs)])
        joint = {node: shared([balls[one].signs[node], balls[other].signs[node]]) for node in balls[one].signs}
        both.append(composing.cost(joint))
    saving = [sum(own.work for own in two) / one.work for two, one in zip(alone, both, strict=True)]
    size = [one.numbers / fmean(own.numbers for own in two) for two, one in zip(alone, both, strict=True)]
    counts = hulls(whole, balls, pairs[: options.hulls])
    for each in counts:
        print(
            f"  hulls at {each.layer}: {each.single} balls and {each.pairs} pairs of {min(len(pairs), options.hulls)}; "
            f"what is behind takes {each.work:.3g}"
        )
    shelf = folder / f"{checkpoint.stem} trees"
    shelf.mkdir()
    searched = everything[: options.trees]
    carried = trees(whole, searched, names_of(network, path), shelf, options.seconds)
    fresh = sum(carried.fresh[place].outcome.domains for place in carried.planted)
    planted = sum(cost.outcome.domains for cost in carried.planted.values())
    limits, proved = Limits(), sum(ball.proved for ball in balls)
    tree = [tree_work(cost, limits) for cost in carried.fresh.values()] or [0.0]
    lanes = [filled(cost) for cost in carried.fresh.values() if cost.outcome.rounds] or [0.0]
    compose = fmean(own.work for two in alone for own in two)
    crown = fmean(ball.work for ball in balls)
    at_once = max(each.pairs * min(each.work, crown) for each in counts) / max(min(len(pairs), options.hulls), 1)
    opened = 1 - proved / len(balls)
    total = crown + opened * (compose + fmean(tree))
    ratio = min(planted / fresh, 1.0) if fresh else 1.0
    spared = 0.5 * at_once + opened * (compose * (1 - 1 / max(fmean(saving), 1.0)) + (1 - ratio) * fmean(tree))
    print(
        f"  multiply-adds of an image: CROWN {crown:.3g}; where it leaves it open ({opened:.0%}) composing "
        f"{compose:.3g}, tree {fmean(tree):.3g} (median {median(tree):.3g}); lanes filled {fmean(lanes):.0%}"
    )
    best = max(counts, key=lambda each: each.pairs)
    return (
        f"| {checkpoint.stem} | {fmean(same):.0%}, {fmean(four or [0.0]):.0%} | {fmean(unstable):.1%} | "
        f"{fmean(kept):.0%} | {fmean(saving):.2f} | {fmean(size):.1f} | {counts[0].pairs}, {best.pairs} behind "
        f"{best.layer} | {planted} / {fresh} ({len(carried.planted)}) | {fmean(carried.overlap or [0.0]):.0%} | "
        f"{total / (total - spared):.2f} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("checkpoints", type=Path, nargs="+")
    command.add_argument("--images", type=int, default=100)
    command.add_argument("--eps", type=float, default=2.0, help="radius, in 255ths")
    command.add_argument("--composed", type=int, default=20, help="pairs whose composed networks are counted")
    command.add_argument("--hulls", type=int, default=100, help="pairs whose hulls are bounded")
    command.add_argument(
        "--trees", type=int, default=400, help="images of which those that CROWN leaves open are searched"
    )
    command.add_argument("--seconds", type=float, default=10.0, help="limit of a search")
    options = command.parse_args(arguments)
    warm_up()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in options.checkpoints:
            print(checkpoint.stem, flush=True)
            rows.append(row_of(checkpoint, options, Path(folder)))
            print(rows[-1], flush=True)
    print("| network | same sign in 2, 4 | unstable | kept | compose | size | hulls | tree | splits | at best |")
    print(f"|---|{'---:|' * 9}")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
