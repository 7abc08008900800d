"""Values that are sums of scaled, rearranged nodes: what is done to them is what numpy does to their elements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.onnx import values
from prunecert.onnx.normal import UnsupportedNetworkError
from prunecert.onnx.values import REARRANGED, Term, Value, check_size, constant, moved, places, scaled, shifted, total
from tests.prunecert.onnx.graphs import Array, evaluated

Rng = np.random.Generator
NODES = [np.random.default_rng(i).standard_normal(12) for i in range(2)]


def random_value(rng: Rng, shape: tuple[int, ...]) -> Value:
    """Up to three terms over two nodes of twelve elements, some of them missing, scaled or shifted."""
    length = int(np.prod(shape))
    terms = tuple(
        Term(
            int(rng.integers(2)),
            None if length == 12 and rng.random() < 0.3 else rng.integers(-1, 12, length),
            rng.standard_normal(length) if rng.random() < 0.5 else None,
        )
        for _ in range(int(rng.integers(4)))
    )
    return Value(shape, terms, rng.standard_normal(length) if rng.random() < 0.5 else None)


def step(rng: Rng, value: Value, array: Array) -> tuple[Value, Array]:
    """Does the same to a value and to its elements."""
    match int(rng.integers(5)):
        case 0:
            axes = rng.permutation(array.ndim)
            return moved(value, places(value).transpose(axes)), array.transpose(axes)
        case 1:
            factor = rng.standard_normal(array.shape[-1]) * (rng.random() < 0.8)
            return scaled(value, factor), array * factor
        case 2:
            return shifted(value, 0.25), array + 0.25
        case 3:
            chosen = rng.integers(-1, array.size, 5)
            return moved(value, chosen), np.where(chosen < 0, 0.0, array.reshape(-1)[chosen])
        case _:
            other = random_value(rng, array.shape)
            return total([value, other, value]), 2 * array + evaluated(other, NODES)


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_steps_are_numpys(seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    shapes: list[Any] = [(3, 4), (12,), (1, 2, 3), (5,)]
    value = random_value(rng, shapes[int(rng.integers(4))])
    array = evaluated(value, NODES)
    for _ in range(steps):
        value, array = step(rng, value, array)
        assert value.shape == array.shape
        np.testing.assert_allclose(evaluated(value, NODES), array, rtol=0, atol=1e-9 * (1 + np.abs(array).max()))
        # A shift of zeros is none, and no term gives nothing, so that what is empty can be told.
        assert value.shift is None or value.shift.any()


def test_a_value_less_itself_has_no_term() -> None:
    value = Value((12,), (Term(0), Term(1, np.arange(12)[::-1])))
    assert total([value, scaled(value, -1.0)]).terms == ()


def test_what_is_added_to_itself_no_longer_belongs_to_one_reader() -> None:
    (term,) = total([Value((2,), (Term(0, exclusive=True),)), Value((2,), (Term(0),))]).terms
    assert not term.exclusive


def test_plain_values_are_one_node_as_it_is() -> None:
    assert Value((12,), (Term(0),)).plain
    assert not scaled(Value((12,), (Term(0),)), 2.0).plain
    assert not constant(np.ones(3)).plain
    assert moved(Value((3, 4), (Term(0),)), np.arange(12)).plain


def test_what_is_too_large_to_be_rearranged_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_size(REARRANGED)
    with pytest.raises(UnsupportedNetworkError, match=f"{REARRANGED + 1:,} elements is rearranged"):
        check_size(REARRANGED + 1)
    monkeypatch.setattr(values, "REARRANGED", 3)
    with pytest.raises(UnsupportedNetworkError, match="4 elements"):
        places(constant(np.ones(4)))
