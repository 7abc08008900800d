"""A stretch's state is whole: masks, averages, what hooks remember; and states of older versions are read."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from prunecert.models import NETWORKS
from prunecert.models.faults import OutOfTimeError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.contract import Group, Hooks
from prunecert.models.recipe import Recipe
from prunecert.models.running import Running, optimizer_of, recall
from prunecert.models.schedules import Stage
from prunecert.models.training import Trainer, seed_everything
from tests.models.conftest import blobs
from tests.models.training_kit import quiet, recipe

CPU = torch.device("cpu")


def running(model: nn.Module, optimizer: str = "adamw") -> Running:
    trained = list(model.parameters())
    recipe = Recipe(optimizer=optimizer)  # type: ignore[arg-type]
    hooks = Hooks(memory={"count": 1, "history": [[0.5, 1.0]]})
    return Running(model, trained, optimizer_of([Group(trained)], recipe, 0.1, CPU), CPU, None, hooks)


def step(run: Running) -> None:
    run.optimizer.zero_grad()
    F.cross_entropy(run.model(torch.rand(4, 3, 8, 8)), torch.arange(4)).backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "radam"])
def test_going_back_is_going_back_to_everything(tiny: nn.Module, optimizer: str) -> None:
    run = running(tiny, optimizer)
    run.hold(Masks.dense(tiny))
    step(run)
    state = {key: copy.deepcopy(value) for key, value in run.state().items()}
    step(run)
    run.hooks.memory["count"] = 5
    after = prunable(tiny)["0.weight"].detach().clone()
    run.restore(state)
    assert run.hooks.memory == {"count": 1, "history": [[0.5, 1.0]]}
    step(run)
    assert torch.equal(prunable(tiny)["0.weight"], after), "the same random numbers, weights and momenta"


def test_hooks_of_older_states_remember_nothing() -> None:
    hooks = Hooks(memory={"count": 3})
    memory = hooks.memory
    recall(hooks, {})
    assert memory == {}
    recall(hooks, {"memory": {"count": 2}})
    assert memory == {"count": 2}
    assert memory is hooks.memory, "closures hold on to it"


def test_what_leaves_is_zero_and_what_comes_has_no_momentum(tiny: nn.Module) -> None:
    run = running(tiny, "sgd")
    run.hold(Masks.dense(tiny))
    step(run)
    mask = torch.rand(10, 20) < 0.5
    run.revise(Masks({**Masks.dense(tiny), "7.weight": mask}))
    weight = prunable(tiny)["7.weight"]
    assert not bool(weight[~mask].any())
    momentum = run.optimizer.state[weight]["momentum_buffer"]
    assert not bool(momentum[~mask].any())
    assert bool(momentum[mask].any())


def test_groups_have_rates_and_decays_of_their_own(tiny: nn.Module) -> None:
    first, *others = tiny.parameters()
    groups = [Group([first]), Group(others, 10.0, 0.0)]
    recipe = Recipe(weight_decay=0.1)
    one, two = optimizer_of(groups, recipe, 1e-3, CPU).param_groups
    assert (one["factor"], one["weight_decay"]) == (1.0, 0.1)
    assert (two["factor"], two["weight_decay"]) == (10.0, 0.0)
    assert len(two["params"]) == len(others)


def test_a_stretch_that_an_older_version_began_goes_on(tmp_path: Path) -> None:
    """Its state knows nothing of what hooks remember, nor of groups' factors of the learning rate."""
    stage, file, results = Stage("pretrain", 3, 1e-3, 0.0), tmp_path / "state.pt", []
    for interrupted in (False, True):
        torch.manual_seed(0)
        model = NETWORKS.get("cnn-small")()
        seed_everything(0, "pretrain")
        stop = (lambda _: True) if interrupted else None
        trainer = Trainer(recipe(), "natural", blobs(40), "cpu", quiet, stop=stop)
        if interrupted:
            with pytest.raises(OutOfTimeError):
                trainer.run(model, stage, state_file=file, key="k")
            state = torch.load(file, weights_only=True)
            del state["memory"]
            for group in state["optimizer"]["param_groups"]:
                del group["factor"]
            torch.save(state, file)
            trainer.stop = None
        trainer.run(model, stage, state_file=file, key="k")
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(results[0], results[1])
