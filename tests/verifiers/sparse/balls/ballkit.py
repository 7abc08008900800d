"""Tiny networks over l2 balls, points of them, and exact answers by enumeration of the ReLUs' phases."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.balls.ranges import ball_of
from prunecert.verifiers.sparse.balls.walk import Ball
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.layers import dense


@dataclass(frozen=True, eq=False)
class Case:
    """A network, read by the engine, over a ball."""

    checker: Checker
    ball: Ball

    @property
    def network(self) -> Network:
        return self.checker.network

    def points(self, count: int = 400, seed: int = 0) -> Float64Array:
        """Returns points of the input set, half of them on the ball's surface unless a face of the box is nearer."""
        rng, ball = np.random.default_rng(seed), self.ball
        size = len(ball.center)
        away = rng.standard_normal((count, size))
        away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-300)
        shares = rng.random((count, 1)) ** (1 / size)
        shares[::2] = 1.0
        return np.clip(ball.center + away * shares * ball.radius * (1 - 1e-12), ball.low, ball.high)


def network(sizes: tuple[int, ...], seed: int, *, skip: bool = False, exact: bool = True) -> Network:
    """Returns a random dense network; with `skip`, the second layer's values are added to the third's.

    Without `exact`, its weights and biases stand for real numbers that they are within rounding of.
    """
    rng = np.random.default_rng(seed)
    nodes = [Node("input", sizes[0], (sizes[0],), (), *_zeros(sizes[0]))]
    for index, (before, size) in enumerate(itertools.pairwise(sizes)):
        matrix = (rng.standard_normal((size, before)) * math.sqrt(2 / before)).astype(np.float32)
        matrix[rng.random(matrix.shape) < 0.2] = 0
        terms = [Term(index, index > 0, dense(matrix), exact)]
        if skip and index == 2:
            more = rng.standard_normal((size, sizes[1])).astype(np.float32)
            terms.append(Term(1, False, dense(more), exact))
        bias = (0.2 * rng.standard_normal(size)).astype(np.float32)
        error = np.zeros_like(bias) if exact else np.abs(bias) * np.float32(2.0**-24)
        nodes.append(Node(f"layer {index}", size, (size,), tuple(terms), bias, error))
    return Network("random", (sizes[0],), tuple(nodes))


def _zeros(size: int) -> tuple[Any, Any]:
    return np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)


def case(
    sizes: tuple[int, ...] = (3, 5, 4, 2),
    seed: int = 0,
    radius: float = 0.3,
    *,
    box: float = np.inf,
    skip: bool = False,
    exact: bool = True,
) -> Case:
    """Returns a random network over a ball round a random point of [0, 1]^n, cut with a box `box` to each side."""
    center = np.random.default_rng([seed, 1]).random(sizes[0]).astype(np.float32).astype(np.float64)
    side = min(box, 2 * radius)
    ball = ball_of(center, radius, center - side, center + side / 2)
    return Case(Checker(network(sizes, seed, skip=skip, exact=exact)), ball)


def least(subject: Case, row: Float64Array) -> float:
    """Returns the least value of a row of the outputs over the input set, for one hidden layer.

    Each phase of the ReLUs is a convex programme with a linear objective: half-spaces, a box and a ball.
    """
    one, two = subject.network.nodes[1:]
    first, second = (node.terms[0].matrix.toarray().astype(np.float64) for node in (one, two))
    ball, weights = subject.ball, row @ second
    best = np.inf
    for phase in itertools.product((0.0, 1.0), repeat=one.size):
        active = np.array(phase)
        slope = (weights * active) @ first
        offset = float((weights * active) @ one.bias + row @ two.bias)
        sides = 2 * active - 1

        def half_spaces(x: Float64Array, sides: Float64Array = sides) -> Float64Array:
            values: Float64Array = sides * (first @ x + one.bias)
            return values

        constraints = [
            {"type": "ineq", "fun": half_spaces},
            {"type": "ineq", "fun": lambda x: ball.radius**2 - ((x - ball.center) ** 2).sum()},
        ]
        result = scipy.optimize.minimize(
            lambda x, slope=slope: slope @ x,
            ball.center,
            jac=lambda _, slope=slope: slope,
            bounds=list(zip(ball.low, ball.high, strict=True)),
            constraints=constraints,
            method="SLSQP",
            options={"maxiter": 200, "ftol": 1e-12},
        )
        violated = min(half_spaces(result.x).min(), ball.radius**2 - ((result.x - ball.center) ** 2).sum())
        if violated > -1e-7:
            best = min(best, float(result.fun) + offset)
    return best
