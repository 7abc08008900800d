from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.running import local
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.local import KEEP_WARM, LocalExecutor
from prunecert.verifiers.base import Instance, Status, Verdict
from tests.bench.timekit import plan, stage


class FakeWorker:
    """A verifier in this process: proves images whose first pixel is below a half."""

    alive: ClassVar[list[FakeWorker]] = []
    most: ClassVar[int] = 0

    def __init__(self, verifier: str, settings: Any, device: str, **options: Any) -> None:
        self.verifier, self.device, self.options = verifier, device, options
        self.closed = False
        FakeWorker.alive.append(self)
        FakeWorker.most = max(FakeWorker.most, sum(not worker.closed for worker in FakeWorker.alive))

    def verify(self, instances: Sequence[Instance]) -> list[Verdict]:
        assert not self.closed
        good = [instance.upper.flat[0] < 0.5 for instance in instances]
        return [Verdict(Status.UNSAT if ok else Status.UNKNOWN, self.verifier) for ok in good]

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> type[FakeWorker]:
    FakeWorker.alive, FakeWorker.most = [], 0
    monkeypatch.setattr(local, "CertifyingWorker", FakeWorker)
    return FakeWorker


def cells(count: int, images: int, verifiers: Sequence[str] = ("a", "b")) -> tuple[list[CellPlan], list[CellCascade]]:
    plans = []
    for number in range(count):
        base = plan(2 + number, [replace(stage(name, 3), everyone=name == "a") for name in verifiers], images)
        pixels = np.random.default_rng(number).random(base.data.images.shape, dtype=np.float32)
        plans.append(replace(base, data=replace(base.data, images=pixels)))
    return plans, [CellCascade(number, one.stages, list(range(images))) for number, one in enumerate(plans)]


def run(workers: int, **options: Any) -> Counter[tuple[int, int, int, str]]:
    plans, cascades = cells(3, 10)
    answers: Counter[tuple[int, int, int, str]] = Counter()
    busy = threading.Lock()

    def take(batch: Batch, instances: Sequence[Instance], verdicts: Sequence[Verdict]) -> None:
        assert busy.acquire(blocking=False), "one thread at a time"
        for position, verdict in zip(batch.positions, verdicts, strict=True):
            answers[batch.cell, batch.stage, position, str(verdict.status)] += 1
        busy.release()

    LocalExecutor(plans, cascades, take, workers=workers, **options).run()
    return answers


def test_the_same_is_asked_with_any_number_of_workers(workers: type[FakeWorker]) -> None:
    alone = run(1)
    assert set(alone.values()) == {1}, "nothing is asked twice"
    assert {(cell, position) for cell, s, position, _ in alone if s == 0} == {
        (c, p) for c in range(3) for p in range(10)
    }
    proved = {(cell, position) for cell, s, position, status in alone if s == 0 and status == "unsat"}
    assert proved
    assert not proved & {(cell, position) for cell, s, position, _ in alone if s == 1}
    assert run(4) == alone
    assert all(worker.closed for worker in workers.alive)


def test_what_is_answered_is_shown_after_it_is_written() -> None:
    shown: list[int] = []
    run(2, on_progress=lambda: shown.append(1))
    assert len(shown) >= 3 * 4


def test_questions_may_be_changed_before_they_are_asked() -> None:
    def dim(batch: Batch, instances: Sequence[Instance]) -> list[Instance]:
        return [replace(instance, lower=instance.lower * 0, upper=instance.upper * 0) for instance in instances]

    answers = run(2, prepare=dim)
    assert {status for *_, status in answers} == {"unsat"}


def test_what_is_raised_ends_the_run_and_every_process(workers: type[FakeWorker]) -> None:
    plans, cascades = cells(2, 10)

    def refuse(*_: Any) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        LocalExecutor(plans, cascades, refuse, workers=3).run()
    assert all(worker.closed for worker in workers.alive)


def test_a_verifier_that_raises_is_no_answer(monkeypatch: pytest.MonkeyPatch, workers: type[FakeWorker]) -> None:
    def broken(self: FakeWorker, instances: Sequence[Instance]) -> list[Verdict]:
        raise RuntimeError("lost")

    monkeypatch.setattr(FakeWorker, "verify", broken)
    answers: list[Any] = []
    plans, cascades = cells(1, 4)
    with pytest.raises(RuntimeError, match="lost"):
        LocalExecutor(plans, cascades, lambda *_: answers.append(_), workers=2).run()
    assert answers == []


def test_few_processes_are_kept_warm(workers: type[FakeWorker]) -> None:
    plans, cascades = cells(1, 6, [f"v{number}" for number in range(KEEP_WARM + 3)])
    LocalExecutor(plans, cascades, lambda *_: None, workers=1).run()
    assert workers.most == KEEP_WARM


def test_each_worker_has_its_device_and_processors(workers: type[FakeWorker]) -> None:
    plans, cascades = cells(2, 30)
    gpu = [replace(one, stages=tuple(replace(s, device="cuda" if s.verifier == "a" else "cpu") for s in one.stages))
           for one in plans]  # fmt: skip
    devices, cores = ["cuda:0", "cuda:1"], [(0,), (1,)]
    LocalExecutor(gpu, cascades, lambda *_: None, workers=2, threads=3, devices=devices, cores=cores).run()
    for worker in workers.alive:
        # A verifier that is planned for the CPU stays there.
        assert worker.device in (devices if worker.verifier == "a" else ["cpu"])
        assert worker.options["threads"] == 3
        assert worker.options["cores"] in cores
