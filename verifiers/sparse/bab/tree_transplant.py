"""A stored tree on another network: its splits in the terms of the unstable neurons that there are now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.sparse.arrays import BoolArray, Float32Array, Int8Array, Int64Array
from prunecert.verifiers.sparse.proofs.file import ALPHA, Proof


@dataclass(frozen=True, eq=False)
class Planted:
    """A tree on the network at hand. T entries, parents before children; U its unstable neurons.

    Args:
        disjunct: [T] index among the open disjuncts.
        parent: [T]; -1 for the box.
        neuron: [T] of the last split; -1 for the box.
        sign: [T] its phase.
        signs: [T, U] int8, all splits.
        alpha: [T, U]: the leaves' slopes, and means of those below for the others.
        beta: [T, U], likewise, for split neurons.
        inner: [T] whether it has children.
    """

    disjunct: Int64Array
    parent: Int64Array
    neuron: Int64Array
    sign: Int64Array
    signs: Int8Array
    alpha: Float32Array
    beta: Float32Array
    inner: BoolArray


def plant(
    proof: Proof,
    open_: dict[int, int],
    place: Int64Array,
    phase: Int8Array,
    default: Float32Array,
) -> Planted | None:
    """Copies the trees of the disjuncts that are still open.

    Args:
        proof: Checked by `Proof.check`.
        open_: Disjunct of the property -> index among the open ones.
        place: [old U] for each neuron of the proof its number among the unstable ones now; -1 if it is stable.
        phase: [old U] for those, its phase; 1 where it is not known.
        default: [U] slopes for neurons that the proof has none for.

    Returns:
        The trees, or None if the proof has none of these disjuncts.
    """
    entries, width = len(proof.parent), len(default)
    children: list[list[int]] = [[] for _ in range(entries)]
    for entry, parent in enumerate(proof.parent.tolist()):
        if parent >= 0:
            children[parent].append(entry)
    row = np.full(entries, -1, dtype=np.int64)
    row[proof.leaf] = np.arange(len(proof.leaf))
    disjunct: list[int] = []
    parents: list[int] = []
    neurons: list[int] = []
    signs: list[int] = []
    leaf: list[int] = []
    inner: list[bool] = []
    planted: set[int] = set()
    stack: list[tuple[int, int, int, int, int, dict[int, int]]] = []
    for entry in np.flatnonzero(proof.parent < 0).tolist():
        mine = open_.get(int(proof.disjunct[entry]))
        if mine is not None and mine not in planted:
            planted.add(mine)
            stack.append((entry, mine, -1, -1, 0, {}))
    while stack:
        old, mine, parent, neuron, sign, path = stack.pop()
        # Down through splits that say nothing here.
        while children[old]:
            split = int(proof.neuron[children[old][0]])
            now = int(place[split])
            side = path.get(now, 0) if now >= 0 else int(phase[split])
            if side == 0:
                break
            old = next(child for child in children[old] if int(proof.sign[child]) == side)
        new = len(parents)
        disjunct.append(mine)
        parents.append(parent)
        neurons.append(neuron)
        signs.append(sign)
        leaf.append(int(row[old]))
        inner.append(bool(children[old]))
        for child in children[old]:
            now, phase_ = int(place[int(proof.neuron[child])]), int(proof.sign[child])
            stack.append((child, mine, new, now, phase_, {**path, now: phase_}))
    if not parents:
        return None
    count = len(parents)
    parent_, neuron_, sign_ = (np.array(values, dtype=np.int64) for values in (parents, neurons, signs))
    table = np.zeros((count, width), dtype=np.int8)
    depth = np.zeros(count, dtype=np.int64)
    for entry in range(count):
        if parent_[entry] >= 0:
            table[entry] = table[parent_[entry]]
            table[entry, neuron_[entry]] = sign_[entry]
            depth[entry] = depth[parent_[entry]] + 1
    alpha, beta = _duals(proof, place, default, np.array(leaf), count)
    weight = np.array([float(i >= 0) for i in leaf])
    for level in range(int(depth.max()), 0, -1):
        at = np.flatnonzero(depth == level)
        np.add.at(weight, parent_[at], weight[at])
        np.add.at(alpha, parent_[at], alpha[at])
        np.add.at(beta, parent_[at], beta[at])
    some = np.maximum(weight, 1.0)[:, None].astype(np.float32)
    alpha = np.where(weight[:, None] > 0, alpha / some, default).astype(np.float32)
    beta = np.where(table != 0, beta / some, 0).astype(np.float32)
    return Planted(
        np.array(disjunct, dtype=np.int64), parent_, neuron_, sign_, table, alpha, beta, np.array(inner, dtype=bool)
    )


def _duals(
    proof: Proof, place: Int64Array, default: Float32Array, leaf: Int64Array, count: int
) -> tuple[Float32Array, Float32Array]:
    """Returns α and β [count, U] of the entries that are leaves of the proof; 0 for the others."""
    there = np.flatnonzero(place >= 0)
    alpha = np.zeros((count, len(default)), dtype=np.float32)
    beta = np.zeros((count, len(default)), dtype=np.float32)
    owner = np.flatnonzero(leaf >= 0)
    alpha[owner] = default
    alpha[np.ix_(owner, place[there])] = proof.alpha[np.ix_(leaf[owner], there)].astype(np.float32) / np.float32(ALPHA)
    full = np.zeros(proof.alpha.shape, dtype=np.float32)
    full[proof.beta_leaf, proof.beta_neuron] = proof.beta
    beta[np.ix_(owner, place[there])] = full[np.ix_(leaf[owner], there)]
    return alpha, beta
