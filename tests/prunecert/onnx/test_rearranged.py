"""Rearrangements that a convolution does are recognised, with its geometry, and no other is."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunecert.onnx.rearranged import find_spread, find_window, image_shape, per_channel, present_per_channel
from prunecert.onnx.values import Term

AXES = st.tuples(st.integers(-3, 5), st.integers(1, 3), st.integers(1, 6))


def reads(start: int, stride: int, outputs: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    positions = start + stride * np.arange(outputs)
    return np.where((positions >= 0) & (positions < size), positions, -1)


@given(AXES, AXES, st.lists(st.integers(-1, 2), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 5))
def test_what_a_convolution_reads_is_a_window(
    down: tuple[int, int, int], across: tuple[int, int, int], channels: list[int], height: int, width: int
) -> None:
    rows, columns = reads(*down, height), reads(*across, width)
    some = (np.array(channels) >= 0).any() and (rows >= 0).any() and (columns >= 0).any()
    index = np.full((len(channels), len(rows), len(columns)), -1)
    for place in np.ndindex(index.shape):
        c, y, x = channels[place[0]], int(rows[place[1]]), int(columns[place[2]])
        if min(c, y, x) >= 0:
            index[place] = (c * height + y) * width + x
    window = find_window(Term(0, index.reshape(-1)), (1, *index.shape), (1, 3, height, width))
    assert (window is not None) == some
    if window is not None:
        np.testing.assert_array_equal(window.channels, channels)
        for axis, positions, size in ((window.down, rows, height), (window.across, columns, width)):
            np.testing.assert_array_equal(reads(axis.start, axis.stride, axis.outputs, size), positions)
            assert axis.padding >= max(0, -axis.start)


def test_a_change_in_one_place_is_no_window() -> None:
    index = np.arange(2 * 3 * 4)
    assert find_window(Term(0, index), (1, 2, 3, 4), (1, 2, 3, 4)) is not None
    for place in range(len(index)):
        other = index.copy()
        other[place] = (place + 5) % len(index)
        assert find_window(Term(0, other), (1, 2, 3, 4), (1, 2, 3, 4)) is None


def test_backwards_is_no_window() -> None:
    assert find_window(Term(0, np.arange(4)[::-1].copy()), (1, 1, 1, 4), (1, 1, 1, 4)) is None


def test_a_node_as_it_is_is_one_where_shapes_agree() -> None:
    assert find_window(Term(0), (1, 2, 3, 4), (1, 2, 3, 4)) is not None
    assert find_window(Term(0), (1, 2, 4, 3), (1, 2, 3, 4)) is None


def test_one_number_a_channel() -> None:
    table = np.repeat([1.0, 2.0], 6)
    np.testing.assert_array_equal(per_channel(table, (1, 2, 2, 3)), [1, 2])
    assert per_channel(table, (1, 3, 2, 2)) is None
    present = np.arange(12) % 2 == 0
    np.testing.assert_array_equal(
        present_per_channel(np.where(present, table, 9.0), present, (1, 2, 2, 3)),
        [1, 2],
    )
    np.testing.assert_array_equal(
        present_per_channel(table, np.arange(12) < 6, (1, 2, 2, 3)),
        [1, 1],
    )
    assert present_per_channel(np.arange(12.0), present, (1, 2, 2, 3)) is None


def test_images_are_of_three_or_four_axes() -> None:
    assert image_shape((1, 2, 3)) == (1, 2, 3, 1)
    assert image_shape((1, 2, 3, 4)) == (1, 2, 3, 4)
    assert image_shape((2, 2, 3)) is image_shape((1, 5)) is image_shape((1, 1, 1, 1, 1)) is None


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_repeated_places_and_zeros_between_are_a_spread(
    channels: int, height: int, width: int, data: st.DataObject
) -> None:
    down, across = (np.array(data.draw(st.lists(st.booleans(), min_size=1, max_size=3))) for _ in range(2))
    own = np.arange(channels * height * width).reshape(channels, height, width)
    wide = np.kron(own + 1, np.outer(down, across)) - 1
    factors = data.draw(st.sampled_from([None, np.arange(own.size) + 0.5]))
    scale = None if factors is None else np.where(wide < 0, 7.0, factors[wide])
    target, source = (1, *wide.shape), (1, *own.shape)
    term = Term(0, wide.reshape(-1), None if scale is None else scale.reshape(-1))
    spread = find_spread(term, target, source)
    assert (spread is not None) == bool(down.any() and across.any())
    if spread is None:
        return
    np.testing.assert_array_equal(spread.down, down)
    np.testing.assert_array_equal(spread.across, across)
    np.testing.assert_array_equal(
        np.ones(own.size) if spread.factor is None else spread.factor, 1 if factors is None else factors
    )
    # One place elsewhere, and it is none.
    moved = wide.reshape(-1).copy()
    place = data.draw(st.integers(0, wide.size - 1))
    moved[place] = 0 if moved[place] != 0 else -1
    if own.size > 1:
        other = find_spread(Term(0, moved), target, source)
        assert other is None or not np.array_equal(np.outer(other.down, other.across), np.outer(down, across))
