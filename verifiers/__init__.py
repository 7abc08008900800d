"""Adapters to bounds, attacks and complete verifiers; usable alone on anybody's ONNX file.

A verifier is found by its name, and asked in a process of its own:

>>> from prunecert.verifiers import VERIFIERS
>>> bounds = VERIFIERS.get("sparse-crown")
>>> bounds.name, str(bounds.kind)
('sparse-crown', 'incomplete')
>>> VERIFIERS.get("sparse-crwn")  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
prunecert.errors.UserError: Unknown verifier 'sparse-crwn'. Did you mean 'sparse-crown'? ...
"""

from __future__ import annotations

from prunecert.registry import Registry
from prunecert.verifiers.base import Verifier

#: Every verifier by name; nothing is imported before it is asked for.
VERIFIERS: Registry[type[Verifier]] = Registry(
    "verifier",
    {
        "abcrown": "prunecert.verifiers.adapters.abcrown.adapter:AbCrown",
        "alpha-crown": "prunecert.verifiers.adapters.lirpa.adapter:AlphaCrown",
        "autoattack": "prunecert.verifiers.adapters.autoattack.adapter:AutoAttack",
        "crown": "prunecert.verifiers.adapters.lirpa.adapter:Crown",
        "crown-ibp": "prunecert.verifiers.adapters.lirpa.adapter:CrownIbp",
        "ibp": "prunecert.verifiers.adapters.lirpa.adapter:Ibp",
        "marabou": "prunecert.verifiers.adapters.marabou.adapter:Marabou",
        "neuralsat": "prunecert.verifiers.adapters.neuralsat.adapter:NeuralSat",
        "pgd": "prunecert.verifiers.adapters.pgd.adapter:Pgd",
        "sparse-alpha-crown": "prunecert.verifiers.adapters.sparse_search:SparseAlphaCrown",
        "sparse-bab": "prunecert.verifiers.adapters.sparse_search:SparseBab",
        "sparse-crown": "prunecert.verifiers.adapters.sparse_bounds:SparseCrown",
        "sparse-crown-ibp": "prunecert.verifiers.adapters.sparse_bounds:SparseCrownIbp",
        "sparse-ibp": "prunecert.verifiers.adapters.sparse_bounds:SparseIbp",
        "sparse-pair": "prunecert.verifiers.adapters.sparse_pair:SparsePair",
        "smoothing": "prunecert.verifiers.adapters.smoothing:Smoothing",
        "vibecheck": "prunecert.verifiers.adapters.vibecheck.adapter:Vibecheck",
    },
)
