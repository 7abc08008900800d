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
    with pytest.raises(UserError, match="counts multiply-adds, which weights alone don't have"):
        prune(model, 10, allocation=BOTH)
