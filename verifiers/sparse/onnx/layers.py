"""Layers of a network as sparse matrices over flat vectors, by index arithmetic on their non-zero weights.

The flat vector of a value of shape [C, H, W] is its C-order. Nothing here allocates more than a multiple of the number
of non-zeros of the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse

from prunecert.verifiers.sparse.arrays import Float32Array, Int64Array


def csr(
    rows: npt.ArrayLike, columns: npt.ArrayLike, values: npt.NDArray[np.floating], shape: tuple[int, int]
) -> scipy.sparse.csr_array:
    """Returns a matrix with sorted int32 indices; positions must not repeat, and zeros are left out."""
    kept = values != 0
    row, column = np.asarray(rows, dtype=np.int32)[kept], np.asarray(columns, dtype=np.int32)[kept]
    matrix = scipy.sparse.coo_array((values[kept], (row, column)), shape=shape).tocsr()
    matrix.sort_indices()
    return matrix


def diagonal(values: Float32Array) -> scipy.sparse.csr_array:
    """Returns the square matrix with these values on its diagonal."""
    positions = np.arange(len(values))
    return csr(positions, positions, values, (len(values), len(values)))


def dense(weight: npt.NDArray[np.floating]) -> scipy.sparse.csr_array:
    """Returns the non-zeros of a matrix [outputs, inputs]."""
    rows, columns = np.nonzero(weight)
    return csr(rows, columns, weight[rows, columns], (weight.shape[0], weight.shape[1]))


def windows(size: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int) -> Int64Array:
    """Returns where each window of one axis reads: positions [outputs, kernel], -1 in the padding.

    There are no outputs where the kernel doesn't fit.
    """
    outputs = max(0, (size + pads[0] + pads[1] - dilation * (kernel - 1) - 1) // stride + 1)
    positions = np.arange(outputs)[:, None] * stride - pads[0] + np.arange(kernel)[None, :] * dilation
    return np.where((positions >= 0) & (positions < size), positions, -1)


def convolution(
    weight: npt.NDArray[np.floating],
    shape: tuple[int, int, int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> tuple[scipy.sparse.csr_array, tuple[int, int, int]]:
    """Writes a two-dimensional convolution (cross-correlation, as ONNX's Conv) as a matrix.

    Args:
        weight: [out, in / groups, kh, kw].
        shape: The input's [C, H, W].
        strides: Of both axes.
        pads: Zeros at the top, left, bottom, right.
        dilations: Of both axes.
        groups: Number of groups.

    Returns:
        The matrix [out * H' * W', C * H * W] and (out, H', W').
    """
    outputs, per_group, kernel_h, kernel_w = weight.shape
    _, height, width = shape
    down = windows(height, kernel_h, strides[0], (pads[0], pads[2]), dilations[0])
    across = windows(width, kernel_w, strides[1], (pads[1], pads[3]), dilations[1])
    # What each position reads at each place of the kernel: [positions, kh * kw], -1 in the padding.
    reads = np.where(
        (down[:, None, :, None] >= 0) & (across[None, :, None, :] >= 0),
        down[:, None, :, None] * width + across[None, :, None, :],
        -1,
    ).reshape(len(down) * len(across), kernel_h * kernel_w)
    reads = reads.astype(np.int32)
    inside = reads >= 0
    columns, values, counts = [], [], []
    for out in range(outputs):
        # Ascending channel and place of the kernel is ascending column, so that nothing is to be sorted.
        inner, place = np.nonzero(weight[out].reshape(per_group, -1))
        channel = (out // (outputs // groups) * per_group + inner).astype(np.int32)
        kept = inside[:, place]
        columns.append((reads[:, place] + channel * np.int32(height * width))[kept])
        values.append(np.broadcast_to(weight[out].reshape(per_group, -1)[inner, place], kept.shape)[kept])
        counts.append(kept.sum(axis=1))
    pointers = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    matrix = scipy.sparse.csr_array(
        (np.concatenate(values), np.concatenate(columns), pointers.astype(np.int32)),
        shape=(outputs * len(reads), int(np.prod(shape))),
    )
    return matrix, (outputs, len(down), len(across))


def average(
    shape: tuple[int, int, int], kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], count_pads: bool
) -> tuple[scipy.sparse.csr_array, tuple[int, int, int]]:
    """Writes average pooling as a matrix.

    Args:
        shape: The input's [C, H, W].
        kernel: Size of the windows.
        strides: Of both axes.
        pads: Padding at the top, left, bottom, right.
        count_pads: Whether padding counts in the divisor.

    Returns:
        The matrix and the output's shape; the weights are 1 / (entries of the window) in float64, so that what they
        are multiplied with is rounded to float32 only once.
    """
    channels, height, width = shape
    down = windows(height, kernel[0], strides[0], (pads[0], pads[2]), 1)
    across = windows(width, kernel[1], strides[1], (pads[1], pads[3]), 1)
    inside = (down[:, None, :, None] >= 0) & (across[None, :, None, :] >= 0)
    y, x, r, s = np.nonzero(inside)
    counts = np.full(inside.shape[:2], kernel[0] * kernel[1]) if count_pads else inside.sum(axis=(2, 3))
    to, back = y * len(across) + x, down[y, r] * width + across[x, s]
    weight = 1.0 / counts[y, x]
    plane = np.arange(channels)[:, None]
    matrix = csr(
        (plane * (len(down) * len(across)) + to).ravel(),
        (plane * (height * width) + back).ravel(),
        np.tile(weight, channels),
        (channels * len(down) * len(across), channels * height * width),
    )
    return matrix, (channels, len(down), len(across))
