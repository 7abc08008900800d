"""Ways to corrupt the leaves of a certificate that hold by parabolas; see `attacks`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.proofs.certificate import CaseProof, Parabolas, Split
from tests.verifiers.checker import attacks
from tests.verifiers.checker.attacks import Body, Rng

Change = Callable[[Parabolas, Rng], Parabolas]


def _with(leaf: Parabolas, name: str, numbers: Any) -> Parabolas:
    return replace(leaf, **{name: numbers})


def _scaled(name: str, factor: float) -> Change:
    """Multiplies some of a leaf's numbers, or all."""

    def change(leaf: Parabolas, rng: Rng) -> Parabolas:
        numbers: npt.NDArray[np.floating] = getattr(leaf, name).copy()
        some = rng.random(numbers.shape) < rng.choice([0.05, 0.5, 1.0])
        with np.errstate(over="ignore", invalid="ignore"):
            numbers[some] *= numbers.dtype.type(factor)
        return _with(leaf, name, numbers)

    return change


def _planted(name: str, number: float) -> Change:
    """Overwrites some of a leaf's numbers."""

    def change(leaf: Parabolas, rng: Rng) -> Parabolas:
        numbers: npt.NDArray[np.floating] = getattr(leaf, name).copy()
        with np.errstate(over="ignore"):
            numbers[rng.integers(max(1, len(numbers)), size=3) % max(1, len(numbers))] = number
        return _with(leaf, name, numbers)

    return change


def _shuffled(name: str) -> Change:
    return lambda leaf, rng: _with(leaf, name, rng.permutation(getattr(leaf, name)))


def _sloped(value: float) -> Change:
    return lambda leaf, rng: replace(leaf, slopes=attacks.sloped(leaf.slopes, value, rng))


CHANGES: dict[str, Change] = {
    "m doubled": _scaled("m", 2.0),
    "m negated": _scaled("m", -1.0),
    "m no number": _planted("m", np.nan),
    "m huge": _planted("m", 3e38),
    "m halved": _scaled("m", 0.5),
    "m shuffled": _shuffled("m"),
    "p times 10": _scaled("p", 10.0),
    "p a hundredth": _scaled("p", 0.01),
    "p negated": _scaled("p", -1.0),
    "p huge": _planted("p", 3e38),
    "p shuffled": _shuffled("p"),
    "D a tenth": _scaled("D", 0.1),
    "D 0": _scaled("D", 0.0),
    "D negated": _scaled("D", -1.0),
    "D times 10": _scaled("D", 10.0),
    "D infinite": _planted("D", np.inf),
    "D shuffled": _shuffled("D"),
    "D doubled": _scaled("D", 2.0),
    "v doubled": _scaled("v", 2.0),
    "v negated": _scaled("v", -1.0),
    "v far": _planted("v", 6e4),
    "v no number": _planted("v", np.nan),
    "v shuffled": _shuffled("v"),
    "weights negated": _scaled("weights", -1.0),
    "weights 0": _scaled("weights", 0.0),
    "weights huge": _scaled("weights", 1e29),
    "slope above 1": _sloped(1.5),
    "slopes 0": _sloped(0.0),
    "slopes 1": _sloped(1.0),
}
#: Of `attacks.PROOFS`, those that don't ask for a leaf by walks.
SHARED = ("split changed", "sides swapped", "bounds loosened", "slopes of other neurons", "trees exchanged")


def _on_leaf(change: Change) -> Callable[[CaseProof, Rng], CaseProof]:
    def attack(proof: CaseProof, rng: Rng) -> CaseProof:
        trees = [list(entries) for entries in proof.trees]
        places = [
            (t, e) for t, tree in enumerate(trees) for e, entry in enumerate(tree) if isinstance(entry, Parabolas)
        ]
        for t, e in [places[k] for k in rng.integers(len(places), size=int(rng.integers(1, 4)))]:
            leaf = trees[t][e]
            assert isinstance(leaf, Parabolas)
            trees[t][e] = change(leaf, rng)
        return replace(proof, trees=trees)

    return attack


def _one_side_only(proof: CaseProof, rng: Rng) -> CaseProof:
    """One side of the first split stands for both; multipliers of a split before the last hidden layer go with it."""
    trees = [list(entries) for entries in proof.trees]
    for number, entries in enumerate(trees):
        if isinstance(entries[0], Split):
            trees[number] = attacks._halves(entries)[int(rng.integers(2))]
    return replace(proof, trees=trees)


PROOFS = {name: _on_leaf(change) for name, change in CHANGES.items()}
PROOFS |= {name: attacks.PROOFS[name] for name in SHARED} | {"one side only": _one_side_only}
KINDS = (*PROOFS, *attacks.BODIES, *attacks.SHAPES)


def attacked(kind: str, proof: CaseProof, rng: Rng) -> Body:
    """Returns the bytes of a proof that was corrupted in one way."""
    return PROOFS[kind](proof, rng).encoded() if kind in PROOFS else attacks.attacked(kind, proof, rng)
