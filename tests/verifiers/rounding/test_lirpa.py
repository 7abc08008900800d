"""What rounding raises auto_LiRPA's bounds by is never more than they are charged; where that matters, it is much."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from prunecert.verifiers.adapters.lirpa import nodes
from prunecert.verifiers.adapters.lirpa.adapter import AlphaCrown, Crown, CrownIbp, Ibp
from prunecert.verifiers.adapters.lirpa.engine import Lirpa
from prunecert.verifiers.adapters.lirpa.rows import SpecificationRows
from prunecert.verifiers.base import Instance, Norm, OutputSpec, Status
from prunecert.verifiers.formats.onnx_torch import OnnxModule, read_onnx
from prunecert.verifiers.rounding.lirpa import Apart, ChargeWalk, Computed, _Charges, _Values, certain
from tests.verifiers import onnxnets

KINDS: tuple[type[Lirpa], ...] = (Ibp, CrownIbp, Crown, AlphaCrown)
Array = NDArray[np.float64]


pytestmark = pytest.mark.usefixtures("auto_lirpa", "default_type")


def started(kind: type[Lirpa], path: Path) -> Lirpa:
    verifier = kind({"iterations": 3} if kind is AlphaCrown else {})
    verifier.start()
    # Maxima stay, as for these adapters.
    verifier.load(onnxnets.normal_form(path, frozenset({"MaxPool"})))
    return verifier


def moved(question: Instance, by: float, width: float) -> Instance:
    """Moves a question's box away from 0, so that float32 has fewer digits left for it."""
    lower = question.lower + np.float32(by)
    return dataclasses.replace(question, lower=lower, upper=lower + np.float32(width), center=None, eps=None)


def less_in(verifier: Lirpa, instances: list[Instance], apart: Apart) -> tuple[Array, Array]:
    """Returns a verifier's own bounds and those less what they are charged, in the type that it uses now."""
    rows = SpecificationRows(instances)
    lower = verifier._bound(instances, rows)
    return lower, verifier._certain(instances, rows, lower, None, apart)


def exact_minimum(verifier: Lirpa, instances: list[Instance]) -> Array:
    """Returns the least value of each row that 500 points of each box have in float64, [images, rows]."""
    rows = SpecificationRows(instances)
    module = read_onnx(onnxnets.normal_form(instances[0].onnx)).double()
    smallest = []
    for index, question in enumerate(instances):
        points = torch.from_numpy(onnxnets.samples(question, 500).astype(np.float64))
        with torch.no_grad():
            outputs = module(points.reshape(-1, *module.input_shape)).numpy()
        smallest.append((outputs @ rows.matrix[index].T - rows.offsets[index]).min(axis=0))
    return np.array(smallest)


NETWORKS = {"connected": onnxnets.connected, "residual": onnxnets.residual, "convolutional": onnxnets.convolutional}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
# Twelve times; most of it is auto_LiRPA's preparing each network. Networks and boxes are other ones in every run.
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**20),
    by=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
    width=st.sampled_from([0.0, 1e-3, 0.1, 1.0]),
)
def test_bounds_less_their_charge_hold_in_real_arithmetic(
    kind: type[Lirpa], name: str, seed: int, by: float, width: float, tmp_path: Path
) -> None:
    path = NETWORKS[name](tmp_path / f"{seed}.onnx", seed=seed)
    verifier = started(kind, path)
    instances = [moved(onnxnets.instance(path, 0.0, seed + i), by, width * (1 + by * 1e-6)) for i in range(3)]
    smallest = exact_minimum(verifier, instances)
    charges = []
    # Bounded once, charged three times, as the adapter does.
    rows = SpecificationRows(instances)
    lower = verifier._bound(instances, rows)
    for apart in Apart:
        less = verifier._certain(instances, rows, lower, None, apart)
        # The points' own outputs are float64's.
        assert np.all(less <= smallest + 1e-9 * (1 + by))
        charges.append(lower - less)
    # The hull of several is no tighter than each.
    assert np.all(charges[2] <= charges[0] * (1 + 1e-6) + 1e-12)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**20), by=st.sampled_from([0.0, 10.0, 1e4]))
def test_intervals_in_float64_differ_by_less_than_the_charge(seed: int, by: float, tmp_path: Path) -> None:
    path = onnxnets.convolutional(tmp_path / f"{seed}.onnx", seed=seed)
    verifier = started(Ibp, path)
    instances = [moved(onnxnets.instance(path, 0.0, seed + i), by, 0.01) for i in range(2)]
    single, less = less_in(verifier, instances, Apart.EVERYWHERE)
    verifier._use(torch.float64)
    double, _ = less_in(verifier, instances, Apart.EVERYWHERE)
    # The next example's network is made in float32.
    verifier._use(torch.float32)
    assert np.abs(single - double).max() > 0
    assert np.all(less <= double)
    # It is no bound of everything, either.
    assert np.all(single - less <= 1e5 * np.abs(single - double).max() + 1e-4)


def cancelling(path: Path) -> Path:
    """y = relu(2**24 x) + relu(0.75 x) - relu(2**24 x), which is 0.75 x for x > 0; in float32 it is 0."""
    constants = {"w1": np.array([[2.0**24], [0.75], [2.0**24]], np.float32), "w2": np.array([[1, 1, -1]], np.float32)}
    node = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1"], ["z"], transB=1),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("Gemm", ["a", "w2"], ["output"], transB=1),
    ]
    return onnxnets.write(path, node, constants, (1, 1, 1), outputs=1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_float32_alone_would_prove_wrongly_is_charged_more_than_it_is_wrong(
    kind: type[Lirpa], tmp_path: Path
) -> None:
    point = np.ones((1, 1, 1), np.float32)
    # Unsafe: y >= 0.5, which it is everywhere.
    question = dataclasses.replace(
        onnxnets.instance(cancelling(tmp_path / "net.onnx"), 0.0),
        lower=point,
        upper=point,
        spec=OutputSpec(((np.array([[-1.0]]), np.array([-0.5])),)),
        classes=1,
    )
    verifier = started(kind, question.onnx)
    for apart in Apart:
        lower, less = less_in(verifier, [question], apart)
        assert lower[0, 0] >= 0.25, "float32 sees it as safe, or the test shows nothing"
        assert less[0, 0] <= -0.25
    (verdict,) = verifier.solve([question])
    assert verdict.status is Status.UNKNOWN


def greatest(path: Path) -> Path:
    """y is the largest of four inputs less a million."""
    constants = {"w1": np.ones((1, 1, 1, 1), np.float32), "b": np.array([-1e6], np.float32)}
    node = [
        helper.make_node("Conv", ["input", "w1"], ["z"], kernel_shape=[1, 1]),
        helper.make_node("MaxPool", ["z"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["m"], ["flat"]),
        helper.make_node("Gemm", ["flat", "one", "b"], ["output"], transB=1),
    ]
    return onnxnets.write(path, node, constants | {"one": np.ones((1, 1), np.float32)}, (1, 2, 2), outputs=1)


def test_optimised_weights_of_a_maximum_do_not_grow_beyond_1(tmp_path: Path) -> None:
    point = np.full((1, 2, 2), 1e6, np.float32)
    # Unsafe: y <= 0, which it is everywhere; with weights of a sum of 1 + 2**-23 it would be 0.12.
    question = dataclasses.replace(
        onnxnets.instance(greatest(tmp_path / "net.onnx"), 0.0),
        lower=point,
        upper=point,
        spec=OutputSpec(((np.array([[1.0]]), np.array([0.0])),)),
        classes=1,
    )
    verifier = AlphaCrown({})
    verifier.start()
    verifier.load(onnxnets.normal_form(question.onnx, frozenset({"MaxPool"})))
    assert any(isinstance(layer, torch.nn.MaxPool2d) for layer in verifier._module.layers.values())
    for dtype in (torch.float32, torch.float64):
        verifier._use(dtype)
        lower, less = less_in(verifier, [question], Apart.EVERYWHERE)
        assert less[0, 0] <= lower[0, 0] <= 0
    verifier._use(torch.float32)
    (verdict,) = verifier.solve([question])
    assert verdict.status is Status.UNKNOWN


@given(st.lists(st.floats(-2, 2, width=32), min_size=9, max_size=9))
def test_weights_are_projected_to_a_sum_of_exactly_1(values: list[float]) -> None:
    def project(weights: torch.Tensor) -> torch.Tensor:
        positive = weights.clamp(min=0) + 1e-3
        total: torch.Tensor = positive / positive.sum((-1, -2), keepdim=True)
        return total

    weights = torch.tensor(values, dtype=torch.float32).reshape(1, 1, 3, 3)
    exact = nodes._onto_grid(project, weights)
    assert exact.shape == weights.shape
    assert torch.all(exact >= 0)
    assert exact.double().sum() == 1
    assert torch.all((exact - project(weights)).abs() < 1e-5)


def pooled(path: Path) -> Path:
    """A maximum over windows, and an average."""
    rng = np.random.default_rng(5)
    constants = {
        "w1": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "w2": rng.standard_normal((10, 4)).astype(np.float32),
    }
    node = [
        helper.make_node("Conv", ["input", "w1"], ["c1"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["m1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("AveragePool", ["m1"], ["p1"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["p1"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w2"], ["output"], transB=1),
    ]
    return onnxnets.write(path, node, constants, (3, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("convolutions", ["patches", "matrix"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [pooled, onnxnets.residual, onnxnets.convolutional, onnxnets.connected])
def test_every_step_has_its_node_and_finite_charges(
    make: type, kind: type[Lirpa], convolutions: str, tmp_path: Path
) -> None:
    verifier = started(kind, make(tmp_path / "net.onnx"))
    verifier._convolutions = convolutions
    verifier._networks.clear()
    verifier._use(torch.float32)
    instances = [onnxnets.instance(tmp_path / "net.onnx", 0.01, seed) for seed in range(2)]
    lower, less = less_in(verifier, instances, Apart.NOWHERE)
    graph = nodes.matched(verifier._bounded, verifier._module)
    assert graph is not None
    assert set(graph) == {verifier._module.input_name, *(result for result, _, _ in verifier._module.steps)}
    assert np.all(np.isfinite(less))
    assert np.all(less < lower)
    assert np.all(less <= exact_minimum(verifier, instances) + 1e-9)


def test_a_graph_of_other_nodes_is_not_matched(tmp_path: Path) -> None:
    one, other = (
        started(Ibp, make(tmp_path / f"{make.__name__}.onnx")) for make in (onnxnets.residual, onnxnets.convolutional)
    )
    assert nodes.matched(one._bounded, other._module) is None


def test_without_coefficients_the_charge_is_no_smaller(tmp_path: Path) -> None:
    path = onnxnets.residual(tmp_path / "net.onnx", seed=1)
    verifier = started(CrownIbp, path)
    instances = [onnxnets.instance(path, 0.02, seed) for seed in range(3)]
    _, less = less_in(verifier, instances, Apart.EVERYWHERE)
    verifier.keeps_coefficients = False  # type: ignore[misc]
    _, blind = less_in(verifier, instances, Apart.EVERYWHERE)
    assert np.all(np.isfinite(blind))
    assert np.all(blind <= less)


def preactivation(path: Path) -> Path:
    """z and what a layer makes of relu(z), added and rectified."""
    rng = np.random.default_rng(3)
    shapes = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (10, 4 * 6 * 6)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    padded: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    node = [
        helper.make_node("Conv", ["input", "w1"], ["z"], **padded),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("Conv", ["a", "w2"], ["c"], **padded),
        helper.make_node("Add", ["z", "c"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["b"]),
        helper.make_node("Flatten", ["b"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w3"], ["output"], transB=1),
    ]
    return onnxnets.write(path, node, constants, (3, 6, 6))


def bounded(verifier: Lirpa, instances: list[Instance]) -> tuple[SpecificationRows, Any]:
    """Has a verifier bound instances; returns what was asked of the outputs, and the graph that now holds bounds."""
    rows = SpecificationRows(instances)
    verifier._bound(instances, rows)
    graph = nodes.matched(verifier._bounded, verifier._module)
    assert graph is not None
    return rows, graph


@pytest.mark.parametrize("kind", [Crown, AlphaCrown])
def test_hidden_bounds_by_crown_of_whatever_tensor_count(kind: type[Lirpa], tmp_path: Path) -> None:
    path = preactivation(tmp_path / "net.onnx")
    verifier = started(kind, path)
    instances = [onnxnets.instance(path, 0.02, seed) for seed in range(2)]
    rows, graph = bounded(verifier, instances)
    shape = (2, rows.matrix.shape[1])
    computed = nodes.computed(graph, verifier._module, method="CROWN", shape=shape, coefficients=False)
    assert computed is not None
    kinds = {type(verifier._module.layers[key]).__name__: name for name, key, _ in reversed(verifier._module.steps)}
    # Both images' bounds are there, after the optimiser, too.
    assert {kinds["Conv2d"], kinds["_Combine"]} <= set(computed.reaches)
    for name, reach in computed.reaches.items():
        assert torch.equal(reach, torch.maximum(graph[name].lower.abs(), graph[name].upper.abs()))
    walk = ChargeWalk(verifier._module)
    for apart in Apart:
        charges = walk.charges(instances, rows.matrix, rows.offsets, computed, torch.float32, None, apart)
        assert np.all(np.isfinite(charges))
        # Intervals of the sum are made from bounds of z, which may be looser than intervals.
        looser = {name: 100 * reach if name == kinds["Conv2d"] else reach for name, reach in computed.reaches.items()}
        replaced = dataclasses.replace(computed, reaches=looser)
        more = walk.charges(instances, rows.matrix, rows.offsets, replaced, torch.float32, None, apart)
        assert np.all(more > charges)


@pytest.mark.parametrize("coefficients", [True, False])
def test_what_crown_bounds_is_off_by_no_less_than_its_rows(coefficients: bool, tmp_path: Path) -> None:
    path = preactivation(tmp_path / "net.onnx")
    verifier = started(Crown, path)
    instances = [onnxnets.instance(path, 0.02, 1)]
    rows, graph = bounded(verifier, instances)
    shape = (1, rows.matrix.shape[1])
    computed = nodes.computed(graph, verifier._module, method="CROWN", shape=shape, coefficients=coefficients)
    assert computed is not None
    charges = _Charges(
        ChargeWalk(verifier._module),
        instances,
        rows.matrix,
        rows.offsets,
        computed,
        torch.float32,
        None,
        Apart.EVERYWHERE,
    )
    kept: dict[str, _Values] = {}
    finish = charges._hidden

    def spy(name: str, values: _Values) -> _Values:
        kept[name] = finish(name, values)
        return kept[name]

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(charges, "_hidden", spy)
        charges.run()
    types = [type(verifier._module.layers[key]).__name__ for _, key, _ in verifier._module.steps]
    assert set(kept) == {
        result for (result, _, _), kind in zip(verifier._module.steps, types, strict=True) if kind != "ReLU"
    }
    for values in kept.values():
        assert torch.all(values.hidden > values.chain)


@pytest.mark.slow
def test_coefficients_that_round_upwards_from_layer_to_layer_are_counted() -> None:
    layers: dict[str, torch.nn.Module] = {}
    steps = []
    wide = 2**12
    for index in range(4):
        layers[f"n{index}"] = torch.nn.Linear(wide if index else 1, wide if index < 3 else 1)
        for parameter in layers[f"n{index}"].parameters():
            parameter.requires_grad_(False)
            parameter.fill_(1.0)
        steps.append((f"y{index}", f"n{index}", (f"y{index - 1}" if index else "x",)))
    module = OnnxModule(steps, layers, "x", "y3", (1,), 1)
    spec = OutputSpec(((np.array([[1.0]]), np.array([0.0])),))
    point = np.ones((1,), np.float32)
    question = Instance(Path("none"), "", point, point, spec, 1.0, classes=1)
    computed = Computed({}, {}, None, backward=True, hidden_backward=False)
    walk = ChargeWalk(module)
    charges = _Charges(walk, [question], np.ones((1, 1, 1)), np.zeros((1, 1)), computed, torch.float32, None, Apart(1))
    charges.run()
    # Four sums of 1, 4096, 4096 and 4096 products, each of which may round each coefficient upwards.
    unit = 2.0**-24
    assert charges._growth >= (1 + wide * unit) ** 3


def test_bounds_that_are_no_numbers_are_charged_everything(tmp_path: Path) -> None:
    path = onnxnets.connected(tmp_path / "net.onnx", seed=1)
    verifier = started(CrownIbp, path)
    instances = [onnxnets.instance(path, 0.02, seed) for seed in range(2)]
    rows, graph = bounded(verifier, instances)
    shape = (2, rows.matrix.shape[1])
    for bad in (np.nan, np.inf):
        computed = nodes.computed(graph, verifier._module, method="CROWN-IBP", shape=shape, coefficients=True)
        assert computed is not None
        lower, _ = next(iter(computed.bounds.values()))
        lower[1, 0] = bad
        charges = ChargeWalk(verifier._module).charges(
            instances, rows.matrix, rows.offsets, computed, torch.float32, [0, 1]
        )
        assert np.all(np.isinf(charges[1]))
        assert np.all(np.isfinite(charges[0]))


def test_what_is_no_number_is_certain_of_nothing() -> None:
    less = certain(np.array([1.0, np.nan, np.inf, 2.0]), np.array([0.5, 0.0, np.inf, np.inf]))
    np.testing.assert_array_equal(less, [0.5, -np.inf, -np.inf, -np.inf])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_hidden_bounds_are_off_by_no_more_than_their_widths(norm: Norm, tmp_path: Path) -> None:
    """Float32's against float64's, which are nearly those of real arithmetic."""
    path = onnxnets.convolutional(tmp_path / "net.onnx", seed=3)
    question = onnxnets.instance(path, 0.05, 1, norm=norm)
    verifier, rows = started(Crown, path), SpecificationRows([question])
    ends: list[dict[str, tuple[torch.Tensor, torch.Tensor]]] = []
    widths: list[dict[str, torch.Tensor]] = []
    for dtype in (torch.float32, torch.float64):
        verifier._use(dtype)
        verifier._bound([question], rows)
        computed = verifier._computed(rows.offsets.shape)
        assert computed is not None
        widths.append(verifier._walk.widths([question], computed, dtype))
        ends.append({names[0]: computed.bounds[result] for result, _, names in verifier._module.steps
                     if result in computed.bounds})  # fmt: skip
    assert len(ends[0]) == 3
    for name, width in widths[0].items():
        apart = [(one.double() - other).abs() for one, other in zip(ends[0][name], ends[1][name], strict=True)]
        assert all(bool((gap <= width + widths[1][name]).all()) for gap in apart)
        assert max(float(gap.max()) for gap in apart) > 0
        assert float(width.max()) < 1e-2
        assert float(widths[1][name].max()) < 1e-11
