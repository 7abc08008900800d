"""Structured pruning removes whole units with all that hangs on them, and the network computes the same without."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecert.errors import UserError
from prunecert.models import NETWORKS, PRUNERS
from prunecert.models.masks import prunable
from prunecert.models.pruners.allocation import ALLOCATIONS
from prunecert.models.pruners.units import units_of

NAMES = ("structured", "structured-filters", "structured-neurons")


def dead(model: nn.Module) -> list[tuple[int, int]]:
    """Units without a weight left, and all units, by group."""
    units = []
    for group in units_of(model):
        rows = torch.stack([w.detach().abs().flatten(1).sum(1) for w in group.producers.values()]).sum(0)
        columns = sum(w.detach().abs().transpose(0, 1).reshape(group.size, -1).sum(1) for w in group.consumers.values())
        units.append((int(((rows == 0) & (columns == 0)).sum()), group.size))
    return units


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "ratio"), [("cnn-small", 2), ("cnn-small", 10), ("cnn-small", 100), ("cnn-large", 10), ("wrn-28-4", 10)]
)
def test_units_go_whole_and_the_count_is_exact(network: str, ratio: float) -> None:
    torch.manual_seed(0)
    model = NETWORKS.get(network)()
    masks = PRUNERS.get("structured")(model, ratio)
    assert masks.kept == round(masks.total / ratio)
    masks.apply_(model)
    gone = dead(model)
    share = 1 - (1 / ratio) ** 0.5
    assert sum(count for count, _ in gone) > 0.5 * share * sum(size for _, size in gone)
    assert all(0 < count < size for count, size in gone), "every layer loses some, and keeps some"
    # But for the one that is cut to the exact count, every unit is whole or gone.
    partial = 0
    for name, mask in masks.items():
        rows, columns = mask.flatten(1).any(1), mask.flatten(2).any(2).any(0) if mask.ndim == 4 else mask.any(0)
        if mask.ndim == 4:
            whole = rows[:, None] & columns
            partial += int((mask.flatten(2).all(2) != whole).sum() > 0)
        assert mask.any(), name
    assert partial <= len(masks)


@pytest.mark.slow
def test_removed_units_have_no_effect_whatever_their_bias_or_scale() -> None:
    torch.manual_seed(0)
    model = NETWORKS.get("wrn-28-4")().eval()
    PRUNERS.get("structured")(model, 4).apply_(model)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        for group in units_of(model):
            idle = torch.stack([w.abs().flatten(1).sum(1) for w in group.producers.values()]).sum(0) == 0
            for name in group.producers:
                norm = {"conv1": "bn2"}.get(name.split(".")[-2] if "." in name else "")
                if norm:
                    block = model.get_submodule(name.rpartition(".conv1")[0])
                    block.get_parameter(f"{norm}.bias")[idle] = 7.0
        assert torch.allclose(model(x), before, atol=1e-5)


@pytest.mark.slow
def test_residual_sums_lose_the_same_channels_everywhere() -> None:
    model = NETWORKS.get("wrn-28-4")()
    sums = [group for group in units_of(model) if len(group.producers) > 1]
    assert [(group.size, len(group.producers), len(group.consumers)) for group in sums] == [
        (64, 5, 5), (128, 5, 5), (256, 5, 4),
    ]  # fmt: skip
    assert "1.shortcut.weight" in sums[0].producers, "four blocks and the shortcut add into the first"
    masks = PRUNERS.get("structured")(model, 20)
    for group in sums:
        alive = [masks[name].flatten(1).any(1) for name in group.producers]
        differing = sum(int((alive[0] != other).sum()) for other in alive)
        assert differing <= len(alive), "but for the unit that is cut to the exact count"


def test_flattened_channels_take_their_block_of_columns() -> None:
    model = NETWORKS.get("cnn-small")()
    with torch.no_grad():
        prunable(model)["2.weight"][5] *= 1e-3
    masks = PRUNERS.get("structured-filters")(model, 1.1)
    assert not bool(masks["2.weight"][5].any())
    assert not bool(masks["5.weight"][:, 5 * 64 : 6 * 64].any())
    assert bool(masks["5.weight"][:, 6 * 64].all())


def test_channels_go_through_an_average_over_all_places() -> None:
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(8, 10))
    masks = PRUNERS.get("structured-filters")(model, 2)
    gone = ~masks["0.weight"].flatten(1).any(1)
    assert bool(gone.any())
    assert torch.equal(gone, ~masks["4.weight"].any(0))


def test_each_kind_takes_its_layers_only() -> None:
    model = NETWORKS.get("cnn-small")()
    filters, neurons = (PRUNERS.get(name)(model, 2) for name in NAMES[1:])
    assert bool(filters["7.weight"].all())
    assert bool(filters["5.weight"].any(1).all()), "no neuron is gone"
    assert bool(neurons["0.weight"].all())
    assert bool(neurons["2.weight"].all())
    assert not bool(neurons["5.weight"].any(1).all())


def test_global_ranks_layers_against_each_other() -> None:
    torch.manual_seed(0)
    model = NETWORKS.get("cnn-small")()
    with torch.no_grad():
        # Half of the neurons matter far less than the rest of their layer.
        prunable(model)["5.weight"][:50] *= 1e-3
    masks = PRUNERS.get("structured")(model, 1.8, layers="global")
    assert bool(masks["0.weight"].all())
    alive = masks["5.weight"].any(1)
    assert int(alive[:50].sum()) < 5
    assert bool(alive[50:].all())


def test_balanced_spares_the_layers_with_few_weights() -> None:
    model = NETWORKS.get("cnn-small")()
    uniform, balanced = (PRUNERS.get("structured")(model, 20, layers=name) for name in ("uniform", "balanced"))
    assert balanced.kept == uniform.kept
    filters = [int(masks["0.weight"].flatten(1).any(1).sum()) for masks in (uniform, balanced)]
    assert filters[0] <= 4 < 8 <= filters[1]


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_reached_is_refused(name: str) -> None:
    model = NETWORKS.get("cnn-small")()
    with pytest.raises(UserError, match=r"Compression 5000 is refused: with 5% of the units .* allowed is at most"):
        PRUNERS.get(name)(model, 5000)
    with pytest.raises(UserError, match="floor 0 is refused"):
        PRUNERS.get(name)(model, 2, floor=0.0)
    with pytest.raises(UserError, match="Did you mean 'uniform'"):
        PRUNERS.get(name)(model, 2, layers="unifrom")


def test_a_floor_keeps_units() -> None:
    model = NETWORKS.get("cnn-small")()
    masks = PRUNERS.get("structured")(model, 10, layers="global", floor=0.25)
    assert int(masks["0.weight"].flatten(1).any(1).sum()) >= 4
    with pytest.raises(UserError, match="with 50% of the units"):
        PRUNERS.get("structured")(model, 10, floor=0.5)


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(UserError, match=r"does not know the layer '1' \(Tanh\)"):
        units_of(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("network", ["cnn-small", "cnn-large", "vgg16", "wrn-28-4"])
def test_no_allocation_empties_a_layer_at_a_hundredth(network: str, allocation: str) -> None:
    model = NETWORKS.get(network)()
    masks = PRUNERS.get("lwm")(model, 100, allocation=allocation)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    assert min(kept.values()) >= 1
    last = list(kept)[-1]
    # A class whose row is empty has a constant logit. Layer-uniform pruning keeps 1 % of the last layer's weights,
    # fewer than it takes for ten classes to be told apart in the networks with a small last layer.
    if allocation != "uniform":
        assert kept[last] >= 100
        assert int(masks[last].any(1).sum()) == 10
    else:
        assert kept[last] == round(masks[last].numel() / 100)
