"""PGD: what it finds is in the input set and unsafe, and depends on nothing but the image and the seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.verifiers.adapters.pgd.adapter import Pgd
from prunecert.verifiers.adapters.pgd.starts import start
from prunecert.verifiers.base import Norm, OutputSpec, Status
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.process.worker import Worker
from tests import inprocess
from tests.verifiers import onnxnets


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnxnets.residual(tmp_path_factory.mktemp("attack") / "net.onnx", seed=2)


@pytest.fixture(scope="module")
def pgd() -> Iterator[Worker]:
    with inprocess.verifiers(), Worker("pgd", threads=1) as subject:
        yield subject


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.2), ("l2", 3.0)])
def test_finds_confirmed_counterexamples(pgd: Worker, norm: Norm, eps: float, network: Path) -> None:
    instances = [onnxnets.instance(network, eps, seed, norm=norm) for seed in range(12)]
    verdicts = pgd.verify(instances)
    assert sum(verdict.status is Status.SAT for verdict in verdicts) >= 8
    for question, verdict in zip(instances, verdicts, strict=True):
        assert verdict.status in (Status.SAT, Status.UNKNOWN), verdict.detail
        if verdict.status is Status.SAT:
            onnxnets.check_counterexample(question, verdict)


@pytest.mark.slow
def test_finds_nothing_where_nothing_is(pgd: Worker, network: Path) -> None:
    instances = [onnxnets.instance(network, 1e-5, seed) for seed in range(5)]
    assert {verdict.status for verdict in pgd.verify(instances)} == {Status.UNKNOWN}


def test_a_start_that_is_a_counterexample_is_the_answer_and_others_do_no_harm(pgd: Worker, network: Path) -> None:
    question = onnxnets.instance(network, 0.2, 0)
    (cold,) = pgd.verify([question])
    assert cold.witness is not None
    # Another counterexample than the attack's own: as far towards the image as it still is one.
    center = ((question.lower + question.upper) / 2).astype(np.float32)
    shares = np.linspace(1.0, 0.5, 20, dtype=np.float32)[:, None, None, None]
    points = (center + shares * (cold.witness - center)).astype(np.float32)
    outputs = counterexample.outputs(network, points)
    point = next(p for p, y in zip(points[::-1], outputs[::-1], strict=True) if question.spec.violated_by(y))
    assert not np.array_equal(point, cold.witness)
    outside = np.full_like(point, 7.0)
    starts = {"image": center, "outside": outside, "good": point}
    warm, useless, plain = pgd.verify(
        [
            replace(question, starts=starts),
            replace(question, starts={"image": center, "outside": outside}),
            replace(onnxnets.instance(network, 1e-5, 1), starts={"image": onnxnets.instance(network, 1e-5, 1).lower}),
        ]
    )
    assert warm.witness is not None
    assert useless.witness is not None
    np.testing.assert_array_equal(warm.witness, point)
    np.testing.assert_array_equal(useless.witness, cold.witness)
    assert plain.status is Status.UNKNOWN
    # Starts are no part of the question.
    assert replace(question, starts=starts).digest() == question.digest()


def test_a_box_of_different_widths(pgd: Worker, network: Path) -> None:
    """Fixed pixels stay fixed, and each pixel has a range of its own."""
    question = onnxnets.instance(network, 0.5, 3)
    lower, upper = question.lower.copy(), question.upper.copy()
    lower[0] = upper[0] = 0.25
    upper[1] = lower[1] + (upper[1] - lower[1]) * np.float32(0.5)
    (verdict,) = pgd.verify([replace(question, lower=lower, upper=upper)])
    assert verdict.status is Status.SAT
    assert verdict.witness is not None
    assert np.all(verdict.witness[0] == np.float32(0.25))


def test_conjunctions(pgd: Worker, network: Path) -> None:
    """Two rows of one disjunct must hold together: reachable here, and not reachable with the second turned round."""
    image = onnxnets.instance(network, 0.3, 1)
    outputs = counterexample.outputs(network, onnxnets.samples(image, 2000)).astype(np.float64)
    target = outputs[np.argmin(outputs[:, 0] + outputs[:, 1])]
    rows = np.eye(10)[:2]
    both = OutputSpec(((rows, target[:2] + 1e-3),))
    never = OutputSpec(((np.array([rows[0], -rows[0]]), np.array([target[0], -target[0] - 1.0])),))
    reached, missed = pgd.verify([replace(image, spec=spec) for spec in (both, never)])
    assert reached.status is Status.SAT
    assert missed.status is Status.UNKNOWN


def test_depends_on_the_image_and_the_seed_alone(network: Path) -> None:
    one, two = (onnxnets.instance(network, 0.02, seed) for seed in range(2))
    first = start(one, 1, "linf", 0)
    np.testing.assert_array_equal(first, start(one, 1, "linf", 0))
    assert not np.array_equal(first, start(two, 1, "linf", 0))
    assert not np.array_equal(first, start(one, 2, "linf", 0))
    assert not np.array_equal(first, start(one, 1, "linf", 1))
    assert np.linalg.norm(start(one, 1, "l2", 0)) <= 1


@pytest.mark.parametrize(
    ("values", "said"), [({"steps": 0}, "above 0"), ({"step_size": -1.0}, "above 0"), ({"seed": -1}, "0 or more")]
)
def test_settings_are_checked(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Pgd.resolve(values)
