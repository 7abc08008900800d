"""Training loops: pre-train, learn scores, fine-tune; seeded, and resumable after every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import OBJECTIVES
from models.data import Dataset
from models.masks import Masks, prunable
from models.recipe import Recipe
from prunecert.errors import UserError

#: Called after every epoch with the stage, the epoch's number from 1, the epochs in all, mean loss and images/s.
Report = Callable[[str, int, int, float, float], None]


@dataclass
class Stage:
    """One stretch of training with one learning-rate schedule.

    Args:
        name: ``pretrain``, ``scores`` or ``finetune``.
        epochs: How many.
        lr: Peak learning rate.
        eps: Radius when the ramp is over.
        warmup: Epochs at radius 0.
        ramp: Epochs of linear growth to `eps`.
    """

    name: str
    epochs: int
    lr: float
    eps: float
    warmup: int = 0
    ramp: int = 0

    def progress(self, epoch: float) -> float:
        """Returns how far the ramp of eps has come at a fractional epoch, in [0, 1]."""
        if epoch < self.warmup:
            return 0.0
        return min(1.0, (epoch - self.warmup) / self.ramp) if self.ramp else 1.0

    def rate(self, epoch: float, decay: float) -> float:
        """Returns the learning rate at a fractional epoch: constant, then a cosine down to 1/100 of the peak."""
        start = self.epochs * (1 - decay)
        if epoch <= start or decay == 0:
            return self.lr
        phase = (epoch - start) / (self.epochs - start)
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * phase)))


def seed_everything(seed: int, *words: str) -> None:
    """Seeds torch and numpy from a number and words, so that stages don't share their random numbers."""
    state = np.random.SeedSequence([seed, *(byte for word in words for byte in word.encode())]).generate_state(1)[0]
    torch.manual_seed(int(state))
    np.random.seed(int(state))


def write_state(state: Any, file: Path) -> None:
    """Writes a state beside `file` and renames it, so that a kill leaves the old one whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".tmp")
    torch.save(state, beside)
    beside.replace(file)


def ibp_init(model: nn.Module) -> None:
    """Draws weights that keep interval widths through the layers (Shi et al. 2021, section 4.1).

    W ~ N(0, 2 pi / fan_in^2), so that E|W| * fan_in / 2, the growth of a width through an affine layer and a ReLU,
    is 1. Biases start at zero.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2 * math.pi) / fan_in)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def augment(images: Tensor) -> Tensor:
    """Flips each image with probability 1/2 and crops it from 4 pixels of zero padding."""
    count, _, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4))
    top = torch.randint(0, 9, (count,), device=images.device)
    left = torch.randint(0, 9, (count,), device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    flip = torch.rand(count, device=images.device) < 0.5
    columns = torch.where(flip[:, None], columns.flip(1), columns) + left[:, None]
    rows = torch.arange(height, device=images.device).expand(count, height) + top[:, None]
    index = torch.arange(count, device=images.device)
    # Advanced indices round a slice put the channels last; bring them back.
    return padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


class Trainer:
    """Runs stages on one network.

    Args:
        recipe: How.
        objective: Name of the objective.
        data: The training split.
        device: Torch device.
        report: Told of every epoch.
    """

    def __init__(self, recipe: Recipe, objective: str, data: Dataset, device: str, report: Report) -> None:
        self.recipe = recipe
        self.loss = partial(OBJECTIVES.get(objective), **recipe.objective)
        self.device = torch.device(device)
        self.images = torch.from_numpy(data.images).to(self.device)
        self.labels = torch.from_numpy(data.labels).to(self.device)
        self.report = report

    def run(
        self,
        model: nn.Module,
        stage: Stage,
        *,
        masks: Masks | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
        state_file: Path | None = None,
        key: str = "",
    ) -> None:
        """Trains `model` in place.

        Args:
            model: The network, on the trainer's device.
            stage: What to run.
            masks: Weights to hold at zero.
            parameters: What to train; all of the network by default.
            state_file: Where the state after each epoch is kept, and found again; removed at the end.
            key: What the state must belong to; a state of another key is not used.

        Raises:
            UserError: The loss is no number any more.
        """
        recipe = self.recipe
        trained = list(model.parameters() if parameters is None else parameters)
        optimizer = torch.optim.AdamW(trained, lr=stage.lr, weight_decay=recipe.weight_decay)
        averaged: list[Tensor] | None = None
        first = 0
        if state_file is not None and state_file.exists():
            first, averaged = self._restore(state_file, key, model, optimizer)
        model.train()
        count = len(self.labels)
        steps = math.ceil(count / recipe.batch_size)
        held = [(w, masks[n].to(self.device)) for n, w in prunable(model).items()] if masks is not None else []
        for epoch in range(first, stage.epochs):
            order = torch.randperm(count).to(self.device)
            total, start = torch.zeros((), device=self.device), time.perf_counter()
            for step in range(steps):
                now = epoch + step / steps
                progress = stage.progress(now)
                for group in optimizer.param_groups:
                    group["lr"] = stage.rate(now, recipe.decay)
                batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                x, y = self.images[batch], self.labels[batch]
                if recipe.augment:
                    x = augment(x)
                with torch.nn.utils.parametrize.cached():
                    with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
                        loss = self.loss(model, x, y, stage.eps * progress, progress=progress)
                    if recipe.l1:
                        loss = loss + recipe.l1 * sum(w.abs().sum() for w in prunable(model).values())
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                if not bool(torch.isfinite(loss)):
                    self._explain(model, stage, epoch, step)
                if recipe.grad_clip:
                    nn.utils.clip_grad_norm_(trained, recipe.grad_clip)
                optimizer.step()
                with torch.no_grad():
                    for weight, mask in held:
                        weight.mul_(mask)
                    if recipe.average and now >= stage.epochs * (1 - recipe.decay):
                        if averaged is None:
                            averaged = [p.detach().clone() for p in trained]
                        torch._foreach_lerp_(averaged, [p.detach() for p in trained], 1 - recipe.average)
                total += loss.detach() * len(batch)
            seconds = time.perf_counter() - start
            self.report(stage.name, epoch + 1, stage.epochs, float(total) / count, count / seconds)
            if state_file is not None and epoch + 1 < stage.epochs:
                self._keep(state_file, key, epoch + 1, model, optimizer, averaged)
        if averaged is not None:
            with torch.no_grad():
                for parameter, average in zip(trained, averaged, strict=True):
                    parameter.copy_(average)
                for weight, mask in held:
                    weight.mul_(mask)
        if state_file is not None:
            state_file.unlink(missing_ok=True)

    def _keep(
        self, file: Path, key: str, epoch: int, model: nn.Module, optimizer: torch.optim.Optimizer, averaged: Any
    ) -> None:
        state = {
            "key": key,
            "epoch": epoch,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "averaged": averaged,
            "rng": torch.get_rng_state(),
        }
        write_state(state, file)

    def _restore(
        self, file: Path, key: str, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[int, list[Tensor] | None]:
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
        except Exception as error:
            raise UserError(
                f"The training state {str(file)!r} cannot be read ({type(error).__name__}); delete it to "
                "begin this stage anew."
            ) from error
        if state["key"] != key:
            return 0, None
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())
        return int(state["epoch"]), state["averaged"]

    def _explain(self, model: nn.Module, stage: Stage, epoch: int, step: int) -> None:
        bad = [name for name, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
        bad += [
            f"the gradient of {n}"
            for n, p in model.named_parameters()
            if p.grad is not None and not bool(torch.isfinite(p.grad).all())
        ]
        raise UserError(
            f"The loss is not a finite number any more in stage {stage.name!r}, epoch {epoch + 1}, batch {step + 1}; "
            f"first non-finite: {bad[0] if bad else 'the loss itself'}. The state after the last whole epoch is kept; "
            "lower the learning rate or raise ramp_epochs."
        )
