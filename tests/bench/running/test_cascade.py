from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.planning.stages import Stage
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.verifiers.base import Kind, Status

UNSAT, SAT, UNKNOWN, TIMEOUT = Status.UNSAT, Status.SAT, Status.UNKNOWN, Status.TIMEOUT


def stage(name: str, *, everyone: bool = False, batch: int = 1) -> Stage:
    return Stage(name, Kind.INCOMPLETE, "1", "", {}, 1.0, "cpu", everyone, batch, None)


def work_off(
    cascade: CellCascade, answer: Callable[[int, int], Status], pick: Callable[[int], int] = lambda n: 0
) -> list[Batch]:
    """Answers everything, taking open batches in the order that `pick` says; returns what was asked."""
    ready, batches = cascade.release(), []
    while ready:
        batch = ready.pop(pick(len(ready)))
        batches.append(batch)
        ready += cascade.record(batch, [answer(batch.stage, p) for p in batch.positions])
    return batches


def test_decided_images_drop_out_and_cross_checkers_see_everyone() -> None:
    stages = [stage("a", batch=3), stage("b", everyone=True, batch=10), stage("c")]
    cascade = CellCascade(5, stages, [0, 1, 2, 4, 6])
    statuses = {(0, 0): UNSAT, (0, 4): UNSAT, (1, 2): SAT}
    batches = work_off(cascade, lambda s, p: statuses.get((s, p), UNKNOWN))
    assert batches == [
        Batch(0, 5, (0, 1, 2)),
        Batch(0, 5, (4, 6)),
        Batch(1, 5, (0, 1, 2, 4, 6)),
        Batch(2, 5, (1,)),
        Batch(2, 5, (6,)),
    ]
    assert cascade.finished
    assert cascade.settled == 5


def test_a_stage_waits_for_the_one_before() -> None:
    cascade = CellCascade(0, [stage("a"), stage("b")], [0, 1])
    first, second = cascade.release()
    assert cascade.release() == []
    assert cascade.record(second, [UNKNOWN]) == []
    assert cascade.outlook() == (0, 1, 2)
    assert cascade.record(first, [UNSAT]) == [Batch(1, 0, (1,))]
    assert cascade.outlook() == (1, 1, 1)
    assert not cascade.finished
    assert cascade.settled == 1


def test_timeouts_and_failures_go_on_to_the_next_verifier() -> None:
    cascade = CellCascade(0, [stage("a"), stage("b")], [0, 1, 2])
    first = dict(enumerate((TIMEOUT, Status.ERROR, Status.MEMOUT)))
    batches = work_off(cascade, lambda s, p: first[p] if s == 0 else UNSAT)
    assert len(batches) == 6
    assert cascade.settled == 3


def test_nothing_to_do() -> None:
    assert CellCascade(0, [], [1, 2]).release() == []
    assert CellCascade(0, [], [1, 2]).finished
    assert CellCascade(0, [stage("a")], []).release() == []


@given(
    st.integers(0, 12),
    st.lists(st.tuples(st.booleans(), st.integers(1, 5)), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
    st.data(),
)
def test_interrupted_anywhere_it_asks_the_same_once(
    count: int, shapes: list[tuple[bool, int]], rng: object, data: st.DataObject
) -> None:
    stages = [stage(str(i), everyone=e, batch=b) for i, (e, b) in enumerate(shapes)]
    table = {
        (s, p): data.draw(st.sampled_from([UNSAT, SAT, UNKNOWN, TIMEOUT]))
        for s in range(len(stages))
        for p in range(count)
    }
    calm = work_off(CellCascade(0, stages, range(count)), lambda s, p: table[s, p])
    expected = {(b.stage, p) for b in calm for p in b.positions}
    assert sum(len(b.positions) for b in calm) == len(expected)
    answers: dict[tuple[int, int], Status] = {}
    questions: list[tuple[int, int]] = []
    for _ in range(3):
        cascade = CellCascade(0, stages, range(count), answers)
        ready, left = cascade.release(), data.draw(st.integers(0, 10))
        while ready and left:
            left -= 1
            batch = ready.pop(data.draw(st.integers(0, len(ready) - 1)))
            questions += [(batch.stage, p) for p in batch.positions]
            answers.update({(batch.stage, p): table[batch.stage, p] for p in batch.positions})
            ready += cascade.record(batch, [table[batch.stage, p] for p in batch.positions])
    last = work_off(CellCascade(0, stages, range(count), answers), lambda s, p: table[s, p])
    questions += [(b.stage, p) for b in last for p in b.positions]
    assert sorted(questions) == sorted(expected)


def test_statuses_must_fit_the_batch() -> None:
    cascade = CellCascade(0, [stage("a", batch=2)], [0, 1])
    (batch,) = cascade.release()
    with pytest.raises(ValueError, match="shorter"):
        cascade.record(batch, [UNSAT])
