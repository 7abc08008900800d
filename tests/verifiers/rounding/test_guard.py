"""What is proved in real arithmetic and broken in float32 is no `unsat`; what has a margin beyond rounding is one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import helper

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import Instance, Kind, OutputSpec, Status, Verdict, Verifier
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.child import encode
from prunecert.verifiers.process.judge import judge
from prunecert.verifiers.process.worker import Worker
from prunecert.verifiers.rounding import float64_network, guard
from tests import inprocess
from tests.verifiers import onnxnets


class _Proves(Verifier):
    """Answers `unsat` to everything."""

    name = "proves"
    kind = Kind.COMPLETE
    bounds: ClassVar[tuple[float, ...] | None] = None

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        return [Verdict(Status.UNSAT, bounds=self.bounds) for _ in instances]


class _Tightens(_Proves):
    name = "tightens"
    tightens = True


def _judged(instance: Instance, verifier: type[_Proves] = _Proves, **fields: Any) -> Verdict:
    return judge(verifier, instance, encode(Verdict(**{"status": Status.UNSAT, **fields})))


def _instance(
    onnx: Path, low: npt.ArrayLike, high: npt.ArrayLike, rows: Sequence[Sequence[float]], limits: Sequence[float]
) -> Instance:
    """Every row is a disjunct of its own."""
    spec = OutputSpec(
        tuple((np.array([row], dtype=float), np.array([limit])) for row, limit in zip(rows, limits, strict=True))
    )
    lower, upper = (np.asarray(corner, dtype=np.float32) for corner in (low, high))
    return Instance(onnx, sha256_file(onnx), lower, upper, spec, 60.0, classes=len(rows[0]))


def _gemms(path: Path, layers: Sequence[tuple[npt.ArrayLike, npt.ArrayLike]]) -> Path:
    """Gemms with ReLUs between them."""
    nodes, value = [], "input"
    constants: dict[str, npt.NDArray[Any]] = {}
    arrays = [(np.asarray(w, dtype=np.float32), np.asarray(b, dtype=np.float32)) for w, b in layers]
    for index, (weight, bias) in enumerate(arrays):
        last = index == len(arrays) - 1
        constants |= {f"w{index}": weight, f"b{index}": bias}
        out = "output" if last else f"z{index}"
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [out], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"a{index}"]))
            value = f"a{index}"
    return onnxnets.write(path, nodes, constants, (arrays[0][0].shape[1],), len(arrays[-1][1]))


def _cancelling(path: Path, scale: float, gap: float, shift: float) -> Path:
    """Two neurons of size `scale` whose difference is `gap` wherever both are active: y_0 = 3 gap + shift."""
    return _gemms(
        path,
        [
            ([[scale]], [-scale]),
            ([[2.0], [2.0]], [-scale, -scale - gap]),
            ([[3.0, -3.0], [0.0, 0.0]], [shift, 0.0]),
        ],
    )


@pytest.fixture(name="four_below")
def _four_below(tmp_path: Path) -> Instance:
    """The output is -4 everywhere, of neurons of size 1e8."""
    return _instance(_cancelling(tmp_path / "g.onnx", 1e8, 8.0, -28.0), [2.0], [2.1], [[1.0, 0.0]], [0.0])


@pytest.mark.slow
@pytest.mark.parametrize("verifier", ["ibp", "crown-ibp", "crown", "alpha-crown"])
def test_float32_bounds_of_cancelling_neurons_prove_nothing(verifier: str, tmp_path: Path) -> None:
    cases = [(1e8, 8.0, -28.0), (3e7, 4.0, -14.5), (3e7, 4.0, -11.0)]
    networks = [_cancelling(tmp_path / f"{number}.onnx", *case) for number, case in enumerate(cases)]
    with inprocess.verifiers(), Worker(verifier, threads=1) as worker:
        verdicts = worker.verify([_instance(path, [2.0], [2.1], [[1.0, 0.0]], [0.0]) for path in networks])
    assert [verdict.status for verdict in verdicts] == [Status.UNKNOWN] * 3, verdicts


@pytest.mark.slow
@pytest.mark.parametrize("attack", [0.0, 1.0])
def test_neuralsat_on_cancelling_neurons(attack: float, tmp_path: Path) -> None:
    path = _cancelling(tmp_path / "g.onnx", 3e7, 4.0, -14.5)
    question = dataclasses.replace(_instance(path, [2.0], [2.1], [[1.0, 0.0]], [0.0]), timeout=3.0)
    with Worker("neuralsat", {"attack_seconds": attack}, threads=1) as worker:
        (verdict,) = worker.verify([question])
    assert verdict.status in (Status.SAT, Status.UNKNOWN, Status.TIMEOUT), verdict.detail


def test_the_allowance_covers_what_cancels(four_below: Instance) -> None:
    (allowed,) = guard.measure(four_below).allowance
    assert 8.0 < allowed < 1000.0


def test_what_is_no_number_is_refused_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = _instance(_gemms(tmp_path / "n.onnx", [([[1.0]], [5.0])]), [0.0], [1.0], [[1.0]], [0.0])
    assert _judged(question).status is Status.UNSAT
    measured = guard.measure(question)
    monkeypatch.setattr(guard, "measure", lambda _: dataclasses.replace(measured, exact=np.full((1, 1), np.nan)))
    assert _judged(question).status is Status.UNKNOWN


def test_a_counterexample_within_rounding_is_unknown(four_below: Instance) -> None:
    verdict = _judged(four_below)
    assert verdict.status is Status.UNKNOWN
    assert "by no more than rounding" in verdict.detail
    assert "gives -4" in verdict.detail


def test_a_counterexample_beyond_rounding_is_an_error(tmp_path: Path) -> None:
    question = _instance(
        onnxnets.connected(tmp_path / "n.onnx"), np.zeros((3, 2, 2)), np.ones((3, 2, 2)), [[0.0] * 10], [1.0]
    )
    for bounds in (None, (0.5,)):
        verdict = _judged(question, bounds=bounds)
        assert verdict.status is Status.ERROR
        assert "is a counterexample" in verdict.detail
        assert verdict.bounds is None


def test_the_corner_towards_which_a_row_falls_is_tried(tmp_path: Path) -> None:
    """16 inputs: one corner of 65,536 is unsafe, and no random one is tried."""
    signs = np.where(np.arange(16) % 3, 1.0, -1.0)
    path = _gemms(tmp_path / "n.onnx", [(signs[None], [0.0])])
    question = _instance(path, -np.ones(16), np.ones(16), [[1.0]], [-15.5])
    assert _judged(question).status is Status.ERROR
    safe = _instance(path, -np.ones(16), np.ones(16), [[1.0]], [-16.1])
    assert _judged(safe).status is Status.UNSAT


def test_constants_that_the_graph_sums(tmp_path: Path) -> None:
    """The exact sum is 409.6000061; float32 gives about 1e-3 more or less, depending on the order."""
    ones = np.ones((4096, 1), dtype=np.float32)
    constants = {
        "a": np.full((1, 4096), 0.1, dtype=np.float32),
        "b": ones,
        "w": np.ones((1, 1), dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["sum"]),
        helper.make_node("Add", ["input", "sum"], ["more"]),
        helper.make_node("Gemm", ["more", "w"], ["output"]),
    ]
    path = onnxnets.write(tmp_path / "n.onnx", nodes, constants, (1,), 1)
    # Below, and above, what this runtime gives.
    for limit in (-409.60002, -409.6015):
        verdict = _judged(_instance(path, [0.0], [1e-6], [[-1.0]], [limit]))
        assert verdict.status is Status.UNKNOWN, limit
    assert _judged(_instance(path, [0.0], [1e-6], [[-1.0]], [-410.0])).status is Status.UNSAT


def test_the_default_of_epsilon_is_a_float32_number(tmp_path: Path) -> None:
    constants = {
        "s": np.ones(1, dtype=np.float32),
        "o": np.zeros(1, dtype=np.float32),
        "m": np.array([-1654788.125], dtype=np.float32),
        "v": np.zeros(1, dtype=np.float32),
        "w": np.ones((1, 1), dtype=np.float32),
    }
    nodes = [
        helper.make_node("BatchNormalization", ["input", "s", "o", "m", "v"], ["n"]),
        helper.make_node("Gemm", ["n", "w"], ["output"]),
    ]
    path = onnxnets.write(tmp_path / "n.onnx", nodes, constants, (1,), 1)
    (exact,) = float64_network.Network(path).run([0.0])
    assert exact == pytest.approx(523289958.6, abs=0.1)
    verdict = _judged(_instance(path, [0.0], [1e-4], [[-1.0]], [-523289970.0]))
    assert verdict.status is Status.UNKNOWN


def test_outputs_that_overflow_prove_nothing(tmp_path: Path) -> None:
    path = _gemms(tmp_path / "n.onnx", [([[1e30], [-1e30]], [0.0, 0.0]), ([[1e30, 1e30]], [0.0])])
    verdict = _judged(_instance(path, [1.0], [2.0], [[1.0]], [0.0]))
    assert verdict.status is Status.UNKNOWN
    assert "infinite or not a number" in verdict.detail


def test_a_network_that_is_no_function_is_unsupported(tmp_path: Path) -> None:
    constants = {
        "ratio": np.array(0.5, dtype=np.float32),
        "training": np.array(True),
        # Powers of 2, so that no two choices of what is dropped have one sum.
        "w": np.exp2(np.arange(16, dtype=np.float32))[None],
    }
    nodes = [
        helper.make_node("Dropout", ["input", "ratio", "training"], ["dropped"]),
        helper.make_node("Gemm", ["dropped", "w"], ["output"], transB=1),
    ]
    path = onnxnets.write(tmp_path / "n.onnx", nodes, constants, (16,), 1)
    verdict = _judged(_instance(path, np.full(16, 0.9), np.ones(16), [[1.0]], [-1.0]))
    assert verdict.status is Status.UNSUPPORTED
    assert "no function" in verdict.detail


def _near(tmp_path: Path, above: float) -> Instance:
    """A point whose first output, exact and in onnxruntime, is at least so far above the threshold."""
    point = onnxnets.instance(onnxnets.connected(tmp_path / "near.onnx", seed=3), 0.0, 3)
    measured = guard.measure(point)
    lowest = min(float(measured.exact[0, 0]), float(measured.outputs[0, 0]))
    return dataclasses.replace(point, spec=OutputSpec(((np.eye(10)[:1], np.array([lowest - above])),)))


@pytest.mark.parametrize(("above", "status"), [(1e-7, Status.UNKNOWN), (1e-3, Status.UNSAT)])
def test_a_margin_within_the_allowance_is_unknown(above: float, status: Status, tmp_path: Path) -> None:
    question = _near(tmp_path, above)
    (allowed,) = guard.measure(question).allowance
    assert 2e-7 < allowed < 1e-4
    verdict = _judged(question)
    assert verdict.status is status, verdict.detail
    # A bound that is low decides, too, however safe the points are.
    assert _judged(_near(tmp_path, 1.0), bounds=(1e-7,)).status is Status.UNKNOWN
    assert _judged(_near(tmp_path, 1.0), bounds=(0.9,)).status is Status.UNSAT


@pytest.mark.slow
@pytest.mark.parametrize("verifier", ["sparse-ibp", "sparse-crown", "sparse-alpha-crown", "sparse-bab", "crown"])
def test_verifiers_leave_room_for_rounding(verifier: str, tmp_path: Path) -> None:
    instances = [_near(tmp_path, above) for above in (1e-8, 1e-3)]
    with inprocess.verifiers(), Worker(verifier, threads=1) as worker:
        near, far = worker.verify(instances)
    assert near.status is Status.UNKNOWN, near.detail
    assert far.status is Status.UNSAT, far.detail
    assert far.bounds is not None
    assert far.bounds[0] == pytest.approx(1e-3, rel=1e-2)


def test_a_counterexample_that_rounding_undoes_is_unknown(tmp_path: Path) -> None:
    question = _near(tmp_path, 1e-8)
    verdict = _judged(question, status=Status.SAT, witness=question.lower)
    assert verdict.status is Status.UNKNOWN, verdict.detail
    assert verdict.witness is None
    far = _judged(_near(tmp_path, 0.1), status=Status.SAT, witness=question.lower)
    assert far.status is Status.ERROR


def test_the_tightened_property_is_proved_with_its_margin(tmp_path: Path) -> None:
    question = guard.prepare(_Tightens, _near(tmp_path, 1e-8))
    (allowed,) = question.allowance
    assert guard.prepare(_Proves, _near(tmp_path, 1e-8)).allowance == ()
    ((rows, limits),) = question.tightened(2.0).disjuncts
    assert limits[0] == question.spec.disjuncts[0][1][0] + 2 * allowed
    assert rows is question.spec.disjuncts[0][0]
    # No part of the question: a run is found again whatever was measured.
    assert question.digest() == _near(tmp_path, 1e-8).digest()


def test_a_search_that_ends_in_the_gap_is_asked_again(tmp_path: Path) -> None:
    question = guard.prepare(_Tightens, _near(tmp_path, 1e-8))
    instances = []

    def ask(instance: Instance) -> Verdict:
        instances.append(instance)
        violated = instance.spec.violated_by(guard.measure(question).exact[0])
        return Verdict(Status.SAT, witness=question.lower) if violated else Verdict(Status.UNSAT)

    verdict = guard.search(question, ask)
    assert verdict.status is Status.UNKNOWN
    assert verdict.witness is None
    assert [item.spec.disjuncts[0][1][0] > question.spec.disjuncts[0][1][0] for item in instances] == [True, False]
    assert instances[1].timeout <= question.timeout
    # A proof of the first, or a counterexample to the second, is an answer.
    assert guard.search(question, lambda _: Verdict(Status.UNSAT)).status is Status.UNSAT
    below = dataclasses.replace(question, spec=OutputSpec(((np.eye(10)[:1], np.array([100.0])),)))
    assert guard.search(below, lambda _: Verdict(Status.SAT, witness=question.lower)).status is Status.SAT


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 1e3, 1e6]), eps=st.sampled_from([0.0, 0.01, 0.3])
)
@example(seed=3227164, scale=1e3, eps=0.3)
def test_no_point_rounds_by_more_than_the_allowance(seed: int, scale: float, eps: float, tmp_path: Path) -> None:
    """Two neurons of size `scale` cancel; 300 points of the box that the measurement has not seen."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(20, 6)) * scale
    hidden[10:] = hidden[:10] + rng.normal(size=(10, 6)) * 1e-3
    last = rng.normal(size=(3, 20))
    last[:, 10:] = -last[:, :10]
    path = _gemms(tmp_path / f"{seed}.onnx", [(hidden, rng.normal(size=20)), (last, rng.normal(size=3))])
    center = rng.normal(size=6)
    question = _instance(path, center - eps, center + eps, np.eye(3).tolist(), [0.0] * 3)
    allowed = guard.measure(question).allowance
    network = float64_network.Network(path)
    shares = rng.random((300, 6))
    points = np.clip(
        (question.lower + shares * (question.upper - question.lower)).astype(np.float32), question.lower, question.upper
    )
    gaps = counterexample.outputs(path, points) - np.stack([network.run(point) for point in points])
    assert np.all(np.abs(gaps).max(axis=0) < allowed)
    # Nor is it so large that nothing could be proved: some hundred roundings of what is summed.
    assert max(allowed) < 1e-4 * (scale * 100 + 10)
    path.unlink()


def test_a_measurement_is_the_same_twice(tmp_path: Path) -> None:
    path = onnxnets.residual(tmp_path / "n.onnx", seed=2)
    first, second = (onnxnets.instance(path, 0.01, 1) for _ in range(2))
    once = guard.measure(first)
    assert guard.measure(second) is once
    guard._measure.cache_clear()
    again = guard.measure(second)
    assert again is not once
    assert again.allowance == once.allowance
    assert np.array_equal(again.points, once.points)


def test_points_of_a_ball_lie_in_it(tmp_path: Path) -> None:
    question = onnxnets.instance(onnxnets.convolutional(tmp_path / "n.onnx", seed=2), 0.1, 1, norm="l2")
    measured = guard.measure(question)
    assert len(measured.points) > 5
    assert all(question.contains(point) for point in measured.points)


@pytest.mark.parametrize("place", [0, 1])
def test_a_bound_that_is_not_a_number_proves_nothing(place: int, tmp_path: Path) -> None:
    network = _gemms(tmp_path / "net.onnx", [([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0])])
    instance = _instance(network, [0.0, 0.0], [1.0, 1.0], [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    bounds = [1.0, 1.0]
    assert guard.guard(_Proves, instance, Verdict(Status.UNSAT, bounds=tuple(bounds))).status is Status.UNSAT
    bounds[place] = np.nan
    assert guard.guard(_Proves, instance, Verdict(Status.UNSAT, bounds=tuple(bounds))).status is Status.UNKNOWN


def test_nothing_is_proved_of_what_can_be_measured_by_nothing(tmp_path: Path) -> None:
    """A branch is run by onnxruntime alone, and the normal form lacks the last operator, so that it is no measure."""
    text = """<ir_version: 8, opset_import: ["" : 13]> net (float[1, 2] x) => (float[1, 2] y) {
    t = Constant <value = bool[1] {1}> () z = If (t) <then_branch = a () => (float[1, 2] u) { u = Identity (x) },
    else_branch = b () => (float[1, 2] v) { v = Neg (x) }> y = Softmax (z) }"""
    path = tmp_path / "n.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    instance = _instance(path, [0.9, 0.0], [1.0, 0.1], [[1.0, -1.0]], [0.0])
    assert guard.measure(instance).allowance == (np.inf,)
    verdict = _judged(instance)
    assert verdict.status is Status.UNKNOWN
    assert "can't be run in float64 here" in verdict.detail
    # Told beforehand, a verifier is given a number to compute with.
    assert guard.prepare(_Tightens, instance).allowance == (1e30,)


def test_what_is_switched_on_in_a_narrow_part_of_the_box_is_met_where_few_inputs_vary(tmp_path: Path) -> None:
    """1e9 b + 1 - 1e9 b is 1, and 0 in float32 where b is 1: within a hundredth of x = 0.537."""
    text = """<ir_version: 8, opset_import: ["" : 13]> net (float[1, 1] x) => (float[1, 1] y) <float[1] c = {0.537},
    float[1] s = {100}, float[1] k = {1}, float[1, 2] w = {1e9, 1e9}, float[2] v = {1, 0}, float[2, 1] m = {1, -1}> {
    d = Sub (x, c) a = Abs (d) e = Mul (a, s) g = Sub (k, e) b = Relu (g) p = MatMul (b, w) q = Add (p, v)
    y = MatMul (q, m) }"""
    path = tmp_path / "n.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    verdict = _judged(_instance(path, [0.0], [1.0], [[1.0]], [0.5]), bounds=(0.5,))
    assert verdict.status is Status.UNKNOWN
    assert "by no more than rounding" in verdict.detail
