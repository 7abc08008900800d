from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.running.search_request import (
    SearchCriterion,
    SearchRequest,
    Verification,
    own_recipe,
    plan_trials,
    recipe_key,
    survivors,
)
from prunecert.bench.schema.cell import Cell
from prunecert.bench.schema.search_space import Choice, Range, Space
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import UserError
from tests.bench.trainkit import SUITE


def test_criteria() -> None:
    criterion = SearchCriterion.parse("0.7*crown_ibp + 0.3*clean")
    assert criterion.weights == {"crown_ibp": 0.7, "clean": 0.3}
    cells = [{"crown_ibp": 0.4, "clean": 0.6}, {"crown_ibp": 0.2, "clean": 0.4}]
    assert criterion.score(cells) == pytest.approx(0.7 * 0.3 + 0.3 * 0.5)
    with pytest.raises(UserError, match="Did you mean 'crown_ibp'"):
        SearchCriterion.parse("crownibp")
    with pytest.raises(UserError, match="'x' is no number"):
        SearchCriterion.parse("x*clean")
    with pytest.raises(UserError, match=r"no 'verified'.*needs --verify"):
        SearchCriterion.parse("verified").score(cells)


def test_the_best_third_goes_on() -> None:
    scores = {0: 0.3, 1: 0.5, 2: 0.5, 3: 0.1, 4: 0.9}
    assert survivors(scores, 9, 1, 3.0) == [4, 1, 2]
    assert survivors(scores, 9, 2, 3.0) == [4]
    assert survivors(scores, 2, 5, 3.0) == [4], "one at least"


def test_a_compression_s_own_recipe_is_where_a_search_begins(tmp_path: Path) -> None:
    text = SUITE + "  cnn-small/natural: {lr: 0.5}\n  cnn-small/natural/10x: {lr: 0.25}\n"
    (tmp_path / "tiny.yaml").write_text(text)
    suite = load_suite(str(tmp_path / "tiny.yaml"))
    cells = [cell for cell, _ in suite.cells if isinstance(cell, Cell)]
    alone = [cell for cell in cells if cell.compression == 10]
    assert alone
    assert own_recipe(suite, alone)["lr"] == 0.25
    assert own_recipe(suite, cells)["lr"] == 0.5
    assert recipe_key(suite, alone) == "cnn-small/natural/10x"
    assert recipe_key(suite, cells) == "cnn-small/natural"
    assert recipe_key(suite, [cell for cell in cells if cell.compression == 2]) == "cnn-small/natural"


def test_a_pruner_s_own_recipe_is_where_a_search_begins(tmp_path: Path) -> None:
    own = "  cnn-small/natural/10x: {lr: 0.25}\n  cnn-small/natural/drop-grow/10x: {lr: 0.125}\n"
    (tmp_path / "tiny.yaml").write_text(SUITE + "  cnn-small/natural: {lr: 0.5}\n" + own)
    suite = load_suite(str(tmp_path / "tiny.yaml"))
    shared = [cell for cell, _ in suite.cells if isinstance(cell, Cell) and cell.compression == 10]
    alone = [cell for cell in shared if cell.pruner == "drop-grow"]
    assert alone
    assert len(shared) > len(alone)
    assert own_recipe(suite, alone)["lr"] == 0.125
    assert own_recipe(suite, shared)["lr"] == 0.25
    assert recipe_key(suite, alone) == "cnn-small/natural/drop-grow/10x"
    assert recipe_key(suite, shared) == "cnn-small/natural/10x"


@given(st.dictionaries(st.integers(0, 30), st.floats(0, 1), min_size=1), st.floats(1.5, 5), st.integers(1, 4))
def test_survivors_are_no_worse_than_those_who_go(scores: dict[int, float], eta: float, rung: int) -> None:
    alive = survivors(scores, len(scores), rung, eta)
    assert alive
    assert len(alive) == len(set(alive)) <= max(1, -(-len(scores) // eta**rung))
    assert [scores[number] for number in alive] == sorted((scores[n] for n in alive), reverse=True)
    others = [scores[number] for number in scores if number not in alive]
    assert not others or min(scores[number] for number in alive) >= max(others)


def request(folder: Path, space: Space, **changes: object) -> SearchRequest:
    (folder / "tiny.yaml").write_text(SUITE)
    suite = load_suite(str(folder / "tiny.yaml"))
    options = {"cells": "*dense_x1_s?", "criterion": SearchCriterion.parse("clean"), **changes}
    return SearchRequest(suite=suite, named="tiny", space=space, out=folder / "out", **options)  # type: ignore[arg-type]


def test_rungs_have_growing_shares_of_the_epochs_and_folders_of_their_own(tmp_path: Path) -> None:
    plans = plan_trials(request(tmp_path, {"lr": Choice((0.1, 0.2))}, trials=3, rungs=2, eta=2.0))
    (whole,) = plan_trials(request(tmp_path, {"lr": Choice((0.1,))}, trials=1))[0]
    assert [[trial.number for trial in rungs] for rungs in plans] == [[0, 0], [1, 1], [2, 2]]
    for rungs in plans:
        first, last = rungs
        assert first.epochs < last.epochs == whole.epochs
        assert [job.seed for job in last.jobs] == [0, 1]
    trials = [trial for rungs in plans for trial in rungs]
    assert len({trial.folder for trial in trials}) == len(trials)
    assert plans[0][0].describe() == "the suite's recipe"
    assert {rungs[0].describe() for rungs in plans[1:]} == {"lr=0.1", "lr=0.2"}
    assert {rungs[0].jobs[0].recipe.lr for rungs in plans[1:]} == {0.1, 0.2}


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    space = {"lr": Choice((0.1,))}
    with pytest.raises(UserError, match="measured on the last rung only"):
        plan_trials(request(tmp_path, space, criterion=SearchCriterion.parse("verified"), rungs=2))
    with pytest.raises(UserError, match=r"'verified' needs --verify N"):
        plan_trials(request(tmp_path, space, criterion=SearchCriterion.parse("verified")))
    with pytest.raises(UserError, match=r"Unknown verifier 'sparse-bob'.*'sparse-bab'"):
        plan_trials(request(tmp_path, space, verification=Verification.of(5, "pgd,sparse-bob", 1.0)))
    with pytest.raises(UserError, match="names none"):
        plan_trials(request(tmp_path, space, verification=Verification.of(5, " ,", 1.0)))
    with pytest.raises(UserError, match=r"'vgg\*' fits 0 cells of no network"):
        plan_trials(request(tmp_path, space, cells="vgg*"))
    with pytest.raises(UserError, match=r"the space \(lr=-1\): lr is -1; it must be a number above 0"):
        plan_trials(request(tmp_path, {"lr": Choice((-1,))}, trials=2))
    # Whether or not it is drawn; and of a range, its ends.
    with pytest.raises(UserError, match=r"the space \(average=1\.5\): average is 1\.5"):
        plan_trials(request(tmp_path, {"average": Range(0.5, 1.5, False, False)}, trials=1))
    with pytest.raises(UserError, match=r"the space \(pruners\.drop-grow\.every=0\): pruners\.drop-grow\.every is 0"):
        plan_trials(request(tmp_path, {"pruners.drop-grow.every": Range(0, 9, False, True)}, trials=1))


def test_trials_hold_images_out_whatever_the_suites_recipe_does(tmp_path: Path) -> None:
    plain = request(tmp_path, {"lr": Choice((0.1,))}, trials=2)
    recipes = {**plain.suite.recipes, "cnn-small/natural": {"holdout": False}}
    whole = replace(plain, suite=replace(plain.suite, recipes=recipes))
    own = whole.suite.recipe("cnn-small", "natural", 1.0, "dense")
    assert own["holdout"] is False
    assert all(job.recipe.holdout for rungs in plan_trials(whole) for job in rungs[0].jobs)
    with pytest.raises(UserError, match="key 'holdout' is refused: trials are compared on held-out images"):
        plan_trials(request(tmp_path, {"holdout": Choice((True, False))}, trials=2))


def test_an_ablation_changes_one_value_at_a_time(tmp_path: Path) -> None:
    space = {"lr": Choice((0.1, 0.2)), "init": Choice(("ibp",))}
    plans = plan_trials(request(tmp_path, space, trials=None))
    assert [rungs[0].changes for rungs in plans] == [{}, {"lr": 0.1}, {"lr": 0.2}, {"init": "ibp"}]
    assert len({rungs[0].epochs for rungs in plans}) == 1
    assert plans[3][0].jobs[0].recipe.init == "ibp"
    with pytest.raises(UserError, match="equal epochs, so it goes with --rungs 1"):
        plan_trials(request(tmp_path, space, trials=None, rungs=2))
