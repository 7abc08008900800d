"""Evolution: sets of one size, the best of which is found, and what a network is worth without some of its units."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecert.models.masks import prunable
from prunecert.models.pruners.contract import Feedback
from prunecert.models.pruners.evolution import evolve, fitness, mutate
from prunecert.models.pruners.units import units_of
from tests.models.conftest import Lent


def test_mutation_keeps_the_number_and_changes_something() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, candidates = torch.tensor([1, 4, 7]), torch.arange(10)
    for _ in range(20):
        mutant = mutate(chosen, candidates, generator)
        assert len(mutant) == 3 == len(set(mutant.tolist()))
        assert mutant.tolist() != chosen.tolist()
        assert set(mutant.tolist()) <= set(range(10))


def test_evolution_finds_what_is_worth_most() -> None:
    generator = torch.Generator().manual_seed(0)
    best = evolve(torch.tensor([0, 1]), torch.arange(8), lambda units: float(units.sum()), 5, 20, generator)
    assert best.tolist() == [6, 7]
    assert not len(evolve(torch.tensor([], dtype=torch.long), torch.arange(3), lambda _: 0.0, 5, 5, generator))


def test_a_network_is_worth_half_its_clean_and_half_its_attacked_accuracy_without_them(tiny: nn.Module) -> None:
    before = {name: weight.detach().clone() for name, weight in prunable(tiny).items()}

    class Measured(Lent):
        def feedback(self, model: nn.Module, *, images: int = 0, steps: int = 0) -> Feedback:
            weights = prunable(model)
            assert not bool(weights["0.weight"][[1, 3]].any())
            assert not bool(weights["2.weight"][:, [1, 3]].any())
            assert bool(weights["0.weight"][[0, 2, 4, 5]].any())
            assert images == 7
            return Feedback(0.0, 0.2, 9.0, 0.6)

    assert fitness(tiny, units_of(tiny), [(0, 1), (0, 3)], Measured(), 7) == pytest.approx(0.4)
    assert all(torch.equal(weight, before[name]) for name, weight in prunable(tiny).items())
