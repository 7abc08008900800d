"""From a finished search to what a certificate says of it: how hidden neurons were bounded, and the trees of splits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.bab.branch_and_bound import BranchAndBound
from prunecert.verifiers.sparse.bab.dual import Batch
from prunecert.verifiers.sparse.bab.quadratic.kept_tree import KeptProof
from prunecert.verifiers.sparse.proofs.certificate import PRECISIONS, Entry, Leaf, SiteBounds, Slopes, Split, Walk

Single = npt.NDArray[np.float32]

#: Least bound that a leaf must keep when its slopes are rounded.
_LEAST = 1e-9


class IncompleteTreeError(ValueError):
    """The search left a part without a proof; the message says which."""


def sites(run: BranchAndBound, walked: Mapping[int, tuple[Walk, ...]]) -> list[SiteBounds]:
    """Returns how the nodes that feed ReLUs were bounded.

    Args:
        run: A search that answered `unsat` and split.
        walked: Of each such node the walks before those with slopes of the search's. Where these bounds stand within
            `first_sites` they aren't made to the input again, which might stabilise other neurons than the search had.
    """
    nodes, indices = run.prover.nodes, run.prover.indices
    result = []
    for node in run.checker.activated:
        walks = [*walked[node]]
        for part in run.tightened:
            before = nodes < node
            same = np.array_equal(part.before[0], nodes[before]) and np.array_equal(part.before[1], indices[before])
            if part.node == node and same:
                walks.append(Walk(part.places, Slopes(part.alpha)))
        result.append(SiteBounds(tuple(walks), indices[nodes == node]))
    return result


def first_sites(proof: KeptProof, walked: Mapping[int, tuple[Walk, ...]]) -> list[SiteBounds]:
    """Returns how they were bounded before hidden bounds were improved.

    Args:
        proof: By second-order bounds, over these.
        walked: Of each node that feeds ReLUs its walks.
    """
    return [SiteBounds(own, proof.indices[proof.nodes == node]) for node, own in walked.items()]


def trees(run: BranchAndBound, places: Mapping[int, int]) -> dict[int, list[Entry]]:
    """Returns for each alternative that the search split its tree, entries as certificates have them.

    Args:
        run: A search that answered `unsat`, with leaves; what second-order bounds prove is not among them.
        places: For each node that feeds ReLUs its name in the certificate.

    Raises:
        IncompleteTreeError: A part has neither a proof nor children.
    """
    batch = Batch.join(run.leaves)
    slopes = _rounded(run, batch)
    leaf = {int(place): row for row, place in enumerate(batch.place)}
    parent, neuron, sign = run.tree.parent, run.tree.neuron, run.tree.sign
    children: dict[int, dict[int, int]] = {}
    for entry, above in enumerate(parent):
        if above >= 0:
            children.setdefault(above, {})[sign[entry]] = entry
    result: dict[int, list[Entry]] = {}
    for root in (entry for entry, above in enumerate(parent) if above < 0):
        if run.tree.disjunct[root] in run.second_order.proofs:
            continue
        entries = result.setdefault(run.tree.disjunct[root], [])
        todo = [root]
        while todo:
            entry = todo.pop()
            below = children.get(entry)
            if below is not None:
                split = neuron[below[1]]
                entries.append(Split(places[int(run.prover.nodes[split])], int(run.prover.indices[split])))
                todo += [below[-1], below[1]]
                continue
            if entry not in leaf:
                raise IncompleteTreeError(f"entry {entry} of the search's tree has no proof")
            row, path = leaf[entry], []
            while parent[entry] >= 0:
                path.append(neuron[entry])
                entry = parent[entry]
            first, last = run.disjuncts[int(batch.disjunct[row])]
            beta = batch.beta[row, np.array(path[::-1], dtype=np.int64)]
            entries.append(Leaf(batch.weights[row, first:last], beta, slopes[row]))
    return result


def _rounded(run: BranchAndBound, batch: Batch) -> list[Slopes]:
    """Returns each leaf's slopes as coarsely as its proof allows; those without effect become 0."""
    look = run.composed.dual.look(batch.take(np.arange(len(batch))))
    alpha = np.where((look.lam > 0) & (batch.sign == 0), batch.alpha, 0).astype(np.float32)
    precision = np.full(len(batch), len(PRECISIONS) - 1)
    left = np.arange(len(batch))
    for number in range(len(PRECISIONS) - 1):
        part = batch.take(left)
        part.alpha[:] = Slopes(alpha[left], number).rounded()
        good = run.prover.certify(part) > _LEAST
        precision[left[good]] = number
        left = left[~good]
    return [Slopes(alpha[row : row + 1], int(precision[row])) for row in range(len(batch))]
