"""Marabou's adapter; what needs `maraboupy` is marked, the rest runs everywhere."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.verifiers.adapters.marabou.adapter import Marabou
from prunecert.verifiers.adapters.marabou.words import STATUS, parse_status
from prunecert.verifiers.base import Instance, OutputSpec, Status
from prunecert.verifiers.process.worker import Worker
from tests.verifiers import exact


def needs(function: Any) -> Any:
    missing = importlib.util.find_spec("maraboupy") is None
    return pytest.mark.marabou(pytest.mark.skipif(missing, reason="maraboupy is not installed")(function))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Instance, bool]]:
    return exact.questions(tmp_path_factory.mktemp("tiny"), networks=8, factors=(0.7, 0.97, 1.03, 1.5))


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker("marabou", threads=1) as worker:
        yield worker


@pytest.mark.slow
@needs
def test_agrees_with_exact_answers(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    verdicts = worker.verify([instance for instance, _ in cases])
    for (instance, holds), verdict in zip(cases, verdicts, strict=True):
        assert verdict.status is (Status.UNSAT if holds else Status.SAT), f"{instance.name}: {verdict.detail}"
        assert verdict.stage == "bab"
        assert verdict.domains


@pytest.mark.slow
@needs
def test_a_counterexample_on_the_very_border_is_not_claimed(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    """At a single point whose output misses the unsafe set by less than simplex sees, nothing may be `sat`."""
    instance = cases[0][0]
    row = np.eye(instance.classes)[:1]
    value = exact.load(instance.onnx)(instance.lower)[0]
    spec = OutputSpec(((row, np.array([value - 1e-6])),))
    verdict = worker.verify([replace(instance, upper=instance.lower, spec=spec)])[0]
    assert verdict.status in (Status.UNKNOWN, Status.UNSAT), verdict.detail


@needs
def test_any_unsafe_disjunct_counts(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    unsafe = next(instance for instance, holds in cases if not holds)
    never = (unsafe.spec.disjuncts[0][0], np.array([-1e4]))
    for disjuncts in (
        (*unsafe.spec.disjuncts, never),
        (never, *unsafe.spec.disjuncts),
    ):
        assert worker.verify([replace(unsafe, spec=OutputSpec(disjuncts))])[0].status is Status.SAT
    assert worker.verify([replace(unsafe, spec=OutputSpec((never, never)))])[0].status is Status.UNSAT


@needs
def test_conjunctions(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    instance = cases[0][0]
    network = exact.load(instance.onnx)
    row = np.eye(instance.classes)[:1]
    low = exact.smallest(network, instance.lower, instance.upper, row[0])
    high = -exact.smallest(network, instance.lower, instance.upper, -row[0])
    gap = 0.2 * (high - low)
    empty = (np.vstack([row, -row]), np.array([(low + high) / 2 - gap, -(low + high) / 2 - gap]))
    meets = (np.vstack([row, -row]), np.array([(low + high) / 2 + gap, -(low + high) / 2 + gap]))
    verdicts = worker.verify([replace(instance, spec=OutputSpec((pair,))) for pair in (empty, meets)])
    assert [verdict.status for verdict in verdicts] == [Status.UNSAT, Status.SAT]


def test_every_exit_code_has_a_status() -> None:
    assert {word for word, status in STATUS.items() if status.decided} == {"unsat", "sat"}


@pytest.mark.parametrize("word", [None, "", "UNSAT", "SAT", "timeout", 1])
def test_any_other_word_is_an_error(word: object) -> None:
    status, detail = parse_status(word)
    assert status is Status.ERROR
    assert repr(word) in detail


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"splitting": "polar"}, "Did you mean 'polarity'"), ({"workers": 0}, "1 or more"), ({"worker": 1}, "'workers'")],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Marabou.resolve(settings)


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    answer = Marabou.availability()
    assert not answer.installed
    assert "prunecert[marabou]" in answer.hint
