from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.timing import ComparedGroup
from prunecert.bench.running.timing_schedule import schedule
from prunecert.bench.schema.timing import Timing
from tests.bench.timekit import plan, stage


@dataclass(frozen=True)
class Made:
    timing: Timing
    plans: list[CellPlan]
    groups: list[ComparedGroup]


@st.composite
def cases(draw: st.DrawFn) -> Made:
    images = draw(st.integers(1, 13))
    doses = {
        name: {"images": draw(st.integers(1, 15)), "repeats": draw(st.integers(1, 3)), "batch": draw(st.integers(1, 5))}
        for name in ("a", "b")
    }
    timing = Timing(images=images, chunk=draw(st.integers(1, 6)), seed=draw(st.integers(0, 99)), by_verifier=doses)
    stages = [stage(name, doses[name]["batch"]) for name in doses]
    # The second network is not for verifier "a".
    plans = [plan(1, stages, images), plan(2, stages[1:], images), plan(10, stages, images)]
    return Made(timing, plans, [ComparedGroup("g", timing, (0, 1, 2), images)])


@settings(deadline=None)
@given(cases())
def test_every_image_ratio_and_repeat_is_asked_once_and_networks_take_turns(case: Made) -> None:
    visits = schedule(case.plans, case.groups)
    questions = Counter(
        (case.plans[v.cell].stages[v.stage].verifier, v.repeat, v.cell, place)
        for v in visits
        for batch in v.batches
        for place in batch
    )
    expected = {
        (step.verifier, repeat, cell, place)
        for cell, plan_ in enumerate(case.plans)
        for step in plan_.stages
        for repeat in range(1, case.timing.dose(step.verifier).repeats + 1)
        for place in range(min(case.timing.dose(step.verifier).images, case.groups[0].images))
    }
    assert set(questions) == expected
    assert set(questions.values()) == {1}
    assert [v.repeat for v in visits] == sorted(v.repeat for v in visits)
    # All networks meet a chunk of images before any of them meets the next chunk.
    turns: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for v in visits:
        step = case.plans[v.cell].stages[v.stage]
        turns.setdefault((step.verifier, v.repeat), []).append((v.batches[0][0], v.cell))
        assert all(len(batch) <= step.batch for batch in v.batches)
        assert all(place // step.batch == batch[0] // step.batch for batch in v.batches for place in batch)
    for order in turns.values():
        assert [start for start, _ in order] == sorted(start for start, _ in order)
        per_chunk = Counter(start for start, _ in order)
        assert len(set(per_chunk.values())) == 1
        assert len(set(order)) == len(order)
    assert schedule(case.plans, case.groups) == visits


def test_the_seed_decides_the_order_of_networks() -> None:
    plans = [plan(c, [stage("a", 1)], 9) for c in (1, 2, 10, 20, 100)]
    orders = set()
    for seed in range(4):
        timing = Timing(images=9, repeats=2, chunk=3, seed=seed)
        visits = schedule(plans, [ComparedGroup("g", timing, (0, 1, 2, 3, 4), 9)])
        orders.add(tuple(v.cell for v in visits))
        # Within a run the order changes from chunk to chunk.
        chunks = [tuple(v.cell for v in visits[i : i + 5]) for i in range(0, len(visits), 5)]
        assert len(set(chunks)) > 1
    assert len(orders) == 4
