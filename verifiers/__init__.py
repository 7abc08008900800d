"""Adapters to bounds, attacks and complete verifiers; usable alone on anybody's ONNX file."""

from __future__ import annotations

from prunecert.registry import Registry
from verifiers.base import Verifier

#: Every verifier by name; nothing is imported before it is asked for.
VERIFIERS: Registry[type[Verifier]] = Registry(
    "verifier",
    {
        "abcrown": "verifiers.abcrown:AbCrown",
        "alpha-crown": "verifiers.lirpa:AlphaCrown",
        "autoattack": "verifiers.autoattack:AutoAttack",
        "crown": "verifiers.lirpa:Crown",
        "crown-ibp": "verifiers.lirpa:CrownIbp",
        "ibp": "verifiers.lirpa:Ibp",
        "marabou": "verifiers.marabou:Marabou",
        "neuralsat": "verifiers.neuralsat:NeuralSat",
        "pgd": "verifiers.attack:Pgd",
        "sparse-alpha-crown": "verifiers.sparse_search:SparseAlphaCrown",
        "sparse-bab": "verifiers.sparse_search:SparseBab",
        "sparse-crown": "verifiers.sparse_bounds:SparseCrown",
        "sparse-crown-ibp": "verifiers.sparse_bounds:SparseCrownIbp",
        "sparse-ibp": "verifiers.sparse_bounds:SparseIbp",
        "smoothing": "verifiers.smoothing:Smoothing",
    },
)
