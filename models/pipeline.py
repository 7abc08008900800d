"""Pre-train, prune, fine-tune, measure, save: what happens to one cell of the grid."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

import prunecert
from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.models import DENSE, NOISE_OBJECTIVES, PRUNERS
from prunecert.models.building import build_for
from prunecert.models.checkpoint import Card, load_card, load_model, round_to_half, save
from prunecert.models.data import Dataset, first_images, joined
from prunecert.models.evaluate import evaluate, evaluate_noise
from prunecert.models.faults import memory_errors
from prunecert.models.held_out import HeldOut
from prunecert.models.history import EpochRow, History, history_file, read_history
from prunecert.models.holdout import FOREIGN_SPLIT
from prunecert.models.initialisation import ibp_init
from prunecert.models.job import Job as Job
from prunecert.models.lent import LentTraining, keywords_of
from prunecert.models.masks import Masks
from prunecert.models.parents import parent_file as parent_file
from prunecert.models.pruners.contract import Altered
from prunecert.models.reports import EpochReport, Report, StepHearer
from prunecert.models.schedules import Stage
from prunecert.models.training import Stop, Trainer, read_state, seed_everything, write_state

#: Of a key, in the rows of a history.
_KEY_DIGITS = 12
MEASURED = "validation split; PGD 20 steps of eps/8 from one random start; bounds in float32 by models.bounds"
MEASURED_UNDER_NOISE = "validation split; one noisy copy of each image with the standard deviation of training"
#: The words of `measured` where the recipe holds no images out.
UNMEASURED = "not measured: all training images were trained on, those of the validation split, too"


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
        val: The held-out split; recipes without `holdout` train on it, too.
        device: Torch device.
        report: Told of every epoch.
        hear_step: Told of every step.
        stop: Asked after every epoch, with its seconds, whether to stop.
        unfit: Why nothing that is trained here may be published, or nothing.
        subset: How many images a recipe without `holdout` is trained on, the first ones; None: all.
        pretrained: Where pre-trained networks are kept, if not in `work`.
    """

    def __init__(
        self,
        folder: Path,
        work: Path,
        train: Dataset,
        val: Dataset,
        device: str,
        report: Report,
        *,
        hear_step: StepHearer | None = None,
        stop: Stop | None = None,
        unfit: str = "",
        subset: int | None = None,
        pretrained: Path | None = None,
    ) -> None:
        self.folder, self.work, self.dense = folder, work, pretrained or work
        self.train, self.val = train, val
        self.device, self.stop, self.unfit, self.subset = device, stop, unfit, subset
        self._report, self._hear_step = report, hear_step
        self._seconds: dict[str, tuple[int, float]] = {}
        self._history: History | None = None
        self._held_out: HeldOut | None = None

    def report(self, epoch: EpochReport) -> None:
        """Notes an epoch's throughput, writes its row into the history, and passes the report on."""
        images, seconds = self._seconds.get(epoch.stage, (0, 0.0))
        self._seconds[epoch.stage] = images + round(epoch.rate * epoch.seconds), seconds + epoch.seconds
        if self._history is not None:
            self._history.add(epoch.row(self._history.key))
            epoch = replace(epoch, number=len(self._history.rows))
        self._report(epoch)

    @property
    def rows(self) -> Sequence[EpochRow]:
        """The history of the cell that is trained, or was trained last; while it is pre-trained, of that."""
        return () if self._history is None else self._history.rows

    @cached_property
    def _all(self) -> Dataset:
        """The training images and the held-out ones."""
        return first_images(joined(self.train, self.val), self.subset)

    def training_images(self, job: Job) -> Dataset:
        """Returns the images that a job trains on."""
        return self.train if job.recipe.holdout else self._all

    def trainer(self, job: Job) -> Trainer:
        """Returns a trainer for a job's recipe and objective."""
        return Trainer(
            job.recipe,
            job.objective,
            self.training_images(job),
            self.device,
            self.report,
            stop=self.stop,
            val=self.val if job.recipe.holdout else None,
            hear_step=self._hear_step,
            held_out=self._held_out,
        )

    def initial(self, job: Job) -> nn.Module:
        """Returns the job's network with its initial weights, on the CPU."""
        seed_everything(job.seed, "init")
        model = build_for(job.network, job.data)
        if job.recipe.init != "default":
            ibp_init(model, last=job.recipe.init == "ibp")
        return model

    def _data(self, job: Job) -> dict[str, Any]:
        images = len(self.train) if job.recipe.holdout else len(self.train) + len(self.val)
        return {"data": self.train.fingerprint, "images": min(images, self.subset or images)}

    def _parent(self, job: Job) -> Card | None:
        """Returns the card of a job's parent, if its recipe names one."""
        return load_card(parent_file(job, self.folder)) if job.recipe.parent else None

    def _pretraining(self, job: Job) -> tuple[str, str]:
        """Returns the key of the network that is pre-trained for a job, and how its files' names begin."""
        key = digest({**job.pretraining(), **self._data(job)})
        return key, f"{job.network}_{job.objective}_{job.eps_text.replace('/', '-')}_s{job.seed}_{key[:12]}"

    def key(self, job: Job, parent: Card | None = None) -> str:
        """Returns what tells a job's checkpoint from another's of its name: a digest of what decides it.

        Args:
            job: The job.
            parent: Its parent's card; None: it is looked up.
        """
        own = {**job.pretraining(), **job.recipe.to_dict(), "cell": job.name, **self._data(job)}
        return digest({**own, **_told(self._parent(job) if parent is None else parent)})

    def stems(self, job: Job) -> tuple[str, ...]:
        """Returns how the names of a job's files in the folders of unfinished work begin, each before a dot."""
        return (self._pretraining(job)[1], job.name) if job.pretrains else (job.name,)

    def _pretraining_history(self, job: Job) -> Path:
        return history_file(self.dense / self._pretraining(job)[1])

    def pretrained(self, job: Job) -> nn.Module:
        """Returns the job's dense network after pre-training; trained now, or found, or the recipe's parent."""
        if job.recipe.parent:
            return load_model(parent_file(job, self.folder))[0].to(self.device)
        key, stem = self._pretraining(job)
        file = self.dense / f"{stem}.pretrained.pt"
        model = self.initial(job)
        with exclusive(self.dense / f"{stem}.lock", wait=True):
            if file.exists():
                model.load_state_dict(read_state(file))
                return model.to(self.device)
            model.to(self.device)
            self._history = History(self._pretraining_history(job), key[:_KEY_DIGITS])
            seed_everything(job.seed, "pretrain")
            recipe, eps = job.recipe, job.eps * job.recipe.train_eps_factor
            stage = Stage("pretrain", recipe.pretrain_epochs, recipe.lr, eps, recipe.warmup_epochs, recipe.ramp_epochs)
            self.trainer(job).run(model, stage, state_file=self.dense / f"{stem}.pretrain.pt", key=key)
            write_state(model.state_dict(), file)
        return model

    def run(self, job: Job) -> Card:
        """Trains one cell and saves its checkpoint and card.

        Raises:
            UserError: The pruner cannot reach the compression, or the loss is no number any more.
        """
        self._seconds, self._history = {}, None
        noisy = job.objective in NOISE_OBJECTIVES
        holdout = job.recipe.holdout
        self._held_out = HeldOut(self.val, job.eps, self.device, noisy=noisy) if holdout else None
        parent = self._parent(job)
        model = self.initial(job).to(self.device) if job.from_scratch else self.pretrained(job)
        started = time.perf_counter()
        recipe = job.recipe
        trainer = self.trainer(job if job.from_scratch else replace(job, recipe=recipe.finetuning()))
        key = self.key(job, parent)
        shared = self._pretraining_history(job) if job.pretrains else None
        earlier = read_history(shared) if shared is not None and shared.exists() else ()
        self._history = History(history_file(self.folder / job.name), key[:_KEY_DIGITS], earlier)
        train = LentTraining(
            trainer,
            job.name,
            self.work,
            key,
            seed=job.seed,
            eps=job.eps * recipe.train_eps_factor,
            epochs=job.epochs + (recipe.pretrain_epochs if job.from_scratch else 0),
            objective=job.objective,
        )
        pruned = self._prune(job, model, train)
        model, masks = pruned.model, pruned.masks
        masks.apply_(model)
        if job.pruner != DENSE and train.altered(model):
            trainer.estimate_statistics(model)
        # The same words for every pruner: the same batches in the same order.
        if train.left:
            train(model, train.left, name="finetune", masks=masks)
        if recipe.storage == "float16":
            round_to_half(model)
        accuracy, measured = self._measure(job, model) if holdout else ({}, UNMEASURED)
        if holdout and parent is not None and parent.foreign:
            measured = measured.replace("validation split", FOREIGN_SPLIT)
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
            measured=measured,
            data_fingerprint=self.train.fingerprint,
            versions={"prunecert": prunecert.__version__, "torch": torch.__version__},
            device=torch.cuda.get_device_name(self.device) if self.device.startswith("cuda") else "cpu",
            train_seconds=round(time.perf_counter() - started, 1),
            command=job.command,
            throughput={stage: round(images / seconds) for stage, (images, seconds) in self._seconds.items()},
            unfit=self.unfit,
            surgery=pruned.surgery,
            data=dict(job.data),
            **_told(parent),
            notes=train.notes,
        )
        train.clean()
        return card

    def _measure(self, job: Job, model: nn.Module) -> tuple[dict[str, float], str]:
        """Returns accuracies on the held-out images, and how they were measured."""
        noisy = job.objective in NOISE_OBJECTIVES
        with memory_errors(f"Measuring {job.name} on {self.device}"):
            accuracy = (evaluate_noise if noisy else evaluate)(model, self.val, job.eps, device=self.device)
        return accuracy, MEASURED_UNDER_NOISE if noisy else MEASURED

    def _prune(self, job: Job, model: nn.Module, train: LentTraining) -> Altered:
        """Returns the pruner's network, which it may have trained, and masks."""
        if job.pruner == DENSE:
            return Altered(model, Masks.dense(model), {})
        prune = PRUNERS.get(job.pruner)
        lent: dict[str, Any] = {"allocation": job.allocation(model), "seed": job.seed, "train": train}
        settings = job.recipe.pruners.get(job.pruner, {})
        pruned = prune(model, job.compression, **keywords_of(prune, lent), **settings)
        return pruned if isinstance(pruned, Altered) else Altered(model, pruned, {})


def _told(parent: Card | None) -> dict[str, str]:
    """Returns what tells one parent from another of its name; the card of what begins with it has it, too."""
    return {} if parent is None else {"parent_sha256": parent.sha256}


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
