"""Compiles the kernels, or reads them from their cache, before the first question.

No clock of a question may run meanwhile: whoever starts one calls `warm_up` first. Where kernels are compiled, that is
said on standard error, once.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
import time

import numpy as np

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse import cache
from prunecert.verifiers.sparse.arrays import Float32Array
from prunecert.verifiers.sparse.balls.minimum import minimise
from prunecert.verifiers.sparse.crown.engine import METHODS, Engine, Question
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.node_bounds import intervals
from prunecert.verifiers.sparse.onnx.layers import dense, diagonal
from prunecert.verifiers.sparse.threads import threads


@functools.cache
def warm_up_bounds() -> None:
    """Bounds a small network in every way, so that compiling is no part of a question."""
    everything = _said("bounds")
    with cache.compiling("bounds"):
        _bound(everything)


@functools.cache
def warm_up() -> None:
    """Runs every kernel of the search once on a network of two neurons, and those of `warm_up_bounds`."""
    everything = _said("search")
    with cache.compiling("search"):
        _bound(everything)
        _search()


def _said(part: cache.Part) -> bool:
    """Says that kernels will be compiled; returns whether they will."""
    sentence = cache.pending(part)
    if sentence:
        print(f"prunecert: {sentence}", file=sys.stderr, flush=True)
    return bool(sentence)


def _bound(everything: bool) -> None:
    """Bounds a network in every way; one thread needs what several share only where it is to be kept."""
    rng = np.random.default_rng(0)
    shapes = ((2, 3, 3), (8, 3, 3), (8, 3, 3), (3,))
    nodes = [_input(shapes[0])]
    for index, shape in enumerate(shapes[1:]):
        matrix = rng.standard_normal((math.prod(shape), nodes[-1].size)).astype(np.float32)
        terms = [Term(index, index > 0, dense(matrix))]
        if index == 1:
            # Its channels are sums of taps.
            terms[0] = Term(1, True, diagonal(np.ones(len(matrix), dtype=np.float32)))
            terms.append(Term(1, False, diagonal(np.ones(len(matrix), dtype=np.float32))))
        nodes.append(_node(f"layer {index}", shape, tuple(terms)))
    network = Network("warm-up", shapes[0], tuple(nodes))
    room = np.zeros((1, 2))
    minimise(room, room, np.zeros(1, dtype=np.int64), -room, room, room[0], 1.0, room[0, :1], room[0, 1:], room, True)
    question = Question(np.zeros(18), np.ones(18), np.eye(3), np.zeros(3))
    for few_entries in (0, 10**6):
        engines = [Engine(network, 1, few_entries=few_entries)]
        if everything or threads() > 1:
            # Every level is shared, as large networks' are.
            engines.append(Engine(network, 2, few_entries=few_entries, most=0))
        for engine, method in itertools.product(engines, METHODS):
            engine.bound(question, method)
        # As a proof's network is compared with onnxruntime.
        engines[0].evaluate(question.lower[None])
    if everything:
        # A question about an l2 ball reads them in a hundredth of a second, for which others need not wait.
        _balls(network)


def _balls(network: Network) -> None:
    from prunecert.verifiers.sparse.balls.products import pull, weighed
    from prunecert.verifiers.sparse.certify import Checker

    checker, size = Checker(network), network.nodes[2].size
    for rows in (np.zeros((1, size)), np.ones((1, size))):
        weighed(rows, rows[0], rows[0])
        pull(checker, 2, rows, {}, {})


def _search() -> None:
    from prunecert.verifiers.sparse.bab.outcome import Limits
    from prunecert.verifiers.sparse.bab.search import Search
    from prunecert.verifiers.sparse.certify import Checker

    def term(weights: list[list[float]], source: int) -> tuple[Term, ...]:
        return (Term(source, source > 0, dense(np.array(weights, dtype=np.float32))),)

    nodes = (
        _input((2,)),
        _node("hidden", (2,), term([[1.0, 1.0], [1.0, -1.0]], 0)),
        _node("deeper", (2,), term([[1.0, -1.0], [1.0, 1.0]], 1), np.array([0.0, -0.5], dtype=np.float32)),
        _node("output", (2,), term([[1.0, 1.0], [-1.0, -1.0]], 2), np.array([0.5, -0.5], dtype=np.float32)),
    )
    network = Network("warm-up", (2,), nodes)
    corner = np.ones(2, dtype=np.float32)
    # Between CROWN's bound, -4.5, and the truth, -3.97: it takes a split.
    spec = OutputSpec(((np.array([[-1.0, 0.0]]), np.array([-4.2])),))
    engine, checker = Engine(network, 1), Checker(network)
    # By which hidden bounds are improved.
    own, box = nodes[1], (-corner.astype(np.float64), corner.astype(np.float64))
    intervals(own.bias, own.bias_error, checker.products[1], [box])
    shared = Limits(split="relu", tighten_after=0, share_from=0)
    for limits in (Limits(split="relu"), Limits(split="input"), shared):
        Search(engine, checker, -corner, corner, spec, limits, time.monotonic() + 600).run()


def _input(shape: tuple[int, ...]) -> Node:
    return _node("input", shape, ())


def _node(name: str, shape: tuple[int, ...], terms: tuple[Term, ...], bias: Float32Array | None = None) -> Node:
    zeros = np.zeros(math.prod(shape), dtype=np.float32)
    return Node(name, len(zeros), shape, terms, zeros if bias is None else bias, zeros)
