"""MAD: exact on a quadratic, nothing where nothing is masked, ranked by value, and right about what hurts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models.attack import pgd_linf
from prunecert.models.masks import prunable
from prunecert.models.pruners.lwm import untied
from prunecert.models.pruners.mad import choose, damage, learned_masks, prune, saliencies
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


def test_on_a_linear_layer_with_squared_error_it_is_the_exact_change() -> None:
    """With the loss's output Hessian (the identity) for G, damages sum up to 1/2 dw' H dw."""
    torch.manual_seed(0)
    # Inputs that are all positive, as behind a ReLU, so that they go together.
    x, change = torch.rand(50, 1, 6), torch.randn(4, 6)
    ones = torch.ones(50, 1, 4)
    total = damage(x, ones, change).sum()
    weight = torch.zeros(4, 6, requires_grad=True)
    hessian = torch.autograd.functional.hessian(  # type: ignore[no-untyped-call]
        lambda w: 0.5 * ((x[:, 0] @ w.view(4, 6).T) ** 2).sum() / 50, weight.flatten()
    )
    flat = change.flatten()
    assert float(total) == pytest.approx(float(0.5 * flat @ hessian @ flat), rel=1e-4)
    assert bool((damage(x, ones, change) < 0).any()), "off the diagonal it may be negative"


def test_masks_of_one_damage_nothing(tiny: nn.Module) -> None:
    x, y = torch.rand(8, 3, 8, 8), torch.arange(8)
    ones = {name: torch.ones_like(weight) for name, weight in prunable(tiny).items()}
    assert all(not bool(part.any()) for part in saliencies(tiny, x, y, ones).values())


@pytest.mark.slow
def test_learned_masks_lower_the_loss_and_leave_the_weights(tiny: nn.Module) -> None:
    x, y = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    masks = learned_masks(tiny, x, y, 20)
    assert all(float(mask.min()) >= 0 and float(mask.max()) <= 1 for mask in masks.values())
    masked = {name: weight.detach() * masks[name] for name, weight in prunable(tiny).items()}
    after = torch.func.functional_call(tiny, masked, (x,))
    assert F.cross_entropy(after, y) < F.cross_entropy(tiny(x), y)
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())


@pytest.mark.slow
def test_masks_of_one_go_on_having_gradients(tiny: nn.Module) -> None:
    """A mask that a first batch pushes to 1 leaves it again by a second step of another sign: Adam's second step."""
    x, y = torch.rand(16, 3, 8, 8), torch.arange(16) % 10
    first, later = (learned_masks(tiny, x, y, steps) for steps in (1, 20))
    full = torch.cat([(mask == 1).flatten() for mask in first.values()])
    assert 0.2 < float(full.float().mean()) < 0.8
    left = torch.cat([(mask < 1).flatten() for mask in later.values()])
    assert bool((full & left).any()), "clamped within the step, not one would come back"


def test_of_equal_scores_the_larger_weight_stays() -> None:
    scores = {"0.weight": torch.tensor([[0.0, 1.0], [0.0, -2.0]]), "1.weight": torch.zeros(1, 2)}
    weights = {"0.weight": torch.tensor([[3.0, 0.1], [-1.0, 9.0]]), "1.weight": torch.tensor([[-2.0, 0.5]])}
    ranks = untied(scores, weights)
    assert ranks["0.weight"].tolist() == [[4, 5], [2, 0]]
    assert ranks["1.weight"].tolist() == [[3, 1]]


def test_convolutions_are_sums_over_patches() -> None:
    """One position's patch is a linear layer's input."""
    torch.manual_seed(0)
    conv = nn.Sequential(nn.Conv2d(2, 3, 4), nn.Flatten(), nn.Linear(3, 10))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(32, 3), nn.Linear(3, 10))
    linear.get_parameter("1.weight").data = conv.get_parameter("0.weight").data.flatten(1).clone()
    linear.get_parameter("1.bias").data = conv.get_parameter("0.bias").data.clone()
    linear[2].load_state_dict(conv[2].state_dict())
    x, y = torch.rand(8, 2, 4, 4), torch.arange(8)
    parts: list[torch.Tensor] = []
    for model in (conv, linear):
        masks = {name: torch.full_like(weight, 0.5) for name, weight in prunable(model).items()}
        parts.append(next(iter(saliencies(model, x, y, masks).values())).flatten(1))
    assert torch.allclose(parts[0], parts[1], atol=1e-7)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_padding_by_name_is_what_it_is_by_number() -> None:
    torch.manual_seed(0)
    # A column of zeros before an even kernel makes its padding the same on either side.
    wide = nn.Sequential(nn.Conv2d(2, 3, (3, 5), padding=(1, 2)), nn.Flatten(), nn.Linear(48, 10))
    named = nn.Sequential(nn.Conv2d(2, 3, (3, 4), padding="same"), nn.Flatten(), nn.Linear(48, 10))
    wide.get_parameter("0.weight").data[..., 0] = 0
    named.load_state_dict({**wide.state_dict(), "0.weight": wide.get_parameter("0.weight").data[..., 1:]})
    x, y = torch.rand(8, 2, 4, 4), torch.arange(8)
    parts = []
    for model in (wide, named):
        masks = {name: torch.full_like(weight, 0.5) for name, weight in prunable(model).items()}
        parts.append(next(iter(saliencies(model, x, y, masks).values())))
    assert torch.allclose(parts[0][..., 1:], parts[1], atol=1e-7)


def test_the_last_layer_keeps_the_same_in_each_row() -> None:
    scores = {"0.weight": torch.arange(-10.0, 10).view(4, 5), "1.weight": torch.rand(3, 10)}
    masks = choose(scores, 25)
    assert masks["1.weight"].sum(1).tolist() == [5, 5, 5]
    # By value: the negative ones go first, however large.
    assert masks["0.weight"].flatten().nonzero().flatten().tolist() == list(range(10, 20))


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [1, 2, 10, 40])
def test_counts_are_near_the_budget(tiny: nn.Module, ratio: float) -> None:
    masks = prune(tiny, ratio, train=Lent(), images=40, steps=3)
    assert masks.kept == round(masks.total / ratio)
    assert masks.sha256() == prune(tiny, ratio, train=Lent(), images=40, steps=3).sha256() or ratio > 1


@pytest.mark.slow
def test_the_most_salient_matter_more_than_the_least(tmp_path: Path) -> None:
    line = pipeline(tmp_path, images=300)
    # Not until nothing is lost any more: where the loss is flat there is no curvature.
    one = job("mad", 2.0, "natural", pretrain_epochs=4, prune_epochs=0, finetune_epochs=0, lr=1e-3)
    model = line.pretrained(one)
    images, labels = torch.from_numpy(line.train.images), torch.from_numpy(line.train.labels)
    model.eval()
    point = pgd_linf(model, images, labels, 2 / 255, steps=5, step_size=1 / 255)
    scores = {name: torch.zeros_like(weight) for name, weight in prunable(model).items()}
    for x, y in zip(torch.split(point, 60), torch.split(labels, 60), strict=True):
        for name, part in saliencies(model, x, y, learned_masks(model, x, y, 20)).items():
            scores[name] += part.detach()
    weights = {name: weight.detach() for name, weight in prunable(model).items()}
    losses = []
    for sign in (1, -1):
        masks = choose({name: sign * score for name, score in scores.items()}, round(0.9 * 214_760))
        kept = {name: weight * masks[name] for name, weight in weights.items()}
        losses.append(F.cross_entropy(torch.func.functional_call(model, kept, (point,)), labels).item())
    assert losses[0] < losses[1] / 2


class Unasked(Lent):
    """Training in which nobody may look at data."""

    def batches(self, images: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        raise AssertionError


def test_bad_settings_are_refused(tiny: nn.Module) -> None:
    for settings, message in (({"images": 0}, "images 0"), ({"steps": 0}, "steps 0")):
        with pytest.raises(UserError, match=message):
            prune(tiny, 2, train=Lent(), **settings)
    with pytest.raises(UserError, match="one weight for each of 10 classes"):
        prune(tiny, 300, train=Lent())
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 10))
    with pytest.raises(UserError, match="the convolution '0' has groups"):
        prune(grouped, 2, train=Unasked())
    with pytest.raises(UserError, match="needs curvature, gradients of attacked images"):
        job("mad", objective="smoothing").refuse_unreachable()
