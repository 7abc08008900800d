"""A search gets the instance's limits, and its outcome becomes a verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from prunecert.hashing import sha256_file
from prunecert.verifiers.adapters.sparse_search_engine import SparseSearch
from prunecert.verifiers.base import FloatArray, Instance, Kind, OutputSpec, Status
from prunecert.verifiers.formats import counterexample
from prunecert.verifiers.sparse.bab.outcome import Outcome
from tests.soundness.test_quantised import fixed
from tests.verifiers import onnxnets
from tests.verifiers.sparse.quantised.networks import network


class Searcher(SparseSearch):
    """A search whose outcome is given; it writes down what it was asked."""

    name = "searcher"
    kind = Kind.COMPLETE
    #: What the search says, and what `_keep` says.
    outcome, said = Outcome(), ""
    #: What a search that is kept takes.
    megabytes = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._engine, self._checker, self._names = "engine", "checker", None  # type: ignore[assignment]
        self._make_limits, self._make_search = SimpleNamespace, self._search  # type: ignore[assignment]
        self.calls: list[tuple[Any, ...]] = []
        self._proving = {}

    def _limits(self) -> dict[str, Any]:
        return {"steps": 7, "memory_mb": 60.0}

    def _find(self, instance: Instance) -> Any:
        return f"earlier of {instance.name}"

    def _keep(self, run: Any) -> str:
        assert run.run() is self.outcome
        return self.said

    def _search(self, *arguments: Any, **_: Any) -> Any:
        self.calls.append(arguments)
        outcome, size = self.outcome, self.megabytes

        class Run:
            def __init__(self) -> None:
                self.outcome, self.megabytes = outcome, size

            def run(self) -> Outcome:
                return outcome

        return Run()


@pytest.fixture
def question(tmp_path: Path) -> Instance:
    return onnxnets.instance(onnxnets.linear(tmp_path / "n.onnx"), 0.1, timeout=30.0)


def test_a_search_gets_the_question_and_its_limits(question: Instance) -> None:
    subject = Searcher()
    begin = time.monotonic()
    (verdict,) = subject.solve([replace(question, allowance=(0.25,) * 9)])
    assert verdict.status is Status.UNKNOWN
    ((engine, checker, lower, upper, spec, limits, deadline, earlier, names, allowance, replay),) = subject.calls
    assert (engine, checker, names) == ("engine", "checker", None)
    assert lower is question.lower
    assert upper is question.upper
    assert spec is question.spec
    assert limits == SimpleNamespace(steps=7, memory_mb=60.0)
    assert earlier == "earlier of image 0"
    assert allowance == (0.25,) * 9
    # A little is kept back for the end of the last step.
    assert begin + 29.5 < deadline <= time.monotonic() + 30.0 - 0.04
    assert_replays(replay, question)


def assert_replays(replay: Callable[[FloatArray], FloatArray], question: Instance) -> None:
    """A flat point is run on the file, as the judge does."""
    output = replay(question.upper.reshape(-1))
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, counterexample.outputs(question.onnx, question.upper[None])[0])


def test_of_a_short_limit_half_is_left(question: Instance) -> None:
    subject = Searcher()
    begin = time.monotonic()
    subject.solve([replace(question, timeout=0.02)])
    assert begin + 0.009 <= subject.calls[0][6] <= time.monotonic() + 0.011


def test_what_it_answers_is_handed_on(question: Instance) -> None:
    subject = Searcher()
    subject.outcome = Outcome(
        status=Status.SAT,
        detail="one",
        witness=question.upper.reshape(-1),
        bounds=(-1.0, 2.0),
        stage="attack",
        unstable=3,
        domains=5,
        rounds=2,
        bound_s=0.5,
        search_s=0.25,
    )
    subject.said = "two"
    (verdict,) = subject.solve([question])
    assert verdict.status is Status.SAT
    assert verdict.detail == "one; two"
    assert verdict.witness is not None
    np.testing.assert_array_equal(verdict.witness, question.upper)
    assert verdict.bounds == (-1.0, 2.0)
    assert (verdict.stage, verdict.unstable, verdict.domains, verdict.iterations) == ("attack", 3, 5, 2)
    assert (verdict.times.bound_s, verdict.times.search_s) == (0.5, 0.25)


@pytest.mark.parametrize(("megabytes", "leaves", "kept"), [(0.0, 1, 5), (4.0, 1, 2), (11.0, 1, 1), (0.0, 30_000, 1)])
def test_of_a_propertys_boxes_no_more_searches_are_kept_than_there_is_room_for(
    question: Instance, tmp_path: Path, megabytes: float, leaves: int, kept: int
) -> None:
    """A sixth of a search's memory, here 10 MiB, or 50,000 leaves; the latest search is kept whatever it takes."""
    subject = Searcher()
    subject.megabytes, subject.outcome = megabytes, Outcome(Status.UNSAT, bounds=(1.0,), certified=leaves)
    for number in range(5):
        box = replace(question, lower=question.lower + number * np.float32(1e-3), vnnlib=tmp_path / "many.vnnlib")
        subject.solve([box])
    assert len(subject._proving) == kept
    subject.solve([replace(question, vnnlib=tmp_path / "other.vnnlib")])
    assert len(subject._proving) == 1


@pytest.mark.parametrize("bound", [-np.inf, np.inf, np.nan])
def test_bounds_that_are_no_numbers_are_none(bound: float, question: Instance) -> None:
    subject = Searcher()
    subject.outcome = Outcome(bounds=(1.0, bound))
    (verdict,) = subject.solve([question])
    assert verdict.bounds is None
    assert verdict.detail == ""


def test_instances_are_answered_one_by_one_and_balls_by_a_search_of_their_own(question: Instance) -> None:
    subject, questions = Searcher(), []

    class Balls:
        def search(self, instance: Instance, limits: Any, *_: Any) -> Outcome:
            questions.append((instance, limits))
            return Outcome(Status.UNSAT, bounds=(0.5,) * 9)

    subject._balls = Balls()  # type: ignore[assignment]
    ball = replace(question, norm="l2", center=question.lower, eps=0.1, name="ball")
    verdicts = subject.solve([question, ball, question])
    assert [verdict.status for verdict in verdicts] == [Status.UNKNOWN, Status.UNSAT, Status.UNKNOWN]
    assert len(subject.calls) == 2
    assert questions == [(ball, SimpleNamespace(steps=7, memory_mb=60.0))]


def test_the_network_that_is_loaded_is_the_one_that_is_searched(tmp_path: Path) -> None:
    subject = Searcher()
    for seed in range(2):
        path = onnxnets.convolutional(tmp_path / f"{seed}.onnx", seed=seed)
        subject.load(path)
        points = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
        outputs = counterexample.outputs(path, points)
        for values in (subject.evaluate(points), subject._checker.network.evaluate(points)):
            assert values is not None
            np.testing.assert_allclose(values, outputs, rtol=1e-4, atol=1e-4)
    assert subject._names is None


def test_what_rounding_to_integers_leaves_open_is_not_laid_to_float32(tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    onnx.save(fixed(network("dense", 3)), path)
    subject = Searcher()
    subject.load(path)
    subject._make_limits, subject._make_search = SimpleNamespace, subject._search  # type: ignore[assignment]
    subject.outcome = Outcome(detail="2 subdomains lie within rounding of the threshold", stuck=2)
    lower = np.full((1, 4), 0.25, dtype=np.float32)
    wide = Instance(path, sha256_file(path), lower, lower + 0.5, OutputSpec.robustness(0, 3), 9.0, "q", 0, 3)
    (verdict,) = subject.solve([wide])
    assert verdict.status is Status.UNKNOWN
    assert verdict.detail.startswith("2 subdomains with every ReLU fixed are left open by what the file's own rounding")
