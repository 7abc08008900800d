"""CCRP: no round removes more than its bound, twins are found, and the count is exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import prunable
from prunecert.models.pruners.coevolution import prune
from prunecert.models.pruners.contract import Feedback
from prunecert.models.pruners.removal import even_rounds
from prunecert.models.pruners.units import units_of
from tests.models.conftest import Lent


@pytest.mark.parametrize("ratio", [2, 5])
@pytest.mark.parametrize("bound", [0.1, 0.3])
def test_the_bound_of_a_round_holds(tiny: nn.Module, ratio: float, bound: float) -> None:
    groups = units_of(tiny)
    plan = even_rounds(tiny, groups, ratio, bound, 0.05)
    sizes = [group.size for group in groups]
    for counts in plan:
        for index, going in enumerate(counts):
            # Rounding may take one unit more of a few.
            assert 0 <= going <= bound * sizes[index] + 1
            sizes[index] -= going
    assert min(sizes) >= 1


def test_one_of_two_twins_goes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))
    with torch.no_grad():
        weights = prunable(model)
        weights["0.weight"][2] = weights["0.weight"][1]
        model.get_parameter("0.bias")[2] = model.get_parameter("0.bias")[1]
        # Nobody reads one of the twins.
        weights["3.weight"][:, 2 * 64 : 3 * 64] = 0
    images = torch.rand(100, 3, 8, 8)
    labels = model(images).argmax(1)

    class Measured(Lent):
        def feedback(self, model: nn.Module, *, images: int = 0, steps: int = 0) -> Feedback:
            right = float((model(data).argmax(1) == labels).float().mean())
            return Feedback(right, right, 0.0, right)

    data: Tensor = images
    lent = Measured(epochs=10)
    masks = prune(model, 2668 / 2001, train=lent, bound=0.5, generations=10)
    (row,) = lent.notes["rounds"]
    assert row == {"kept": 2001, "fitness": 1.0, "alone": [0.0], "joined": 0.0}, "what nobody reads costs nothing"
    assert [bool(row.any()) for row in masks["0.weight"]] == [True, True, False, True], "the twin that nobody reads"


@pytest.mark.parametrize("ratio", [1.5, 4])
def test_rounds_end_at_the_exact_count(tiny: nn.Module, ratio: float) -> None:
    lent = Lent(epochs=20)
    masks = prune(tiny, ratio, train=lent, population=2, generations=1)
    assert masks.kept == round(masks.total / ratio)
    assert masks.holds(tiny)
    assert sum(call["epochs"] for call in lent.calls) == 12
    # Of each round: what is left, and what the joined mask loses beside what each layer's mask loses alone.
    rounds = lent.notes["rounds"]
    assert [len(one["alone"]) for one in rounds] == [len(units_of(tiny))] * len(rounds)
    assert [one["kept"] for one in rounds] == sorted((one["kept"] for one in rounds), reverse=True)
    assert rounds[-1]["kept"] == masks.kept
    again = Lent(epochs=20)
    torch.manual_seed(0)
    assert masks.total == prune(tiny, ratio, train=again, population=2, generations=1).total


def test_what_it_cannot_reach_is_refused_before_training(tiny: nn.Module) -> None:
    lent = Lent(epochs=5)
    with pytest.raises(UserError, match=r"take .* rounds, and 3 epochs are set apart"):
        prune(tiny, 8, train=lent, bound=0.1)
    with pytest.raises(UserError, match="Compression 8 is refused: with 50% of the units"):
        prune(tiny, 8, train=lent, floor=0.5)
    with pytest.raises(UserError, match="bound 0 is refused"):
        prune(tiny, 2, train=lent, bound=0)
    assert not lent.calls
