"""Training loops: pre-train, learn scores, fine-tune; seeded, and resumable after every epoch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
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
from prunecert.models.feedback import IMAGES, STEPS, measure
from prunecert.models.held_out import HeldOut
from prunecert.models.masks import Masks, prunable
from prunecert.models.norms import estimate_statistics, norms_of, uncounted
from prunecert.models.pruners.contract import Batch, Epoch, Feedback, Group, Hooks, Step, StepHook
from prunecert.models.recipe import Recipe
from prunecert.models.reports import EpochReport, Report, StepHearer, StepReport
from prunecert.models.running import Running, optimizer_of
from prunecert.models.schedules import Stage

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
        val: The held-out split that hooks get their feedback from; without it they get none.
        hear_step: Told of every step.
        held_out: What measures the network now and then, for the reports.
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
        val: Dataset | None = None,
        hear_step: StepHearer | None = None,
        held_out: HeldOut | None = None,
    ) -> None:
        self.recipe = recipe
        self.objective = partial(OBJECTIVES.get(objective), **recipe.objective)
        self.addons = [partial(ADDONS.get(name), **settings) for name, settings in recipe.addons.items()]
        self.device = torch.device(device)
        self.channels_last = recipe.memory_format == "channels-last"
        with memory_errors(f"Placing {len(data):,} training images on {device}"):
            self.images = torch.from_numpy(data.images).to(self.device)
            self.labels = torch.from_numpy(data.labels).to(self.device)
        self.report, self.stop, self.val = report, stop, val
        self.hear_step, self.held_out = hear_step, held_out
        self.check_every = check_every or (CUDA_CHECK if self.device.type == "cuda" else 1)

    def loss(
        self, model: nn.Module, x: Tensor, y: Tensor, eps: float, progress: float, hooks: Hooks | None = None
    ) -> Tensor:
        """Returns the objective's loss, or the hooks' in its place, and the recipe's and hooks' additions to it."""
        with shared_bounds(), torch.autocast(self.device.type, torch.bfloat16, self.recipe.precision == "bfloat16"):
            own = partial(self._own, model, x, y, eps, progress)
            instead = None if hooks is None else hooks.loss
            extra = partial(self._extended, torch.zeros((), device=x.device), model, x, y, eps, progress)
            loss = own() if instead is None else instead(Batch(model, x, y, eps, progress, own, extra))
        if self.recipe.l1:
            loss = loss + self.recipe.l1 * sum(w.abs().sum() for w in prunable(model).values())
        if hooks is not None and hooks.regulariser is not None:
            loss = loss + hooks.regulariser()
        return loss

    def _own(self, model: nn.Module, x: Tensor, y: Tensor, eps: float, progress: float) -> Tensor:
        loss: Tensor = self.objective(model, x, y, eps, progress=progress)
        return self._extended(loss, model, x, y, eps, progress)

    def _extended(self, loss: Tensor, model: nn.Module, x: Tensor, y: Tensor, eps: float, progress: float) -> Tensor:
        """Returns a loss and the recipe's additions to it."""
        with uncounted():
            for addon in self.addons:
                loss = loss + addon(model, x, y, eps, progress=progress)
        return loss

    def feedback(self, model: nn.Module, eps: float, *, images: int = IMAGES, steps: int = STEPS) -> Feedback:
        """Measures a network at a radius, on training and on held-out images.

        Raises:
            UserError: No images are held out; what declares that it needs them is refused before.
        """
        if self.val is None:
            raise UserError(
                "The pruner asks for feedback, and no images are held out; allowed is holdout: true in the recipe (a "
                "pruner that declares Hook.HELD_OUT is refused before anything is trained)."
            )
        held_out = (torch.from_numpy(part).to(self.device) for part in (self.val.images, self.val.labels))
        x, y = held_out
        return measure(model, (self.images, self.labels), (x, y), eps, images=images, steps=steps)

    def run(
        self,
        model: nn.Module,
        stage: Stage,
        *,
        masks: Masks | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
        groups: Sequence[Group] | None = None,
        hooks: Hooks | None = None,
        state_file: Path | None = None,
        key: str = "",
    ) -> Masks | None:
        """Trains `model` in place; returns the masks that hold in the end.

        Args:
            model: The network, on the trainer's device.
            stage: What to run.
            masks: Weights to hold at zero.
            parameters: What to train; all of the network by default.
            groups: What to train, at rates of their own, in place of `parameters`.
            hooks: What is asked back; those that change masks only with `masks`.
            state_file: Where the state after each epoch is kept, and found again; removed at the end.
            key: What the state must belong to; a state of another key is not used.

        Raises:
            UserError: The loss is no number any more, or a step does not fit into the device's memory.
            OutOfTimeError: `stop` said so; the state is kept.
        """
        recipe = self.recipe
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if groups is None:
            groups = [Group(list(model.parameters() if parameters is None else parameters))]
        trained = [parameter for group in groups for parameter in group.parameters]
        hooks = hooks or Hooks()
        run = Running(model, trained, optimizer_of(groups, recipe, stage.lr, self.device), self.device, masks, hooks)
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
            total = float(self._epoch(run, stage, epoch))
            if not all(bool(torch.isfinite(p).all()) for p in trained):
                raise self._no_number(run, stage, epoch, math.ceil(count / recipe.batch_size) - 1)
            seconds = time.perf_counter() - start
            number, length = epoch + 1 - stage.first, stage.end - stage.first
            self.report(self._told(run, stage, epoch, total / count, seconds))
            if hooks.epoch is not None and hooks.epoch(Epoch(number, length, partial(self.feedback, model, stage.eps))):
                break
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

    def _told(self, run: Running, stage: Stage, epoch: int, loss: float, seconds: float) -> EpochReport:
        """Returns what is told of an epoch; now and then the network is measured for it."""
        rate = len(self.labels) / seconds
        return EpochReport(
            stage=stage.name,
            epoch=epoch + 1 - stage.first,
            epochs=stage.end - stage.first,
            loss=loss,
            rate=rate,
            seconds=seconds,
            eps=stage.eps * stage.progress(epoch + 1, self.recipe.ramp),
            lr=float(run.optimizer.param_groups[0]["lr"]),
            held_out=None if self.held_out is None else self.held_out.after_epoch(run.model, seconds, rate),
        )

    def estimate_statistics(self, model: nn.Module) -> None:
        """Sets batch norm's statistics anew from training images as they are, after weights were changed at once."""
        size = self.recipe.batch_size
        # A batch of one image has no variance.
        whole = self.images[: STATISTICS_IMAGES - STATISTICS_IMAGES % size or size]
        batches = [batch for batch in torch.split(whole, size) if len(batch) > 1]
        if norms_of(model) and batches:
            estimate_statistics(model, batches)

    def _epoch(self, run: Running, stage: Stage, epoch: int) -> Tensor:
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
            total += self._step(run, stage, epoch, step, batches, check=every == 1)
            step += 1
            if self.hear_step is not None:
                eps = stage.eps * stage.progress(epoch + step / len(batches), self.recipe.ramp)
                number, length = epoch + 1 - stage.first, stage.end - stage.first
                self.hear_step(StepReport(stage.name, number, length, step, len(batches), eps))
            if good is not None and (step % every == 0 or step == len(batches)) and not bool(torch.isfinite(total)):
                # Some step since the last look went wrong: go back and look at each, to find the batch and layer.
                step, state, total = good
                run.restore(state)
                every, good = 1, None
        return total

    def _step(
        self, run: Running, stage: Stage, epoch: int, step: int, batches: tuple[Tensor, ...], *, check: bool
    ) -> Tensor:
        """Trains on one batch; returns its loss times its images."""
        recipe, model, hooks, steps = self.recipe, run.model, run.hooks, len(batches)
        now = epoch + step / steps
        progress = stage.progress(now, recipe.ramp)
        eps = stage.eps * progress
        for group in run.optimizer.param_groups:
            # States of older versions have no factors.
            group["lr"] = stage.rate(now, recipe) * group.setdefault("factor", 1.0)
        x, y = self._batch(batches[step])

        def differentiate(images: int) -> Tensor:
            with nn.utils.parametrize.cached():
                loss = self.loss(model, x[:images], y[:images], eps, progress, hooks)
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
        number, length = (epoch - stage.first) * steps + step, (stage.end - stage.first) * steps
        if hooks.before is not None:
            self._ask(hooks.before, run, number, length)
        if hooks.before is not None or hooks.after is not None:
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
            if hooks.after is not None:
                self._ask(hooks.after, run, number, length)
            if recipe.average and now >= stage.epochs * (1 - recipe.decay):
                if run.averaged is None:
                    run.averaged = [p.detach().clone() for p in run.trained]
                torch._foreach_lerp_(run.averaged, [p.detach() for p in run.trained], 1 - recipe.average)
        return health * len(y)

    def _ask(self, hook: StepHook, run: Running, number: int, length: int) -> None:
        """Asks a hook about a step, and holds the masks that it answers."""
        lr = float(run.optimizer.param_groups[0]["lr"])
        held = Masks({}) if run.masks is None else run.masks
        masks = hook(Step(number, length, held, partial(_gradients, run.model), lr))
        if masks is not None:
            run.revise(masks)

    def _batch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        x = self.images[chosen]
        if self.recipe.augment:
            x = augment(x, self.recipe.crop, self.recipe.crop_padding)
        return (x.contiguous(memory_format=torch.channels_last) if self.channels_last else x), self.labels[chosen]

    def _no_number(
        self, run: Running, stage: Stage, epoch: int, step: int, x: Tensor | None = None, eps: float = 0.0
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
