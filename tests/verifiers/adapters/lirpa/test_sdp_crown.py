"""SDP-CROWN in torch: what it says of hidden values and outputs holds, and is what the sparse engine says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from prunecert.verifiers.adapters.lirpa import sdp_crown as subject
from prunecert.verifiers.adapters.lirpa.ball_walk import BallWalk, CutBall
from prunecert.verifiers.adapters.lirpa.sdp_crown import SdpCrown
from prunecert.verifiers.base import Instance
from prunecert.verifiers.formats.onnx_torch import OnnxModule, read_onnx
from prunecert.verifiers.sparse.balls.ranges import ball_of, find_ranges
from prunecert.verifiers.sparse.balls.walk import Ranges, Walker
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.verifiers import onnxnets

NETWORKS: tuple[Callable[..., Path], ...] = (onnxnets.connected, onnxnets.convolutional, onnxnets.residual)


@dataclass(frozen=True, eq=False)
class Case:
    """A question about a ball, and what `SdpCrown` takes of it; hidden values may be anything."""

    question: Instance
    module: OnnxModule
    ball: CutBall

    @classmethod
    def of(cls, path: Path, eps: float, seed: int = 1) -> Case:
        question = onnxnets.instance(path, eps, seed, norm="l2")
        assert question.center is not None
        center, low, high = (
            torch.from_numpy(item.astype(np.float64)).reshape(-1)
            for item in (question.center, question.lower, question.upper)
        )
        return cls(question, read_onnx(path), CutBall.of(center, eps, low, high))

    def corners(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Returns interval bounds of the ReLUs' inputs."""
        walk, names = BallWalk(self.module, self.ball, {}), self.inputs()
        return {name: walk.interval(name, {}) for name in names}

    def inputs(self) -> list[str]:
        return [names[0] for _, key, names in self.module.steps if isinstance(self.module.layers[key], torch.nn.ReLU)]

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = (np.concatenate([pair[place] for pair in self.question.spec.disjuncts]) for place in (0, 1))
        return torch.from_numpy(a.astype(np.float64)), torch.from_numpy(b.astype(np.float64))

    def values(self, count: int = 500) -> dict[str, torch.Tensor]:
        """Returns all tensors at points of the ball, [points, ...], in float64."""
        module = BallWalk(self.module, self.ball, {}).module
        points = torch.from_numpy(onnxnets.samples(self.question, count).astype(np.float64))
        values = {module.input_name: points.reshape(-1, *module.input_shape)}
        for result, key, arguments in module.steps:
            values[result] = module.layers[key](*(values[name] for name in arguments))
        return values


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nets")
    return onnxnets.normal_form(request.param(folder / "net.onnx", seed=2))


@pytest.mark.slow
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.4])
def test_hidden_values_and_outputs_are_where_it_says(network: Path, eps: float) -> None:
    case = Case.of(network, eps)
    crown, values = SdpCrown(case.module, case.ball, case.corners()), case.values()
    for name in case.inputs():
        own, points = crown.hidden[name], values[name].flatten(1)
        assert bool((points >= own.low - 1e-12).all())
        assert bool((points <= own.high + 1e-12).all())
        away = (points - own.center)[:, own.free].norm(dim=1)
        assert float(away.amax()) <= own.radius + 1e-12
        assert bool(((own.low < 0) & (own.high > 0))[own.free].all())
    rows, offsets = case.rows()
    # So that none is above 0, where slopes would be left as they are.
    offsets = offsets + 10
    smallest = (values[case.module.output_name] @ rows.T - offsets).amin(0)
    plain, better = (crown.bound(rows, offsets, steps) for steps in (0, 8))
    for bounds in (plain, better):
        assert bool((bounds <= smallest + 1e-12).all())
    assert bool((better >= plain).all())
    if eps == 0.0:
        torch.testing.assert_close(plain, smallest, atol=1e-9, rtol=0)
        assert crown.unstable == 0
    if eps == 0.4:
        assert float((better - plain).max()) > 1e-3
        # The network behaves as if hidden balls were unknown.
        for own in crown.hidden.values():
            own.radius = np.inf
        assert bool((crown.bound(rows, offsets) <= plain + 1e-9).all())


@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_over_the_same_hidden_values_it_is_the_sparse_engines_bound(network: Path, eps: float) -> None:
    case = Case.of(network, eps)
    checker = Checker(read_network(network))
    center, low, high = (item.numpy() for item in (case.ball.center, case.ball.low, case.ball.high))
    ball = ball_of(center, eps, low, high)
    ranges = find_ranges(checker, ball)
    crown = SdpCrown(case.module, case.ball, case.corners())
    take_over(crown, case, checker, ranges)
    rows, offsets = case.rows()
    own = crown.bound(rows, offsets).numpy()
    other = Walker(checker, ranges).lower(checker.last, sparse.csr_array(rows.numpy()), -offsets.numpy())
    assert ranges.count > 3
    # The engine charges that weights which the normal form has folded are rounded.
    rounded = any(not term.exact for node in checker.network.nodes for term in node.terms)
    assert np.all(other <= own + 1e-9)
    np.testing.assert_allclose(own, other, rtol=0, atol=1e-4 if rounded else 1e-9)


def take_over(crown: SdpCrown, case: Case, checker: Checker, ranges: Ranges) -> None:
    """Has it know of hidden values what the sparse engine does."""
    for name, node in zip(case.inputs(), checker.activated, strict=True):
        own = crown.hidden[name]
        own.low[:] = torch.from_numpy(ranges.bounds.lower[node])
        own.high[:] = torch.from_numpy(ranges.bounds.upper[node])
        own.free = torch.from_numpy(ranges.unstable[node])
        own.center = torch.from_numpy(ranges.centers[node])
        own.radius = ranges.radii.get(node, np.inf)


@pytest.mark.slow
def test_balls_are_not_looked_for_where_a_layer_has_too_many(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case.of(network, 0.3)
    monkeypatch.setattr(subject, "_MOST", 0)
    monkeypatch.setattr(subject, "_ROOM", 1)
    crown, values = SdpCrown(case.module, case.ball, case.corners()), case.values(200)
    assert all(own.radius == np.inf for own in crown.hidden.values())
    rows, offsets = case.rows()
    smallest = (values[case.module.output_name] @ rows.T - offsets).amin(0)
    assert bool((crown.bound(rows, offsets) <= smallest + 1e-12).all())


def test_time_that_is_over_is_said(network: Path) -> None:
    case = Case.of(network, 0.3)
    with pytest.raises(TimeoutError):
        SdpCrown(case.module, case.ball, case.corners(), time.monotonic() - 1)
    crown = SdpCrown(case.module, case.ball, case.corners())
    crown._deadline = time.monotonic() - 1
    rows, offsets = case.rows()
    torch.testing.assert_close(crown.bound(rows, offsets, 50), crown.bound(rows, offsets))
