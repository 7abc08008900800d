"""Recipes are read as they were written, refuse what can't be, and stay the same recipe when keys are added."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.models.recipe import _LATER, Recipe, _keys
from tests.models.training_kit import recipe

DEFAULT = Recipe()
positive = st.floats(1e-6, 10.0)
share = st.floats(0.0, 1.0)
recipes: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.sampled_from(one.choices) for name, one in _keys().items() if one.choices},
        **dict.fromkeys(("lr", "finetune_lr", "score_lr", "train_eps_factor", "lr_gamma"), positive),
        "decay": share,
        **dict.fromkeys(("average", "momentum"), st.floats(0.0, 1.0, exclude_max=True) | st.just(0)),
        **dict.fromkeys(("weight_decay", "l1", "grad_clip"), st.floats(0.0, 1.0) | st.integers(0, 3)),
        **dict.fromkeys(("prune_epochs", "finetune_epochs", "crop"), st.integers(0, 100)),
        "batch_size": st.integers(1, 1000),
        "pretrain_epochs": st.integers(30, 200),
        "warmup_epochs": st.integers(0, 10),
        "augment": st.booleans(),
        "parent": st.sampled_from(["", "cnn7"]),
        "lr_milestones": st.lists(st.floats(0.01, 0.99), min_size=1, unique=True).map(sorted),
        "pruners": st.just({"hydra": None}) | st.just({"lwm": {}}),
        "addons": st.just({}),
        "objective": st.just({}),
    },
)


@settings(deadline=None, max_examples=80)
@given(recipes)
def test_what_is_written_is_read_back(data: dict[str, Any]) -> None:
    recipe = Recipe.from_dict(data, "natural")
    for key, value in data.items():
        if key not in ("pruners", "lr_milestones"):
            assert getattr(recipe, key) == value
            assert type(getattr(recipe, key)) is type(getattr(DEFAULT, key))
    plain = json.loads(json.dumps(recipe.to_dict()))
    assert Recipe.from_dict(plain, "natural") == recipe
    assert Recipe.from_dict(plain, "natural").to_dict() == plain


def test_keys_that_came_later_are_left_out_at_their_defaults() -> None:
    names = {item.name for item in fields(Recipe)}
    assert names >= _LATER
    assert set(DEFAULT.to_dict()) == names - _LATER
    for key, value in (("crop", 2), ("lr_milestones", [0.5]), ("parent", "cnn7"), ("pruners", {"lwm": {}})):
        data = Recipe.from_dict({key: value}, "natural").to_dict()
        assert set(data) == names - _LATER | {key}
        assert data[key] == value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"epochs": 3}, "s: .*'epochs'"),
        ({"learning_rate": 3}, "s: .*'learning_rate'"),
        ({"allocation": "2:4"}, "Unknown allocation '2:4'. Did you mean '2of4'\\? Available: "),
        ({"allocation": 124}, "Unknown allocation '124'.* Available: .*2of4"),
        ({"batch_size": 1.5}, "batch_size is 1.5; it must be a whole number from 1"),
        ({"batch_size": True}, "batch_size is True; it must be a whole number from 1"),
        ({"augment": 1}, "augment is 1; it must be true or false"),
        ({"lr": "fast"}, "lr is 'fast'; it must be a number above 0"),
        ({"lr": 0}, "lr is 0; it must be a number above 0"),
        ({"lr": float("nan")}, "lr is nan; it must be a number above 0"),
        ({"batch_size": 0}, "batch_size is 0; it must be a whole number from 1"),
        ({"l1": -1e-9}, "l1 is -1e-09; it must be a number from 0"),
        ({"momentum": float("nan")}, "momentum is nan; it must be a number from 0 to below 1"),
        ({"decay": 1.01}, "decay is 1.01; it must be a number from 0 to 1"),
        ({"average": -0.1}, "average is -0.1; it must be a number from 0 to below 1"),
        ({"average": 1}, "average is 1; it must be a number from 0 to below 1"),
        ({"momentum": 1.0}, "momentum is 1.0; it must be a number from 0 to below 1"),
        ({"lr": float("inf")}, "lr is inf; it must be a number above 0"),
        ({"l1": 10**5000}, "l1 is a number of thousands of digits; it must be a number"),
        ({"pretrain_epochs": 0}, "pretrain_epochs is 0; it must be a whole number from 1"),
        ({"crop": 1.0}, "crop is 1.0; it must be a whole number from 0"),
        ({"parent": 3}, "parent is 3; it must be text"),
        ({"warmup_epochs": 21}, "warmup_epochs . ramp_epochs is 41, more than pretrain_epochs = 40"),
        ({"optimizer": "adamm"}, "Available: adamw, radam, sgd"),
        ({"allocation": "uniforn"}, "Did you mean 'uniform'"),
        ({"lr_milestones": []}, "lr_milestones is"),
        ({"lr_milestones": [0.5, 0.5]}, "lr_milestones is"),
        ({"lr_milestones": [0.8, 0.5]}, "lr_milestones is"),
        ({"lr_milestones": [0.0, 0.5]}, "lr_milestones is"),
        ({"lr_milestones": [0.5, 1]}, "lr_milestones is"),
        ({"lr_milestones": [True]}, "lr_milestones is"),
        ({"lr_milestones": "0.5"}, "lr_milestones is"),
        ({"objective": 3}, "objective is 3; it must be a mapping"),
        ({"objective": {"eps": 0.1}}, "setting 'eps' of objective 'mtl-ibp'"),
        ({"objective": {"alpha": "much"}}, r"objective.alpha is 'much'; it must be a number"),
        ({"objective": {"alpha": True}}, r"objective.alpha is True; it must be a number"),
        ({"finetune_objective": 3}, "finetune_objective is 3; it must be a mapping"),
        ({"finetune_objective": {"alfa": 1}}, "finetune_objective: .*Did you mean 'alpha'"),
        ({"finetune_objective": {"alpha": "much"}}, "finetune_objective.alpha is 'much'; it must be a number"),
        ({"finetune_objective": {"alpha": {10: "much"}}}, "finetune_objective.alpha is 'much'; it must be a number"),
        ({"finetune_objective": {"alpha": {}}}, "finetune_objective.alpha is {}; .* a mapping from compressions"),
        ({"finetune_objective": {"alpha": {0.5: 1.0}}}, r"alpha is .0.5: 1.0.; .* numbers from 1 on"),
        ({"finetune_objective": {"alpha": {"10": 1.0}}}, r"alpha is .'10': 1.0.; .* numbers from 1 on"),
        ({"finetune_objective": {"alpha": {1: 0.5, 10: 4}}}, "finetune_objective.alpha is 4; it must be a number from"),
        ({"addons": ["a"]}, "addons is .*must be a mapping of names"),
        ({"pruners": {"hydr": {}}}, "s: .*Did you mean 'hydra'"),
        ({"pruners": {"lwm": {"compression": 3}}}, "pruners.lwm.*'compression'"),
        ({"pruners": {"lwm": 0}}, r"pruners.lwm is 0; it must be a mapping of settings"),
        ({"pruners": {3: {}}}, "s: .*Unknown pruner '3'"),
        ({"pruners": {"lwm": 3}}, r"pruners.lwm is 3; it must be a mapping of settings"),
    ],
)
def test_what_can_not_be_is_refused_with_its_place(data: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=f"^s.*{why}" if not why.startswith("s:") else why) as caught:
        Recipe.from_dict(data, "mtl-ibp", where="s")
    assert len(str(caught.value).splitlines()) == 1


def test_the_ramp_may_end_with_pretraining() -> None:
    assert Recipe.from_dict({"warmup_epochs": 20}, "natural").warmup_epochs == 20


def test_settings_of_the_objective_belong_to_it() -> None:
    assert Recipe.from_dict({"objective": {"alpha": 0.5}}, "mtl-ibp").objective == {"alpha": 0.5}
    with pytest.raises(UserError, match=r"setting '.*' of objective 'natural'"):
        Recipe.from_dict({"objective": {"alpha": 0.5}}, "natural")


def test_a_pruner_s_recipe_does_not_depend_on_the_others() -> None:
    recipe = replace(DEFAULT, score_lr=0.5, pruners={"lwm": {}, "hydra": {}})
    hydra, magnitude = recipe.of_pruner("hydra"), recipe.of_pruner("lwm")
    assert hydra == replace(recipe, pruners={"hydra": {}})
    # Only those that learn scores have a rate for them.
    assert magnitude == replace(recipe, pruners={"lwm": {}}, score_lr=DEFAULT.score_lr)
    assert recipe.of_pruner("dense") == replace(recipe, pruners={}, score_lr=DEFAULT.score_lr)


def test_fine_tuning_has_its_own_settings_of_the_objective_by_compression() -> None:
    by = {"alpha": {10: 0.01, 1: 0.005}, "attack_factor": {100: 1.0}, "steps": 2}
    recipe = Recipe.from_dict(
        {"objective": {"alpha": 0.002, "attack_factor": 2.24}, "finetune_objective": by}, "mtl-ibp"
    )
    for compression, alpha, factor in ((1.0, 0.005, 2.24), (9.99, 0.005, 2.24), (10.0, 0.01, 2.24), (100.0, 0.01, 1.0)):
        one = recipe.at_compression(compression)
        assert one.finetuning().objective == {"alpha": alpha, "attack_factor": factor, "steps": 2}
        assert one.objective == recipe.objective
        # A card keeps what was resolved, and is recognised by it.
        plain = json.loads(json.dumps(one.to_dict()))
        assert Recipe.from_dict(plain, "mtl-ibp").at_compression(compression) == one
    assert recipe.at_compression(5.0).finetune_objective == {"alpha": 0.005, "steps": 2}


def test_a_parent_may_be_that_of_each_seed() -> None:
    recipe = Recipe.from_dict({"parent": "dense_s{seed}"}, "ibp")
    assert [recipe.of_seed(seed).parent for seed in (0, 12)] == ["dense_s0", "dense_s12"]
    # A card keeps what was resolved, and nothing else changes.
    card = recipe.of_seed(3).to_dict()
    assert card == {**recipe.to_dict(), "parent": "dense_s3"}
    assert Recipe.from_dict(card, "ibp").of_seed(4) == recipe.of_seed(3)
    assert DEFAULT.of_seed(5) == DEFAULT


def test_a_pre_trained_network_does_not_depend_on_what_comes_after_it() -> None:
    recipe = Recipe.from_dict({"finetune_objective": {"alpha": 0.5}, "finetune_epochs": 3}, "mtl-ibp")
    assert recipe.pretraining() == DEFAULT.pretraining()
    assert replace(DEFAULT, lr=0.5).pretraining() != DEFAULT.pretraining()


def test_with_a_parent_the_ramp_of_pre_training_is_no_matter() -> None:
    assert Recipe.from_dict({"parent": "other", "pretrain_epochs": 5}, "ibp").pretrain_epochs == 5
    with pytest.raises(UserError, match="the ramp must end within pre-training"):
        Recipe.from_dict({"pretrain_epochs": 5}, "ibp")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"learning_rate": 1}, "Unknown key 'learning_rate'"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"lr": -1.0}, "lr is -1.0; it must be a number above 0"),
        ({"augment": 1}, "augment is 1; it must be true or false"),
        ({"crop": -1}, "crop is -1; it must be a whole number from 0"),
        ({"pretrain_epochs": 2.5}, r"pretrain_epochs is 2\.5"),
        ({"ramp_epochs": 50}, "more than pretrain_epochs"),
        ({"average": 1.5}, "average is 1.5; it must be a number from 0 to below 1"),
        ({"init": "kaiming"}, "Unknown init 'kaiming'"),
        ({"precision": "float16"}, "Did you mean 'bfloat16'"),
        ({"allocation": "blanced"}, "Did you mean 'balanced'"),
        ({"objective": {"kapa_end": 1}}, "Did you mean 'kappa_end'"),
        ({"objective": {"kappa_end": "a"}}, "must be a number"),
        ({"objective": 3}, "must be a mapping"),
    ],
)
def test_bad_recipes_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe.from_dict(data, "ibp")


def test_recipes_come_back_from_their_dictionary() -> None:
    settings = recipe("ibp", objective={"kappa_end": 0.25})
    assert Recipe.from_dict(settings.to_dict(), "ibp") == settings
