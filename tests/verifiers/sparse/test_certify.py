"""Certificates against rational arithmetic, and against attempts to fool them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.certify import Planes, grouped
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from tests.verifiers.sparse.searching import Prepared, draw, search

KINDS = ("fc", "conv", "skip", "conv-skip")
Exact = dict[int, list[Fraction]]


def planes_of(prepared: Prepared, batch: object) -> dict[int, Planes]:
    planes = {}
    for first, last in prepared.net.levels:
        span = slice(first, last)
        sign, alpha, beta = (getattr(batch, name)[:, span] for name in ("sign", "alpha", "beta"))
        planes[int(prepared.net.nodes[first])] = Planes(
            grouped(sign), grouped(alpha.astype(np.float64)), grouped(beta.astype(np.float64))
        )
    return planes


def exactly(network: Network, bounds: CheckedBounds, row: np.ndarray, planes: dict[int, Planes], lane: int) -> Fraction:
    """The bound of a row of the output that planes give, in rational arithmetic."""
    group, lane = divmod(lane, 16)
    linear: Exact = {len(network.nodes) - 1: [Fraction(float(value)) for value in row]}
    relu: Exact = {}
    total = Fraction(0)
    for node in range(len(network.nodes) - 1, 0, -1):
        size = network.nodes[node].size
        mu = linear.pop(node, [Fraction(0)] * size)
        if node in relu:
            free = bounds.unstable(node).tolist()
            for i, lam in enumerate(relu.pop(node)):
                low, high = Fraction(float(bounds.lower[node][i])), Fraction(float(bounds.upper[node][i]))
                if high <= 0:
                    continue
                if low >= 0:
                    part = Fraction(float(bounds.cuts[node][i])) if node in bounds.cuts else Fraction(0)
                    total += part * lam * (low if lam > 0 else high)
                    mu[i] += (1 - part) * lam
                    continue
                place, plane = free.index(i), planes[node]
                sign = int(plane.sign[group, place, lane])
                beta = Fraction(float(plane.beta[group, place, lane]))
                if sign:
                    mu[i] += lam - beta if sign > 0 else beta
                elif lam >= 0:
                    mu[i] += lam * Fraction(float(plane.alpha[group, place, lane]))
                else:
                    mu[i] += lam * high / (high - low)
                    total -= lam * high / (high - low) * low
        total += sum((m * Fraction(float(b)) for m, b in zip(mu, network.nodes[node].bias, strict=True)), Fraction(0))
        for term in network.nodes[node].terms:
            target = relu if term.activated else linear
            target.setdefault(term.source, [Fraction(0)] * network.nodes[term.source].size)
            matrix = term.matrix.tocoo()
            for r, column, weight in zip(matrix.row, matrix.col, matrix.data, strict=True):
                target[term.source][column] += mu[r] * Fraction(float(weight))
    for value, low_, high_ in zip(linear[0], bounds.lower[0], bounds.upper[0], strict=True):
        total += value * Fraction(float(low_ if value > 0 else high_))
    return total


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_certificates_are_just_below_the_rational_bound(kind: str, share: float, tmp_path: Path) -> None:
    drawn, network = draw(kind, 4, tmp_path)
    rng = np.random.default_rng(4)
    center = rng.random(drawn.inputs)
    prepared = Prepared(network, center - 0.5, center + 0.5, OutputSpec.robustness(0, drawn.classes))
    batch = prepared.dual.optimise(prepared.random(rng, 5), 5, target=np.inf)
    planes = planes_of(prepared, batch)
    if share:
        # Unstable neurons are none the less relaxed.
        sizes = {node: network.nodes[node].size for node in prepared.checker.activated}
        shares = {node: np.where(rng.random(size) < share, rng.random(size), 0.0) for node, size in sizes.items()}
        prepared.bounds.cuts.update(shares)
    rows = np.zeros((5, drawn.classes))
    rows[np.arange(5)] = prepared.rows[batch.disjunct]
    certified = prepared.checker.lower(prepared.checker.last, rows, prepared.bounds, planes)
    # Where the reader has merged layers, weights or biases are within a rounding to float32.
    merged = any(node.bias_error.any() or not all(term.exact for term in node.terms) for node in network.nodes)
    slack = 1e-5 if merged else 1e-9
    for d in range(5):
        exact = exactly(network, prepared.bounds, rows[d], planes, d)
        assert Fraction(float(certified[d])) <= exact
        assert float(exact) - certified[d] < slack
        # The search, in float32, found the same.
        assert share or batch.bound[d] == pytest.approx(float(exact), abs=1e-4)


def test_huge_and_missing_numbers_prove_nothing(tmp_path: Path) -> None:
    drawn, network = draw("fc", 4, tmp_path)
    center = np.random.default_rng(4).random(drawn.inputs)
    prepared = Prepared(network, center - 0.5, center + 0.5, OutputSpec.robustness(0, drawn.classes))
    for beta in (np.inf, np.nan, 1e60):
        batch = prepared.random(np.random.default_rng(1), 3)
        batch.beta[batch.sign != 0] = 0.1
        planes = planes_of(prepared, batch)
        for plane in planes.values():
            plane.beta[plane.sign != 0] = beta
        certified = prepared.checker.lower(
            prepared.checker.last, prepared.rows[batch.disjunct], prepared.bounds, planes
        )
        touched = (batch.sign != 0).any(axis=1)
        assert touched.any()
        assert np.all(certified[touched] == -np.inf)


def test_nonsense_planes_are_only_weak(tmp_path: Path) -> None:
    """Slopes outside [0, 1] and negative multipliers are clipped: no dual variables prove what is not so."""
    drawn, network = draw("skip", 6, tmp_path)
    rng = np.random.default_rng(6)
    center = rng.random(drawn.inputs)
    prepared = Prepared(network, center - 0.5, center + 0.5, OutputSpec.robustness(0, drawn.classes))
    points = prepared.net.point(rng.uniform(-1, 1, (4000, len(prepared.net.pixels))))
    least = (network.evaluate(points) @ prepared.rows.T).min(axis=0)
    for scale in (1.0, 10.0, -10.0):
        batch = prepared.dual.start(np.arange(len(prepared.rows)))
        planes = planes_of(prepared, batch)
        for plane in planes.values():
            plane.alpha[:] = rng.normal(size=plane.alpha.shape) * scale
            plane.beta[:] = rng.normal(size=plane.beta.shape) * scale
        certified = prepared.checker.lower(prepared.checker.last, prepared.rows, prepared.bounds, planes)
        assert np.all(certified <= least)


@pytest.mark.parametrize("name", ["sign", "alpha", "beta"])
def test_planes_of_another_shape_are_refused(name: str, tmp_path: Path) -> None:
    # They are read by a kernel, which would go on in memory that isn't theirs.
    drawn, network = draw("fc", 6, tmp_path)
    center = np.random.default_rng(6).random(drawn.inputs)
    prepared = Prepared(network, center - 0.5, center + 0.5, OutputSpec.robustness(0, drawn.classes))
    planes = planes_of(prepared, prepared.dual.start(np.arange(len(prepared.rows))))
    node = max(planes)
    planes[node] = planes[node]._replace(**{name: getattr(planes[node], name)[:, :1]})
    with pytest.raises(ValueError, match="dual variables of"):
        prepared.checker.lower(prepared.checker.last, prepared.rows, prepared.bounds, planes)


def test_a_leaf_that_fails_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search whose float32 bounds are too high by 0.05 still proves nothing wrong, and finds the same answer."""
    from prunecert.verifiers.sparse.bab.dual import Dual

    drawn, network = draw("fc", 8, tmp_path)
    answers = []
    walk = Dual._walk
    for shift in (0.0, 0.05):

        def lie(self: Dual, batch: object, *args: object, add: float = shift, **more: object) -> object:
            visited = walk(self, batch, *args, **more)  # type: ignore[arg-type]
            batch.bound[:] += np.float32(add)  # type: ignore[attr-defined]
            return visited

        monkeypatch.setattr(Dual, "_walk", lie)
        result = []
        rng = np.random.default_rng(8)
        for _ in range(12):
            center, radius = rng.random(drawn.inputs), rng.uniform(0.05, 0.25)
            label = int(network.evaluate(center[None])[0].argmax())
            spec = OutputSpec.robustness(label, drawn.classes)
            _, out = search(network, center - radius, center + radius, spec, split="relu")
            result.append((out.status, out.refused))
        answers.append(result)
    assert [status for status, _ in answers[0]] == [status for status, _ in answers[1]]
    assert sum(refused for _, refused in answers[1]) > sum(refused for _, refused in answers[0])
    assert {Status.SAT, Status.UNSAT} <= {status for status, _ in answers[0]}
