"""Flying Bird: quotas of one force, growth that keeps counts, and a density that follows overfitting by its rules."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.contract import Feedback, Step
from prunecert.models.pruners.drop_grow import exchange
from prunecert.models.pruners.flying_bird import exchanged, move, prune, prune_plus, quotas, wants
from prunecert.models.pruners.lwm import keep_largest
from tests.models.conftest import Lent
from tests.models.training_kit import job, pipeline


@given(st.lists(st.integers(10, 10**6), min_size=2, max_size=6), st.floats(0.01, 0.99))
def test_all_layers_have_one_force(sizes: list[int], density: float) -> None:
    layers = {str(number): size for number, size in enumerate(sizes)}
    kept = max(len(sizes), round(density * sum(sizes)))
    counts = quotas(layers, kept)
    assert sum(counts.values()) == kept
    # n / (1 + F n) = k means F = 1/k - 1/n; a rounded k stands for forces between those of its neighbours.
    low = [1 / (counts[name] + 1.5) - 1 / size for name, size in layers.items()]
    high = [1 / max(0.5, counts[name] - 1.5) - 1 / size for name, size in layers.items()]
    assert max(low) <= min(high) + 1e-12


def test_the_exchange_falls_by_a_cosine() -> None:
    assert exchanged(0, 1000) == pytest.approx(0.5)
    assert exchanged(500, 1000) == pytest.approx(0.2525)
    assert exchanged(1000, 1000) == pytest.approx(0.005)


def layer(density: float = 0.2) -> tuple[nn.Module, Step]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(100, 200, bias=False), nn.Linear(200, 10, bias=False))
    masks = Masks({"0.weight": torch.rand(200, 100) < density, "1.weight": torch.ones(10, 200, dtype=torch.bool)})
    masks.apply_(model)
    gradients = {name: torch.randn_like(weight) for name, weight in prunable(model).items()}
    return model, Step(0, 100, masks, lambda: gradients)


def test_gradient_growth_keeps_counts_exactly_and_takes_the_steepest() -> None:
    model, step = layer()
    masks = move(model, step, "gradient")
    before, after = step.masks["0.weight"], masks["0.weight"]
    assert int(before.sum()) == int(after.sum())
    assert bool(masks["1.weight"].all()), "a full layer is left alone"
    sizes, steep = prunable(model)["0.weight"].detach().abs(), step.gradients()["0.weight"].abs()
    stays = before & (sizes > sizes[before].median())
    assert bool((after | ~stays).all()), "the larger half stays"
    grown = after & ~stays
    assert steep[grown].min() >= steep[~after & ~stays].max()


@pytest.mark.parametrize("number", [0, 50])
def test_by_gradient_it_is_drop_and_grow_to_the_bit(number: int) -> None:
    """RigL rounds what is exchanged down, Flying Bird up: they agree where that is whole."""
    torch.manual_seed(number)
    model = nn.Sequential(nn.Linear(200, 200, bias=False), nn.Linear(200, 10, bias=False))
    scores = {name: torch.rand_like(weight) for name, weight in prunable(model).items()}
    masks = Masks({"0.weight": keep_largest(scores["0.weight"], 4000), "1.weight": torch.ones(10, 200)})
    masks.apply_(model)
    gradients = {name: torch.randn_like(weight) for name, weight in prunable(model).items()}
    step = Step(number, 100, masks, lambda: gradients)
    assert (exchanged(number, 100) * 4000) % 1 == 0
    moved, rigl = move(model, step, "gradient"), exchange(model, step, exchanged(number, 100))
    assert moved.sha256() == rigl.sha256() != masks.sha256()


def test_random_growth_keeps_counts_on_average() -> None:
    model, step = layer()
    kept = int(step.masks["0.weight"].sum())
    dropped = math.ceil(0.5 * kept)
    empty = 20_000 - kept + dropped
    deviation = math.sqrt(empty * (dropped / empty) * (1 - dropped / empty))
    counts = [int(move(model, step, "random")["0.weight"].sum()) for _ in range(20)]
    assert len(set(counts)) > 1
    assert all(abs(count - kept) < 4 * deviation for count in counts)
    assert abs(sum(counts) / 20 - kept) < 4 * deviation / math.sqrt(20)


def test_the_two_rules_change_the_density_by_their_shares() -> None:
    model, step = layer()
    kept = int(step.masks["0.weight"].sum())
    less = move(model, step, "gradient", extra=True)
    assert kept - int(less["0.weight"].sum()) == round(0.4 * 0.5 * kept)
    more = move(model, step, "gradient", more=True)
    assert int(more["0.weight"].sum()) - kept == round(1.05 * math.ceil(0.5 * kept)) - math.ceil(0.5 * kept)


def test_rules_look_at_four_changes() -> None:
    assert wants([[0.1, 1.0]] * 4) == (False, False), "too few"
    falling = [[0.1, 2.0 - 0.1 * epoch] for epoch in range(6)]
    assert wants(falling) == (False, False), "a constant gap and a falling loss"
    assert wants([[0.1 * epoch, loss] for epoch, (_, loss) in enumerate(falling)]) == (True, False)
    assert wants([[0.1, 1.0]] * 5) == (False, True), "a loss that stands still does not fall"
    assert wants([[0.0, 1.0], [0.1, 0.9], [0.0, 0.8], [0.1, 0.7], [0.0, 0.6]])[0], "half of the changes"
    assert not wants([[0.0, 1.0], [0.1, 0.9], [0.0, 0.8], [-0.1, 0.7], [-0.2, 0.6]])[0]


@pytest.mark.parametrize("growth", ["random", "gradient"])
@pytest.mark.parametrize("ratio", [1, 3.7, 10])
def test_flying_bird_ends_with_the_exact_count(tiny: nn.Module, growth: str, ratio: float) -> None:
    lent = Lent(epochs=10)
    masks = prune(tiny, ratio, train=lent, every=7, growth=growth)
    assert masks.kept == round(masks.total / ratio)
    assert masks.holds(tiny)
    moves = [
        number + 1 for number, (one, two) in enumerate(itertools.pairwise(lent.history)) if one.sha256() != two.sha256()
    ]
    if ratio > 1:
        assert moves[:5] == [7, 14, 21, 28, 35]
        assert moves[-1] - moves[-2] == 9, "a third slower in the second half"


def test_flying_bird_plus_holds_its_density_or_loses_it(tiny: nn.Module) -> None:
    calm = [Feedback(0.5, 0.4, 2.0 - 0.1 * epoch, 0.6) for epoch in range(20)]
    rising = [Feedback(0.5 + 0.01 * epoch, 0.4, 2.0 - 0.1 * epoch, 0.6) for epoch in range(20)]
    for script, falls in ((calm, False), (rising, True)):
        lent = Lent(epochs=10, scripted=script)
        masks = prune_plus(tiny, 4, train=lent, every=10, growth="gradient")
        first = lent.history[0].kept
        assert first == round(masks.total / 4)
        assert all(one.kept == first for one in lent.history[:50]), "nothing before the middle"
        assert (masks.kept < first) == falls


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flying-bird", "flying-bird-plus"])
def test_interrupted_it_ends_the_same(tmp_path: Path, name: str) -> None:
    options: dict[str, Any] = {
        "pretrain_epochs": 4,
        "finetune_epochs": 4,
        "augment": True,
        "pruners": {name: {"every": 2}},
    }
    whole = pipeline(tmp_path / "whole", images=40).run(job(name, **options))
    epochs = 0

    def interrupt(*_: object) -> None:
        nonlocal epochs
        epochs += 1
        if epochs == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(tmp_path / "cut", interrupt, images=40).run(job(name, **options))
    assert pipeline(tmp_path / "cut", images=40).run(job(name, **options)).sha256 == whole.sha256


def test_bad_settings_are_refused_before_training(tiny: nn.Module) -> None:
    lent = Lent()
    for settings, message in (({"every": 0}, "every 0 is refused"), ({"growth": "fast"}, "growth")):
        with pytest.raises(UserError, match=message):
            prune(tiny, 10, train=lent, **settings)
    with pytest.raises(UserError, match="needs epoch with validation feedback, which training by smoothing lacks"):
        job("flying-bird-plus", objective="smoothing").refuse_unreachable()
    assert not lent.calls
