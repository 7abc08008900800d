"""The replay: no tolerance, but for a point that float32 rounding put outside the box."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec
from prunecert.verifiers.formats import counterexample
from tests.verifiers import onnxnets


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return onnxnets.linear(tmp_path / "net.onnx")


@pytest.fixture
def unsafe(network: Path) -> Instance:
    """A question to which every point of the box is a counterexample."""
    always = OutputSpec(((np.zeros((1, 10)), np.ones(1)),))
    return onnxnets.instance(network, 0.1, spec=always)


def inside(question: Instance) -> FloatArray:
    point: FloatArray = question.lower + np.float32(0.5) * (question.upper - question.lower)
    return point


def test_a_counterexample_counts(unsafe: Instance) -> None:
    check, point = counterexample.replay(unsafe, inside(unsafe))
    assert check.ok
    assert check.in_set
    assert check.violated
    assert not check.clipped
    assert check.outside == 0
    assert check.onnx_sha256 == unsafe.onnx_sha256
    np.testing.assert_array_equal(point, inside(unsafe))
    np.testing.assert_array_equal(check.outputs, counterexample.outputs(unsafe.onnx, point[None])[0])


def test_the_record_is_json_whatever_it_holds(unsafe: Instance) -> None:
    for witness in (inside(unsafe), np.full_like(unsafe.lower, np.nan), np.zeros(3), unsafe.upper + 1):
        record = counterexample.replay(unsafe, witness)[0].to_json()
        again = json.loads(json.dumps(record, allow_nan=False))
        assert again["schema_version"] == counterexample.SCHEMA_VERSION
        assert again["rationale"]


def test_rounding_is_clipped_and_said(unsafe: Instance) -> None:
    witness = np.nextafter(unsafe.upper, np.float32(2))
    check, point = counterexample.replay(unsafe, witness)
    assert check.ok
    assert check.clipped
    assert 0 < check.outside < 1e-6
    assert "clipped" in check.rationale
    np.testing.assert_array_equal(point, unsafe.upper)
    strict, _ = counterexample.replay(unsafe, witness, clip=False)
    assert not strict.ok


@pytest.mark.parametrize("distance", [1e-5, 1e-2, np.inf])
def test_outside_is_outside(unsafe: Instance, distance: float) -> None:
    witness = unsafe.upper.copy()
    witness.reshape(-1)[0] += np.float32(distance)
    check, _ = counterexample.replay(unsafe, witness)
    assert not check.ok
    assert not check.in_set
    assert not check.clipped
    assert check.violated == bool(np.isfinite(distance))


def test_a_safe_point_is_none(network: Path) -> None:
    question = onnxnets.instance(network, 0.0)
    check, _ = counterexample.replay(question, question.lower)
    assert check.in_set
    assert not check.violated
    assert not check.ok


def test_a_tie_changes_the_class(network: Path) -> None:
    """VNN-LIB states y_label <= y_j: equality is unsafe, with no tolerance either way."""
    image = onnxnets.instance(network, 0.0)
    value = float(counterexample.outputs(network, image.lower[None])[0, 0])
    for bound, unsafe in [(value, True), (float(np.nextafter(value, -np.inf)), False)]:
        spec = OutputSpec(((np.eye(10)[:1], np.array([bound])),))
        question = onnxnets.instance(network, 0.0, spec=spec)
        assert counterexample.replay(question, image.lower)[0].ok is unsafe


def test_a_ball_is_not_its_box(network: Path) -> None:
    always = OutputSpec(((np.zeros((1, 10)), np.ones(1)),))
    question = onnxnets.instance(network, 0.05, norm="l2", spec=always)
    corner, _ = counterexample.replay(question, question.upper)
    assert not corner.ok
    assert "outside the ball" in corner.rationale
    assert question.center is not None
    assert counterexample.replay(question, question.center)[0].ok


@pytest.mark.parametrize("content", [b"", b"<html>404 not found</html>", b"\x08\x07\x12\x04test"])
def test_no_onnx_is_one_clear_sentence(content: bytes, network: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"bad\.onnx is refused because it is no ONNX network or is cut off"):
        counterexample.outputs(path, np.zeros((1, 3, 2, 2), dtype=np.float32))


def test_what_the_runtime_refuses_is_said_once_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = """<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
        <float s = {0.5}, uint8[3] z = {0, 1, 2}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    with pytest.raises(UserError, match=r"QuantizeLinear node.*\(?x_zero_point must be null or a scalar") as refused:
        counterexample.outputs(tmp_path / "net.onnx", np.zeros((1, 2), dtype=np.float32))
    assert not any(word in str(refused.value) for word in ("\n", "onnxruntime_src", ".cc"))
    assert capfd.readouterr() == ("", "")


def test_a_truncated_onnx_is_refused(network: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(network.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut off"):
        counterexample.outputs(path, np.zeros((1, 3, 2, 2), dtype=np.float32))
    with pytest.raises(UserError, match="can't be read"):
        counterexample.outputs(tmp_path / "none.onnx", np.zeros((1, 3, 2, 2), dtype=np.float32))


def _of_type(path: Path, kind: str) -> Path:
    """A network of one input of a type, whose output is always unsafe."""
    text = f"""<ir_version: 8, opset_import: ["" : 13]> net ({kind}[1, 1] x) => (float[1, 1] y)
    {{ y = Cast <to = 1> (x) }}"""
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def _between(path: Path, low: float, high: float) -> Instance:
    lower, upper = (np.full((1, 1), end, dtype=np.float32) for end in (low, high))
    always = OutputSpec(((np.zeros((1, 1)), np.ones(1)),))
    return Instance(path, sha256_file(path), lower, upper, always, 10.0, classes=1)


@pytest.mark.parametrize(
    ("kind", "low", "high", "claimed", "nearest"),
    [
        # 0.7 lies between 0.69971 and 0.7002 in float16, 0.1 between 0.09998 and 0.10004.
        ("float16", 0.1, 0.7, 0.7, float(np.float16(0.69971))),
        ("float16", 0.1, 0.7, 0.1, float(np.nextafter(np.float16(0.1), np.float16(1)))),
        ("float16", 0.1, 0.7, 0.5, 0.5),
        ("float16", -0.7, -0.1, -0.7, -float(np.float16(0.69971))),
        ("uint8", 0.6, 3.4, 0.6, 1.0),
        ("uint8", 0.6, 3.4, 3.4, 3.0),
        ("uint8", 2.6, 4.4, 2.6, 3.0),
        ("uint8", 1.4, 2.2, 1.4, 2.0),
    ],
)
def test_the_nearest_point_that_a_network_can_be_given_is_one_of_the_box(
    kind: str, low: float, high: float, claimed: float, nearest: float, tmp_path: Path
) -> None:
    question = _between(_of_type(tmp_path / "n.onnx", kind), low, high)
    check, point = counterexample.replay(question, np.full((1, 1), claimed, dtype=np.float32))
    assert check.ok
    assert check.outside == 0
    assert float(point[0, 0]) == nearest
    assert check.clipped == (np.float32(claimed) != np.float32(nearest))


def test_where_the_box_has_no_such_point_the_claim_is_outside(tmp_path: Path) -> None:
    question = _between(_of_type(tmp_path / "n.onnx", "uint8"), 2.2, 2.6)
    check, _ = counterexample.replay(question, np.full((1, 1), 2.5, dtype=np.float32))
    assert not check.in_set
    assert check.outside == pytest.approx(0.2)
    assert "0.2 outside the box" in check.rationale
    # A point beyond the box isn't pulled into it.
    check, _ = counterexample.replay(question, np.full((1, 1), 9.0, dtype=np.float32))
    assert check.outside == pytest.approx(6.4)
