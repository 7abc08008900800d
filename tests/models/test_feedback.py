"""Feedback measures what it says, and training does not notice it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from prunecert.models.feedback import attack, measure
from tests.models.conftest import normalised


def split(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 8, 8, generator=generator), torch.randint(0, 10, (count,), generator=generator)


def test_without_a_radius_attacked_and_clean_are_the_same(tiny: nn.Module) -> None:
    train, held_out = split(60, 0), split(40, 1)
    feedback = measure(tiny, train, held_out, 0.0)
    right = float((tiny(held_out[0]).argmax(1) == held_out[1]).float().mean())
    assert feedback.accuracy == feedback.clean == pytest.approx(right)
    assert feedback.train == pytest.approx(float((tiny(train[0]).argmax(1) == train[1]).float().mean()))
    loss = nn.functional.cross_entropy(tiny(held_out[0]), held_out[1]).item()
    assert feedback.loss == pytest.approx(loss, rel=1e-4)


def test_an_attack_costs(tiny: nn.Module) -> None:
    train, held_out = split(60, 0), split(60, 1)
    calm, attacked = (measure(tiny, train, held_out, eps) for eps in (0.0, 0.2))
    assert attacked.loss > calm.loss
    assert attacked.accuracy <= attacked.clean == calm.clean
    weaker = measure(tiny, train, held_out, 0.2, steps=1)
    assert calm.loss < weaker.loss <= attacked.loss + 1e-3
    few = measure(tiny, train, (held_out[0][:10], held_out[1][:10]), 0.0)
    assert measure(tiny, train, held_out, 0.0, images=10).accuracy == few.accuracy


def test_training_does_not_notice() -> None:
    model = normalised()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = measure(model, split(20, 0), split(20, 1), 0.1)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.rand(7)
    assert measure(model, split(20, 0), split(20, 1), 0.1) == first


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_attacks_stay_within_their_radius(tiny: nn.Module, steps: int) -> None:
    x, y = split(10, 0)
    point = attack(tiny, x, y, 0.1, steps)
    assert float((point - x).abs().max()) <= 0.1 + 1e-6
