"""Compiles the search's kernels before the first question."""

from __future__ import annotations

import time

import numpy as np
import scipy.sparse

from verifiers.base import OutputSpec
from verifiers.sparse.certify import Checker
from verifiers.sparse.crown import Engine
from verifiers.sparse.network import Network, Node, Term
from verifiers.sparse.outcome import Limits
from verifiers.sparse.search import Search


def warm_up() -> None:
    """Runs every kernel once on a network of two neurons, so that compiling them is no part of a search."""

    def node(name: str, weights: list[list[float]], bias: list[float], source: int, activated: bool) -> Node:
        matrix = scipy.sparse.csr_array(np.array(weights, dtype=np.float32))
        zeros = np.zeros(len(bias), dtype=np.float32)
        return Node(
            name, len(bias), (len(bias),), (Term(source, activated, matrix),), np.array(bias, dtype=np.float32), zeros
        )

    zeros = np.zeros(2, dtype=np.float32)
    nodes = (
        Node("input", 2, (2,), (), zeros, zeros),
        node("hidden", [[1.0, 1.0], [1.0, -1.0]], [0.0, 0.0], 0, False),
        node("deeper", [[1.0, -1.0], [1.0, 1.0]], [0.0, -0.5], 1, True),
        node("output", [[1.0, 1.0], [-1.0, -1.0]], [0.5, -0.5], 2, True),
    )
    network = Network("warm-up", (2,), nodes)
    corner_ = np.ones(2, dtype=np.float32)
    # Between CROWN's bound, -4.5, and the truth, -3.97: it takes a split.
    spec = OutputSpec(((np.array([[-1.0, 0.0]]), np.array([-4.2])),))
    engine, checker = Engine(network, 1), Checker(network)
    Search(engine, checker, -corner_, corner_, spec, Limits(), time.monotonic() + 600).run()
