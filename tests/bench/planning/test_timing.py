from __future__ import annotations

from dataclasses import replace

from prunecert.bench.planning.timing import at_repeat
from tests.bench.timekit import plan, stage


def test_repeats_and_batches_have_ids_of_their_own() -> None:
    one = plan(2, [stage("a", 1)], 3)
    keys = {at_repeat(one, repeat).keys[0] for repeat in (1, 2, 3)}
    keys.add(plan(2, [stage("a", 2)], 3).keys[0])
    keys.add(replace(one, stages=(replace(one.stages[0], repeat=None),)).keys[0])
    assert len(keys) == 5
