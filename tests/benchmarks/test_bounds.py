"""IBP and CROWN, images of one network together and one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from prunecert.bench.planning.plan import CellPlan
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, Verdict, Verifier
from tests.benchmarks.ratios import Ratios, once


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def loaded(name: str, plan: CellPlan) -> Verifier:
    adapter = VERIFIERS.get(name)
    if not adapter.availability().installed:
        pytest.skip(adapter.availability().hint)
    verifier = adapter()
    verifier.start()
    verifier.load(plan.export.path)
    return verifier


def in_batches(verifier: Verifier, instances: list[Instance], size: int) -> Callable[[], list[Verdict]]:
    def solve() -> list[Verdict]:
        verdicts = []
        for start in range(0, len(instances), size):
            verdicts += verifier.solve(instances[start : start + size])
        return verdicts

    return solve


@pytest.mark.parametrize(("name", "images", "sizes"), [("ibp", 100, (100, 10)), ("crown", 8, (8,))])
def test_batches(
    benchmark: BenchmarkFixture, ratios: Ratios, plan: CellPlan, name: str, images: int, sizes: tuple[int, ...]
) -> None:
    verifier = loaded(name, plan)
    instances = [plan.instance(position, 0) for position in range(images)]
    one_by_one = in_batches(verifier, instances, 1)
    verdicts = once(benchmark, in_batches(verifier, instances, images))
    assert [v.status for v in verdicts] == [v.status for v in one_by_one()]
    for size in sizes:
        together = in_batches(verifier, instances, size)
        ratios.measure(f"{name}: an image among {size} / alone", together, one_by_one)


def test_methods(benchmark: BenchmarkFixture, ratios: Ratios, plan: CellPlan) -> None:
    instances = [plan.instance(position, 0) for position in range(10)]
    ibp = in_batches(loaded("ibp", plan), instances, 10)
    crown_ibp = in_batches(loaded("crown-ibp", plan), instances, 10)
    assert len(once(benchmark, crown_ibp)) == 10
    ratios.measure("crown-ibp / ibp, an image among 10", crown_ibp, ibp)
