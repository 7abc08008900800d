"""Variants: what is held fast is held fast, and can't be set; they are their origin otherwise, to the bit."""

from __future__ import annotations

import inspect

import pytest
from torch import nn

from prunecert.errors import UserError
from prunecert.models import PRUNERS
from prunecert.models.pruners import variants
from prunecert.models.pruners.contract import method_of
from prunecert.models.pruners.taxonomy import RECONSTRUCTIONS, TAXONOMIES, VARIANTS, marked
from prunecert.models.recipe import Recipe
from tests.models.conftest import Lent
from tests.models.training_kit import job

#: What each holds fast.
FAST = {
    "anp-vs-plain": {"suppression"},
    "boosting-random": {"values"},
    "deadwooding-plain": {"soft"},
    "harp-uniform": {"allocation", "rates"},
    "heracles": {"rates"},
    "hydra-uniform": {"allocation"},
    "lwm-uniform": {"allocation"},
}


def test_every_variant_is_listed_with_its_origin() -> None:
    held = {name for name in PRUNERS if PRUNERS.get(name) in vars(variants).values()}
    assert held == set(VARIANTS) == set(FAST)
    assert {origin for origin, _ in VARIANTS.values()} <= set(PRUNERS)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_variant_has_its_origin_s_keywords_but_those_held_fast(name: str) -> None:
    variant, origin = PRUNERS.get(name), PRUNERS.get(VARIANTS[name][0])
    keywords, all_of_them = (set(inspect.signature(prune).parameters) for prune in (variant, origin))
    assert all_of_them - keywords == FAST[name]
    assert method_of(variant).needs == method_of(origin).needs
    assert variant.__doc__ != origin.__doc__


def test_a_recipe_may_set_the_others_alone() -> None:
    assert Recipe.from_dict({"pruners": {"heracles": {"rounds": 2}}}, "ibp").pruners == {"heracles": {"rounds": 2}}
    with pytest.raises(UserError, match="rates"):
        Recipe.from_dict({"pruners": {"heracles": {"rates": "learned"}}}, "ibp")


def test_no_allocation_of_a_recipe_reaches_one_of_its_own(tiny: nn.Module) -> None:
    for name in ("hydra", "harp", "lwm"):
        lent = {} if name == "lwm" else {"train": Lent()}
        masks = PRUNERS.get(f"{name}-uniform")(tiny, 10, **lent)
        lent = {} if name == "lwm" else {"train": Lent()}
        assert masks.sha256() == PRUNERS.get(name)(tiny, 10, allocation="uniform", **lent).sha256()
        assert masks.sha256() != PRUNERS.get(name)(tiny, 10, allocation="balanced", **lent).sha256()
    with pytest.raises(UserError, match="keeps to no pattern"):
        job("hydra-uniform", 4.0, allocation="2of4").refuse_unreachable()


def test_reconstructions_say_so_and_stand_where_their_origin_stands() -> None:
    assert marked("deadwooding-plain") == "deadwooding-plain†"
    assert marked("harp") == "harp"
    assert set(RECONSTRUCTIONS) <= set(PRUNERS)
    assert TAXONOMIES["harp-uniform"] == TAXONOMIES["harp"]
    assert TAXONOMIES["deadwooding-plain"] != TAXONOMIES["deadwooding"]
