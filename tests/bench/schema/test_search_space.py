from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.schema.search_space import SPACES, Choice, Range, apply, draw, one_by_one, read_space, scale_epochs
from prunecert.errors import UserError
from prunecert.models.recipe import Recipe
from tests.bench.trainkit import written

SPACE = """
lr: {low: 1.0e-4, high: 1.0e-2, log: true}
pretrain_epochs: {low: 4, high: 5}
pruners.drop-grow.every: [2, 3]
"""


def test_spaces_are_read_and_drawn_from(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, SPACE))
    assert space["lr"] == Range(1e-4, 1e-2, True, False)
    assert space["pretrain_epochs"] == Range(4, 5, False, True)
    assert space["pruners.drop-grow.every"] == Choice((2, 3))
    trials = draw(space, 60, seed=1)
    assert trials[0] == {}
    assert trials[:10] == draw(space, 10, seed=1), "more trials add to those there are"
    assert trials != draw(space, 60, seed=2)
    rates = sorted(trial["lr"] for trial in trials[1:])
    assert 1e-4 <= rates[0] < 5e-4 < 2e-3 < rates[-1] <= 1e-2
    assert {trial["pretrain_epochs"] for trial in trials[1:]} == {4, 5}
    assert len({str(trial) for trial in trials}) == 60


def test_a_small_space_is_exhausted(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, "lr: [0.1, 0.2]\ninit: [default, ibp]\n"))
    assert len(draw(space, 50, seed=0)) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 0.1\n", "must be a list of values, or a range"),
        ("lr: []\n", "must be a list of values"),
        ("lr: {low: 2, high: 1}\n", "must be a number above low"),
        ("lr: {low: 0, high: 1, log: true}\n", "with log it must be above 0"),
        ("lr: {low: 0, hihg: 1}\n", "hi"),
        ("{}\n", "names no recipe key"),
        ("lr, init: [0.1]\n", "2 keys change together here, so it must list 2"),
        ("lr, init: [[0.1, ibp], [0.1]]\n", "must list 2"),
    ],
)
def test_other_spaces_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_space(written(tmp_path, text))


def test_changes_reach_into_mappings() -> None:
    recipe = {"lr": 0.1, "objective": {"kappa_end": 0.5}, "addons": {"nrs": None}}
    changed = apply(recipe, {"objective.kappa_end": 0.0, "addons.nrs.weight": 0.1, "pruners.hydra": {}, "lr": 1})
    assert changed == {
        "lr": 1,
        "objective": {"kappa_end": 0.0},
        "addons": {"nrs": {"weight": 0.1}},
        "pruners": {"hydra": {}},
    }
    assert recipe["objective"] == {"kappa_end": 0.5}, "the recipe itself is not changed"
    with pytest.raises(UserError, match=r"'lr\.x' is refused"):
        apply(recipe, {"lr.x": 1})


@given(
    pretrain=st.integers(1, 60),
    warmup=st.integers(0, 5),
    ramp=st.integers(0, 40),
    prune=st.integers(0, 9),
    finetune=st.integers(0, 20),
    share=st.floats(0.01, 1.0),
)
def test_shortened_recipes_are_recipes(
    pretrain: int, warmup: int, ramp: int, prune: int, finetune: int, share: float
) -> None:
    warmup = min(warmup, pretrain)
    ramp = min(ramp, pretrain - warmup)
    recipe = {
        "pretrain_epochs": pretrain,
        "warmup_epochs": warmup,
        "ramp_epochs": ramp,
        "prune_epochs": prune,
        "finetune_epochs": finetune,
    }
    scaled = scale_epochs(recipe, share)
    Recipe.from_dict(scaled, "ibp")
    assert all(scaled[key] <= recipe[key] for key in recipe)
    assert bool(scaled["finetune_epochs"]) == bool(finetune)


def test_each_value_is_tried_by_itself(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, "lr: [0.1, 0.2]\nobjective.steps, objective.step_size: [[8, 0.25]]\n"))
    assert one_by_one(space) == [{}, {"lr": 0.1}, {"lr": 0.2}, {"objective.steps, objective.step_size": [8, 0.25]}]
    recipe = {"lr": 1.0, "objective": {"alpha": 0.5, "steps": 1}}
    assert [apply(recipe, changes) for changes in one_by_one(space)] == [
        recipe,
        {**recipe, "lr": 0.1},
        {**recipe, "lr": 0.2},
        {"lr": 1.0, "objective": {"alpha": 0.5, "steps": 8, "step_size": 0.25}},
    ]
    with pytest.raises(UserError, match="'lr' is a range"):
        one_by_one({"lr": Range(0.1, 1.0, log=False, whole=False)})


def test_shipped_spaces_are_read_by_name() -> None:
    names = [file.stem for file in SPACES.glob("*.yaml")]
    assert names
    for name in names:
        assert one_by_one(read_space(name))
    with pytest.raises(UserError, match=r"Did you mean 'cifar10-recipe'.*must end in \.yaml"):
        read_space("cifar10-recip")
