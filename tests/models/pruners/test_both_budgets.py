from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.masks import prunable
from prunecert.models.pruners.allocation import BOTH, allocate, budget
from prunecert.models.pruners.both_budgets import for_network, parts_by_both, uses
from prunecert.models.pruners.lwm import prune
from prunecert.models.recipe import Recipe
from tests.models.training_kit import job

#: Of a network like cnn-small, and of one whose linear layer holds nearly everything.
SHAPES = {"conv1": (16, 3, 4, 4), "conv2": (32, 16, 4, 4), "linear1": (100, 2048), "linear2": (10, 100)}
USES = {"conv1": 256, "conv2": 64, "linear1": 1, "linear2": 1}


def test_uses_are_the_places_of_a_layers_output() -> None:
    model = NETWORKS.get("resnet-2b")()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    counts = uses(model, (3, 32, 32))
    assert list(counts) == list(prunable(model))
    assert sum(counts[name] * weight.numel() for name, weight in prunable(model).items()) == 9_660_928
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), "statistics stay"


def test_a_layer_that_runs_twice_is_counted_twice() -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)
    assert uses(model, (1, 2, 2)) == {"1.weight": 2}


@given(
    st.dictionaries(st.sampled_from("abcde"), st.tuples(st.integers(1, 60), st.integers(1, 400)), min_size=1),
    st.data(),
    st.floats(1, 50),
)
def test_both_budgets_are_kept_to(shapes: dict[str, tuple[int, int]], data: st.DataObject, compression: float) -> None:
    times = {name: data.draw(st.sampled_from([1, 4, 64, 1024]), label=name) for name in shapes}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    compression = min(compression, float(sum(sizes.values())))
    kept = budget(sum(sizes.values()), compression)
    if kept < len(shapes):
        with pytest.raises(UserError, match="at least one each"):
            parts_by_both(shapes, times, compression)
        return
    parts = parts_by_both(shapes, times, compression)
    assert sum(parts.values()) == pytest.approx(kept, abs=1e-6)
    assert all(part <= sizes[name] * (1 + 1e-9) for name, part in parts.items())
    dense = sum(times[name] * size for name, size in sizes.items())
    # What rounding the weights' number up may cost, where every weight is multiplied most often.
    spent = sum(times[name] * part for name, part in parts.items())
    assert spent <= dense / compression * (1 + 1e-6) + max(times.values())
    counts = allocate(shapes, kept, parts)
    assert sum(counts.values()) == kept
    assert all(abs(counts[name] - part) <= 1 + len(parts) for name, part in parts.items())


def test_what_balanced_meets_is_left_alone() -> None:
    linear = dict.fromkeys(SHAPES, 1)
    balanced = allocate(SHAPES, budget(214_760, 10), "balanced")
    assert parts_by_both(SHAPES, linear, 10) == balanced
    parts = parts_by_both(SHAPES, USES, 10)
    assert parts["conv1"] < balanced["conv1"]
    assert parts["linear1"] > balanced["linear1"]
    spent = sum(USES[name] * part for name, part in parts.items())
    assert spent == pytest.approx(sum(USES[name] * math.prod(shape) for name, shape in SHAPES.items()) / 10)


@given(st.floats(1.5, 60), st.floats(0, 1))
def test_a_share_of_the_way_spends_a_share_of_the_multiply_adds(compression: float, share: float) -> None:
    balanced, parts, both = (parts_by_both(SHAPES, USES, compression, one) for one in (0.0, share, 1.0))
    spent = [sum(USES[name] * one[name] for name in SHAPES) for one in (balanced, parts, both)]
    assert spent[1] == pytest.approx((1 - share) * spent[0] + share * spent[2])
    assert both == parts_by_both(SHAPES, USES, compression)
    kept = budget(214_760, compression)
    assert balanced == allocate(SHAPES, kept, "balanced")
    assert sum(parts.values()) == pytest.approx(kept)
    for name, part in parts.items():
        low, high = sorted((balanced[name], both[name]))
        assert low - 1e-6 <= part <= high + 1e-6


def test_half_way_the_first_convolution_of_cnn5_keeps_half_of_what_both_takes_from_it() -> None:
    model = NETWORKS.get("cnn5")()
    counts, weights = uses(model, (3, 32, 32)), prunable(model)
    dense = sum(counts[name] * weight.numel() for name, weight in weights.items())
    kept = {}
    for allocation, share in (("both:0", 0.77), ("both:0.5", 0.435), ("both", 0.1)):
        parts = for_network(allocation, model, (3, 32, 32), 10)
        assert not isinstance(parts, str)
        kept[allocation] = round(parts["0.weight"])
        assert sum(counts[name] * part for name, part in parts.items()) / dense == pytest.approx(share, abs=5e-4)
    assert kept == {"both:0": 1728, "both:0.5": 962, "both": 196}


@pytest.mark.parametrize("allocation", ["both:0", "both:0.5", "both:1e-1", "both:1"])
def test_recipes_take_a_share_and_pruners_get_parts(allocation: str) -> None:
    one = job(allocation=allocation)
    assert one.recipe.to_dict()["allocation"] == allocation
    one.refuse_unreachable()
    model = NETWORKS.get("cnn-small")()
    parts = one.allocation(model)
    assert parts == for_network(allocation, model, (3, 32, 32), 10)
    assert prune(model, 10, allocation=parts).kept == 21_476


@pytest.mark.parametrize("allocation", ["both:", "both:1.1", "both:-0.1", "both:half", "both:nan", "both:0.5:1"])
def test_what_is_no_share_is_refused(allocation: str) -> None:
    message = rf"Allocation '{allocation}' is refused: .*a number from 0 to 1, e\.g\. both:0\.5"
    with pytest.raises(UserError, match=rf"^recipe: {message}"):
        Recipe.from_dict({"allocation": allocation}, "ibp")
    with pytest.raises(UserError, match=rf"^{message}"):
        for_network(allocation, NETWORKS.get("cnn-small")(), (3, 32, 32), 10)


def test_pruners_take_parts_and_refuse_the_bare_name() -> None:
    torch.manual_seed(0)
    model = NETWORKS.get("cnn-small")()
    shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
    counts = uses(model, (3, 32, 32))
    parts = for_network(BOTH, model, (3, 32, 32), 10)
    assert parts == parts_by_both(shapes, counts, 10)
    assert for_network("balanced", model, (3, 32, 32), 10) == "balanced"
    masks = prune(model, 10, allocation=parts)
    assert masks.kept == 21_476
    spent = sum(counts[name] * int(mask.sum()) for name, mask in masks.items())
    dense = sum(counts[name] * mask.numel() for name, mask in masks.items())
    assert spent <= dense / 10 + sum(counts.values())
    for bare in (BOTH, "both:0.5"):
        with pytest.raises(UserError, match=rf"'{bare}' counts multiply-adds, which weights alone don't have"):
            prune(model, 10, allocation=bare)
