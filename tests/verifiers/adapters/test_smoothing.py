"""Smoothing: on linear classifiers, whose probabilities under noise are known, its radii are right as often as said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from scipy.stats import binom, norm

from prunecert.errors import UserError
from prunecert.verifiers.adapters.smoothing import Smoothing
from prunecert.verifiers.base import Instance, Kind, OutputSpec, Status, Verdict
from prunecert.verifiers.certificate import Certificate, certificate
from prunecert.verifiers.process import judge
from prunecert.verifiers.process.worker import Worker
from tests.verifiers import onnxnets

SHAPE = (3, 4, 4)
WEIGHT = 1 / np.sqrt(np.prod(SHAPE))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes: y_0 = sum(x) / sqrt(48) and y_1 = 0, so that the classifier is a half-space with a unit normal."""
    path = tmp_path_factory.mktemp("smoothing") / "line.onnx"
    weights = np.zeros((2, 48), dtype=np.float32)
    weights[0] = WEIGHT
    nodes = [
        onnx.helper.make_node("Flatten", ["input"], ["flat"], name="flatten"),
        onnx.helper.make_node("Gemm", ["flat", "w", "b"], ["output"], name="gemm", transB=1),
    ]
    return onnxnets.write(path, nodes, {"w": weights, "b": np.zeros(2, dtype=np.float32)}, SHAPE, 2)


def question(onnx_file: Path, distance: float, name: str = "", *, classes: int = 2, timeout: float = 60.0) -> Instance:
    """An image at a signed distance from the half-space's edge; `name` moves it along the edge."""
    center = np.full(SHAPE, distance * WEIGHT, dtype=np.float32)
    shift = np.float32((sum(name.encode()) % 97) * 1e-4)
    center[0, 0, 0] += shift
    center[0, 0, 1] -= shift
    box = np.zeros(SHAPE, dtype=np.float32)
    base = onnxnets.instance(onnx_file, 0.1, 0)
    return replace(
        base,
        lower=box - 100,
        upper=box + 100,
        spec=OutputSpec.robustness(0, classes),
        timeout=timeout,
        name=name,
        label=0,
        classes=classes,
        eps=0.0,
        norm="l2",
        center=center,
    )


def subject(onnx_file: Path, **settings: Any) -> Smoothing:
    verifier = Smoothing({"sigma": 0.5, "n": 200, "n0": 20, **settings})
    verifier.start()
    verifier.load(onnx_file)
    return verifier


def certificates(verdicts: Sequence[Verdict]) -> list[Certificate]:
    assert {verdict.status for verdict in verdicts} == {Status.UNKNOWN}
    claims = [verdict.certificate for verdict in verdicts]
    return [item for item in claims if item is not None]


@pytest.mark.slow
def test_radii_are_too_large_as_seldom_as_said(line: Path) -> None:
    """At alpha = 0.1 the radius exceeds the true one, which is the distance, in at most a tenth of the runs.

    The true probability of being wrong, at n = 200 and this distance, is 0.0999 or less; 600 runs exceed the bound used
    here once in a thousand times. Without the confidence bound (p = count / n) half of them would be too large.
    """
    distance, alpha, runs = 0.4, 0.1, 600
    limit = int(binom.ppf(0.999, runs, alpha))
    wrong = naive = 0
    for seed in range(runs):
        (claim,) = certificates(subject(line, alpha=alpha, seed=seed).solve([question(line, distance)]))
        wrong += claim.radius > distance
        naive += 0.5 * float(norm.ppf(claim.count / claim.n)) > distance
    assert wrong <= limit
    # The test can fail: what leaves the bound out fails it.
    assert naive > 2 * limit
    # And the bound is not just low: with no more than a tenth wrong, some are.
    assert wrong > 0.4 * alpha * runs


@pytest.mark.slow
def test_the_counts_are_those_of_the_noise(line: Path) -> None:
    """The class wins with probability Phi(distance / sigma); 100,000 samples tell sigma within a per cent."""
    for distance in (-0.2, 0.0, 0.3):
        (claim,) = certificates(subject(line, n=100_000, n0=1000).solve([question(line, distance)]))
        share = claim.count / claim.n if claim.predicted == 0 else 1 - claim.count / claim.n
        assert share == pytest.approx(float(norm.cdf(distance / 0.5)), abs=5 * 0.5 / np.sqrt(100_000))


@pytest.mark.slow
def test_the_radius_comes_near_the_distance(line: Path) -> None:
    (claim,) = certificates(subject(line, n=100_000).solve([question(line, 0.6)]))
    assert claim.predicted == 0
    assert 0.97 * 0.6 < claim.radius < 0.6


def test_it_abstains_on_the_edge(line: Path) -> None:
    claims = certificates([subject(line, seed=seed).solve([question(line, 0.0)])[0] for seed in range(30)])
    assert sum(item.abstained for item in claims) >= 28
    assert {item.radius for item in claims if item.abstained} == {0.0}


def test_the_class_need_not_be_the_label(line: Path) -> None:
    (claim,) = certificates(subject(line).solve([question(line, -1.0)]))
    assert claim.predicted == 1
    assert claim.radius > 0.5
    assert not claim.certifies(0, 0.0)


def test_the_same_question_has_the_same_noise(line: Path) -> None:
    instances = [question(line, 0.2, name) for name in "abc"]
    whole = certificates(subject(line).solve(instances))
    # Alone or in company, in any order, with any time limit and any number of samples a pass.
    assert [certificates(subject(line).solve([item]))[0] for item in instances] == whole
    assert certificates(subject(line).solve(instances[::-1])) == whole[::-1]
    assert certificates(subject(line).solve([replace(item, timeout=5.0) for item in instances])) == whole
    for batch in (7, 50, 130, 1000):
        assert certificates(subject(line, batch=batch).solve(instances)) == whole
    # Another seed, another image: other noise.
    assert len({claim.count for claim in whole}) > 1
    other = certificates(subject(line, seed=1).solve(instances))
    assert [item.count for item in other] != [item.count for item in whole]
    other = certificates(subject(line, sigma=0.25).solve(instances))
    assert [item.count for item in other] != [item.count for item in whole]


def test_choice_and_estimate_use_different_samples(line: Path) -> None:
    """Else the class that happened to lead would be overestimated."""
    verifier = subject(line)
    counts = []
    for seed in range(40):
        instance = question(line, 0.0)
        generator = verifier._torch.Generator().manual_seed(seed)
        first = verifier._count(instance, 100, generator, np.inf)
        second = verifier._count(instance, 100, generator, np.inf)
        counts.append((int(first.max()), int(second[int(first.argmax())])))
    assert np.mean([first for first, _ in counts]) > 52.5
    assert np.mean([second for _, second in counts]) == pytest.approx(50, abs=2.5)


def test_time_runs_out(line: Path) -> None:
    (verdict,) = subject(line, n=10_000_000, batch=100).solve([question(line, 0.2, timeout=0.2)])
    assert verdict.status is Status.TIMEOUT
    assert verdict.certificate is None
    assert verdict.times.bound_s < 30


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weights = np.full((2, 48), 3e38, dtype=np.float32)
    nodes = [
        onnx.helper.make_node("Flatten", ["input"], ["flat"], name="flatten"),
        onnx.helper.make_node("Gemm", ["flat", "w", "b"], ["output"], name="gemm", transB=1),
    ]
    path = onnxnets.write(tmp_path / "huge.onnx", nodes, {"w": weights, "b": np.zeros(2, dtype=np.float32)}, SHAPE, 2)
    verifier = Smoothing({"n": 200})
    verifier.start()
    verifier.load(path)
    with pytest.raises(RuntimeError, match="not finite"):
        verifier.solve([question(path, 1.0)])


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker("smoothing", {"sigma": 0.5, "n": 300}, threads=1) as subject:
        yield subject


@pytest.mark.slow
def test_through_the_worker(worker: Worker, line: Path) -> None:
    instances = [question(line, 0.5, name) for name in "ab"]
    verdicts = worker.verify(instances)
    direct = certificates(subject(line, n=300, n0=100).solve(instances))
    assert certificates(verdicts) == direct
    assert verdicts[0].times.wall_s > 0
    assert "torch" in verdicts[0].version
    assert verdicts[0].to_json()["certificate"]["radius"] == direct[0].radius


def test_a_box_is_not_its_business(worker: Worker, line: Path) -> None:
    (verdict,) = worker.verify([replace(question(line, 0.5), norm="linf")])
    assert verdict.status is Status.UNSUPPORTED
    assert "linf" in verdict.detail


GOOD = certificate(0, 190, n0=20, n=200, alpha=0.001, sigma=0.5)


class Prover(Smoothing):
    """A smoothing verifier that takes its certificate for a proof."""

    kind = Kind.PROBABILISTIC


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        (Verdict(Status.UNSAT, certificate=GOOD), "probabilistic verifier but answered unsat"),
        (Verdict(Status.SAT, certificate=GOOD), "probabilistic verifier but answered sat"),
        (Verdict(Status.UNKNOWN, "nothing"), "answered unknown without a certificate"),
        (Verdict(Status.TIMEOUT, certificate=GOOD), "answered timeout with a certificate"),
        (Verdict(Status.UNKNOWN, certificate=replace(GOOD, radius=GOOD.radius + 0.01)), "the counts give"),
        (Verdict(Status.UNKNOWN, certificate=replace(GOOD, predicted=2)), "counts can't be"),
    ],
)
def test_nonsense_is_an_error(verdict: Verdict, reason: str, line: Path) -> None:
    flaw = judge.nonsense(Prover, question(line, 0.5), verdict)
    assert flaw is not None
    assert reason in flaw


def test_nobody_else_gives_certificates(line: Path) -> None:
    from prunecert.verifiers.adapters.lirpa.adapter import Ibp

    flaw = judge.nonsense(Ibp, question(line, 0.5), Verdict(Status.UNKNOWN, certificate=GOOD))
    assert flaw is not None
    assert "no probabilistic verifier" in flaw


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"n": 0}, "'n'"),
        ({"n0": -1}, "n0"),
        ({"batch": 0}, "batch"),
        ({"alpha": 1.0}, "alpha"),
        ({"alpha": 0.0}, "alpha"),
        ({"seed": -1}, "seed"),
        ({"sgima": 0.5}, "sigma"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        Smoothing(settings)
