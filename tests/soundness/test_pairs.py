"""No answer about a pair of networks is wrong, near the exact threshold, whoever gives it.

Forty questions by default, 304 with PRUNECERT_SOUNDNESS=full. `sparse-pair` is asked about all of them; other complete
verifiers, and bounds, about some of them through the merged file, as a check of that way.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import pytest

from prunecert.hashing import sha256_file
from prunecert.onnx.merge import merge
from prunecert.verifiers.base import Instance, Status, Verdict
from prunecert.verifiers.process.worker import Worker
from tests.soundness.oracle import exact_margin
from tests.soundness.pairs import PairQuestion, questions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

COUNT = 304 if os.environ.get("PRUNECERT_SOUNDNESS") == "full" else 40


@pytest.fixture(scope="module", name="cases")
def _cases(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[PairQuestion, Instance]]:
    folder = tmp_path_factory.mktemp("pairs")
    written: dict[str, Path] = {}
    cases = []
    for question in questions(COUNT):
        path = written.get(question.first.name)
        if path is None:
            path = written[question.first.name] = folder / f"pair{len(written)}.onnx"
            onnx.save(merge(*question.files(folder)), path)
        cases.append((question, instance(question, path)))
    return cases


def instance(question: PairQuestion, path: Path) -> Instance:
    shape = question.first.shape
    return Instance(
        onnx=path,
        onnx_sha256=sha256_file(path),
        lower=question.lower.reshape(shape),
        upper=question.upper.reshape(shape),
        spec=question.spec,
        timeout=60.0,
        name=question.name,
        classes=2 * question.first.classes,
    )


def answers(verifier: str, cases: Sequence[tuple[PairQuestion, Instance]]) -> Iterator[tuple[PairQuestion, Verdict]]:
    with Worker(verifier, threads=1) as worker:
        verdicts = worker.verify([instance for _, instance in cases])
    print(verifier, Counter((str(q.truth), str(v.status)) for (q, _), v in zip(cases, verdicts, strict=True)))
    for (question, _), verdict in zip(cases, verdicts, strict=True):
        assert verdict.status is not Status.ERROR, f"{question.name}: {verdict.detail}"
        assert not verdict.status.decided or verdict.status is question.truth, f"{question.name}: {verdict.status}"
        yield question, verdict


def test_it_decides_nearly_all_and_nothing_wrongly(cases: list[tuple[PairQuestion, Instance]]) -> None:
    verdicts = [verdict for _, verdict in answers("sparse-pair", cases)]
    assert len(verdicts) == COUNT
    # Of the larger networks of a full run some are open after a minute, 1 % from their thresholds.
    assert sum(verdict.status.decided for verdict in verdicts) >= (0.98 if COUNT <= 40 else 0.94) * COUNT
    # Both are at work.
    assert {verdict.stage for verdict in verdicts} >= {"incomplete", "bab", "attack"}


@pytest.mark.parametrize(("verifier", "share"), [("sparse-bab", 0.9), ("alpha-crown", 0.0)])
def test_the_merged_file_serves_others(cases: list[tuple[PairQuestion, Instance]], verifier: str, share: float) -> None:
    some = cases[:: COUNT // 8]
    decided = [verdict.status.decided for _, verdict in answers(verifier, some)]
    assert sum(decided) >= share * len(some)


def test_the_thresholds_are_exact(cases: list[tuple[PairQuestion, Instance]]) -> None:
    """By the oracle's margin of the whole property, which the thresholds were not made from."""
    for question, _ in cases[:: max(COUNT // 6, 1)]:
        margin = exact_margin(question.both, question.lower.astype(float), question.upper.astype(float), question.spec)
        assert (margin.high > 0) == (question.truth is Status.UNSAT), question.name
        assert abs(margin.high) > 1e-6
