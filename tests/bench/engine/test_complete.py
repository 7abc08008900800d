"""What is asked, in which order, and of whom; the answers are made up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prunecert.bench.engine import complete as module
from prunecert.bench.engine.complete import OURS, WITH_PROOFS, BenchmarkRequest, complete, open_images, reuse
from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, Status, Times, Verdict
from prunecert.verifiers.formats.counterexample import outputs
from tests.verifiers import onnxnets


class Scripted:
    """A verifier that answers at once, and writes down what it was asked."""

    asked_of: list[tuple[str, str, bool]]

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None, **_: object) -> None:
        self.name = WITH_PROOFS if settings else name

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def verify(self, instances: Sequence[Instance]) -> list[Verdict]:
        for item in instances:
            self.asked_of.append((self.name, item.name, bool((item.lower < item.upper).any())))
        return [Verdict(Status.UNSAT, times=Times(wall_s=0.5), domains=3) for _ in instances]


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """What verifiers were asked: whom, about which image, and whether there was a box."""

    @contextlib.contextmanager
    def workers(names: Sequence[str], **_: object) -> Iterator[dict[str, Scripted]]:
        yield {name: Scripted(name) for name in names}

    Scripted.asked_of = []
    monkeypatch.setattr(module, "Worker", Scripted)
    monkeypatch.setattr(module, "workers", workers)
    return Scripted.asked_of


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BenchmarkRequest:
    """Of three images, the network gets the first wrong."""
    path = onnxnets.linear(tmp_path / "a.onnx")
    images = np.random.default_rng(0).random((3, 3, 2, 2), dtype=np.float32)
    labels = outputs(path, images).argmax(axis=1)
    labels[0] = (labels[0] + 1) % 10
    monkeypatch.setattr(module, "load", lambda *_: SimpleNamespace(images=images, labels=labels))
    return BenchmarkRequest(onnx=(path,), images=9, eps=1.0, repeats=2)


def test_only_right_images_that_crown_leaves_open_are_asked(request_: BenchmarkRequest) -> None:
    (path,) = request_.onnx
    questions = open_images(path, request_)
    assert list(questions) == [1, 2]
    assert all(item.lower.min() >= 0 and item.upper.max() <= 1 for item in questions.values())
    assert open_images(path, BenchmarkRequest(onnx=(path,), eps=1e-9)) == {}
    assert list(open_images(path, BenchmarkRequest(onnx=(path,), eps=1e-9, proved=True))) == [1, 2]
    assert list(open_images(path, BenchmarkRequest(onnx=(path,), images=2, eps=1.0))) == [1]


def test_the_order_of_verifiers_changes_after_a_first_question_that_does_not_count(
    request_: BenchmarkRequest, crew: list[tuple[str, str, bool]]
) -> None:
    names = [OURS, "neuralsat"]
    answers = complete(request_, names)
    assert [name for name, _, _ in crew] == [*names, *names, *reversed(names), *reversed(names), *names]
    assert [(answer.image, answer.verifier) for answer in answers[:3]] == [
        (1, OURS),
        (1, "neuralsat"),
        (2, "neuralsat"),
    ]
    assert {(answer.seconds, answer.domains, answer.network) for answer in answers} == {(0.5, 3, "a.onnx")}


def test_a_chain_is_warmed_up_with_a_point_and_asked_with_and_without_proofs(
    request_: BenchmarkRequest, crew: list[tuple[str, str, bool]]
) -> None:
    answers = reuse(request_)
    assert [(name, box) for name, _, box in crew[:4]] == [
        *((OURS, False), (WITH_PROOFS, False)),
        *((WITH_PROOFS, True), (OURS, True)),
    ]
    assert len(answers) == 2 * 2 * 2
    assert {answer.verifier for answer in answers} == {OURS, WITH_PROOFS}


def test_unknown_verifiers_and_missing_files_are_refused(request_: BenchmarkRequest, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean"):
        complete(request_, ["neuralsta"])
    with pytest.raises(UserError, match="does not exist"):
        reuse(BenchmarkRequest(onnx=(tmp_path / "none.onnx",)))
