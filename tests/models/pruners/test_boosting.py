"""Boosting tickets: initial values to the bit, ranks that no layer's scale moves, epochs that add up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.masks import prunable
from prunecert.models.pruners.boosting import fast, normalised, prune
from prunecert.models.pruners.contract import Batch
from prunecert.models.pruners.lwm import global_masks
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


def test_what_is_kept_goes_back_to_its_initial_values(tiny: nn.Module) -> None:
    initial = {name: value.clone() for name, value in tiny.state_dict().items()}

    def drift(model: nn.Module) -> None:
        with torch.no_grad():
            for weight in prunable(model).values():
                weight.add_(0.05 * torch.randn_like(weight))

    lent = Lent(epochs=10, update=drift)
    masks = prune(tiny, 4, train=lent)
    assert [(call["name"], call["epochs"]) for call in lent.calls] == [("search", 3), ("ticket", 7)]
    for name, weight in lent.calls[1]["weights"].items():
        assert torch.equal(weight, initial[name] * masks[name])
    assert masks.kept == round(masks.total / 4)


def test_the_control_begins_with_the_layer_s_values_in_another_order(tiny: nn.Module) -> None:
    initial = {name: weight.detach().clone() for name, weight in prunable(tiny).items()}
    lent = Lent(epochs=10)
    masks = prune(tiny, 4, train=lent, values="random", seed=3)
    drawn: dict[str, torch.Tensor] = lent.calls[1]["weights"]
    for name, weight in initial.items():
        assert set(drawn[name][masks[name]].tolist()) <= set(weight.flatten().tolist())
        assert not torch.equal(drawn[name], weight * masks[name])
    with pytest.raises(UserError, match="values"):
        prune(tiny, 4, train=Lent(epochs=10), values="fresh")


def test_ranks_do_not_change_with_a_layer_s_scale(tiny: nn.Module) -> None:
    before = global_masks(normalised(tiny), 700)
    with torch.no_grad():
        prunable(tiny)["5.weight"].mul_(8.0)
    assert global_masks(normalised(tiny), 700).sha256() == before.sha256()


def test_the_fast_loss_is_that_of_one_step(tiny: nn.Module) -> None:
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8)
    clean = F.cross_entropy(tiny(x), y)
    loss = fast(Batch(tiny, x, y, 0.1, 1.0, lambda: clean))
    assert loss > clean
    assert torch.equal(fast(Batch(tiny, x, y, 0.0, 0.0, lambda: clean)), clean)


@pytest.mark.slow
@pytest.mark.parametrize("search", ["fgsm", "natural"])
def test_a_cell_takes_the_dense_control_s_epochs(tmp_path: Path, search: str) -> None:
    stages: list[str] = []
    line = pipeline(tmp_path, lambda report: stages.append(report.stage), images=60)
    card = line.run(job("boosting", 10.0, pruners={"boosting": {"search": search, "share": 0.25}}))
    assert stages == ["search"] + ["ticket"] * 3
    assert card.kept == round(card.weights / 10)


def test_bad_settings_are_refused_before_training(tiny: nn.Module) -> None:
    lent = Lent(epochs=2)
    with pytest.raises(UserError, match="10% of 2 epochs for the search is 0"):
        prune(tiny, 2, train=lent, share=0.1)
    with pytest.raises(UserError, match="search"):
        prune(tiny, 2, train=lent, search="pgd")
    with pytest.raises(UserError, match="share 2 is refused"):
        prune(tiny, 2, train=lent, share=2)
    assert not lent.calls
