"""Fixed phases: rows stay affine functions of w within their errors, and lose what is fixed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.quadratic.affine import affine_forms
from prunecert.verifiers.sparse.bab.quadratic.last_layer import LastLayer
from prunecert.verifiers.sparse.bab.quadratic.phases import NeuronRow, Phase, split, without_error
from tests.verifiers.sparse.bab.quadratic.layers import KINDS, parted, phases, small
from tests.verifiers.sparse.bab.quadratic.test_affine import numbers


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_what_walks_over_the_fixed_lines_give(kind: str, seed: int, tmp_path: Path) -> None:
    question = small(kind, seed, tmp_path)
    subject, rng = question.subject, np.random.default_rng(seed)
    net, bounds, checker = subject.net, subject.bounds, subject.checker
    first = net.levels[-1][0]
    points = question.points(rng, 400)
    signs = phases(rng, question.neurons(points)[0])
    signs[first:] = 0
    places = np.flatnonzero(signs)
    points = points[(question.neurons(points) * signs >= 0).all(axis=1)]
    w, node = numbers(question, points, signs)
    anew = affine_forms(
        checker, bounds, node, np.eye(len(bounds.lower[node]))[bounds.unstable(node)], subject.lines(signs), node
    )
    for order in (places, places[::-1], rng.permutation(places)):
        layer, mine = parted(subject, signs, order)
        assert layer.rows.shape == (net.unstable - first + len(places), w.shape[1])
        assert (mine == np.append(np.zeros(net.unstable - first), signs[order])).all()
        # What is fixed has no error any more; nothing else changes.
        assert not layer.rows[:, w.shape[1] - first + places].any()
        assert not layer.base[w.shape[1] - first + places].any()
        count = net.unstable - first
        np.testing.assert_allclose(layer.rows[:count], anew.coefficients, atol=1e-6)
        z = question.neurons(points)
        expected = np.concatenate([z[:, first:], z[:, order]], axis=1)
        np.testing.assert_allclose(w @ layer.rows.T + layer.constants, expected, atol=2e-5)
        values = w @ layer.base + layer.constant + np.maximum(expected, 0) @ layer.coefficients
        np.testing.assert_allclose(values, question.values(points), atol=5e-5)
        assert (layer.errors < 1e-6).all()
        assert layer.error < 1e-6
        assert (layer.reach >= np.abs(layer.rows).sum(axis=1) + np.abs(layer.constants)).all()
        np.testing.assert_allclose(layer.low[count:], net.lower[order], atol=1e-6)
        np.testing.assert_allclose(layer.high[count:], net.upper[order], atol=1e-6)


def layer_of(rng: np.random.Generator, spread: float) -> tuple[LastLayer, Phase]:
    """Draws a layer of four rows of seven numbers with magnitudes far apart, and a neuron whose error is the fifth."""

    def numbers(*shape: int) -> Float64Array:
        result: Float64Array = rng.normal(size=shape) * 10.0 ** rng.uniform(-spread, spread, shape)
        return result

    rows, base, z = numbers(4, 7), numbers(7), numbers(7)
    z[4:] = 0.0
    errors = np.abs(numbers(4)) * 1e-12
    constants = numbers(4)
    layer = LastLayer(
        rows=rows,
        constants=constants,
        errors=errors,
        reach=(np.abs(rows).sum(axis=1) + np.abs(constants)) * (1 + 1e-9),
        low=-np.ones(4),
        high=np.ones(4),
        base=base,
        constant=float(numbers(1)[0]),
        error=float(abs(numbers(1)[0])) * 1e-12,
        coefficients=-np.ones(4),
    )
    row = NeuronRow(z, float(numbers(1)[0]), float(abs(numbers(1)[0])) * 1e-12, -1.0, 1.0)
    slope = float(rng.choice([0.0, 1.0, rng.random(), 1e-17, 1.0 - 2.0**-53]))
    return layer, Phase(4, int(rng.choice([1, -1])), slope, float(abs(numbers(1)[0])) + 1e-30, row)


def exact(values: Float64Array, w: list[Fraction], constant: float) -> Fraction:
    total = Fraction(constant)
    for value, number in zip(values.tolist(), w, strict=True):
        total += Fraction(value) * number
    return total


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.5, 3.0, 9.0]))
def test_all_that_is_rounded_is_charged(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    layer, phase = layer_of(rng, spread)
    parted = split(layer, phase)
    other = without_error(NeuronRow(layer.rows[0], float(layer.constants[0]), float(layer.errors[0]), -1.0, 1.0), phase)
    for _ in range(3):
        w = [Fraction(float(x)) for x in rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], 7)]
        row = phase.row
        # The neuron as far from its affine function as it may be; its error follows from it exactly.
        z = exact(row.coefficients, w, row.constant) + Fraction(row.error) * int(rng.choice([1, -1]))
        share = 1 - Fraction(phase.slope) if phase.sign > 0 else -Fraction(phase.slope)
        w[4] = share * z / Fraction(phase.half) - 1
        for k in range(4):
            real = exact(layer.rows[k], w, float(layer.constants[k]))
            off = abs(real - exact(parted.rows[k], w, float(parted.constants[k])))
            assert off + Fraction(float(layer.errors[k])) <= Fraction(float(parted.errors[k]))
        off = abs(exact(layer.rows[0], w, float(layer.constants[0])) - exact(other.coefficients, w, other.constant))
        assert off + Fraction(float(layer.errors[0])) <= Fraction(other.error)
        off = abs(exact(layer.base, w, layer.constant) - exact(parted.base, w, parted.constant))
        assert off + Fraction(layer.error) <= Fraction(parted.error)
    assert (parted.rows[-1] == row.coefficients).all()
    assert (parted.constants[-1], parted.errors[-1]) == (row.constant, row.error)


@pytest.mark.parametrize("value", [1e300, np.inf, np.nan])
def test_what_float64_does_not_hold_is_an_infinite_error(value: float) -> None:
    layer, phase = layer_of(np.random.default_rng(0), 0.5)
    layer.rows[1, 4] = value
    phase = replace(phase, half=1e-300, slope=0.5)
    parted = split(layer, phase)
    assert np.isposinf(parted.errors[1])
    row = NeuronRow(layer.rows[1], 0.0, 0.0, -1.0, 1.0)
    assert np.isposinf(without_error(row, phase).error)


def test_a_row_without_the_error_stays_as_it_is() -> None:
    layer, phase = layer_of(np.random.default_rng(1), 0.5)
    layer.rows[2, 4] = 0.0
    row = NeuronRow(layer.rows[2], 1.0, 1e-9, -1.0, 1.0)
    assert without_error(row, phase) is row


@pytest.mark.parametrize("half", [0.0, -1.0, np.nan])
def test_a_neuron_without_an_error_is_refused(half: float) -> None:
    layer, phase = layer_of(np.random.default_rng(1), 0.5)
    with pytest.raises(ValueError, match="has no error to lose"):
        split(layer, replace(phase, half=half))
    row = replace(phase.row, coefficients=np.ones(7))
    with pytest.raises(ValueError, match="has no error to lose"):
        split(layer, replace(phase, row=row))
