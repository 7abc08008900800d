"""The sampling of proofs: points lie in their boxes, margins are what they say, and a wrong proof is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec
from tests.benchmarks.sampling import attack, draw, main, margins
from tests.verifiers.sparse.quantised.networks import network, run

CLASSES = 3


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Instance:
    """Returns whether an int8 network keeps the class of a box's centre."""
    path = tmp_path_factory.mktemp("sampling") / "net.onnx"
    model = network("dense", 3)
    onnx.save(model, path)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    centre = np.full((1, *shape), 0.5, dtype=np.float32)
    label, radius = int(run(model, centre).argmax()), np.float32(0.3)
    spec = OutputSpec.robustness(label, CLASSES)
    return Instance(path, sha256_file(path), centre - radius, centre + radius, spec, 1.0, "case", label, CLASSES)


def linear(weights: FloatArray) -> onnx.ModelProto:
    """Returns a network of one linear layer."""
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in zip(("x", "y"), reversed(weights.shape), strict=True)
    ]
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    graph = helper.make_graph([node], "g", shapes[:1], shapes[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def bounded(box: Instance, limit: float) -> Instance:
    """Returns the same box with the property that the label's output is above a number."""
    row = np.zeros((1, CLASSES))
    row[0, box.label] = 1.0
    return Instance(
        **{name: getattr(box, name) for name in ("onnx", "onnx_sha256", "lower", "upper", "timeout", "name")},
        spec=OutputSpec(((row, np.array([limit])),)),
    )


def test_points_lie_in_the_box(box: Instance) -> None:
    rng = np.random.default_rng(0)
    points = draw(rng, box, None, 200)
    points = np.concatenate([points, draw(rng, box, points[0], 200)])
    assert points.dtype == np.float32
    assert (points >= box.lower.reshape(-1)).all()
    assert (points <= box.upper.reshape(-1)).all()


def test_margins_are_the_least_over_disjuncts_of_the_largest_row() -> None:
    spec = OutputSpec.robustness(0, CLASSES)
    outputs = np.array([[3.0, 1.0, 2.5], [1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    assert margins(spec, outputs).tolist() == [0.5, 0.0, -2.0]
    both = OutputSpec(((np.eye(CLASSES)[:2], np.array([1.0, 2.0])),))
    assert margins(both, outputs).tolist() == [2.0, 0.0, 0.0]


def test_what_no_point_breaks_stands_with_its_least_margin(box: Instance) -> None:
    tally = attack([bounded(box, -1e6), bounded(box, -2e6)], "net", points=600, cores=1, seed=0)
    assert (tally.proofs, tally.points, tally.broken) == (2, 600, 0)
    assert 0.9e6 < tally.least < 1.1e6
    assert tally.markdown().startswith("| net | 2 | 600 | 1e+06")


def test_a_climb_comes_nearer_than_even_points_and_breaks_a_wrong_proof(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(CLASSES, 30)).astype(np.float32)
    path = tmp_path / "linear.onnx"
    onnx.save(linear(weights), path)
    upper = np.ones((1, 30), dtype=np.float32)
    spec = OutputSpec(((np.eye(CLASSES)[:1], np.array([-0.9 * np.abs(weights[0]).sum()])),))
    even = rng.uniform(-upper, upper, (2000, 30)).astype(np.float32)
    assert margins(spec, (even @ weights.T).astype(np.float64)).min() > 0
    tally = attack([Instance(path, sha256_file(path), -upper, upper, spec, 1.0, "case")], "net", 2000, cores=1, seed=0)
    assert tally.broken > 0
    assert -0.1001 * np.abs(weights[0]).sum() < tally.least <= 0


def test_a_run_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        main([str(tmp_path)])
