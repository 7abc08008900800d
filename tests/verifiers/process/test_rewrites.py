"""Networks without their end, and without average pools: the same functions, as onnxruntime has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from prunecert.onnx.normalise import normalise
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.rewrites import without_averages, write_without


def _model(body: str, output: str = "float[1, 2] y") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 13]> net (float[1, 2] x) => ({output})
        <float[2, 2] w = {{1, 2, 3, 4}}, int64[1] flat = {{-1}}, int64[2] turned = {{1, 0}}> {{ {body} }}"""
    )


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Sigmoid", "Tanh"])
@pytest.mark.parametrize(
    ("more", "order"),
    [("y = Identity (s)", [0, 1]), ("t = Transpose <perm = [1, 0]> (s) y = Reshape (t, flat)", [0, 1]),
     ("y = Gather <axis = 1> (s, turned)", [1, 0])],
)  # fmt: skip
def test_the_last_operator_is_left_out_and_what_follows_it_stays(
    operator: str, more: str, order: list[int], tmp_path: Path
) -> None:
    output = "float[2] y" if "Reshape" in more else "float[1, 2] y"
    model = _model(f"h = MatMul (x, w) z = Add (h, h) s = {operator} (z) {more} dead = Softmax (y)", output)
    before = model.SerializeToString()
    path = write_without(model, "y", operator, tmp_path / "new" / "n.onnx")
    assert path == tmp_path / "new" / "n.onnx"
    points = np.array([[1.0, 2.0], [0.0, -1.0]], np.float32)
    logits = 2 * points @ np.array([[1, 2], [3, 4]])
    np.testing.assert_allclose(counterexample.outputs(path, points, 2), logits[:, order], rtol=1e-6)
    assert model.SerializeToString() == before


def test_what_is_put_together_of_several_has_none_of_them(tmp_path: Path) -> None:
    """Rounding before the second would be measured behind it otherwise, where a saturated one shows nothing of it."""
    model = _model("a = Sigmoid (x) h = MatMul (x, w) b = Sigmoid (h) y = Concat <axis = 1> (b, a)", "float[1, 4] y")
    path = write_without(model, "y", "Sigmoid", tmp_path / "n.onnx")
    assert path is not None
    points = np.array([[3.0, -2.0]], np.float32)
    np.testing.assert_allclose(counterexample.outputs(path, points, 4), [[-3, -2, 3, -2]], rtol=1e-6)
    # One of another kind is none that was taken off.
    mixed = _model("a = Tanh (x) h = MatMul (x, w) b = Sigmoid (h) y = Concat <axis = 1> (b, a)", "float[1, 4] y")
    assert write_without(mixed, "y", "Sigmoid", tmp_path / "mixed.onnx") is None


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    one, two = (
        f"() => (float[1, 2] {name}) {{ {name} = {node} (x) }}" for name, node in (("u", "Softmax"), ("v", "Neg"))
    )
    branches = f"then_branch = a {one}, else_branch = b {two}"
    model = _model(f"t = Constant <value = bool[1] {{1}}> () y = If (t) <{branches}>")
    assert write_without(model, "y", "Softmax", tmp_path / "n.onnx") is None
    assert not (tmp_path / "n.onnx").exists()


def test_averages_are_convolutions_for_who_takes_none(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]> net (float[1, 2, 4, 4] x) => (float[1, 8] y) {
        p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x) y = Flatten (p) }"""
    )
    normal = normalise(model, keep=("AveragePool",))
    plain = without_averages(normal)
    assert "AveragePool" not in {node.op_type for node in plain.model.graph.node}
    assert plain.changed
    onnx.save(model, tmp_path / "given.onnx")
    onnx.save(plain.model, tmp_path / "plain.onnx")
    points = np.random.default_rng(0).normal(size=(3, 2, 4, 4)).astype(np.float32)
    first, second = (counterexample.outputs(tmp_path / f"{name}.onnx", points) for name in ("given", "plain"))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)
    assert without_averages(plain) is plain
