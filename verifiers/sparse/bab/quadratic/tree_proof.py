"""From a proof by second-order bounds to the entries that a certificate has of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prunecert.verifiers.sparse.bab.quadratic.kept_tree import PRECISION, KeptLeaf, KeptProof
from prunecert.verifiers.sparse.proofs.certificate import Entry, Parabolas, Slopes, Split


def entries(proof: KeptProof, places: Mapping[int, int]) -> list[Entry]:
    """Returns the tree of one alternative, a split before its two parts.

    Args:
        proof: Of a tree that is not forgotten.
        places: For each node that feeds ReLUs its name in the certificate.
    """
    result: list[Entry] = []
    tree, todo = proof.tree, [0]
    while todo:
        part = todo.pop()
        if part in tree.splits:
            place, active, inactive = tree.splits[part]
            result.append(Split(places[int(proof.nodes[place])], int(proof.indices[place])))
            todo += [inactive, active]
        else:
            result.append(_leaf(proof, tree.leaves[part], places[int(proof.nodes[-1])]))
    return result


def _leaf(proof: KeptProof, leaf: KeptLeaf, node: int) -> Parabolas:
    """Returns an entry: inputs that don't vary have a v and a D of 0, and errors come in the order of slots."""
    count = len(proof.varying)
    D, v = (np.zeros(proof.inputs + len(part) - count, dtype=part.dtype) for part in (leaf.D, leaf.v))
    for whole, part in ((D, leaf.D), (v, leaf.v)):
        whole[proof.varying] = part[:count]
        whole[proof.inputs :] = part[count:]
    slopes = Slopes(proof.slopes[None].astype(np.float32), PRECISION)
    return Parabolas(node, proof.weights.astype(np.float32), slopes, leaf.m, leaf.p, D, v)
