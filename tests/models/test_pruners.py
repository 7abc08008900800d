"""Every pruner does what its paper says, to one weight."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunecert.errors import UserError
from prunecert.models import NETWORKS, PRUNERS
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import ALLOCATIONS, allocate, budget
from prunecert.models.pruners.hydra import initial_scores
from prunecert.models.pruners.lwm import keep_largest
from tests.models.conftest import Lent

RATIOS = (1, 2, 3.7, 10, 20, 100)


def trained_like() -> nn.Module:
    """A cnn-small whose layers have weights of the same size, so that global pruning leaves some in each."""
    model = NETWORKS.get("cnn-small")()
    for weight in prunable(model).values():
        nn.init.normal_(weight)
    return model


def extra(name: str) -> dict[str, object]:
    return {"train": Lent()} if name == "hydra" else {}


@pytest.mark.parametrize("name", ["lwm", "lwm-global", "random", "hydra"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_sparsity_is_exact_to_one_weight(name: str, ratio: float) -> None:
    model = trained_like()
    masks = PRUNERS.get(name)(model, ratio, **extra(name))
    assert masks.kept == round(214_760 / ratio)
    masks.apply_(model)
    assert sum(int((w != 0).sum()) for w in prunable(model).values()) <= masks.kept
    assert masks.holds(model)


@pytest.mark.parametrize("ratio", [1, 2, 5, 10, 50])
def test_filter_pruning_is_exact_and_removes_whole_filters(ratio: float) -> None:
    model = NETWORKS.get("cnn-small")()
    masks = PRUNERS.get("filter-l1")(model, ratio)
    assert masks.kept == round(214_760 / ratio)
    partial = 0
    for name, mask in masks.items():
        per_filter = mask.flatten(1).float().mean(1)
        partial += int(((per_filter > 0) & (per_filter < 1)).sum())
        # The kept ones are those of largest mean |w|.
        norms = prunable(model)[name].detach().abs().flatten(1).mean(1)
        if bool((per_filter == 0).any()):
            assert norms[per_filter > 0].min() >= norms[per_filter == 0].max()
    assert partial <= 2  # what one whole filter would overshoot is pruned within the next
    assert bool(masks["7.weight"].all()), "the classes stay"


def test_lwm_keeps_the_largest_of_each_layer() -> None:
    model = NETWORKS.get("cnn-small")()
    masks = PRUNERS.get("lwm")(model, 10)
    for name, weight in prunable(model).items():
        size = weight.detach().abs()
        assert size[masks[name]].min() >= size[~masks[name]].max()


def test_global_lwm_keeps_the_largest_of_the_network() -> None:
    model = NETWORKS.get("cnn-small")()
    masks = PRUNERS.get("lwm-global")(model, 20)
    weights = {name: w.detach().abs() for name, w in prunable(model).items()}
    kept = min(float(weights[n][masks[n]].min()) for n in masks)
    gone = max(float(weights[n][~masks[n]].max()) for n in masks if not bool(masks[n].all()))
    assert kept >= gone


def test_a_floor_protects_small_layers_from_global_pruning() -> None:
    model = NETWORKS.get("cnn-small")()
    with torch.no_grad():
        prunable(model)["7.weight"].mul_(1e-6)
    masks = PRUNERS.get("lwm-global")(model, 50, floor=0.01)
    assert masks.kept == round(214_760 / 50)
    assert int(masks["7.weight"].sum()) == 10
    assert int(masks["5.weight"].sum()) == 2048
    size = prunable(model)["7.weight"].detach().abs()
    assert size[masks["7.weight"]].min() >= size[~masks["7.weight"]].max()
    with pytest.raises(UserError, match=r"a floor of 2% of each layer leaves 4,296 weights; allowed is at most 50\.0"):
        PRUNERS.get("lwm-global")(model, 100, floor=0.02)
    with pytest.raises(UserError, match="floor 1 is refused"):
        PRUNERS.get("lwm-global")(model, 2, floor=1.0)


def test_random_follows_its_seed() -> None:
    model = NETWORKS.get("cnn-small")()
    prune = PRUNERS.get("random")
    assert prune(model, 10, seed=1).sha256() == prune(model, 10, seed=1).sha256()
    assert prune(model, 10, seed=1).sha256() != prune(model, 10, seed=2).sha256()


@pytest.mark.slow
@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_hydra_starts_from_the_mask_of_lwm(allocation: str, ratio: float) -> None:
    model = NETWORKS.get("cnn-small")()
    hydra = PRUNERS.get("hydra")(model, ratio, train=Lent(), allocation=allocation)
    assert hydra.sha256() == PRUNERS.get("lwm")(model, ratio, allocation=allocation).sha256()


def test_hydra_scores_have_the_paper_s_scale() -> None:
    weight = torch.randn(8, 4, 3, 3)
    scores = initial_scores(weight)
    assert float(scores.abs().max()) == pytest.approx((6 / 36) ** 0.5)
    assert torch.allclose(scores / scores.abs().max(), weight / weight.abs().max())


def test_hydra_trains_scores_alone_and_leaves_no_trace() -> None:
    model = NETWORKS.get("cnn-small")()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def learn(scored: nn.Module, scores: Sequence[nn.Parameter]) -> None:
        optimizer = torch.optim.SGD(scores, lr=100.0)
        for _ in range(3):
            optimizer.zero_grad()
            scored(torch.rand(8, 3, 32, 32)).square().mean().backward()
            assert all(score.grad is not None and bool(score.grad.any()) for score in scores)
            optimizer.step()

    masks = PRUNERS.get("hydra")(model, 10, train=Lent(learn=learn))
    assert masks.kept == 21_476
    assert masks.sha256() != PRUNERS.get("lwm")(model, 10).sha256(), "the scores must have moved"
    after = model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", ["lwm", "lwm-global", "random", "filter-l1"])
@pytest.mark.parametrize("ratio", [0.5, float("nan"), float("inf"), -3])
def test_impossible_ratios_are_refused(name: str, ratio: float) -> None:
    with pytest.raises(UserError, match=r"Compression .* is refused"):
        PRUNERS.get(name)(NETWORKS.get("cnn-small")(), ratio)


def test_a_layer_is_never_emptied_silently() -> None:
    model = trained_like()
    with torch.no_grad():
        prunable(model)["7.weight"].mul_(1e-6)
    with pytest.raises(UserError, match=r"empty layer '7\.weight'.*balanced"):
        PRUNERS.get("lwm-global")(model, 100)
    with pytest.raises(UserError, match="4 layers need at least one"):
        PRUNERS.get("lwm")(model, 100_000)
    with pytest.raises(UserError, match="one whole filter a layer"):
        PRUNERS.get("filter-l1")(model, 200)
    with pytest.raises(UserError, match="empty layer"):
        Masks({"a": torch.zeros(3, dtype=torch.bool)})


@settings(deadline=None, max_examples=200)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 60)), min_size=1, max_size=6),
    share=st.floats(0.0, 1.0),
    allocation=st.sampled_from(ALLOCATIONS),
)
def test_allocations_spend_the_budget_exactly(sizes: list[tuple[int, int]], share: float, allocation: str) -> None:
    shapes = {str(index): shape for index, shape in enumerate(sizes)}
    total = sum(a * b for a, b in sizes)
    kept = len(sizes) + round(share * (total - len(sizes)))
    counts = allocate(shapes, kept, allocation)
    assert sum(counts.values()) == kept
    assert all(1 <= counts[name] <= a * b for name, (a, b) in shapes.items())


def test_allocations_differ_as_described() -> None:
    shapes = {"small": (10, 10), "large": (1000, 100)}
    assert allocate(shapes, 1001, "uniform") == {"small": 1, "large": 1000}
    assert allocate(shapes, 1001, "balanced")["small"] == 100
    assert allocate(shapes, 1001, "erk") == {"small": 18, "large": 983}
    assert budget(214_760, 10) == 21_476
    with pytest.raises(UserError, match="Did you mean 'balanced'"):
        allocate(shapes, 10, "ballanced")


@settings(deadline=None, max_examples=200)
@given(values=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=30), data=st.data())
def test_ties_go_to_the_lower_index(values: list[float], data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(values)))
    mask = keep_largest(torch.tensor(values), kept)
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:kept]
    assert torch.nonzero(mask).flatten().tolist() == sorted(expected)
