from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.bench.planning.plan import CellPlan, instance_id
from prunecert.bench.results.store import Writer
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.warmstart import WarmStart, warm_plans
from prunecert.errors import UserError
from prunecert.verifiers.base import Kind, Status
from tests.bench.conftest import Zoo
from tests.bench.rowkit import documents
from tests.bench.timekit import plan, stage

Run = Callable[..., int]


def attack(compression: float, **more: Any) -> CellPlan:
    step = replace(stage("attack", 8), kind=Kind.ATTACK, repeat=None, **more)
    bound = replace(stage("bound", 8), repeat=None)
    return plan(compression, [bound, step], 4)


def test_networks_before_it_are_part_of_an_attacks_ids() -> None:
    cold = [attack(10), attack(1), attack(2)]
    warm = warm_plans(cold)
    assert [p.stages[1].after for p in warm] == [
        (cold[2].export.sha256, cold[1].export.sha256),
        (),
        (cold[1].export.sha256,),
    ]
    for before, after in zip(cold, warm, strict=True):
        # What is not started from elsewhere keeps its ids, so that its answers are found again.
        assert before.keys[0] == after.keys[0]
        assert (before.keys[1] == after.keys[1]) == (after.cell.compression == 1)
    attacks = warm_plans([attack(2, everyone=False), attack(1, everyone=False)])
    # Which images it sees would depend on how far others got.
    assert all(step.after == () for p in attacks for step in p.stages)


def test_an_attack_waits_for_those_before_it_and_gets_the_nearest_counterexamples(tmp_path: Path) -> None:
    plans = warm_plans([attack(10), attack(2), attack(1)])
    warm = WarmStart(plans, tmp_path)
    places = range(4)

    def ready(cell: int) -> Callable[[int], bool]:
        return lambda step: warm.ready(cell, step)

    cells = warm.cascades = [CellCascade(n, p.stages, places, {}, None, ready(n)) for n, p in enumerate(plans)]
    unknown = [Status.UNKNOWN] * 4
    released = {n: cell.release() for n, cell in enumerate(cells)}
    assert all(batches == [Batch(0, n, (0, 1, 2, 3))] for n, batches in released.items())
    # The bounds of the 10x and the 2x network are there: their attacks wait for the dense one's.
    assert cells[0].record(released[0][0], unknown) == []
    assert cells[1].record(released[1][0], unknown) == []
    (first,) = cells[2].record(released[2][0], unknown)
    assert first == Batch(1, 2, (0, 1, 2, 3))
    broken: dict[tuple[int, int], str] = {}

    def breaks(cell: int, *positions: int) -> list[Status]:
        with Writer(tmp_path) as writer:
            for p in positions:
                broken[cell, p] = instance_id(plans[cell].instance(p, 1), plans[cell].stages[1])
                writer.save_witness(broken[cell, p], np.full((3, 2, 2), 10 * cell + p, np.float32))
        return [Status.SAT if p in positions else Status.UNKNOWN for p in places]

    def starts(batch: Batch) -> list[list[str]]:
        instances = [plans[batch.cell].instance(p, batch.stage) for p in batch.positions]
        return [list(instance.starts) for instance in warm.add_starts(batch, instances)]

    assert starts(first) == [[], [], [], []]
    cells[2].record(first, breaks(2, 0, 1))
    assert cells[0].release() == []
    (second,) = cells[1].release()
    assert starts(second) == [[broken[2, 0]], [broken[2, 1]], [], []]
    cells[1].record(second, breaks(1, 1, 2))
    (third,) = cells[0].release()
    assert starts(third) == [[broken[2, 0]], [broken[1, 1], broken[2, 1]], [broken[1, 2]], []]


@pytest.mark.slow
def test_a_run_with_warm_starts(run: Run, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunecert.bench.report.figures.save", lambda summary, folder: [])
    # The untrained networks are not broken really, so that the replay's outputs are made up.
    monkeypatch.setattr("prunecert.verifiers.base.OutputSpec.violated_by", lambda self, output: True)
    suite = tmp_path / "finder.yaml"
    text = zoo.suite.read_text().replace("[fake-bound, fake-complete]", "[fake-bound, fake-complete, fake-finder]")
    suite.write_text(text.replace("cross_check: [fake-bound]", "cross_check: [fake-bound, fake-finder]"))
    options = ("--suite", str(suite), "--images", "6", "--verifiers", "fake-finder", "--warm-start")
    assert run(tmp_path / "run", *options) == 0
    rows = documents(tmp_path / "run", "verdict")
    dense = {row["image"]: row for row in rows if "dense" in row["cell"]}
    pruned = {row["image"]: row for row in rows if "lwm" in row["cell"]}
    # The first network's attack finds by itself; the next one's begins, and ends, at what it found.
    assert dense
    assert set(pruned) == set(dense)
    assert all("start" not in row for row in dense.values())
    assert [row["start"] for row in pruned.values()] == [dense[image]["id"] for image in pruned]
    assert all(row["status"] == "sat" and row["witness_check"]["ok"] for row in rows)
    run(tmp_path / "twice", *options, "--workers", "2")
    again = {row["id"]: row.get("start") for row in documents(tmp_path / "twice", "verdict")}
    assert again == {row["id"]: row.get("start") for row in rows}
    run(tmp_path / "run", *options)
    assert len(documents(tmp_path / "run", "verdict")) == len(rows)


@pytest.mark.parametrize("options", [("--shard", "1/2"), ("--submit",), ("--executor", "submitit")])
def test_what_would_tear_a_chain_apart_is_refused(run: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="--warm-start is refused"):
        run(tmp_path / "run", "--warm-start", *options)
