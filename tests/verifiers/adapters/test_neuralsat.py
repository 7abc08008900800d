"""NeuralSAT's adapter: right on networks with a known answer, honest about everything else."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.io import identity
from prunecert.verifiers.adapters.neuralsat.adapter import NeuralSat
from prunecert.verifiers.adapters.neuralsat.words import STATUS, parse_status
from prunecert.verifiers.base import Instance, OutputSpec, Status, Verdict
from prunecert.verifiers.process.worker import Worker
from tests.verifiers import exact


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Instance, bool]]:
    return exact.questions(tmp_path_factory.mktemp("tiny"), networks=3, factors=(0.7, 0.97, 1.03, 1.5))


@pytest.fixture(scope="module", params=["hidden", "input"])
def split_worker(request: pytest.FixtureRequest) -> Iterator[Worker]:
    with Worker("neuralsat", {"split": request.param, "attack_seconds": 0.2}, threads=1) as worker:
        yield worker


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker("neuralsat", {"split": "hidden", "attack_seconds": 0.0}, threads=1) as worker:
        yield worker


def wrong(cases: list[tuple[Instance, bool]], verdicts: list[Verdict]) -> list[str]:
    lines = []
    for (instance, holds), verdict in zip(cases, verdicts, strict=True):
        if verdict.status is not (Status.UNSAT if holds else Status.SAT):
            lines.append(f"{instance.name}: {verdict.status} {verdict.detail}, but the property's truth is {holds}")
    return lines


@pytest.mark.slow
def test_agrees_with_exact_answers(split_worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    verdicts = split_worker.verify([instance for instance, _ in cases])
    assert wrong(cases, verdicts) == []
    for verdict in verdicts:
        assert verdict.stage in ("attack", "incomplete", "bab")
        assert verdict.device == "cpu"
        assert (verdict.witness is not None) == (verdict.status is Status.SAT)


@pytest.mark.slow
def test_search_alone_finds_both_answers(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    verdicts = worker.verify([instance for instance, _ in cases])
    assert wrong(cases, verdicts) == []
    assert {verdict.stage for verdict in verdicts if verdict.status is Status.SAT} == {"bab"}
    searched = [verdict for verdict in verdicts if verdict.stage == "bab"]
    assert all(verdict.domains for verdict in searched)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_unsafe_disjunct_among_safe_ones(worker: Worker, cases: list[tuple[Instance, bool]], place: int) -> None:
    """Upstream's presolve once answered with the last disjunct's status (dynaroars/neuralsat, issue 20)."""
    for instance, _ in [case for case in cases if not case[1]][:2]:
        far = np.full(1, -1e4)
        rows = [a for a, _ in instance.spec.disjuncts]
        unsafe = [k for k, pair in enumerate(instance.spec.disjuncts) if _is_unsafe(instance, pair)]
        disjuncts = [(rows[0], far), (rows[0], far)]
        disjuncts.insert(place, instance.spec.disjuncts[unsafe[0]])
        assert worker.verify([replace(instance, spec=OutputSpec(tuple(disjuncts)))])[0].status is Status.SAT
        safe = OutputSpec(((rows[0], far), (rows[-1], far)))
        assert worker.verify([replace(instance, spec=safe)])[0].status is Status.UNSAT


def _is_unsafe(instance: Instance, pair: tuple[Any, Any]) -> bool:
    network = exact.load(instance.onnx)
    return bool(exact.smallest(network, instance.lower, instance.upper, pair[0][0]) <= pair[1][0])


@pytest.mark.slow
def test_conjunctions_and_ragged_disjuncts(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    """A conjunction no row of which is excluded alone, beside a disjunct with another number of rows."""
    instance = cases[0][0]
    never, empty, meets = exact.disjuncts_around(instance)
    assert worker.verify([replace(instance, spec=OutputSpec((never, empty)))])[0].status is Status.UNSAT
    verdict = worker.verify([replace(instance, spec=OutputSpec((never, meets)))])[0]
    assert verdict.status is Status.SAT, verdict.detail


@pytest.mark.slow
def test_a_margin_below_the_tolerance_is_never_sat(worker: Worker, cases: list[tuple[Instance, bool]]) -> None:
    instance = cases[0][0]
    row = np.eye(instance.classes)[:1]
    low = exact.smallest(exact.load(instance.onnx), instance.lower, instance.upper, row[0])
    verdict = worker.verify([replace(instance, spec=OutputSpec(((row, np.array([low - 3e-6])),)))])[0]
    assert verdict.status in (Status.UNSAT, Status.UNKNOWN), verdict.detail
    assert (verdict.status is Status.UNSAT) or "within 1e-05 of the threshold" in verdict.detail


@pytest.mark.slow
def test_a_network_beyond_the_range_of_float32_is_unsupported_not_a_failure(
    worker: Worker, cases: list[tuple[Instance, bool]], tmp_path: Path
) -> None:
    """Upstream says of it that "Initialization failed", whatever the reason."""
    instance = cases[0][0]
    model = onnx.load(instance.onnx)
    for item in model.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(1e30), item.name))
    onnx.save(model, tmp_path / "huge.onnx")
    huge = replace(instance, onnx=tmp_path / "huge.onnx", onnx_sha256=identity(tmp_path / "huge.onnx"))
    verdict = worker.verify([huge])[0]
    assert verdict.status is Status.UNSUPPORTED, verdict.detail
    assert "range of float32" in verdict.detail
    # The worker goes on.
    assert worker.verify([instance])[0].status is not Status.ERROR


def test_every_word_has_a_status() -> None:
    assert {word for word, (status, _) in STATUS.items() if status.decided} == {"unsat", "sat"}
    result = (
        Path(str(importlib.metadata.distribution("neuralsat").locate_file("src"))) / "helper/misc/result.py"
    ).read_text()
    words = {line.split("'")[1] for line in result.splitlines() if line.strip().count("'") == 2 and " = '" in line}
    assert words == set(STATUS)
    assert all(detail for status, detail in STATUS.values() if status is Status.ERROR)


@pytest.mark.parametrize("word", [None, "", "UNSAT", "safe", "unsat ", 0, True])
def test_any_other_word_is_an_error(word: object) -> None:
    status, detail = parse_status(word)
    assert status is Status.ERROR
    assert repr(word) in detail


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": "inputs"}, "Did you mean 'input'"),
        ({"batch": -1}, "0 or more"),
        ({"attack_seconds": "long"}, "type float"),
        ({"restarts": True}, "Did you mean 'restart'"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        NeuralSat.resolve(settings)


@pytest.mark.parametrize("missing", ["neuralsat", "gurobipy", "torchvision"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == missing:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    answer = NeuralSat.availability()
    assert not answer.installed
    assert f"pip install {missing}" in answer.hint
