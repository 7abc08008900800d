"""Ranks: largest shares of energy first, within a budget, and never more numbers than the weight has."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.models.networks.factorised import project
from prunecert.models.pruners.ranks import choose, cost, projected


def test_ranks_are_those_of_the_largest_shares_of_energy() -> None:
    """A matrix of rank 2 and one of full rank: the first needs no third value however much there is to spend."""
    torch.manual_seed(0)
    low, full = torch.randn(30, 2) @ torch.randn(2, 40), torch.randn(30, 40)
    assert choose({"low": low, "full": full}, 2 * 70 + 5 * 70 + 3) == {"low": (2,), "full": (5,)}
    # All of it fits: nothing is gained by factors.
    assert choose({"low": low, "full": full}, 2400) == {"low": None, "full": None}


def test_a_layer_costs_its_weight_at_most() -> None:
    assert cost((30, 40), [3]) == 210
    assert cost((30, 40), [30]) == 1200
    assert cost((6, 3, 3, 3), [3, 6]) == 6 * 27


@given(st.integers(40, 4000), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_ranks_fit_into_any_budget_that_rank_1_fits_into(kept: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"conv": (6, 4, 3, 3), "linear": (20, 30)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    ranks = choose(weights, kept + 100)
    numbers = {name: weights[name].numel() if of is None else cost(shapes[name], of) for name, of in ranks.items()}
    assert sum(numbers.values()) <= kept + 100
    for name, weight in projected(weights, ranks).items():
        of = ranks[name]
        assert torch.equal(weight, weights[name] if of is None else project(weights[name], of))
