"""Bounds through auto_LiRPA: they hold, they say when they are too near 0, and what isn't taken is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from prunecert.errors import UserError
from prunecert.verifiers.adapters import autolirpa
from prunecert.verifiers.adapters.lirpa.adapter import AlphaCrown, Crown, CrownIbp, Ibp
from prunecert.verifiers.adapters.lirpa.engine import Lirpa
from prunecert.verifiers.adapters.lirpa.rows import SpecificationRows
from prunecert.verifiers.base import Instance, Norm, OutputSpec, Status
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.worker import Worker
from prunecert.verifiers.rounding.lirpa import Apart
from tests import inprocess
from tests.verifiers import onnxnets

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")
TOLERANCE = 1e-5
NETWORKS: dict[str, Callable[[Path], Path]] = {
    "connected": lambda path: onnxnets.connected(path, seed=1),
    "residual": lambda path: onnxnets.residual(path, seed=2),
    "pruned-residual": lambda path: onnxnets.residual(path, seed=3, sparsity=0.9),
    "convolutional": lambda path: onnxnets.convolutional(path, seed=4),
    "pruned-convolutional": lambda path: onnxnets.convolutional(path, seed=5, sparsity=0.8),
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nets")
    return {name: make(folder / f"{name}.onnx") for name, make in NETWORKS.items()}


@pytest.fixture(scope="module", params=METHODS)
def worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with inprocess.verifiers(), Worker(request.param, threads=1) as subject:
        yield subject


@pytest.fixture(scope="module")
def ibp(auto_lirpa: None) -> Iterator[Worker]:
    with inprocess.verifiers(), Worker("ibp", threads=1) as subject:
        yield subject


def margins(question: Instance, points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the smallest value of each disjunct's best row over the points, in onnxruntime."""
    outputs = counterexample.outputs(question.onnx, points).astype(np.float64)
    return np.array([(outputs @ a.T - b).max(axis=1).min() for a, b in question.spec.disjuncts])


_smallest: dict[str, NDArray[np.float64]] = {}


def sampled(question: Instance) -> NDArray[np.float64]:
    """Returns `margins` over 2,000 points of the input set; all methods are asked the same questions."""
    key = question.question()
    if key not in _smallest:
        _smallest[key] = margins(question, onnxnets.samples(question, 2_000))
    return _smallest[key]


def scale(question: Instance) -> float:
    outputs = counterexample.outputs(question.onnx, question.lower[None])
    return max(1.0, 2 * float(np.abs(outputs).max()))


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "radii"), [("linf", (0.002, 0.01, 0.05)), ("l2", (0.01, 0.1))])
@pytest.mark.parametrize("name", NETWORKS)
def test_bounds_contain_two_thousand_outputs(
    worker: Worker, name: str, norm: Norm, radii: tuple[float, ...], networks: dict[str, Path]
) -> None:
    instances = [onnxnets.instance(networks[name], eps, seed, norm=norm) for eps in radii for seed in range(2)]
    for question, verdict in zip(instances, worker.verify(instances), strict=True):
        assert verdict.status in (Status.UNSAT, Status.UNKNOWN), verdict.detail
        assert verdict.bounds is not None
        smallest = sampled(question)
        assert np.all(np.array(verdict.bounds) <= smallest + TOLERANCE * scale(question))
        assert verdict.unstable is not None
        if verdict.status is Status.UNSAT:
            assert smallest.min() > 0


@pytest.mark.slow
def test_a_point_has_its_own_output_as_bound(worker: Worker, networks: dict[str, Path]) -> None:
    instances = [onnxnets.instance(path, 0.0, seed) for path in networks.values() for seed in range(2)]
    for question, verdict in zip(instances, worker.verify(instances), strict=True):
        assert verdict.bounds is not None
        exact = margins(question, question.lower[None])
        np.testing.assert_allclose(verdict.bounds, exact, atol=TOLERANCE * scale(question))
        assert verdict.status is Status.UNSAT
        assert verdict.unstable == 0


@pytest.mark.slow
def test_any_disjunctive_normal_form(worker: Worker, networks: dict[str, Path]) -> None:
    """Disjuncts of several rows, and batches whose specifications have different numbers of rows."""
    rng = np.random.default_rng(0)
    instances = []
    for seed, rows in enumerate([(1,), (3, 1, 2), (2, 2), (1,) * 12]):
        spec = OutputSpec(tuple((rng.standard_normal((m, 10)), rng.standard_normal(m) - 2) for m in rows))
        instances.append(onnxnets.instance(networks["convolutional"], 0.01, seed, spec=spec))
    for question, verdict in zip(instances, worker.verify(instances), strict=True):
        assert verdict.bounds is not None
        assert len(verdict.bounds) == len(question.spec.disjuncts)
        smallest = margins(question, onnxnets.samples(question, 3000))
        assert np.all(np.array(verdict.bounds) <= smallest + TOLERANCE * 10)
        assert verdict.status is (Status.UNSAT if min(verdict.bounds) > TOLERANCE * 20 else Status.UNKNOWN)


@pytest.mark.slow
@pytest.mark.parametrize(("above", "status"), [(3e-6, Status.UNKNOWN), (1e-2, Status.UNSAT)])
def test_a_margin_within_rounding_is_no_proof(
    worker: Worker, above: float, status: Status, networks: dict[str, Path]
) -> None:
    point = onnxnets.instance(networks["connected"], 0.0, 7)
    output = float(counterexample.outputs(point.onnx, point.lower[None])[0, 0])
    row = np.eye(10)[:1]
    question = onnxnets.instance(
        networks["connected"],
        0.0,
        7,
        spec=OutputSpec(
            (
                (
                    row,
                    np.array([output - above]),
                ),
            )
        ),
    )
    (verdict,) = worker.verify([question])
    assert verdict.bounds is not None
    assert verdict.bounds[0] == pytest.approx(above, abs=2e-6)
    assert verdict.status is status
    assert ("within float32 tolerance" in verdict.detail) == (status is Status.UNKNOWN)


@pytest.mark.slow
def test_a_batch_says_what_each_alone_says(worker: Worker, networks: dict[str, Path]) -> None:
    instances = [onnxnets.instance(networks["residual"], 0.01 * (1 + seed % 3), seed) for seed in range(6)]
    together = worker.verify(instances)
    for question, verdict in zip(instances, together, strict=True):
        (alone,) = worker.verify([question])
        assert verdict.bounds is not None
        assert alone.bounds is not None
        # α-CROWN's optimiser follows rounding further than that.
        tolerance = 1e-3 if worker.name == "alpha-crown" else 1e-5
        np.testing.assert_allclose(verdict.bounds, alone.bounds, atol=tolerance * scale(question))


@pytest.mark.slow
@pytest.mark.parametrize("method", [Ibp, Crown, AlphaCrown])
def test_float64_decides_where_float32_can_not(
    method: type[Ibp | Crown | AlphaCrown], networks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left of float32's bounds; float64's are the same but for rounding, and proofs."""
    verifier = method()
    verifier.start()
    verifier.load(networks["convolutional"])
    certain = verifier._certain

    def nothing(
        instances: list[Instance],
        rows: SpecificationRows,
        lower: NDArray[np.float64],
        indices: list[int] | None,
        apart: Apart,
    ) -> NDArray[np.float64]:
        less = certain(instances, rows, lower, indices, apart)
        return less - np.inf if verifier._dtype is torch.float32 else less

    questions = [onnxnets.instance(networks["convolutional"], 0.03, seed) for seed in range(2)]
    plain = verifier.solve(questions)
    # Thresholds a little below the bounds: several rows, which optimised slopes have to prove.
    below = []
    for question, verdict in zip(questions, plain, strict=True):
        pairs = zip(question.spec.disjuncts, verdict.bounds or (), strict=True)
        spec = OutputSpec(tuple((a, b + bound - 0.01) for (a, b), bound in pairs))
        below.append(dataclasses.replace(question, spec=spec))
    monkeypatch.setattr(verifier, "_certain", nothing)
    verdicts = verifier.solve(below)
    assert [verdict.status for verdict in verdicts] == [Status.UNSAT] * 2, [verdict.detail for verdict in verdicts]
    assert torch.get_default_dtype() is torch.float32
    for verdict in verdicts:
        np.testing.assert_allclose(verdict.bounds or (), 0.01, atol=1e-3 if method is AlphaCrown else 1e-5)


@pytest.mark.parametrize("method", [Ibp, CrownIbp, Crown])
def test_an_ordinary_proof_needs_no_float64(
    method: type[Lirpa], networks: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = method()
    verifier.start()
    verifier.load(networks["convolutional"])
    types = []
    bound = verifier._bound

    def noted(instances: list[Instance], rows: SpecificationRows) -> NDArray[np.float64]:
        types.append(verifier._dtype)
        return bound(instances, rows)

    monkeypatch.setattr(verifier, "_bound", noted)
    verdicts = verifier.solve([onnxnets.instance(networks["convolutional"], 0.001, seed) for seed in range(2)])
    assert [verdict.status for verdict in verdicts] == [Status.UNSAT] * 2
    assert set(types) == {torch.float32}


@pytest.mark.slow
def test_optimised_slopes_are_never_worse(networks: dict[str, Path]) -> None:
    instances = [onnxnets.instance(networks["convolutional"], 0.03, seed) for seed in range(4)]
    with inprocess.verifiers(), Worker("crown", threads=1) as crown, Worker("alpha-crown", threads=1) as alpha:
        plain, better = crown.verify(instances), alpha.verify(instances)
    gains = [np.subtract(b.bounds, a.bounds) for a, b in zip(plain, better, strict=True)]  # type: ignore[arg-type]
    assert all(gain.min() > -1e-5 for gain in gains)
    assert max(gain.max() for gain in gains) > 1e-3


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), eps=st.floats(0, 0.3), sparsity=st.floats(0, 1))
def test_intervals_hold_on_random_networks(seed: int, eps: float, sparsity: float, ibp: Worker, tmp_path: Path) -> None:
    path = onnxnets.residual(tmp_path / f"{seed}-{sparsity}.onnx", seed=seed, sparsity=sparsity)
    question = onnxnets.instance(path, eps, seed)
    (verdict,) = ibp.verify([question])
    assert verdict.bounds is not None
    assert np.all(
        np.array(verdict.bounds) <= margins(question, onnxnets.samples(question, 300)) + 1e-5 * scale(question)
    )


# torch warns of its own older ONNX tracer, which auto_LiRPA goes through to read the module.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_the_margin_of_safety_covers_the_rounding_of_the_bounds(networks: dict[str, Path]) -> None:
    """The same bounds in float64: the difference, over the scale of the outputs, is far below the tolerance."""
    import torch

    worst = 0.0
    for kind in (Ibp, Crown):
        for path in networks.values():
            single, double = kind(), kind()
            for adapter in (single, double):
                adapter.start()
                adapter.load(onnxnets.normal_form(path))
            instances = [onnxnets.instance(path, eps, seed) for eps in (0.001, 0.01, 0.05) for seed in range(3)]
            rows = SpecificationRows(instances)
            low = single._bound(instances, rows)
            network = double._module.double()
            shape = (len(instances), *double._module.input_shape)
            corners = [
                torch.from_numpy(np.stack(arrays).astype(np.float64)).reshape(shape)
                for arrays in ([item.lower for item in instances], [item.upper for item in instances])
            ]
            library = autolirpa.library()
            # auto_LiRPA makes constants of its own in the default type.
            torch.set_default_dtype(torch.float64)
            try:
                bounded = library.BoundedModule(network, torch.zeros(1, *shape[1:]), device="cpu")
                ball = library.PerturbationLpNorm(norm=np.inf, x_L=corners[0], x_U=corners[1])
                point = library.BoundedTensor((corners[0] + corners[1]) / 2, ball)
                with torch.no_grad():
                    exact, _ = bounded.compute_bounds(
                        x=(point,), C=torch.from_numpy(rows.matrix), method=kind.method, bound_upper=False
                    )
            finally:
                torch.set_default_dtype(torch.float32)
            scales = np.array([scale(item) for item in instances])[:, None]
            worst = max(worst, float((np.abs(low - (exact.numpy() - rows.offsets)) / scales).max()))
            assert single.rounding < 1e-6
    print(f"largest relative difference {worst:.2e}")
    assert 0 < worst < TOLERANCE / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([("Sigmoid", {}, "squash")], "Sigmoid"),
        ([("Erf", {}, "error")], "'error' (Erf) isn't taken"),
        ([("LRN", {"size": 3}, "norm")], "'norm' (LRN) isn't taken"),
    ],
)
def test_what_is_not_taken_is_named(
    nodes: list[tuple[str, dict[str, int], str]], said: str, ibp: Worker, tmp_path: Path
) -> None:
    value, operators = "input", []
    for i, (operator, attributes, name) in enumerate(nodes):
        operators.append(helper.make_node(operator, [value], [f"v{i}"], name=name, **attributes))  # type: ignore[arg-type]
        value = f"v{i}"
    operators += [
        helper.make_node("GlobalAveragePool", [value], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["output"]),
    ]
    path = onnxnets.write(tmp_path / "net.onnx", operators, {}, (3, 9, 9), outputs=3)
    (verdict,) = ibp.verify([onnxnets.instance(path, 0.01)])
    assert verdict.status is Status.UNSUPPORTED
    assert said in verdict.detail


@pytest.mark.slow
def test_a_ball_needs_a_linear_first_layer(ibp: Worker, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MaxPool", ["input"], ["largest"], kernel_shape=[1, 2], strides=[1, 2]),
        helper.make_node("Flatten", ["largest"], ["output"]),
    ]
    path = onnxnets.write(tmp_path / "net.onnx", nodes, {}, (3, 1, 2), outputs=3)
    ball, box = ibp.verify([onnxnets.instance(path, 0.1, norm="l2"), onnxnets.instance(path, 0.001)])
    assert ball.status is Status.UNSUPPORTED
    assert "l2" in ball.detail
    assert box.status is Status.UNSAT


def test_a_ball_s_relu_on_the_input_gets_a_linear_layer(ibp: Worker, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["input"], ["positive"]),
        helper.make_node("Flatten", ["positive"], ["output"]),
    ]
    path = onnxnets.write(tmp_path / "net.onnx", nodes, {}, (3, 1, 1), outputs=3)
    question = onnxnets.instance(path, 0.1, norm="l2")
    assert question.center is not None
    values = np.sort(np.maximum(question.center.reshape(-1), 0))
    # Of two outputs, by intervals, each may move by the radius.
    assert values[-1] - values[-2] > 0.2
    closer = onnxnets.instance(path, float(values[-1] - values[-2]) * 0.6, norm="l2")
    near, far = ibp.verify([question, closer])
    assert (near.status, far.status) == (Status.UNSAT, Status.UNKNOWN)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (Ibp, {"tolerance": 0.0}, "from 1e-7"),
        (AlphaCrown, {"iterations": 0}, "1 or more"),
        (Crown, {"iterations": 5}, "Unknown setting"),
        (Ibp, {"tolerance": "small"}, "must be of type float"),
    ],
)
def test_settings_are_checked(kind: type[Ibp], values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        kind.resolve(values)
