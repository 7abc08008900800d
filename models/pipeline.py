"""Pre-train, prune, fine-tune, measure, save: what happens to one cell of the grid."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import prunecert
from models import NETWORKS, NOISE_OBJECTIVES, PRUNERS
from models.checkpoint import Card, save
from models.data import Dataset
from models.evaluate import evaluate, evaluate_noise
from models.masks import Masks
from models.recipe import Recipe
from models.training import Report, Stage, Trainer, ibp_init, seed_everything, write_state
from prunecert.errors import UserError
from prunecert.hashing import digest

DENSE = "dense"
MEASURED = "validation split; PGD 20 steps of eps/8 from one random start; bounds in float32 by models.bounds"
MEASURED_UNDER_NOISE = "validation split; one noisy copy of each image with the standard deviation of training"


@dataclass(frozen=True)
class Job:
    """One cell to train.

    Args:
        name: The cell's name; the stem of its files.
        network: Name in `models.NETWORKS`.
        objective: Name in `models.OBJECTIVES`.
        eps: Radius in pixels of [0, 1]; for `models.NOISE_OBJECTIVES` sigma.
        eps_text: The same as an exact fraction, e.g. ``"2/255"``.
        pruner: Name in `models.PRUNERS`, or ``dense``.
        compression: All prunable weights over kept ones.
        seed: Seed of everything.
        recipe: How.
        command: What to write on the card.
    """

    name: str
    network: str
    objective: str
    eps: float
    eps_text: str
    pruner: str
    compression: float
    seed: int
    recipe: Recipe
    command: str

    def pretraining(self) -> dict[str, Any]:
        """Returns what the pre-trained network depends on."""
        recipe = self.recipe.to_dict()
        for key in ("prune_epochs", "finetune_epochs", "finetune_lr", "score_lr", "allocation"):
            del recipe[key]
        return {"network": self.network, "objective": self.objective, "eps": self.eps_text, "seed": self.seed, **recipe}

    @property
    def epochs(self) -> int:
        """Epochs after pre-training."""
        return self.recipe.prune_epochs + self.recipe.finetune_epochs


@contextmanager
def exclusive(file: Path, *, wait: bool) -> Iterator[bool]:
    """Locks `file` against other processes; yields False if another holds it and `wait` is off.

    The lock goes with the process, however it ends.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


class Pipeline:
    """Trains cells; pre-trained networks are shared between the cells that allow it.

    Args:
        folder: Where checkpoints go.
        work: Where pre-trained networks and unfinished stages are kept.
        train: The training split.
        val: The held-out split.
        device: Torch device.
        report: Told of every epoch.
    """

    def __init__(self, folder: Path, work: Path, train: Dataset, val: Dataset, device: str, report: Report) -> None:
        self.folder, self.work = folder, work
        self.train, self.val = train, val
        self.device, self.report = device, report

    def pretrained(self, job: Job) -> nn.Module:
        """Returns the job's dense network after pre-training; trained now, or found."""
        key = digest({**job.pretraining(), "data": self.train.fingerprint, "images": len(self.train)})
        stem = f"{job.network}_{job.objective}_{job.eps_text.replace('/', '-')}_s{job.seed}_{key[:12]}"
        file = self.work / f"{stem}.pretrained.pt"
        seed_everything(job.seed, "init")
        model = NETWORKS.get(job.network)()
        if job.recipe.init == "ibp":
            ibp_init(model)
        with exclusive(self.work / f"{stem}.lock", wait=True):
            if file.exists():
                model.load_state_dict(torch.load(file, weights_only=True, map_location="cpu"))
                return model.to(self.device)
            model.to(self.device)
            seed_everything(job.seed, "pretrain")
            recipe = job.recipe
            stage = Stage(
                "pretrain",
                recipe.pretrain_epochs,
                recipe.lr,
                job.eps * recipe.train_eps_factor,
                recipe.warmup_epochs,
                recipe.ramp_epochs,
            )
            trainer = Trainer(recipe, job.objective, self.train, self.device, self.report)
            trainer.run(model, stage, state_file=self.work / f"{stem}.pretrain.pt", key=key)
            write_state(model.state_dict(), file)
        return model

    def run(self, job: Job) -> Card:
        """Trains one cell and saves its checkpoint and card.

        Raises:
            UserError: The pruner cannot reach the compression, or the loss is no number any more.
        """
        model = self.pretrained(job)
        started = time.perf_counter()
        recipe = job.recipe
        eps = job.eps * recipe.train_eps_factor
        trainer = Trainer(recipe, job.objective, self.train, self.device, self.report)
        key = digest({**job.pretraining(), **recipe.to_dict(), "cell": job.name, "data": self.train.fingerprint})
        masks_file = self.work / f"{job.name}.masks.pt"
        masks, spent = self._masks(job, model, trainer, eps, key, masks_file)
        masks.apply_(model)
        # The same words for every pruner: the same batches in the same order.
        seed_everything(job.seed, "finetune")
        stage = Stage("finetune", job.epochs - spent, recipe.finetune_lr, eps)
        if stage.epochs:
            state = self.work / f"{job.name}.finetune.pt"
            trainer.run(model, stage, masks=masks, state_file=state, key=key + masks.sha256())
        noisy = job.objective in NOISE_OBJECTIVES
        accuracy = (evaluate_noise if noisy else evaluate)(model, self.val, job.eps, device=self.device)
        model.to("cpu")
        card = save(
            self.folder,
            model,
            masks,
            name=job.name,
            network=job.network,
            objective=job.objective,
            eps=job.eps_text,
            pruner=job.pruner,
            compression=job.compression,
            seed=job.seed,
            recipe=recipe.to_dict(),
            accuracy=accuracy,
            measured=MEASURED_UNDER_NOISE if noisy else MEASURED,
            data_fingerprint=self.train.fingerprint,
            versions={"prunecert": prunecert.__version__, "torch": torch.__version__},
            device=torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else "cpu",
            train_seconds=round(time.perf_counter() - started, 1),
            command=job.command,
        )
        masks_file.unlink(missing_ok=True)
        return card

    def _masks(
        self, job: Job, model: nn.Module, trainer: Trainer, eps: float, key: str, file: Path
    ) -> tuple[Masks, int]:
        """Returns the masks and how many epochs it took to learn them."""
        if job.pruner == DENSE:
            return Masks.dense(model), 0
        prune = PRUNERS.get(job.pruner)
        settings: dict[str, Any] = {}
        names = prune.__code__.co_varnames[: prune.__code__.co_argcount + prune.__code__.co_kwonlyargcount]
        if "allocation" in names:
            settings["allocation"] = job.recipe.allocation
        if "seed" in names:
            settings["seed"] = job.seed
        if "train" not in names:
            return prune(model, job.compression, **settings), 0
        if file.exists():
            stored = torch.load(file, weights_only=True)
            if stored["key"] == key:
                return Masks(stored["masks"]), job.recipe.prune_epochs
        seed_everything(job.seed, "scores")

        def learn(scored: nn.Module, scores: list[nn.Parameter]) -> None:
            stage = Stage("scores", job.recipe.prune_epochs, job.recipe.score_lr, eps)
            state = self.work / f"{job.name}.scores.pt"
            trainer.run(scored, stage, parameters=scores, state_file=state, key=key)

        masks = prune(model, job.compression, train=learn, **settings)
        write_state({"key": key, "masks": dict(masks)}, file)
        return masks, job.recipe.prune_epochs


def check_device(device: str) -> str:
    """Returns `device` if torch can use it here.

    Raises:
        UserError: It cannot.
    """
    if device != "cpu" and not (device.partition(":")[0] == "cuda" and torch.cuda.is_available()):
        raise UserError(
            f"Device {device!r} is refused: torch sees no such device here; allowed is cpu"
            + (", cuda or cuda:N." if torch.cuda.is_available() else " (no CUDA device found).")
        )
    return device
