"""`crown` and `alpha-crown` over l2 balls: SDP-CROWN where auto_LiRPA's bound leaves something open."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from prunecert.verifiers.adapters.lirpa import sdp_crown
from prunecert.verifiers.adapters.lirpa.adapter import AlphaCrown, Crown
from prunecert.verifiers.adapters.lirpa.engine import Lirpa
from prunecert.verifiers.adapters.lirpa.rows import SpecificationRows
from prunecert.verifiers.base import Instance, OutputSpec, Status
from prunecert.verifiers.formats import counterexample
from tests.verifiers import onnxnets

pytestmark = pytest.mark.usefixtures("auto_lirpa", "default_type")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxnets.normal_form(onnxnets.convolutional(tmp_path_factory.mktemp("nets") / "net.onnx", seed=1))


def started(kind: type[Lirpa], path: Path) -> Lirpa:
    verifier = kind({"iterations": 8} if kind is AlphaCrown else {})
    verifier.start()
    verifier.load(path)
    return verifier


def plainly(kind: type[Lirpa], path: Path, questions: list[Instance]) -> list[NDArray[np.float64]]:
    """Returns auto_LiRPA's own bounds."""
    verifier = started(kind, path)
    verifier._tighten = lambda *_: None  # type: ignore[method-assign]
    return [np.array(verdict.bounds) for verdict in verifier.solve(questions)]


def smallest(question: Instance) -> NDArray[np.float64]:
    outputs = counterexample.outputs(question.onnx, onnxnets.samples(question, 1000)).astype(np.float64)
    return np.array([(outputs @ a.T - b).max(axis=1).min() for a, b in question.spec.disjuncts])


@pytest.mark.parametrize("kind", [Crown, pytest.param(AlphaCrown, marks=pytest.mark.slow)])
def test_it_is_never_below_auto_lirpa_nor_above_the_outputs(kind: type[Lirpa], network: Path) -> None:
    questions = [onnxnets.instance(network, eps, 1, norm="l2") for eps in (0.02, 0.4, 0.4)]
    # A disjunct of three rows, another of one.
    rows = np.random.default_rng(0).standard_normal((4, 10))
    spec = OutputSpec(((rows[:3], np.full(3, 1.0)), (rows[3:], np.full(1, 2.0))))
    questions[2] = dataclasses.replace(questions[2], spec=spec)
    plain = plainly(kind, network, questions)
    verdicts = started(kind, network).solve(questions)
    gains = [np.array(verdict.bounds) - own for verdict, own in zip(verdicts, plain, strict=True)]
    assert verdicts[0].status is Status.UNSAT
    np.testing.assert_allclose(gains[0], 0, atol=1e-6)
    for question, verdict, gain in zip(questions[1:], verdicts[1:], gains[1:], strict=True):
        assert verdict.status is Status.UNKNOWN, verdict.detail
        assert np.all(np.array(verdict.bounds) <= smallest(question) + 1e-6)
        assert np.all(gain >= -1e-6)
        assert gain.max() > 0.05
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize("kind", [Crown, pytest.param(AlphaCrown, marks=pytest.mark.slow)])
def test_what_auto_lirpa_leaves_open_is_proved(kind: type[Lirpa], network: Path) -> None:
    """Thresholds half-way between both bounds, of each disjunct."""
    question = onnxnets.instance(network, 0.4, 1, norm="l2")
    (plain,) = plainly(kind, network, [question])
    verifier = started(kind, network)
    (better,) = (np.array(verdict.bounds) for verdict in verifier.solve([question]))
    pairs = zip(question.spec.disjuncts, 0.5 * (plain + better), strict=True)
    between = dataclasses.replace(question, spec=OutputSpec(tuple((a, b + half) for (a, b), half in pairs)))
    (verdict,) = verifier.solve([between])
    assert (verdict.status, verdict.stage, verdict.detail) == (Status.UNSAT, "incomplete", "")
    assert plainly(kind, network, [between])[0].min() < 0


def test_bounds_within_rounding_prove_nothing(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If SDP-CROWN says nothing for certain, its bounds are no proof; nor what auto_LiRPA has left."""
    question = onnxnets.instance(network, 0.4, 1, norm="l2")
    verifier = started(Crown, network)
    monkeypatch.setattr(verifier, "_sdp_crown", lambda _: np.full(9, -np.inf))
    (without,) = verifier.solve([question])
    (plain,) = plainly(Crown, network, [question])
    np.testing.assert_allclose(without.bounds or (), plain)
    lowest = int(plain.argmin())
    monkeypatch.setattr(verifier, "_sdp_crown", lambda _: np.where(np.arange(9) == lowest, -np.inf, 1.0))
    (one_left,) = verifier.solve([question])
    assert one_left.status is Status.UNKNOWN
    assert one_left.bounds is not None
    assert min(one_left.bounds) == pytest.approx(min(without.bounds or ()))


def test_corners_hold_in_real_arithmetic(network: Path) -> None:
    question = onnxnets.instance(network, 0.4, 1, norm="l2")
    verifier = started(Crown, network)
    assert isinstance(verifier, Crown)
    corners = verifier._corners(question, SpecificationRows([question]))
    assert corners is not None
    module = verifier._module.double()
    points = torch.from_numpy(onnxnets.samples(question, 500).astype(np.float64))
    values = {module.input_name: points.reshape(-1, *module.input_shape)}
    for result, key, arguments in module.steps:
        values[result] = module.layers[key](*(values[name] for name in arguments))
    assert len(corners) == 3
    for name, (low, high) in corners.items():
        assert bool(((values[name] >= low) & (values[name] <= high)).all())
    module.float()


def test_time_that_is_over_leaves_auto_lirpas_bounds(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = onnxnets.instance(network, 0.4, 1, norm="l2")
    monkeypatch.setattr(sdp_crown, "time", SimpleNamespace(monotonic=lambda: np.inf))
    (verdict,) = started(Crown, network).solve([question])
    np.testing.assert_allclose(verdict.bounds or (), plainly(Crown, network, [question])[0])


def test_boxes_are_left_to_auto_lirpa(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = started(Crown, network)
    monkeypatch.setattr(verifier, "_sdp_crown", lambda _: pytest.fail("asked"))
    (verdict,) = verifier.solve([onnxnets.instance(network, 0.1, 1)])
    assert verdict.status is Status.UNKNOWN
