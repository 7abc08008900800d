"""Lower slopes where intervals have narrowed what walks say: exact to the slope, and no bound is looser for it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from prunecert.verifiers.sparse.crown.engine import METHODS, CrownBounds, Engine, Method, Question
from prunecert.verifiers.sparse.network import Network
from tests.verifiers.sparse.crown.test_engine import chain, convolutions, question, rational
from tests.verifiers.sparse.ways import WAYS, Way


def interval(network: Network, bounds: CrownBounds, row: dict[int, Fraction], node: int) -> Fraction:
    """Bounds a linear function of a node's values from below by what feeds the node, in rational arithmetic."""
    (term,) = network.nodes[node].terms
    merged: dict[int, Fraction] = {}
    total = Fraction(0)
    for i, value in row.items():
        total += value * Fraction(float(network.nodes[node].bias[i]))
        for k in range(term.matrix.indptr[i], term.matrix.indptr[i + 1]):
            j = int(term.matrix.indices[k])
            merged[j] = merged.get(j, Fraction(0)) + value * Fraction(float(term.matrix.data[k]))
    for j, value in merged.items():
        end = (bounds.lower if value > 0 else bounds.upper)[node - 1][j]
        total += value * Fraction(max(float(end), 0.0))
    return total


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("network", "eps", "near"),
    [(chain((5, 9, 9, 9, 4), 31), 0.3, 3), (convolutions(0), 0.1, 30)],
    ids=["chain", "convolutions"],
)
def test_what_intervals_narrow_keeps_the_slopes_of_walks(network: Network, eps: float, near: int, way: Way) -> None:
    """As the adapters bound: against rational arithmetic, with the lower slopes that exact walks say."""
    query = question(network, eps, 1)
    bounds = Engine(network, threads=1, **way._asdict()).bound(query)
    slopes: dict[int, dict[int, int]] = {1: {}}
    turned = 0
    for node in range(2, len(network.nodes) - 1):
        slopes[node] = {}
        for i in range(network.nodes[node].size):
            if not bounds.lower[node][i] < 0 < bounds.upper[node][i]:
                continue
            ends = []
            for sign in (1, -1):
                row = {i: Fraction(sign)}
                ends.append((rational(network, query, bounds, row, node, slopes), interval(network, bounds, row, node)))
            (low, below), (high, above) = ends
            room = Fraction(near, 10**5) * max(Fraction(1), -high - low)
            assert max(low, below) - room <= Fraction(float(bounds.lower[node][i])) <= max(low, below)
            assert -max(high, above) <= Fraction(float(bounds.upper[node][i])) <= -max(high, above) + room
            slopes[node][i] = int(-high > -low)
            turned += slopes[node][i] != int(bounds.upper[node][i] > -bounds.lower[node][i])
    last, other = len(network.nodes) - 1, 0
    alone = Engine(network, threads=1, intersect=False, **way._asdict()).bound(query)
    for k, coefficients in enumerate(query.matrix):
        row = {i: Fraction(float(value)) for i, value in enumerate(coefficients)}
        offset = Fraction(float(query.offsets[k]))
        walked = rational(network, query, bounds, row, last, slopes) - offset
        exact = max(walked, interval(network, bounds, row, last) - offset)
        room = Fraction(near, 10**5) * max(Fraction(1), abs(exact))
        assert exact - room <= Fraction(float(bounds.rows[k])) <= exact
        other += abs(walked - rational(network, query, bounds, row, last) + offset) > room
        assert bounds.rows[k] >= alone.rows[k] - float(room)
    # Otherwise bounds would say another slope somewhere, and other rows be had.
    assert turned
    assert other


@pytest.mark.parametrize("way", WAYS)
def test_what_intervals_narrow_makes_no_bound_looser(way: Way) -> None:
    """No theorem, but so it is on all of these."""
    better = 0
    for seed in range(12):
        network = chain((5, 9, 9, 9, 4), seed) if seed % 4 else convolutions(seed)
        query = question(network, 0.3 if seed % 4 else 0.1, 1)
        rows = [
            Engine(network, threads=1, intersect=intersect, **way._asdict()).bound(query).rows
            for intersect in (True, False)
        ]
        assert np.all(rows[0] >= rows[1] - 1e-6 * (1 + np.abs(rows[1])))
        better += int((rows[0] > rows[1] + 1e-3).sum())
    assert better > 10


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("intersect", [True, False])
def test_no_slope_is_left_of_the_image_before(intersect: bool, way: Way) -> None:
    """One engine, asked by turns, answers as new ones do: bit for bit, and whether or not threads share an image."""
    turns: tuple[tuple[int, Method], ...] = (
        (0, "crown"), (0, "crown-ibp"), (2, "crown"), (1, "crown"), (0, "ibp"), (0, "crown"),
    )  # fmt: skip
    left = 0
    for network, widths in ((chain((5, 9, 40, 40, 4), 31), (0.3, 0.0, 0.02)), (convolutions(0), (0.1, 0.0, 0.01))):
        questions = [question(network, eps, seed) for seed, eps in enumerate(widths, 1)]

        def fresh(query: Question, method: Method, network: Network = network) -> CrownBounds:
            return Engine(network, 1, intersect, **way._asdict()).bound(query, method)

        alone = {(k, method): fresh(query, method) for k, query in enumerate(questions) for method in METHODS}
        for threads in (1, 3):
            engine = Engine(network, threads, intersect, most=0, **way._asdict())
            # What walks said of the widest box is followed by boxes and methods of which walks say nothing.
            for k, method in turns:
                bounds, expected = engine.bound(questions[k], method), alone[k, method]
                np.testing.assert_array_equal(bounds.rows, expected.rows)
                assert bounds.unstable == expected.unstable
                for node, low in expected.lower.items():
                    np.testing.assert_array_equal(bounds.lower[node], low)
                    np.testing.assert_array_equal(bounds.upper[node], expected.upper[node])
        # Slopes of the walks would make other rows than those of the intervals.
        walked, by_intervals = alone[0, "crown"], alone[0, "crown-ibp"]
        for node, low in walked.lower.items():
            rising = by_intervals.upper[node] > -by_intervals.lower[node]
            left += int(((walked.upper[node] > -low) != rising).sum())
    assert left
