from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prunecert.bench.running import training
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from prunecert.models import checkpoint_folders
from prunecert.models.pipeline import Job
from tests.bench.trainkit import SUITE, jobs


@pytest.fixture
def suite(tmp_path: Path) -> str:
    file = tmp_path / "tiny.yaml"
    file.write_text(SUITE)
    return str(file)


def test_cells_are_chosen_by_patterns_and_one_that_fits_nothing_is_refused(suite: str) -> None:
    names = [job.name for job in jobs(suite)]
    both = [job.name for job in jobs(suite, "*lwm_x10_s0, *dense_x1_s0")]
    assert len(both) == 2
    assert both == [name for name in names if name in both], "in the suite's order"
    for patterns, message in (("*dense_x1_s0,cnn-tiny*", r"Unknown cell 'cnn-tiny\*' of suite "), (" , ", "empty")):
        with pytest.raises(UserError, match=message):
            jobs(suite, patterns)


def test_the_most_telling_cells_come_first(suite: str) -> None:
    names = [job.name.removeprefix("cnn-small_natural_eps2_") for job in training.by_value(jobs(suite))]
    assert names[:5] == ["dense_x1_s0", "lwm_x10_s0", "drop-grow_x10_s0", "lwm_x2_s0", "drop-grow_x2_s0"]
    assert all(name.endswith("s1") for name in names[5:])


def test_parents_come_before_what_begins_with_them_and_nothing_else_changes_its_place(suite: str) -> None:
    cells = jobs(suite)
    assert training.parents_first(cells) == cells

    def begins(job: Job, parent: str) -> Job:
        return replace(job, recipe=replace(job.recipe, parent=parent))

    one, two, three, *rest = cells
    chain = [begins(one, three.name), two, begins(three, rest[-1].name), *rest]
    names = [job.name for job in training.parents_first(chain)]
    assert names == [job.name for job in (rest[-1], three, one, two, *rest[:-1])]
    # A parent that isn't among them is a file.
    assert training.parents_first([begins(one, "elsewhere")]) == [begins(one, "elsewhere")]
    circle = f"{one.name} -> {two.name} -> {one.name};"
    with pytest.raises(UserError, match=f"Parents that lead back to themselves are refused: {circle}"):
        training.parents_first([begins(one, two.name), begins(two, one.name)])


@pytest.mark.parametrize(("text", "seconds"), [("25m", 1500), ("1.5h", 5400), ("90", 90), ("90s", 90), (None, None)])
def test_budgets_are_times(text: str | None, seconds: float | None) -> None:
    assert training.parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0", "-5m", "5 days"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--budget .* is refused; write a time above 0"):
        training.parse_budget(text)


def test_a_deadline_is_late_when_what_comes_next_would_overrun_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("prunecert.bench.running.training.time.monotonic", lambda: clock[0])
    deadline = training.Deadline("90s")
    assert [deadline.late(seconds) for seconds in (0, 90, 91)] == [False, False, True]
    clock[0] += 60
    assert [deadline.late(seconds) for seconds in (0, 30, 31)] == [False, False, True]
    clock[0] += 31
    assert deadline.late()
    assert not training.Deadline().late(1e9)


def test_throughput_is_the_median_over_the_cells_of_a_network() -> None:
    rates = training.Throughput()
    for network, rate in (("a", 10.0), ("a", 30.0), ("a", 20.0), ("b", 7000.0)):
        card: Any = SimpleNamespace(network=network, objective="ibp", throughput={"pretrain": rate})
        rates.add(card)
    assert rates.lines() == ["Throughput, a, ibp: pretrain 20 images/s", "Throughput, b, ibp: pretrain 7,000 images/s"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("eps", "8/255"), ("compression", 10.0), ("pruner", "hydra"), ("seed", 1), ("network", "cnn-large")],
)
def test_another_cells_files_under_a_cells_name_are_refused(tmp_path: Path, key: str, value: object) -> None:
    (job,) = training.plan(load_suite("cifar10-4nets"), "cnn-small_ibp_eps2_lwm_x20_s0", "cifar10-4nets")
    card = json.loads((checkpoint_folders.ZOO / f"{job.name}.json").read_text())
    (tmp_path / f"{job.name}.json").write_text(json.dumps(card))
    assert training.is_done(tmp_path, job)
    (tmp_path / f"{job.name}.json").write_text(json.dumps({**card, key: value}))
    with pytest.raises(
        UserError, match=f"says {key} {value!r}, and the cell of its name has .*: the files were mixed up"
    ):
        training.is_done(tmp_path, job)


def test_from_a_wheel_what_ships_is_trained_unless_the_recipe_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "checkpoints"
    monkeypatch.setattr(checkpoint_folders, "CHECKPOINTS", own)
    (job,) = training.plan(load_suite("cifar10-4nets"), "cnn-small_ibp_eps2_lwm_x10_s0", "cifar10-4nets")
    other = replace(job, recipe=replace(job.recipe, lr=0.5))
    assert training.is_done(own, job)
    assert not training.is_done(tmp_path / "nets", job)
    # An own suite's cell of the same name goes into one's own folder; it is no reason to refuse.
    assert not training.is_done(own, other)
    shutil.copytree(checkpoint_folders.ZOO, own, ignore=lambda _, names: [n for n in names if job.name not in n])
    with pytest.raises(UserError, match="another recipe"):
        training.is_done(own, other)
