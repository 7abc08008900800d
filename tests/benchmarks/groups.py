"""What questions about several images of a class have in common: how much one proof for many could spare at best.

    python -m tests.benchmarks.groups models/checkpoints/cnn-small_mtl-ibp_eps2_lwm_x10_s0.safetensors --images 100

Takes held-out images that the network classifies correctly, gives each its neighbour, the image of its class nearest in
activation pattern, and counts; no time is measured. A network is a row of the Markdown table at the end:

- *same sign*: hidden neurons that are stable with one sign over both balls, and over four; *unstable*: over one ball;
  *kept*: what a composed network that serves both must keep, which are also the neurons stable with opposite signs.
- *compose*: multiply-adds of composing both networks by themselves, over those of composing the one that serves both;
  *size*: numbers of the latter over those of one's own, which is what every bound of a subdomain costs more.
- *walks*: the part of the multiply-adds of CROWN's walks over one ball that the neighbour's walks repeat, and those of
  the three nearest: from the same rows, through neurons that are active over all, up to the first that isn't.
- *hulls*: of the pairs, how many are proved at once, by intervals or CROWN, over the smallest box round both balls, and
  over the smallest box round what reaches some hidden layer (BaVerLy: Tzour-Shaday and Drachsler-Cohen 2025). Hulls in
  which a point is of another class are proved by nothing, so that CROWN is asked about the others only.
- *tree*: subdomains of a search that starts from the neighbour's tree and its dual variables, over those of one that
  doesn't (where both images take splits and hold); *splits*: how many of the first seven splits are the neighbour's.
- *lanes*: how many of the lanes are in use, 16 rows side by side, in CROWN's walks of one image, and in its search's
  rounds: what is left is all that several images could fill together.
- *at best*: multiply-adds of all questions one by one, over the same less all that could be spared, if everything in
  favour of sharing were free: finding partners, hulls that fail, and the larger network. Intervals and attacks, which
  nothing spares, are left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np

from prunecert.errors import run_main
from prunecert.models.data import load
from prunecert.models.export import export_onnx
from prunecert.page_help import PageHelp
from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import LANES32, Int64Array
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.crown.engine import Engine, Question
from prunecert.verifiers.sparse.onnx.neuron_names import Names, names_of
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.proofs.store import Store
from prunecert.verifiers.sparse.warmup import warm_up
from tests.benchmarks.sharing import BallFacts, Composing, Part, hulls, neighbours, shared, signs_of


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


def filled(rows: Sequence[float]) -> float:
    """Returns the share of lanes in use where so many rows are walked together, each time.

    >>> filled([16, 8])
    0.75
    """
    lanes = sum(LANES32 * np.ceil(count / LANES32) for count in rows)
    return float(sum(rows) / lanes) if lanes else 0.0


def walked(engine: Engine, question: Question) -> dict[int, Int64Array]:
    """Returns the rows that CROWN walks back from each node: what intervals leave unstable, and the question's."""
    network, last = engine.network, len(engine.network.nodes) - 1
    bounds = engine.bound(question, "ibp")
    rows = {
        node: np.flatnonzero((bounds.lower[node] < 0) & (bounds.upper[node] > 0))
        for node in network.activated()
        if any(term.source for term in network.nodes[node].terms)
    }
    return {**rows, last: np.arange(network.nodes[last].size - 1)}


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
        question = Question(lower, upper, rows, np.zeros(len(rows)))
        before = whole.engine.multiplications()
        bounds = whole.engine.bound(question)
        work = whole.engine.multiplications() - before
        signs = signs_of(bounds, network.activated())
        balls.append(BallFacts(label, lower, upper, bounds, signs, walked(whole.engine, question), work))
    return balls


@dataclass(frozen=True)
class Effort:
    """How much is counted.

    Args:
        images: Held-out images.
        eps: Radius of the balls, in 255ths.
        composed: Pairs whose composed networks are counted.
        hulls: Pairs whose hulls are bounded.
        trees: Images of which those that CROWN leaves open are searched.
        seconds: Limit of a search.
    """

    images: int
    eps: float
    composed: int
    hulls: int
    trees: int
    seconds: float


def row_of(checkpoint: Path, effort: Effort, folder: Path) -> str:
    """Measures one network; returns its row of the table."""
    path = folder / f"{checkpoint.stem}.onnx"
    export_onnx(checkpoint, path)
    network = read_network(path)
    whole, composing = Part(network), Composing(network)
    everything = facts(whole, max(effort.images, effort.trees), effort.eps / 255)
    balls = everything[: effort.images]
    groups = neighbours([ball.pattern for ball in balls], [ball.label for ball in balls], 3)
    pairs = [(group[0], group[1]) for group in groups if len(group) > 1]
    count = len(balls[0].pattern)
    same = [float((shared([balls[i].pattern for i in pair]) != 0).sum()) / count for pair in pairs]
    four = [float((shared([balls[i].pattern for i in group]) != 0).sum()) / count for group in groups if len(group) > 3]
    unstable = [float((ball.pattern == 0).sum()) / count for ball in balls]
    kept = [1 - share for share in same]
    alone, both = [], []
    # Of groups of two and of four.
    common: dict[int, list[float]] = {2: [0.0], 4: [0.0]}
    for one, other in pairs[: effort.composed]:
        alone.append([composing.composed(balls[one].signs), composing.composed(balls[other].signs)])
        joint = {node: shared([balls[one].signs[node], balls[other].signs[node]]) for node in balls[one].signs}
        both.append(composing.composed(joint))
    for size, shares in common.items():
        alike = [[balls[place] for place in group[:size]] for group in groups if len(group) >= size]
        shares[:] = [composing.common(*some) for some in alike[: effort.composed]] or shares
    saving = [sum(own.work for own in two) / one.work for two, one in zip(alone, both, strict=True)]
    growth = [one.numbers / fmean(own.numbers for own in two) for two, one in zip(alone, both, strict=True)]
    counts = hulls(whole, balls, pairs[: effort.hulls])
    for each in counts:
        print(
            f"  hulls at {each.layer}: {each.single} balls and {each.pairs} pairs of {min(len(pairs), effort.hulls)}; "
            f"what is behind takes {each.work:.3g}"
        )
    shelf = folder / f"{checkpoint.stem} trees"
    shelf.mkdir()
    searched = everything[: effort.trees]
    carried = trees(whole, searched, names_of(network, path), shelf, effort.seconds)
    fresh = sum(carried.fresh[place].outcome.domains for place in carried.planted)
    planted = sum(cost.outcome.domains for cost in carried.planted.values())
    limits, proved = Limits(), sum(ball.proved for ball in balls)
    tree = [tree_work(cost, limits) for cost in carried.fresh.values()] or [0.0]
    rounds = [cost.outcome.domains / cost.outcome.rounds for cost in carried.fresh.values() if cost.outcome.rounds]
    lanes = filled([len(rows) for ball in balls for rows in ball.rows.values()]), filled(rounds)
    compose = fmean(own.work for two in alone for own in two)
    crown = fmean(ball.work for ball in balls)
    at_once = max(each.pairs * min(each.work, crown) for each in counts) / max(min(len(pairs), effort.hulls), 1)
    opened = 1 - proved / len(balls)
    total = crown + opened * (compose + fmean(tree))
    ratio = min(planted / fresh, 1.0) if fresh else 1.0
    walks = max((1 - 1 / size) * fmean(shares) for size, shares in common.items())
    spared = (
        0.5 * at_once
        + walks * crown
        + opened * (compose * (1 - 1 / max(fmean(saving), 1.0)) + (1 - ratio) * fmean(tree))
    )
    print(
        f"  multiply-adds of an image: CROWN {crown:.3g}; where it leaves it open ({opened:.0%}) composing "
        f"{compose:.3g}, tree {fmean(tree):.3g} (median {median(tree):.3g})"
    )
    best = max(counts, key=lambda each: each.pairs)
    cells = (
        checkpoint.stem,
        f"{fmean(same):.0%}, {fmean(four or [0.0]):.0%}",
        f"{fmean(unstable):.1%}",
        f"{fmean(kept):.0%}",
        f"{fmean(saving):.2f}",
        f"{fmean(growth):.1f}",
        ", ".join(f"{fmean(shares):.0%}" for shares in common.values()),
        f"{counts[0].pairs}, {best.pairs} behind {best.layer}",
        f"{planted} / {fresh} ({len(carried.planted)})",
        f"{fmean(carried.overlap or [0.0]):.0%}",
        f"{lanes[0]:.0%}, {lanes[1]:.0%}",
        f"{total / (total - spared):.2f}",
    )
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=PageHelp)
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
    effort = Effort(
        options.images, options.eps, options.composed, options.hulls, options.trees, options.seconds
    )  # fmt: skip
    warm_up()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for checkpoint in options.checkpoints:
            print(checkpoint.stem, flush=True)
            rows.append(row_of(checkpoint, effort, Path(folder)))
            print(rows[-1], flush=True)
    heads = ("same sign in 2, 4", "unstable", "kept", "compose", "size", "walks", "hulls", "tree", "splits", "lanes")
    print(f"| network | {' | '.join(heads)} | at best |")
    print(f"|---|{'---:|' * (len(heads) + 1)}")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    run_main(main)
