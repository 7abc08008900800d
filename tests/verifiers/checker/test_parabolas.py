"""Leaves by parabolas hold at every point of their part, in rational arithmetic, whatever a file chooses."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.checker import parabolas
from prunecert.verifiers.checker.bounds import Bounds
from prunecert.verifiers.checker.files import RefusedError
from prunecert.verifiers.checker.nodes import Network, Node, dense
from prunecert.verifiers.checker.parabolas import CurvedChoice, Forms, _excess, _shifts
from tests.verifiers.checker import kit
from tests.verifiers.checker.test_bounds import bounded, evaluated, random_network, rational_values

Array = np.ndarray


def outweighing(forms: Forms, p: Array, D: Array) -> Array:
    """Makes D as large as it must be, as a whole."""
    for factor in 10.0 ** np.arange(0, 40, 0.25):
        try:
            _excess(forms._rows, p, factor * D)
        except RefusedError:
            continue
        return np.asarray(factor * D)
    pytest.fail("no D is large enough")


def drawn_choice(rng: np.random.Generator, forms: Forms) -> CurvedChoice:
    """Draws numbers, near the chords where m is concerned, so that bounds are near the least value."""
    n, width = forms._rows.shape
    c = np.append(forms.row[3], np.zeros(n - len(forms.row[3])))
    span = np.maximum(forms._high - forms._low, 1e-30)
    chord = np.where(c < 0, c * np.clip(forms._high / span, 0, 1), c * rng.random(n))
    wild = rng.random() < 0.3
    m = chord + wild * np.abs(c).max(initial=1.0) * rng.standard_normal(n)
    p = np.where(rng.random(n) < 0.7, np.abs(c) / span * rng.random(n), 0.0)
    D = outweighing(forms, p, np.abs(forms.row[0]) + 1e-3 * np.abs(forms.row[0]).max(initial=1.0) + 1e-12)
    return CurvedChoice(m, p, D, np.clip(rng.standard_normal(width), -1, 1))


def part(rng: np.random.Generator, bounds: Bounds, sites: list[int], values: list[Array]) -> tuple[int, Any, Array]:
    """Returns the site, splits that a point has, and the points that have them all."""
    site = int(rng.choice(sites))
    splits, inside = [], np.ones(len(values[0]), dtype=bool)
    for _ in range(int(rng.integers(4))):
        at = int(rng.choice([at for at in sites if at <= site]))
        neuron = int(rng.integers(values[at].shape[1]))
        sign = 1 if values[at][0, neuron] > 0 else -1
        splits.append((at, neuron, sign))
        inside &= values[at][:, neuron] * sign > 1e-9 * np.abs(values[at][:, neuron]).max()
    return site, splits, inside


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 3.0]))
def test_bounds_hold_in_rational_arithmetic(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    network = random_network(rng, spread)
    middle, radius = rng.standard_normal(3), 10.0 ** rng.uniform(-2, 0)
    low, high = middle - radius, middle + radius
    bounds = bounded(network, low, high)
    points = np.clip(kit.points(rng, low, high, 16), low, high)
    values = evaluated(network, points)
    site, splits, inside = part(rng, bounds, network.sites, values)
    slopes = {at: rng.random(len(bounds.lower[at])) for at in network.sites if at <= site}
    width = 0
    for at in network.sites:
        # Not all neurons, some that are never on either side, and some twice.
        own = rng.integers(network.nodes[at].size, size=int(rng.integers(9)))
        bounds.slots[at], width = (width, own), width + len(own)
    row = rng.standard_normal((1, 2))
    before = sorted((split for split in splits if split[0] < site), key=lambda split: split[0])
    forms = Forms(bounds, site, slopes, before, row, (low, high), 3)
    signs = np.zeros(len(bounds.lower[site]))
    for _, neuron, sign in (split for split in splits if split[0] == site):
        signs[neuron] = sign
    signs = np.concatenate([signs[bounds.slots[site][1]], [sign for _, _, sign in before]])
    least = forms.least(signs, drawn_choice(rng, forms))
    for point in points[inside]:
        value = sum(Fraction(float(w)) * v for w, v in zip(row[0], rational_values(network, point)[-1], strict=True))
        assert not np.isfinite(least) or Fraction(least) <= value


def test_a_concave_row_is_bounded_to_its_least_value() -> None:
    """-max(z, 0) for two neurons in orthogonal directions: chords say -1.5, and no input does worse than -1."""
    nodes = [Node([], [2], []), dense(0, np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2))]
    nodes += [Node([1], [2], [], relu=True), dense(2, np.array([[-1.0, -1.0]]), np.zeros(1))]
    network = Network(nodes, [1], 3)
    low, high = -0.5 * np.ones(2), 0.5 * np.ones(2)
    bounds = bounded(network, low, high)
    bounds.slots = {1: (0, np.arange(2))}
    forms = Forms(bounds, 1, {1: np.zeros(2)}, [], np.ones((1, 1)), (low, high), 8)
    none = CurvedChoice(np.array([-0.5, -0.5]), np.zeros(2), np.zeros(2), np.zeros(2))
    assert forms.least(np.zeros(2), none) == pytest.approx(-1.5, abs=1e-9)
    # -max(z, 0) >= -z / 2 - z² / 2 - 1 / 8 on [-1, 1], and z² of both is 2 x² summed over inputs.
    curved = CurvedChoice(
        np.array([-0.5, -0.5]), np.array([0.5, 0.5]), np.array([0.25, 0.25]) * (1 + 1e-9), np.zeros(2)
    )
    assert forms.least(np.zeros(2), curved) == pytest.approx(-1.25, abs=1e-6)
    # Where the first neuron is inactive the other one's chord alone counts, and z <= 0 has a multiplier: -1 at best.
    inactive = CurvedChoice(np.array([0.5, -0.5]), np.zeros(2), np.zeros(2), np.zeros(2))
    assert forms.least(np.array([-1.0, 0.0]), inactive) == pytest.approx(-1.0, abs=1e-9)


@pytest.mark.parametrize("weight", [1.0, -2.0])
def test_a_file_may_know_less_of_a_neuron_than_its_reader(weight: float) -> None:
    """It has a multiplier for one that is active by closer bounds, and a D of an error that no row has any more."""
    nodes = [Node([], [2], []), dense(0, np.eye(2), np.array([0.0, 1.0])), Node([1], [2], [], relu=True)]
    nodes += [dense(2, np.eye(2), np.array([0.0, 1.0])), Node([3], [2], [], relu=True)]
    nodes += [dense(4, np.full((1, 2), weight), np.zeros(1))]
    network = Network(nodes, [1, 3], 5)
    low, high = -0.5 * np.ones(2), 0.5 * np.ones(2)
    bounds = bounded(network, low, high)
    assert bounds.lower[1][1] > 0
    assert bounds.lower[3][1] > 0
    bounds.slots = {1: (0, np.arange(2)), 3: (2, np.arange(2))}
    forms = Forms(bounds, 3, {1: np.full(2, 0.5), 3: np.zeros(2)}, [], np.ones((1, 1)), (low, high), 8)
    # The file took both neurons of either node for ones of either sign, and D has room for the errors of both.
    choice = CurvedChoice(np.array([weight, weight]), np.array([1e-9, 0.0]), np.full(4, 1e-8), np.zeros(4))
    choice.D[3] = 0.7
    # weight times max(x, 0) + y + 2, where max(x, 0) is x / 2 + (1 + e) / 8, from -1/4 to 1/2.
    expected = weight * (1.25 if weight > 0 else 3.0)
    assert forms.least(np.zeros(2), choice) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_shifts_hold_for_every_z(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 6
    c, m = rng.standard_normal(n), rng.standard_normal(n) * 10.0 ** rng.uniform(-3, 3)
    p = np.where(rng.random(n) < 0.3, 0.0, 10.0 ** rng.uniform(-12, 6, n))
    low, high = -(10.0 ** rng.uniform(-6, 2, n)), 10.0 ** rng.uniform(-6, 2, n)
    signs = rng.integers(-1, 2, n)
    d = _shifts(c, low, high, signs, m, p)
    for j in range(n):
        ends = (low[j] if signs[j] <= 0 else 0.0), (high[j] if signs[j] >= 0 else 0.0)
        vertices = np.array([m[j], m[j] - c[j]]) / (2 * max(p[j], 1e-30))
        for z in map(Fraction, [*ends, *np.clip(vertices, *ends).tolist(), *rng.uniform(*ends, 20).tolist()]):
            value = Fraction(c[j]) * max(z, Fraction()) - Fraction(m[j]) * z + Fraction(p[j]) * z * z
            assert Fraction(d[j]) <= value
    # Nor is it far below the least of these.
    scale = (np.abs(c) + np.abs(m)) * np.maximum(-low, high)
    grid = np.linspace(np.where(signs <= 0, low, 0.0), np.where(signs >= 0, high, 0.0), 20001)
    least = (c * np.maximum(grid, 0) - m * grid + p * grid**2).min(axis=0)
    fine = p * (high - low) ** 2 <= 1e3 * scale
    assert (d >= least - 1e-3 * scale - 1e-140)[fine].all()


@pytest.mark.parametrize("seed", range(5))
def test_what_d_lacks_is_made_up_for(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, p = rng.standard_normal((4, 30)), rng.random(4)
    D = rng.uniform(0.5, 2.0, 30)
    scaled = np.sqrt(p)[:, None] * rows / np.sqrt(D)
    largest = float(np.linalg.eigvalsh(scaled @ scaled.T)[-1])
    assert 0 <= _excess(rows, p, D * largest * (1 + 1e-9)) < 1e-9
    with pytest.raises(RefusedError, match="not outweighed"):
        _excess(rows, p, D * largest * (1 - 1e-9))
    assert _excess(rows, np.zeros(4), D) < 1e-100


def test_rows_that_would_fill_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parabolas, "LARGEST_ROWS", 20)
    network = random_network(np.random.default_rng(0), 0.0)
    low, high = -np.ones(3), np.ones(3)
    bounds = bounded(network, low, high)
    bounds.slots = {1: (0, np.arange(6)), 3: (6, np.arange(5))}
    with pytest.raises(ValueError, match="too large"):
        Forms(bounds, 3, {1: np.ones(6), 3: np.ones(5)}, [], np.ones((1, 2)), (low, high), 8)


def test_more_parabolas_than_a_matrix_is_made_for_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parabolas, "LARGEST_CURVED", 3)
    rows = np.eye(4)
    _excess(rows, np.array([0.0, 0.1, 0.1, 0.1]), np.ones(4))
    with pytest.raises(ValueError, match="too many neurons"):
        _excess(rows, np.full(4, 0.1), np.ones(4))


@pytest.mark.parametrize("slots", [0, 1])
@pytest.mark.parametrize("count", [45, 200])
def test_coefficients_of_one_neuron_s_many_relus_are_added_up_with_their_rounding(count: int, slots: int) -> None:
    """Ones between 2^53 and -2^53 are lost when they are summed in float64, all of them."""
    nodes = [Node([], [1], []), dense(0, np.ones((1, 1)), np.zeros(1))]
    nodes += [Node([1], [1], [], relu=True) for _ in range(count + 2)]
    weights = [2.0**53, *[-1.0] * count, -(2.0**53)]
    nodes.append(Node(list(range(2, count + 4)), [1], weights, 0.75 * count))
    network = Network(nodes, [1], len(nodes) - 1)
    # So that what lies between the ReLU and its line is next to nothing.
    low, high = np.full(1, -1e-9), np.ones(1)
    bounds = bounded(network, low, high)
    bounds.slots = {1: (0, np.arange(slots))}
    forms = Forms(bounds, 1, {1: np.ones(1)}, [], np.ones((1, 1)), (low, high), 8)
    choice = CurvedChoice(np.zeros(slots), np.zeros(slots), np.zeros(1), np.zeros(1))
    # At x = 1 the value is 0.75 count - count.
    assert forms.least(np.zeros(slots), choice) <= -0.25 * count


def test_neurons_that_a_file_has_no_slots_for_cost_their_bounds_and_nothing_where_they_are_dead() -> None:
    """max(z, 0) of z in [-1e-150, 1e-150], which a layer of zeros has, before the node and after it."""
    dead = np.zeros((1, 1))
    nodes = [Node([], [1], []), dense(0, dead, np.zeros(1)), Node([1], [1], [], relu=True)]
    nodes += [dense(0, np.ones((1, 1)), np.zeros(1)), Node([2, 3], [1], [1.0, 1.0]), Node([4], [1], [], relu=True)]
    nodes += [dense(5, dead, np.zeros(1)), Node([6], [1], [], relu=True), Node([5, 7], [1], [-1.0, 1.0], 1.0)]
    network = Network(nodes, [1, 4, 6], 8)
    low, high = -np.ones(1), np.ones(1)
    bounds = bounded(network, low, high)
    assert bounds.upper[6][0] > 0 > bounds.lower[6][0]
    bounds.slots = {1: (0, np.arange(0)), 4: (0, np.arange(1)), 6: (1, np.arange(0))}
    forms = Forms(bounds, 4, {1: np.ones(1), 4: np.ones(1)}, [], np.ones((1, 1)), (low, high), 8)
    chord = CurvedChoice(np.array([-0.5]), np.zeros(1), np.zeros(1), np.zeros(1))
    # 1 - max(x, 0) by its chord, 1 - (x + 1) / 2.
    assert forms.least(np.zeros(1), chord) == pytest.approx(0.0, abs=1e-9)
