"""Layers as matrices are the layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from prunecert.verifiers.sparse.onnx import layers

SMALL = st.integers(0, 2)


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(SMALL, SMALL, SMALL, SMALL),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_a_convolution(
    seed: int,
    groups: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
) -> None:
    rng = np.random.default_rng(seed)
    weight = np.where(rng.random((4, 4 // groups, *kernel)) < 0.5, rng.standard_normal((4, 4 // groups, *kernel)), 0)
    x = rng.standard_normal((4, 6, 5))
    top, left, bottom, right = pads
    padded = F.pad(torch.from_numpy(x)[None], (left, right, top, bottom))
    expected = F.conv2d(
        padded, torch.from_numpy(weight.astype(np.float32).astype(float)), None, strides, 0, dilations, groups
    )[0].numpy()
    matrix, shape = layers.convolution(weight.astype(np.float32), (4, 6, 5), strides, pads, dilations, groups)
    assert shape == expected.shape
    np.testing.assert_allclose((matrix.astype(float) @ x.reshape(-1)).reshape(shape), expected, atol=1e-12)
    assert matrix.has_sorted_indices
    assert matrix.indices.dtype == np.int32
    assert not (matrix.data == 0).any()


@pytest.mark.slow
@settings(deadline=None)
@given(
    kernel=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad=st.integers(0, 1),
    count_pads=st.booleans(),
)
def test_average_pooling(kernel: tuple[int, int], strides: tuple[int, int], pad: int, count_pads: bool) -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 5))
    matrix, shape = layers.average((2, 6, 5), kernel, strides, (pad,) * 4, count_pads)
    expected = F.avg_pool2d(torch.from_numpy(x)[None], kernel, strides, pad, count_include_pad=count_pads)[0].numpy()
    assert shape == expected.shape
    np.testing.assert_allclose((matrix @ x.reshape(-1)).reshape(shape), expected, atol=1e-12)


@given(seed=st.integers(0, 1000), rows=st.integers(1, 5), columns=st.integers(1, 5))
def test_a_dense_matrix_keeps_its_non_zeros_alone(seed: int, rows: int, columns: int) -> None:
    rng = np.random.default_rng(seed)
    weight = np.where(rng.random((rows, columns)) < 0.5, rng.standard_normal((rows, columns)), 0).astype(np.float32)
    matrix = layers.dense(weight)
    np.testing.assert_array_equal(matrix.toarray(), weight)
    assert matrix.nnz == np.count_nonzero(weight)
    np.testing.assert_array_equal(layers.diagonal(weight[0]).toarray(), np.diag(weight[0]))


def test_windows_name_what_they_read_and_mark_the_padding() -> None:
    assert layers.windows(4, 3, 2, (1, 0), 1).tolist() == [[-1, 0, 1], [1, 2, 3]]
    assert layers.windows(4, 2, 1, (0, 0), 3).tolist() == [[0, 3]]
    assert layers.windows(2, 3, 1, (0, 0), 1).shape == (0, 3)
