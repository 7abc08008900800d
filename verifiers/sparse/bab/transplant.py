"""From an earlier proof to subdomains of the network at hand, and from a search to what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.arrays import LANES32, Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab.dual import Batch, Dual, equal_weights, root
from prunecert.verifiers.sparse.bab.outcome import Outcome, Tree
from prunecert.verifiers.sparse.bab.tree_transplant import Planted, plant
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from prunecert.verifiers.sparse.onnx.neuron_names import Names
from prunecert.verifiers.sparse.proofs.file import MOST_ENTRIES, Proof, pack
from prunecert.verifiers.sparse.proofs.store import Earlier

Places = tuple[Int64Array, Int64Array]

#: Largest tree of a search without an answer that is kept, in entries.
_MOST_OPEN = 4096
#: What planting takes for each entry and unstable neuron, in bytes: phases, slopes, multipliers and copies of them.
_PLANTING = 32


def transplant(
    earlier: Earlier | None,
    names: Names | None,
    bounds: CheckedBounds,
    places: Places,
    open_: Int64Array,
    memory_mb: float,
) -> Planted | None:
    """Puts a stored tree onto the network at hand; None where nothing of it applies.

    Args:
        earlier: What searches on another network left, or on this one, or none.
        names: Of this network.
        bounds: Of all nodes over the box.
        places: Node and index of the unstable neurons.
        open_: Disjuncts that are still open.
        memory_mb: Most that the tree may take here, whatever it took there.
    """
    if earlier is None or names is None:
        return None
    nodes, indices = places
    proof = earlier.tree
    if proof is None or proof.summary.layout != names.layout:
        return None
    size = _PLANTING * len(proof.parent) * max(len(nodes), len(proof.node)) / 2**20
    if size > memory_mb:
        earlier.refuse_tree(f"it would fill {size:.0f} MiB, more than the limit of {memory_mb:g} MiB")
        return None
    place = np.full(len(proof.node), -1, dtype=np.int64)
    phase = np.ones(len(proof.node), dtype=np.int8)
    here = names.places(nodes, indices)
    for node in np.unique(proof.node):
        mine = np.flatnonzero(proof.node == node)
        size, kept = names.layout[node], names.original[node]
        number, active = np.full(size, -1, dtype=np.int64), np.ones(size, dtype=bool)
        number[here[nodes == node]] = np.flatnonzero(nodes == node)
        active[np.arange(size) if kept is None else kept] = bounds.lower[node] >= 0
        mine = mine[proof.index[mine] < size]
        place[mine] = number[proof.index[mine]]
        phase[mine] = np.where(active[proof.index[mine]], 1, -1)
    return plant(proof, {int(k): i for i, k in enumerate(open_)}, place, phase, _slopes(bounds, places))


def _slopes(bounds: CheckedBounds, places: Places) -> Float32Array:
    """Returns CROWN's lower slopes of the unstable neurons, [U]."""
    nodes, indices = places
    slopes = np.zeros(len(nodes), dtype=np.float32)
    for node in np.unique(nodes):
        mine = nodes == node
        slopes[mine] = bounds.upper[node][indices[mine]] >= -bounds.lower[node][indices[mine]]
    return slopes


def whole(bounds: CheckedBounds, places: Places, disjuncts: list[tuple[int, int]], chosen: Int64Array) -> Batch:
    """Returns the whole box for some disjuncts, with CROWN's slopes, equal weights and no bounds yet.

    Args:
        bounds: Of all nodes over the box.
        places: Node and index of the unstable neurons.
        disjuncts: Rows (start, stop) of each disjunct.
        chosen: Int64Array among them.
    """
    return root(_slopes(bounds, places), disjuncts, chosen)


def subdomains(planted: Planted, disjuncts: list[tuple[int, int]]) -> Batch:
    """Returns all entries of a planted tree, with equal weights of their disjuncts' rows and no bounds yet."""
    count = len(planted.parent)
    return Batch(
        planted.disjunct,
        planted.signs,
        planted.alpha,
        planted.beta,
        equal_weights(disjuncts, planted.disjunct),
        np.full(count, -np.inf, dtype=np.float32),
        np.full(count, -1, dtype=np.int64),
    )


def grow(tree: Tree, planted: Planted, chosen: Int64Array, batch: Batch, open_: Int64Array) -> None:
    """Adds some of a planted tree's entries, parents first, to a search's, and writes their places into the batch."""
    new = np.full(len(planted.parent) + 1, -1, dtype=np.int64)
    new[chosen] = len(tree.parent) + np.arange(len(chosen))
    batch.place[chosen] = tree.add(
        new[planted.parent[chosen]], planted.neuron[chosen], planted.sign[chosen], open_[planted.disjunct[chosen]]
    )


@dataclass(frozen=True, eq=False)
class Frontier:
    """Entries of a planted tree.

    Args:
        bounded: Those that were bounded, ascending.
        proved: Topmost ones with bounds above the margin.
        left: Leaves without.
    """

    bounded: Int64Array
    proved: Int64Array
    left: Int64Array


def topmost(
    dual: Dual, planted: Planted, batch: Batch, margin: float, ascend: Callable[[Batch], Batch], most: int
) -> Frontier | None:
    """Bounds a tree's entries from the top, and those below an entry only if it is not proved.

    Args:
        dual: Of the network at hand.
        planted: The tree.
        batch: All its entries; dual variables and bounds of those bounded are overwritten.
        margin: What counts as proved.
        ascend: Optimises subdomains.
        most: Entries after which None is returned.
    """
    level = np.flatnonzero(planted.parent < 0)
    bounded, proved, left = [], [], []
    while len(level):
        bounded.append(level)
        if sum(map(len, bounded)) > most:
            return None
        part = batch.take(level)
        dual.bound(part)
        inner = planted.inner[level]
        # Few at the top can spare many below them; leaves must be bounded well in any case.
        worth = np.flatnonzero(~(part.bound > margin) & (~inner | (len(level) <= LANES32)))
        part.put(worth, ascend(part.take(worth)))
        batch.put(level, part)
        good = part.bound > margin
        proved.append(level[good])
        left.append(level[~good & ~inner])
        level = np.flatnonzero(np.isin(planted.parent, level[~good & inner]))
    return Frontier(np.sort(np.concatenate(bounded)), np.concatenate(proved), np.concatenate(left))


def keep(
    network: str,
    names: Names,
    earlier: Earlier | None,
    outcome: Outcome,
    bounds: tuple[Float64Array, Float64Array],
    tree: Tree,
    leaves: list[Batch],
    places: Places,
) -> Proof | None:
    """Returns the tree that the next network's search can start from; None if there is none worth its time.

    Args:
        network: Hash of this network.
        names: Of this network.
        earlier: What this search started from.
        outcome: Of the search.
        bounds: CROWN's bounds of all disjuncts, and the leaves' certified ones.
        tree: Its splits.
        leaves: All subdomains without children, open ones, too.
        places: Node and index of the unstable neurons.
    """
    most = MOST_ENTRIES if outcome.status is Status.UNSAT else _MOST_OPEN
    if outcome.status is Status.SAT or not leaves or len(tree.parent) > most:
        return None
    whole = Batch.join(leaves)
    said = {
        "network": network,
        "status": str(outcome.status),
        "crown": tuple(bounds[0].tolist()),
        "proved": tuple(bounds[1].tolist()),
        "witness": 0 if earlier is None else earlier.mark,
    }
    splits = (tree.parent, tree.neuron, tree.sign, tree.disjunct)
    return pack(names, said, places, splits, (whole.place, whole.alpha, whole.beta))
