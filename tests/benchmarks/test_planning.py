"""What it costs to make a question and to write down its answer, without asking it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from prunecert.bench.planning.plan import CellPlan, instance_id, question_id
from prunecert.bench.results.store import Writer
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.recording import verdict_rows
from prunecert.verifiers.base import Status, Verdict
from prunecert.verifiers.formats.counterexample import outputs
from tests.benchmarks.ratios import Ratios

IMAGES = 100


def test_questions(benchmark: BenchmarkFixture, ratios: Ratios, plan: CellPlan) -> None:
    def questions() -> list[str]:
        instances = [plan.instance(position, 0) for position in range(IMAGES)]
        return [instance_id(one, plan.stages[0]) + question_id(one) for one in instances]

    def yardstick() -> None:
        outputs(plan.export.path, plan.data.images[:IMAGES])

    assert len(set(benchmark(questions))) == IMAGES
    ratios.measure("a question with its ids / the network's outputs on an image", questions, yardstick)


def test_rows(benchmark: BenchmarkFixture, ratios: Ratios, plan: CellPlan, tmp_path: Path) -> None:
    batch = Batch(0, 0, tuple(range(IMAGES)))
    instances = [plan.instance(position, 0) for position in batch.positions]
    verdicts = [Verdict(Status.UNSAT, bounds=tuple(np.linspace(0.1, 5, 9)), unstable=100, verifier="instant")] * IMAGES
    with Writer(tmp_path) as writer:

        def rows() -> int:
            lines = verdict_rows(plan, batch, instances, verdicts, writer)
            writer.append(*lines)
            return len(lines)

        def yardstick() -> None:
            outputs(plan.export.path, plan.data.images[:IMAGES])

        assert benchmark(rows) == IMAGES
        ratios.measure("an answer written down / the network's outputs on an image", rows, yardstick)


def test_cascade(benchmark: BenchmarkFixture, ratios: Ratios, plan: CellPlan) -> None:
    proofs = {(0, position): Status.UNSAT for position in range(0, IMAGES, 2)}

    def cascade() -> int:
        cell = CellCascade(0, plan.stages * 5, range(IMAGES), proofs)
        ready = cell.release()
        while ready:
            batch = ready.pop()
            ready += cell.record(batch, [Status.UNKNOWN] * len(batch.positions))
        return cell.settled

    def yardstick() -> None:
        for position in range(IMAGES):
            plan.instance(position, 0)

    assert benchmark(cascade) == IMAGES
    ratios.measure("five verifiers' order for an image / making its question", cascade, yardstick)
