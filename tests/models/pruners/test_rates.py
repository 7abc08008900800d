"""The search of layer rates: the budget holds, the network comes back, and better rates win where there are any."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.masks import prunable
from prunecert.models.pruners.allocation import allocate
from prunecert.models.pruners.harp import prune
from prunecert.models.pruners.hydra import prune as hydra
from prunecert.models.pruners.rates import counts_of, search
from tests.models.conftest import Lent


class Liking(Lent):
    """The loss is the share of the second layer that is gone, and nothing else."""

    def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weight = prunable(model)["2.weight"]
        return F.relu((weight == 0).float().mean()) + 0 * weight.sum()


def counts(model: nn.Module, kept: int) -> dict[str, int]:
    return allocate({name: tuple(weight.shape) for name, weight in prunable(model).items()}, kept)


def test_rates_go_where_the_loss_is_smaller_and_the_network_comes_back(tiny: nn.Module) -> None:
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    start = counts(tiny, 700)
    rates = search(tiny, start, Liking(), seed=0, rounds=6, population=8)
    assert sum(rates.values()) == 700
    assert rates["2.weight"] > 2 * start["2.weight"]
    assert rates == search(tiny, start, Liking(), seed=0, rounds=6, population=8)
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    assert tiny.training


def test_where_nothing_is_better_it_stays_where_it_began(tiny: nn.Module) -> None:
    class Flat(Lent):
        def loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
            return torch.ones(())

    assert search(tiny, counts(tiny, 700), Flat(), seed=0, rounds=2, population=4) == counts(tiny, 700)


@pytest.mark.parametrize("logs", [[0.0, 0.0, 0.0, 0.0], [1e6, -1e6, 0.0, 3.0], [-5.0, 5.0, -5.0, 5.0]])
def test_whatever_the_policy_says_the_budget_holds(tiny: nn.Module, logs: list[float]) -> None:
    sizes = {name: weight.numel() for name, weight in prunable(tiny).items()}
    tried = counts_of(torch.tensor(logs, dtype=torch.float64), sizes, 700)
    assert sum(tried.values()) == 700
    assert all(1 <= tried[name] <= sizes[name] for name in sizes)


def test_harp_gives_searched_rates_to_hydras_scores(tiny: nn.Module) -> None:
    masks = prune(tiny, 8, train=Liking(), rates="searched", rounds=4, population=8)
    uniform = hydra(tiny, 8, train=Lent())
    assert masks.kept == uniform.kept
    assert int(masks["2.weight"].sum()) > int(uniform["2.weight"].sum())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rates": "serched"}, "Did you mean 'searched'"), ({"rounds": 0}, "rounds 0"), ({"population": 1}, "population")],
)
def test_settings_out_of_range_are_refused(tiny: nn.Module, settings: dict[str, object], message: str) -> None:
    lent = Lent()
    with pytest.raises(UserError, match=message):
        prune(tiny, 10, train=lent, **settings)  # type: ignore[arg-type]
    assert not lent.calls
