"""Networks as verifiers get them: rewritten in the child, checked there, and answered as they were given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.io import identity
from prunecert.verifiers.base import Capabilities, FloatArray, Instance, OutputSpec, Status, UnsupportedError, Verdict
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.formats.support import NORMAL_OPERATORS, OPERATORS
from prunecert.verifiers.process.reading import FileReading
from tests.verifiers import onnxnets

ALLOWED = Capabilities(operators=OPERATORS, specs="dnf")
#: Builds the nodes and constants of a network from four inputs to three outputs; the last value is called ``y``.
Maker = Callable[[np.random.Generator], tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]]


def build(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[Any]],
    shape: tuple[int | str, ...] = (1, 4),
    outputs: tuple[tuple[str, tuple[int, ...]], ...] = (("y", (1, 3)),),
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
) -> Path:
    """Writes a network from ``x``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info(name, kind, list(size)) for name, size in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


def layers(rng: np.random.Generator, kind: Any = np.float32) -> dict[str, NDArray[Any]]:
    sizes = {"w1": (6, 4), "b1": (6,), "w2": (3, 6), "b2": (3,)}
    return {name: rng.standard_normal(size).astype(kind) for name, size in sizes.items()}


def perceptron(last: str = "y") -> list[onnx.NodeProto]:
    """Gemm, Relu, Gemm."""
    return [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["g"], transB=1),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], [last], transB=1),
    ]


def question(path: Path, shape: tuple[int, ...] = (4,), eps: float = 0.05, spec: OutputSpec | None = None) -> Instance:
    center = np.random.default_rng(9).random(shape, dtype=np.float32)
    lower, upper = center - np.float32(eps), center + np.float32(eps)
    outputs = spec or OutputSpec.robustness(0, 3)
    return Instance(path, identity(path), lower, upper, outputs, 20.0, "question", None, 3)


def read(path: Path, folder: Path, outputs: int = 3, allowed: Capabilities = ALLOWED) -> FileReading:
    return FileReading(path, identity(path), outputs, allowed, folder / "scratch")


def runtime(path: Path) -> Callable[[FloatArray], NDArray[Any]]:
    return lambda points: counterexample.outputs(path, points)


def test_a_normal_network_is_handed_on_as_it_is(tmp_path: Path) -> None:
    path = build(tmp_path / "n.onnx", perceptron(), layers(np.random.default_rng(0)))
    reading, instance = read(path, tmp_path), question(path)
    assert reading.path == path
    assert not reading.changed
    assert reading.translate(instance) is instance
    assert not (tmp_path / "scratch").exists()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), height=st.integers(2, 4), width=st.integers(2, 4))
def test_points_find_their_way_there_and_back(seed: int, height: int, width: int, tmp_path: Path) -> None:
    """Channels last: inputs are moved, and every point means the same before and after."""
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.standard_normal((2, 3, 1, 1)).astype(np.float32),
        "b": rng.standard_normal(2).astype(np.float32),
        "m": rng.standard_normal((3, 2 * height * width)).astype(np.float32),
        "c": rng.standard_normal(3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w", "b"], ["k"]),
        helper.make_node("Relu", ["k"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "m", "c"], ["y"], transB=1),
    ]
    path = build(tmp_path / "n.onnx", nodes, constants, (1, height, width, 3))
    reading, instance = read(path, tmp_path), question(path, (height, width, 3))
    inner = reading.translate(instance)
    assert inner.lower.shape == (3, height, width)
    right = counterexample.outputs(path, instance.upper[None])
    np.testing.assert_allclose(counterexample.outputs(inner.onnx, inner.upper[None]), right, rtol=1e-4, atol=1e-5)
    always = replace(instance, spec=OutputSpec(((np.zeros((1, 3)), np.zeros(1)),)))
    back = reading.settle(always, Verdict(Status.SAT, witness=inner.upper), runtime(reading.path))
    assert back.witness is not None
    np.testing.assert_array_equal(back.witness, instance.upper)


def test_an_adapter_that_reads_another_network_proves_nothing(tmp_path: Path) -> None:
    path = build(tmp_path / "n.onnx", perceptron(), layers(np.random.default_rng(0)))
    other = build(tmp_path / "o.onnx", perceptron(), layers(np.random.default_rng(1)))
    reading, instance = read(path, tmp_path), question(path)
    with pytest.raises(RuntimeError, match="differs from onnxruntime"):
        reading.compare(instance, runtime(other))
    verdict = reading.settle(instance, Verdict(Status.UNSAT, bounds=(1.0, 1.0)), runtime(other))
    assert verdict.status is Status.ERROR
    assert "differs from onnxruntime" in verdict.detail
    assert reading.settle(instance, Verdict(Status.UNSAT, bounds=(1.0, 1.0)), runtime(path)).status is Status.UNSAT


def test_a_difference_that_only_the_own_box_shows(tmp_path: Path) -> None:
    """Two networks that are one on [0, 1], and differ where a hidden unit is active beyond it."""
    constants = {name: np.abs(value) for name, value in layers(np.random.default_rng(0)).items()}
    kinked = {**constants, "w1": np.vstack([constants["w1"][:5], np.full((1, 4), 1.0, np.float32)])}
    kinked["b1"] = np.append(constants["b1"][:5], np.float32(-100))
    flat = {**kinked, "w2": np.hstack([constants["w2"][:, :5], np.zeros((3, 1), np.float32)])}
    path, other = (build(tmp_path / f"{i}.onnx", perceptron(), item) for i, item in enumerate((kinked, flat)))
    reading, near = read(path, tmp_path), question(path)
    reading.compare(near, runtime(other))
    far = replace(near, lower=near.lower + 60, upper=near.upper + 60)
    assert reading.settle(near, Verdict(Status.UNSAT), runtime(other)).status is Status.UNSAT
    assert reading.settle(far, Verdict(Status.UNSAT), runtime(other)).status is Status.ERROR


def test_rounding_alone_is_no_difference(tmp_path: Path) -> None:
    """Weights that cancel from 1e6 down to 1: float64 and float32 differ by more than the tolerance, as they may."""
    constants = layers(np.random.default_rng(0))
    constants["w1"] = np.full((6, 4), 1e6, np.float32) + constants["w1"]
    constants["w2"] = np.tile(np.array([[1, -1]], np.float32), (3, 3))
    path = build(tmp_path / "n.onnx", perceptron(), constants)

    def exact(points: FloatArray) -> NDArray[Any]:
        wide = {name: value.astype(np.float64) for name, value in constants.items()}
        hidden = np.maximum(points.reshape(len(points), 4) @ wide["w1"].T + wide["b1"], 0)
        logits: NDArray[Any] = hidden @ wide["w2"].T + wide["b2"]
        return logits

    reading, instance = read(path, tmp_path), question(path)
    points = instance.lower[None]
    assert np.abs(exact(points) - counterexample.outputs(path, points)).max() > 1e-3
    reading.compare(instance, exact)
    with pytest.raises(RuntimeError, match="differs"):
        read(path, tmp_path).compare(instance, lambda points: exact(points) + 1000)


def test_a_file_that_hides_its_randomness_is_no_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(tmp_path / "n.onnx", perceptron(), layers(np.random.default_rng(0)))
    reading, instance = read(path, tmp_path), question(path)
    rng, run = np.random.default_rng(0), counterexample.outputs
    monkeypatch.setattr(counterexample, "outputs", lambda *arguments: run(*arguments) * rng.random())
    with pytest.raises(UnsupportedError, match="is no function"):
        reading.compare(instance, lambda _: None)


def softmax(path: Path, operator: str) -> Path:
    return build(path, [*perceptron("z"), helper.make_node(operator, ["z"], ["y"])], layers(np.random.default_rng(2)))


def row(*values: float, limit: float = 0.0) -> OutputSpec:
    return OutputSpec(((np.array([values]), np.array([limit])),))


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Sigmoid", "Tanh"])
def test_a_last_activation_comes_off_for_comparisons(operator: str, tmp_path: Path) -> None:
    path = softmax(tmp_path / "n.onnx", operator)
    reading = read(path, tmp_path)
    assert operator not in dict(reading.operators)
    for spec in (row(1, -1, 0), OutputSpec.robustness(0, 3)):
        inner = reading.translate(question(path, spec=spec)).spec
        for (a, b), (rows, limit) in zip(inner.disjuncts, spec.disjuncts, strict=True):
            np.testing.assert_array_equal(a, rows)
            # A little more than asked must be proved, so that float32 outputs differ, too.
            assert np.all(b > limit)
            assert np.all(b < limit + 0.1)


@pytest.mark.parametrize(
    ("operator", "spec"),
    [
        ("Softmax", row(1, 0, 0, limit=0.3)),
        ("Softmax", row(1, -1, 0, limit=0.1)),
        ("Softmax", row(1, -0.5, -0.5)),
        ("Sigmoid", row(1, 1, 0)),
        ("LogSoftmax", row(1, 0, 0)),
    ],
)
def test_what_an_activation_changes_is_refused_in_one_sentence(operator: str, spec: OutputSpec, tmp_path: Path) -> None:
    path = softmax(tmp_path / "n.onnx", operator)
    with pytest.raises(UnsupportedError, match=rf"ends with {operator}.*export the network without"):
        read(path, tmp_path).translate(question(path, spec=spec))


def test_a_saturated_activation_proves_nothing(tmp_path: Path) -> None:
    """Sigmoids of 30 and 40 are one float32 number: their order can't be read off the logits."""
    constants = layers(np.random.default_rng(2))
    constants["b2"] = np.array([40, 30, 20], dtype=np.float32)
    path = build(tmp_path / "n.onnx", [*perceptron("z"), helper.make_node("Sigmoid", ["z"], ["y"])], constants)
    with pytest.raises(UnsupportedError, match="float32 values are equal"):
        read(path, tmp_path).translate(question(path))


def test_a_witness_of_the_normal_form_alone_decides_nothing(tmp_path: Path) -> None:
    path = softmax(tmp_path / "n.onnx", "Softmax")
    reading, instance = read(path, tmp_path), question(path)
    safe = replace(instance, spec=row(0, 0, 0, limit=-1.0))
    verdict = reading.settle(safe, Verdict(Status.SAT, witness=instance.lower), lambda _: None)
    assert verdict.status is Status.UNKNOWN
    assert verdict.witness is None


def test_the_output_that_fits_the_property(tmp_path: Path) -> None:
    constants = layers(np.random.default_rng(0))
    path = build(tmp_path / "n.onnx", perceptron(), constants, outputs=(("g", (1, 6)), ("y", (1, 3))))
    reading, instance = read(path, tmp_path), question(path)
    points = instance.lower[None]
    np.testing.assert_array_equal(counterexample.outputs(reading.path, points), counterexample.outputs(path, points, 3))
    with pytest.raises(UserError):
        read(path, tmp_path, outputs=5)


def test_averages_become_convolutions_for_whom_takes_none(tmp_path: Path) -> None:
    path = onnxnets.residual(tmp_path / "n.onnx")
    few = Capabilities(operators=NORMAL_OPERATORS - {"AveragePool"}, specs="dnf")
    reading = read(path, tmp_path, 10, few)
    assert "AveragePool" not in dict(reading.operators)
    points = np.random.default_rng(0).random((3, 3, 6, 6), dtype=np.float32)
    np.testing.assert_allclose(
        counterexample.outputs(reading.path, points), counterexample.outputs(path, points), atol=1e-4
    )


def test_a_network_without_normal_form_goes_to_whom_takes_it(tmp_path: Path) -> None:
    nodes = perceptron()
    nodes[1] = helper.make_node("Sigmoid", ["g"], ["r"])
    path = build(tmp_path / "n.onnx", nodes, layers(np.random.default_rng(0)))
    with pytest.raises(UserError, match="Sigmoid"):
        read(path, tmp_path)
    native = Capabilities(operators=OPERATORS, specs="dnf", native=OPERATORS | {"Sigmoid"})
    reading = read(path, tmp_path, allowed=native)
    assert reading.path == path
    assert not reading.normal


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_types_are_run_in_their_own(kind: Any, tmp_path: Path) -> None:
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    path = build(tmp_path / "n.onnx", perceptron(), layers(np.random.default_rng(0), kind), kind=element)
    reading, instance = read(path, tmp_path), question(path)
    reading.compare(instance, runtime(reading.path))
    point = counterexample.representable(instance.lower, path)
    assert np.array_equal(point, point.astype(kind).astype(np.float32))
    always = replace(instance, spec=OutputSpec(((np.zeros((1, 3)), np.zeros(1)),)))
    check, checked = counterexample.replay(always, instance.lower + np.float32(0.01))
    assert check.ok
    assert np.array_equal(checked, checked.astype(kind).astype(np.float32))
