"""What goes wrong in training is said in one sentence: the batch and the layer, or the batch size that would fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models import OBJECTIVES
from prunecert.models.faults import OutOfTimeError, first_bad, is_out_of_memory, memory_errors
from prunecert.models.pruners.contract import Hooks
from prunecert.models.schedules import Stage
from prunecert.models.training import Trainer, read_state
from tests.models.conftest import blobs
from tests.models.training_kit import quiet, recipe


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(), nn.Linear(8, 10))


def poisoned(image: int) -> Any:
    data = blobs(100)
    data.images[image, 0, 16, 16] = np.nan
    return data


def bad_batch(trainer: Trainer, image: int) -> int:
    """In which batch of the first epoch an image comes."""
    torch.manual_seed(5)
    return int(torch.nonzero(torch.randperm(100) == image)) // trainer.recipe.batch_size + 1


@pytest.mark.slow
@pytest.mark.parametrize("check_every", [1, 2, 3, 50])
@pytest.mark.parametrize("image", [3, 42, 77])
def test_the_batch_is_named_however_rarely_losses_are_looked_at(check_every: int, image: int) -> None:
    trainer = Trainer(recipe(augment=True), "natural", poisoned(image), "cpu", quiet, check_every=check_every)
    batch, model = bad_batch(trainer, image), network()
    torch.manual_seed(5)
    with pytest.raises(UserError, match=rf"epoch 1, batch {batch}; first non-finite: the output of layer '0' \(Flat"):
        trainer.run(model, Stage("pretrain", 2, 1e-3, 0.0))


@pytest.mark.slow
def test_rare_looks_change_nothing() -> None:
    states = []
    for check_every in (1, 3):
        model = network()
        torch.manual_seed(1)
        trainer = Trainer(recipe(augment=True), "pgd", blobs(100), "cpu", quiet, check_every=check_every)
        trainer.run(model, Stage("pretrain", 2, 1e-3, 0.02))
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*states)


def test_the_first_bad_thing_is_named() -> None:
    x = torch.rand(4, 3, 32, 32)
    model = network()
    assert first_bad(model, x, 0.1) == "the loss itself"
    grad = torch.zeros_like(model.get_parameter("3.weight"))
    grad[0, 0] = torch.nan
    model.get_parameter("3.weight").grad = grad
    assert first_bad(model, x, 0.1) == "the gradient of '3.weight'"
    with torch.no_grad():
        model.get_parameter("1.weight").fill_(-1e38)
        model.get_parameter("1.bias").zero_()
    assert first_bad(model, x, 0.0) == "the output of layer '1' (Linear)"
    # A black image has outputs of zero; the box round it is too wide.
    assert first_bad(model, torch.zeros_like(x), 0.1) == "the interval bounds before layer '2' (ReLU)"
    with torch.no_grad():
        model.get_parameter("1.weight")[0, 0] = torch.inf
    assert first_bad(model, x, 0.1) == "the weights '1.weight'"


@pytest.mark.slow
def test_the_last_good_state_is_kept(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    trainer = Trainer(recipe(grad_clip=0.0), "natural", blobs(100), "cpu", quiet)
    model = network()

    class Breaking(Trainer):
        def loss(
            self, model: nn.Module, x: Tensor, y: Tensor, eps: float, progress: float, hooks: Hooks | None = None
        ) -> Tensor:
            loss = super().loss(model, x, y, eps, progress, hooks)
            return loss * torch.nan if state.exists() else loss

    breaking = Breaking(trainer.recipe, "natural", blobs(100), "cpu", quiet)
    with pytest.raises(UserError, match=r"epoch 2, batch 1; .* state after the last whole epoch is kept"):
        breaking.run(model, Stage("pretrain", 3, 1e-3, 0.0), state_file=state, key="k")
    kept = read_state(state)
    assert kept["epoch"] == 1
    assert all(bool(torch.isfinite(value).all()) for value in kept["model"].values())
    epochs: list[int] = []
    trainer.report = lambda report: epochs.append(report.epoch)
    trainer.run(model, Stage("pretrain", 3, 1e-3, 0.0), state_file=state, key="k")
    assert epochs == [2, 3]


def test_weights_that_a_last_step_broke_are_not_kept(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    trainer = Trainer(recipe(optimizer="sgd", grad_clip=0.0), "natural", blobs(20), "cpu", quiet)
    with pytest.raises(UserError, match=r"batch 1; first non-finite: the weights"):
        trainer.run(network(), Stage("pretrain", 2, float("inf"), 0.0), state_file=state)
    assert not state.exists()


@pytest.fixture
def hungry() -> Iterator[list[int]]:
    """An objective that has memory for some images only."""
    room = [0]

    def loss(model: nn.Module, x: Tensor, y: Tensor, eps: float, *, progress: float = 1.0) -> Tensor:
        if len(y) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore words")
        return F.cross_entropy(model(x), y)

    OBJECTIVES.register("hungry", f"{__name__}:hungry")
    OBJECTIVES._loaded["hungry"] = loss
    yield room
    del OBJECTIVES._targets["hungry"], OBJECTIVES._loaded["hungry"]


@pytest.mark.parametrize(
    ("room", "words"),
    [(5, "5 would fit: set batch_size: 5"), (7, "5 would fit"), (19, "10 would fit"), (0, "not even one image fits")],
)
def test_a_device_without_memory_is_told_what_would_fit(
    hungry: list[int], room: int, words: str, tmp_path: Path
) -> None:
    hungry[0] = 20
    state = tmp_path / "state.pt"
    trainer = Trainer(recipe(), "hungry", blobs(100), "cpu", quiet)

    def shrink(*_: object) -> None:
        hungry[0] = room

    trainer.report = shrink
    pattern = rf"Out of memory on cpu with batch_size 20, in stage 'pretrain', epoch 2, batch 1 \(CUDA out.*\); {words}"
    with pytest.raises(UserError, match=pattern) as caught:
        trainer.run(network(), Stage("pretrain", 3, 1e-3, 0.0), state_file=state)
    assert "\n" not in str(caught.value)
    assert read_state(state)["epoch"] == 1, "what was finished is kept"


def test_what_counts_as_out_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value), "the CPU's own words"
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    with pytest.raises(UserError, match=r"Measuring is out of memory \(no room\)"), memory_errors("Measuring"):
        raise torch.OutOfMemoryError("no room\nat all")
    with pytest.raises(RuntimeError, match="shape"), memory_errors("Measuring"):
        raise RuntimeError("shape mismatch")


def test_stopping_keeps_the_state(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    times: list[float] = []

    def stop(seconds: float) -> bool:
        times.append(seconds)
        return len(times) == 2

    trainer = Trainer(recipe(), "natural", blobs(20), "cpu", quiet, stop=stop)
    with pytest.raises(OutOfTimeError):
        trainer.run(network(), Stage("pretrain", 5, 1e-3, 0.0), state_file=state)
    assert read_state(state)["epoch"] == 2
    assert all(seconds > 0 for seconds in times)
