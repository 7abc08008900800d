"""The kernels in LLVM's intermediate representation against NumPy, at lengths that fill no vector too."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numba.core.errors import TypingError

from prunecert.verifiers.sparse.arrays import BLOCK_WIDTH, CONV_WIDTH, LANES32, PAIRED_LANES32
from prunecert.verifiers.sparse.llvm.backward_unit import accumulate, process1, process4, process8
from prunecert.verifiers.sparse.llvm.block_columns import add_columns
from prunecert.verifiers.sparse.llvm.conv_stripes import PADDING, settle_relus, settle_values, stripe1, stripe2
from prunecert.verifiers.sparse.llvm.row_gather import gather
from prunecert.verifiers.sparse.llvm.row_scatter import scatter


@numba.njit
def gathered(values, base, columns, weights, begin, end, out, place):  # type: ignore[no-untyped-def]
    gather(values, base, columns, weights, begin, end, out, place)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 8, 17])
def test_a_row_is_gathered_lane_by_lane(length: int) -> None:
    rng = np.random.default_rng(length)
    values = rng.standard_normal((11, LANES32)).astype(np.float32)
    columns = rng.integers(0, 10, length + 2).astype(np.int32)
    weights = rng.standard_normal(length + 2).astype(np.float32)
    out = np.full(3 * LANES32, np.nan, dtype=np.float32)
    gathered(values.reshape(-1), LANES32, columns, weights, 1, 1 + length, out, LANES32)
    expected = weights[1 : 1 + length].astype(np.float64) @ values[1 + columns[1 : 1 + length]]
    np.testing.assert_allclose(out[LANES32 : 2 * LANES32], expected, rtol=1e-5, atol=1e-5)
    assert np.isnan(out[:LANES32]).all()
    assert np.isnan(out[2 * LANES32 :]).all()


@numba.njit
def added(sums, channels, values, weights, begin, end, base, pitch):  # type: ignore[no-untyped-def]
    add_columns(sums, channels, values, weights, begin, end, base, pitch)


@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("pitch", [BLOCK_WIDTH, 2 * BLOCK_WIDTH])
def test_columns_of_a_block_are_added_to_both_sums(count: int, pitch: int) -> None:
    rng = np.random.default_rng(count)
    base = 2 * pitch + pitch - BLOCK_WIDTH
    # The last row that is read ends with the weights: nothing beyond is touched.
    weights = rng.standard_normal(2 * pitch + 6 * pitch).astype(np.float32)
    channels = np.array([9, 5, 0, 2, 3, 1, 9], dtype=np.int32)
    values, sums = rng.standard_normal((7, 2)), rng.standard_normal((2, BLOCK_WIDTH))
    rows = [weights[base + c * pitch :][:BLOCK_WIDTH].astype(np.float64) for c in channels[1 : 1 + count]]
    expected = sums.copy()
    for row, (y, q) in zip(rows, values[1 : 1 + count], strict=True):
        expected += [row * y, np.abs(row) * q]
    added(sums, channels, values, weights, 1, 1 + count, base, pitch)
    np.testing.assert_allclose(sums, expected, rtol=1e-14, atol=1e-14)


@numba.njit
def accumulated(values, columns, weights, begin, end, smallest):  # type: ignore[no-untyped-def]
    return accumulate(values, columns, weights, begin, end, smallest)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 33])
def test_four_quantities_are_summed_and_no_size_is_below_the_smallest(length: int) -> None:
    rng = np.random.default_rng(length)
    values = rng.random((9, 4))
    columns = rng.integers(0, 9, length).astype(np.int32)
    weights = rng.standard_normal(length).astype(np.float32)
    weights[::3] = 1e-12
    sums = accumulated(values, columns, weights, 0, length, 1e-3)
    sizes = np.maximum(np.abs(weights.astype(np.float64)), 1e-3)
    np.testing.assert_allclose(sums[0], weights.astype(np.float64) @ values[columns, 0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sums[1:], sizes @ values[columns, 1:], rtol=1e-12)


def _compiled(process: Any, vectors: tuple[int, ...]) -> Any:
    @numba.njit
    def run(coefficients, planes, first, sums, columns, begin, end, weights, offset):  # type: ignore[no-untyped-def]
        process(coefficients, planes, first, sums, columns, begin, end, weights, offset, vectors)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("vectors", [(0,), (0, 0)])
@pytest.mark.parametrize(("process", "height"), [(process1, 1), (process4, 4), (process8, 8)])
def test_a_unit_is_relaxed_and_handed_on(process: Any, height: int, vectors: tuple[int, ...]) -> None:
    rng = np.random.default_rng(height)
    lanes = LANES32 * len(vectors)
    assert lanes in (LANES32, PAIRED_LANES32)
    coefficients = rng.standard_normal((6 + height, lanes)).astype(np.float32)
    planes = rng.standard_normal((6 + height, 4)).astype(np.float32)
    sums = rng.standard_normal(lanes).astype(np.float32)
    columns = np.array([5, 0, 3], dtype=np.int32)
    weights = rng.standard_normal(2 + 3 * height).astype(np.float32)
    expected, total = coefficients.astype(np.float64), sums.astype(np.float64)
    lam = expected[6:].copy()
    up, down = np.maximum(lam, 0), np.minimum(lam, 0)
    plane = planes[6:].astype(np.float64)
    total += (up * plane[:, 2:3] + down * plane[:, 3:4]).sum(axis=0)
    mu = up * plane[:, 0:1] + down * plane[:, 1:2]
    expected[6:] = 0
    for entry, column in enumerate(columns):
        expected[column] += weights[2 + entry * height :][:height].astype(np.float64) @ mu
    _compiled(process, vectors)(coefficients, planes, 6, sums, columns, 0, 3, weights, 2)
    np.testing.assert_allclose(coefficients, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sums, total, rtol=1e-5, atol=1e-5)


@numba.njit
def striped(centers, radii, y, q, weight, to, source, count, step):  # type: ignore[no-untyped-def]
    if step == 1:
        stripe1(centers, radii, y, q, weight, to, source, count)
    else:
        stripe2(centers, radii, y, q, weight, to, source, count)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("count", [0, 1, CONV_WIDTH - 1, CONV_WIDTH, 2 * CONV_WIDTH + 5])
def test_a_stripe_adds_a_weight_times_a_row_of_pixels(count: int, step: int) -> None:
    rng = np.random.default_rng(count)
    centers, radii = rng.random(40), rng.random(40)
    y, q = rng.standard_normal(60 + PADDING), rng.random(60 + PADDING)
    expected = centers.copy(), radii.copy()
    source = 3 + step * np.arange(count)
    expected[0][2 : 2 + count] += -0.75 * y[source]
    expected[1][2 : 2 + count] += 0.75 * q[source]
    striped(centers, radii, y, q, -0.75, 2, 3, count, step)
    np.testing.assert_allclose(centers, expected[0], rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(radii, expected[1], rtol=1e-14, atol=1e-14)


@numba.njit
def settled(arrays, begin, end, error, grow, loss, rectified):  # type: ignore[no-untyped-def]
    centers, radii, lower, upper, y, r, q, peaks = arrays
    if rectified:
        settle_relus(centers, radii, lower, upper, y, r, q, peaks, begin, end, error, grow, loss)
    else:
        settle_values(centers, radii, lower, upper, y, r, q, peaks, begin, end, error, grow, loss)


@pytest.mark.parametrize("rectified", [False, True])
def test_settling_gives_bounds_and_references_that_hold_them(rectified: bool) -> None:
    rng = np.random.default_rng(0)
    size = 2 * CONV_WIDTH + 5
    arrays = (*(np.zeros(size) for _ in range(7)), np.zeros(2 * CONV_WIDTH))
    centers, radii, lower, upper, y, r, q, peaks = arrays
    centers[:], radii[:] = rng.standard_normal(size), rng.random(size)
    settled(arrays, 1, size, 1e-3, 1 + 1e-9, 0.5, rectified)
    mine = slice(1, size)
    assert np.all(lower[mine] <= centers[mine] - radii[mine] - 1e-3)
    assert np.all(upper[mine] >= centers[mine] + radii[mine] + 1e-3)
    low, high = (np.maximum(side[mine], 0) if rectified else side[mine] for side in (lower, upper))
    assert np.all(y[mine] - r[mine] <= low)
    assert np.all(y[mine] + r[mine] >= high)
    np.testing.assert_allclose(q[mine], r[mine] + 0.5 * np.abs(y[mine]), rtol=1e-12)
    assert peaks[:CONV_WIDTH].max() == np.abs(y[mine]).max()
    np.testing.assert_allclose(peaks[CONV_WIDTH:].sum(), (upper - lower)[mine].sum())
    assert not any(array[0] for array in (lower, upper, y, r, q))


@numba.njit
def scattered(values, place, columns, weights, begin, end, out, base):  # type: ignore[no-untyped-def]
    scatter(values, place, columns, weights, begin, end, out, base)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("length", [0, 1, 5, 17])
def test_a_row_is_scattered_lane_by_lane(length: int, kind: type[np.floating[Any]]) -> None:
    rng = np.random.default_rng(length)
    values = rng.standard_normal(3 * LANES32).astype(kind)
    columns = rng.integers(0, 9, length + 2).astype(np.int32)
    weights = rng.standard_normal(length + 2).astype(kind)
    before = rng.standard_normal((11, LANES32)).astype(kind)
    out = before.reshape(-1).copy()
    scattered(values, LANES32, columns, weights, 1, 1 + length, out, LANES32)
    after = before.astype(np.float64)
    for column, weight in zip(columns[1 : 1 + length], weights[1 : 1 + length], strict=True):
        after[1 + column] += weight * values[LANES32 : 2 * LANES32].astype(np.float64)
    np.testing.assert_allclose(out.reshape(11, LANES32), after, rtol=1e-5, atol=1e-6)


def _arrays(kind: type[np.floating[Any]] = np.float32) -> dict[str, Any]:
    return {
        "values": np.zeros(64, dtype=kind),
        "columns": np.zeros(8, dtype=np.int32),
        "weights": np.zeros(8, dtype=kind),
        "out": np.zeros(64, dtype=kind),
    }


def _frozen(array: Any) -> Any:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("kernel", [gathered, scattered])
@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("weights", np.zeros(16, dtype=np.float32)[::2]),
        ("columns", np.zeros(16, dtype=np.int32)[::2]),
        ("columns", np.zeros(8, dtype=np.int64)),
        ("values", np.zeros((64, 2), dtype=np.float32)[:, 0]),
        ("weights", np.zeros(8)),
        ("out", np.zeros(128, dtype=np.float32)[::2]),
        ("out", _frozen(np.zeros(64, dtype=np.float32))),
    ],
)
def test_arrays_that_a_kernel_would_misread_are_refused(kernel: Any, name: str, array: Any) -> None:
    a = _arrays() | {name: array}
    with pytest.raises(TypingError, match=r"allowed is an array of|can't be written"):
        kernel(a["values"], 0, a["columns"], a["weights"], 0, 2, a["out"], 0)
