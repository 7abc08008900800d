"""Where a network is run before a proof counts: inside the input set, and in each narrow part where few inputs vary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec
from prunecert.verifiers.rounding.points import points_of
from tests.verifiers import onnxnets


def _instance(onnx_file: Path, lower: npt.ArrayLike, upper: npt.ArrayLike, **fields: Any) -> Instance:
    spec = OutputSpec(((np.array([[1.0]]), np.array([0.0])),))
    low, high = (np.asarray(end, dtype=np.float32) for end in (lower, upper))
    return Instance(onnx_file, sha256_file(onnx_file), low, high, spec, 10.0, classes=1, **fields)


def _sums(points: FloatArray) -> FloatArray:
    sums: FloatArray = points.reshape(len(points), -1).sum(axis=1, keepdims=True)
    return sums


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return onnxnets.linear(tmp_path / "n.onnx")


@pytest.mark.parametrize("count", [1, 2, 8])
def test_where_few_inputs_vary_each_is_walked_along(net: Path, count: int) -> None:
    points = points_of(_instance(net, np.zeros(count), np.ones(count)), _sums)
    others = np.full((count, count), 0.5, dtype=np.float32)
    for place in range(count):
        beside = [i for i in range(count) if i != place]
        along = points[(points[:, beside] == others[0, beside]).all(axis=1), place]
        assert np.diff(np.sort(along)).max() < 0.02, "a fiftieth of the box is met"
    diagonal = points[(points == points[:, :1]).all(axis=1), 0]
    assert np.diff(np.sort(diagonal)).max() < 0.02
    assert len(points) < 64 * (count + 1) + 20


def test_where_many_vary_or_runs_are_dear_a_dozen_are_enough(net: Path, tmp_path: Path) -> None:
    assert len(points_of(_instance(net, np.zeros(9), np.ones(9)), _sums)) < 15
    assert len(points_of(_instance(net, [0, 0.5], [1, 0.5]), _sums)) > 64, "an input that doesn't vary is none"
    large = tmp_path / "large.onnx"
    model = onnx.load(net)
    model.doc_string = "x" * 2_000_000
    onnx.save(model, large)
    assert len(points_of(_instance(large, np.zeros(3), np.ones(3)), _sums)) < 25
    assert len(points_of(_instance(net, [0.25], [0.25]), _sums)) == 1


def test_the_corner_towards_which_a_row_falls_is_among_them(net: Path) -> None:
    def wave(points: FloatArray) -> FloatArray:
        values: FloatArray = points[:, :1] - 2 * points[:, 1:2]
        return values

    points = points_of(_instance(net, np.zeros(12), np.ones(12)), wave)
    assert any((point[:2] == [0, 1]).all() and (point[2:] == 1).all() for point in points)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(-4, 4, width=32), st.floats(-4, 4, width=32)), min_size=1, max_size=10))
def test_all_lie_in_the_input_set_and_none_twice(net: Path, ends: list[tuple[float, float]]) -> None:
    lower, upper = np.array([sorted(pair) for pair in ends], dtype=np.float32).T
    ball = {"norm": "l2", "eps": 0.5, "center": (lower + upper) / 2}
    for fields in ({}, ball):
        instance = _instance(net, lower, upper, **fields)
        points = points_of(instance, _sums)
        assert all(instance.contains(point) for point in points) or len(points) == 1
        assert len({point.tobytes() for point in points}) == len(points)


def test_they_are_numbers_that_the_network_can_be_given(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 13]> net (float16[1] x) => (float16[1] y) { y = Relu (x) }"""
    path = tmp_path / "half.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    points = points_of(_instance(path, [0.1], [0.7]), _sums)
    assert (points == points.astype(np.float16)).all()
    # The nearest to 0.1 and 0.7 are outside of the box.
    assert points.min() >= np.float32(0.1)
    assert points.max() <= np.float32(0.7)
