"""Adapters to bounds, attacks and complete verifiers; usable alone on anybody's ONNX file."""

from __future__ import annotations

from prunecert.registry import Registry
from prunecert.verifiers.base import Verifier

#: Every verifier by name; nothing is imported before it is asked for.
VERIFIERS: Registry[type[Verifier]] = Registry(
    "verifier",
    {
        "abcrown": "prunecert.verifiers.abcrown:AbCrown",
        "alpha-crown": "prunecert.verifiers.lirpa:AlphaCrown",
        "autoattack": "prunecert.verifiers.autoattack:AutoAttack",
        "crown": "prunecert.verifiers.lirpa:Crown",
        "crown-ibp": "prunecert.verifiers.lirpa:CrownIbp",
        "ibp": "prunecert.verifiers.lirpa:Ibp",
        "marabou": "prunecert.verifiers.marabou:Marabou",
        "neuralsat": "prunecert.verifiers.neuralsat:NeuralSat",
        "pgd": "prunecert.verifiers.attack:Pgd",
        "sparse-alpha-crown": "prunecert.verifiers.sparse_search:SparseAlphaCrown",
        "sparse-bab": "prunecert.verifiers.sparse_search:SparseBab",
        "sparse-crown": "prunecert.verifiers.sparse_bounds:SparseCrown",
        "sparse-crown-ibp": "prunecert.verifiers.sparse_bounds:SparseCrownIbp",
        "sparse-ibp": "prunecert.verifiers.sparse_bounds:SparseIbp",
        "smoothing": "prunecert.verifiers.smoothing:Smoothing",
    },
)
