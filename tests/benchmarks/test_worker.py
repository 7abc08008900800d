"""Asking a verifier process that answers at once: what the harness adds to an instance."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.store import Writer
from prunecert.bench.running.cascade import CellCascade
from prunecert.bench.running.local import LocalExecutor
from prunecert.bench.running.recording import verdict_rows
from prunecert.verifiers.process.worker import Worker
from tests.benchmarks.ratios import Ratios, once

#: Seconds of an instance beside which the harness's cost is shown.
INSTANCE_S = 1.0


def test_round_trip(benchmark: BenchmarkFixture, ratios: Ratios, plan: CellPlan) -> None:
    instances = [plan.instance(position, 0) for position in range(100)]
    with Worker("instant", threads=1) as worker:

        def together() -> int:
            return len(worker.verify(instances))

        def one_by_one() -> int:
            return sum(len(worker.verify([instance])) for instance in instances)

        assert once(benchmark, one_by_one) == together() == 100
        ratios.measure("round trip of an instance among 100 / alone", together, one_by_one, clock=time.perf_counter)
        alone = ratios.measure(
            "round trip of an instance / a one-second instance",
            lambda: [worker.verify([instance]) for instance in instances[:20]],
            lambda: time.sleep(INSTANCE_S / 20),
            each=20,
            yardstick_each=1 / 20,
            clock=time.perf_counter,
        )
    if alone is not None:
        ratios.note(
            f"round trip of an instance: {1e3 * alone:.2f} ms, {alone / INSTANCE_S:.2%} of a one-second instance"
        )


@pytest.mark.slow
def test_whole_way(benchmark: BenchmarkFixture, ratios: Ratios, plan: CellPlan, tmp_path: Path) -> None:
    """From the plan to the row on the disk, in batches of 100, the process's start left out."""
    count = iter(range(1_000_000))

    def run(images: int) -> int:
        cascade = CellCascade(0, plan.stages, range(images))
        with Writer(tmp_path / str(next(count))) as writer:
            executor = LocalExecutor(
                [plan],
                [cascade],
                lambda batch, instances, verdicts: writer.append(
                    *verdict_rows(plan, batch, instances, verdicts, writer)
                ),
            )
            executor.run()
        return cascade.settled

    most = 1000 if ratios.enabled else 200
    assert once(benchmark, partial(run, most)) == most
    # Both start a process, so that the difference is that of the instances.
    spent: dict[int, float] = {}
    for images in (100, most):
        each = ratios.measure(
            f"the whole way of {images} instances / a start of the process with one",
            partial(run, images),
            partial(run, 1),
            clock=time.perf_counter,
        )
        if each is not None:
            spent[images] = each
    if spent:
        each = (spent[most] - spent[100]) / (most - 100)
        ratios.note(f"the whole way of an instance in a batch of 100: {1e3 * each:.2f} ms (aim: below 2 ms)")
