"""Training loops: pre-train, learn scores, fine-tune; seeded, and resumable after every epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.files import replacing
from prunecert.models import ADDONS, OBJECTIVES
from prunecert.models.bounds import shared_bounds
from prunecert.models.data import Dataset
from prunecert.models.faults import OutOfTimeError, first_bad, fitting_batch, is_out_of_memory, memory_errors
from prunecert.models.masks import Masks, prunable
from prunecert.models.norms import estimate_statistics, norms_of, uncounted
from prunecert.models.pruners.contract import Revise, Step
from prunecert.models.recipe import Recipe
from prunecert.models.schedules import Stage

#: Called after every epoch with the stage, the epoch's number from 1, the epochs in all, mean loss and images/s.
Report = Callable[[str, int, int, float, float], None]
#: Asked after every epoch, once its state is kept: whether to stop before the next one.
Stop = Callable[[float], bool]

#: On a CUDA device the host never waits for a step's loss; it is looked at every so many steps.
CUDA_CHECK = 50

#: Images that batch norm's statistics are estimated from.
STATISTICS_IMAGES = 10_000


def seed_everything(seed: int, *words: str) -> None:
    """Seeds torch and numpy from a number and words, so that stages don't share their random numbers."""
    state = np.random.SeedSequence([seed, *(byte for word in words for byte in word.encode())]).generate_state(1)[0]
    torch.manual_seed(int(state))
    np.random.seed(int(state))


def write_state(state: Any, file: Path) -> None:
    """Writes a state beside `file` and renames it, so that a kill leaves the old one whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as scratch:
        torch.save(state, scratch)


def read_state(file: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what `write_state` wrote.

    Raises:
        UserError: The file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:
        raise UserError(
            f"The training state {str(file)!r} cannot be read ({type(error).__name__}); delete it to begin this stage "
            "anew."
        ) from error
    return state


def augment(images: Tensor, crop: int = 4, padding: str = "zero") -> Tensor:
    """Flips each image with probability 1/2 and crops it from `crop` pixels of padding, zeros or its edge's pixels."""
    count, _, height, width = images.shape
    padded = F.pad(images, (crop,) * 4, "replicate" if padding == "edge" and crop else "constant")
    top = torch.randint(0, 2 * crop + 1, (count,), device=images.device)
    left = torch.randint(0, 2 * crop + 1, (count,), device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    flip = torch.rand(count, device=images.device) < 0.5
    columns = torch.where(flip[:, None], columns.flip(1), columns) + left[:, None]
    rows = torch.arange(height, device=images.device).expand(count, height) + top[:, None]
    index = torch.arange(count, device=images.device)
    # Advanced indices round a slice put the channels last; bring them back.
    return padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


@dataclass
class _Run:
    """What changes in a stretch of training."""

    model: nn.Module
    trained: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    device: torch.device
    masks: Masks | None
    averaged: list[Tensor] | None = None
    held: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)

    def hold(self, masks: Masks | None) -> None:
        """Holds other weights at zero from now on."""
        self.masks = masks
        if masks is not None:
            weights = prunable(self.model)
            self.held = [(weights[name], masks[name].to(self.device)) for name in masks]  # type: ignore[misc]

    @torch.no_grad()
    def revise(self, masks: Masks) -> None:
        """Changes the masks: what goes becomes zero, and what comes starts with no memory in the optimizer."""
        self.hold(masks)
        for weight, mask in self.held:
            weight.mul_(mask)
            for value in self.optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.mul_(mask)

    def state(self) -> dict[str, Any]:
        """Returns all of it, and the generators' states, by reference."""
        cuda = self.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged,
            "masks": None if self.masks is None else dict(self.masks),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes back to a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averaged = state["averaged"]
        self.hold(None if state["masks"] is None else Masks(state["masks"]))
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)


class Trainer:
    """Runs stages on one network.

    Args:
        recipe: How.
        objective: Name of the objective.
        data: The training split.
        device: Torch device.
        report: Told of every epoch.
        stop: Asked after every epoch, with its seconds.
        check_every: Steps between two looks at the loss; 1 on the CPU and `CUDA_CHECK` on CUDA by default.
    """

    def __init__(
        self,
        recipe: Recipe,
        objective: str,
        data: Dataset,
        device: str,
        report: Report,
        *,
        stop: Stop | None = None,
        check_every: int | None = None,
    ) -> None:
        self.recipe = recipe
        self.objective = partial(OBJECTIVES.get(objective), **recipe.objective)
        self.addons = [partial(ADDONS.get(name), **settings) for name, settings in recipe.addons.items()]
        self.device = torch.device(device)
        self.channels_last = recipe.memory_format == "channels-last"
        with memory_errors(f"Placing {len(data):,} training images on {device}"):
            self.images = torch.from_numpy(data.images).to(self.device)
            self.labels = torch.from_numpy(data.labels).to(self.device)
        self.report, self.stop = report, stop
        self.check_every = check_every or (CUDA_CHECK if self.device.type == "cuda" else 1)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, eps: float, progress: float) -> Tensor:
        """Returns the objective's loss and the recipe's additions to it."""
        with shared_bounds(), torch.autocast(self.device.type, torch.bfloat16, self.recipe.precision == "bfloat16"):
            loss = self.objective(model, x, y, eps, progress=progress)
            with uncounted():
                for addon in self.addons:
                    loss = loss + addon(model, x, y, eps, progress=progress)
        if self.recipe.l1:
            loss = loss + self.recipe.l1 * sum(w.abs().sum() for w in prunable(model).values())
        return loss

    def run(
        self,
        model: nn.Module,
        stage: Stage,
        *,
        masks: Masks | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
        revise: Revise | None = None,
        state_file: Path | None = None,
        key: str = "",
    ) -> Masks | None:
        """Trains `model` in place; returns the masks that hold in the end.

        Args:
            model: The network, on the trainer's device.
            stage: What to run.
            masks: Weights to hold at zero.
            parameters: What to train; all of the network by default.
            revise: May change the masks at every step; only with `masks`.
            state_file: Where the state after each epoch is kept, and found again; removed at the end.
            key: What the state must belong to; a state of another key is not used.

        Raises:
            UserError: The loss is no number any more, or a step does not fit into the device's memory.
            OutOfTimeError: `stop` said so; the state is kept.
        """
        recipe = self.recipe
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trained = list(model.parameters() if parameters is None else parameters)
        run = _Run(model, trained, self._optimizer(trained, stage.lr), self.device, masks)
        run.hold(masks)
        first = stage.first
        if state_file is not None and state_file.exists():
            state = read_state(state_file, self.device)
            if state["key"] == key:
                first = int(state["epoch"])
                run.restore(state)
        model.train()
        count = len(self.labels)
        for epoch in range(first, stage.end):
            start = time.perf_counter()
            total = float(self._epoch(run, stage, epoch, revise))
            if not all(bool(torch.isfinite(p).all()) for p in trained):
                raise self._no_number(run, stage, epoch, math.ceil(count / recipe.batch_size) - 1)
            seconds = time.perf_counter() - start
            done, length = epoch + 1 - stage.first, stage.end - stage.first
            self.report(stage.name, done, length, total / count, count / seconds)
            if epoch + 1 < stage.end:
                if state_file is not None:
                    write_state({"key": key, "epoch": epoch + 1, **run.state()}, state_file)
                if self.stop is not None and self.stop(seconds):
                    raise OutOfTimeError
        if run.averaged is not None:
            with torch.no_grad():
                for parameter, average in zip(trained, run.averaged, strict=True):
                    parameter.copy_(average)
                for weight, mask in run.held:
                    weight.mul_(mask)
            self.estimate_statistics(model)
        if self.channels_last:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if state_file is not None:
            state_file.unlink(missing_ok=True)
        return run.masks

    def estimate_statistics(self, model: nn.Module) -> None:
        """Sets batch norm's statistics anew from training images as they are, after weights were changed at once."""
        size = self.recipe.batch_size
        # A batch of one image has no variance.
        whole = self.images[: STATISTICS_IMAGES - STATISTICS_IMAGES % size or size]
        batches = [batch for batch in torch.split(whole, size) if len(batch) > 1]
        if norms_of(model) and batches:
            estimate_statistics(model, batches)

    def _optimizer(self, trained: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        recipe, fused = self.recipe, True if self.device.type == "cuda" else None
        if recipe.optimizer == "sgd":
            return torch.optim.SGD(
                trained, lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=fused
            )
        if recipe.optimizer == "radam":
            return torch.optim.RAdam(trained, lr=lr, weight_decay=recipe.weight_decay, decoupled_weight_decay=True)
        return torch.optim.AdamW(trained, lr=lr, weight_decay=recipe.weight_decay, fused=fused)

    def _epoch(self, run: _Run, stage: Stage, epoch: int, revise: Revise | None) -> Tensor:
        """Trains one epoch; returns the sum of the losses."""
        size = self.recipe.batch_size
        order = torch.randperm(len(self.labels)).to(self.device)
        batches = torch.split(order, size)
        if len(batches) > 1 and len(batches[-1]) == 1 and norms_of(run.model):
            # The statistics of one image are no statistics; the next epoch has another image last.
            batches = batches[:-1]
        total = torch.zeros((), device=self.device)
        every, step, good = self.check_every, 0, None
        while step < len(batches):
            if every > 1 and step % every == 0:
                good = (step, copy.deepcopy(run.state()), total.clone())
            total += self._step(run, stage, epoch, step, batches, revise, check=every == 1)
            step += 1
            if good is not None and (step % every == 0 or step == len(batches)) and not bool(torch.isfinite(total)):
                # Some step since the last look went wrong: go back and look at each, to find the batch and layer.
                step, state, total = good
                run.restore(state)
                every, good = 1, None
        return total

    def _step(
        self,
        run: _Run,
        stage: Stage,
        epoch: int,
        step: int,
        batches: tuple[Tensor, ...],
        revise: Revise | None,
        *,
        check: bool,
    ) -> Tensor:
        """Trains on one batch; returns its loss times its images."""
        recipe, model, steps = self.recipe, run.model, len(batches)
        now = epoch + step / steps
        progress = stage.progress(now, recipe.ramp)
        eps = stage.eps * progress
        for group in run.optimizer.param_groups:
            group["lr"] = stage.rate(now, recipe)
        x, y = self._batch(batches[step])

        def differentiate(images: int) -> Tensor:
            with nn.utils.parametrize.cached():
                loss = self.loss(model, x[:images], y[:images], eps, progress)
                run.optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        memory = ""
        try:
            loss = differentiate(len(y))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            memory = str(error).splitlines()[0]
        if memory:
            # Only here, where the error and the tensors that it held are gone.
            run.optimizer.zero_grad(set_to_none=True)
            fits = fitting_batch(len(y), differentiate, self.device)
            raise self._no_memory(stage, epoch, step, fits, memory)
        if revise is not None:
            assert run.masks is not None
            done, length = (epoch - stage.first) * steps + step, (stage.end - stage.first) * steps
            masks = revise(Step(done, length, run.masks, partial(_gradients, model)))
            if masks is not None:
                run.revise(masks)
            for weight, mask in run.held:
                if weight.grad is not None:
                    weight.grad.mul_(mask)
        health = loss
        if recipe.grad_clip:
            # Times zero: infinite or not a number exactly where the norm is.
            health = loss + 0 * nn.utils.clip_grad_norm_(run.trained, recipe.grad_clip)
        if check and not bool(torch.isfinite(health)):
            raise self._no_number(run, stage, epoch, step, x, eps)
        run.optimizer.step()
        with torch.no_grad():
            for weight, mask in run.held:
                weight.mul_(mask)
            if recipe.average and now >= stage.epochs * (1 - recipe.decay):
                if run.averaged is None:
                    run.averaged = [p.detach().clone() for p in run.trained]
                torch._foreach_lerp_(run.averaged, [p.detach() for p in run.trained], 1 - recipe.average)
        return health * len(y)

    def _batch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        x = self.images[chosen]
        if self.recipe.augment:
            x = augment(x, self.recipe.crop, self.recipe.crop_padding)
        return (x.contiguous(memory_format=torch.channels_last) if self.channels_last else x), self.labels[chosen]

    def _no_number(
        self, run: _Run, stage: Stage, epoch: int, step: int, x: Tensor | None = None, eps: float = 0.0
    ) -> UserError:
        bad = first_bad(run.model, self.images[:1] if x is None else x, eps)
        return UserError(
            f"The loss is not a finite number any more in stage {stage.name!r}, epoch {epoch + 1}, batch {step + 1}; "
            f"first non-finite: {bad}. The state after the last whole epoch is kept; lower the learning rate, or raise "
            "ramp_epochs."
        )

    def _no_memory(self, stage: Stage, epoch: int, step: int, fits: int, memory: str) -> UserError:
        advice = (
            f"{fits} would fit: set batch_size: {fits} in the recipe"
            if fits
            else "not even one image fits: use a larger device, or a smaller network"
        )
        return UserError(
            f"Out of memory on {self.device} with batch_size {self.recipe.batch_size}, in stage {stage.name!r}, epoch "
            f"{epoch + 1}, batch {step + 1} ({memory}); {advice}. The state after the last whole epoch is kept."
        )


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in prunable(model).items() if weight.grad is not None}
