"""Pre-train, prune, fine-tune, measure, save: what happens to one cell of the grid."""

from __future__ import annotations

import contextlib
import fcntl
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import prunecert
from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.models import BOUNDING, DENSE, NOISE_OBJECTIVES, PRUNERS
from prunecert.models.bounds import boundable
from prunecert.models.building import SHAPE, build_for
from prunecert.models.checkpoint import ZOO, Card, load_card, load_model, round_to_half, save
from prunecert.models.data import Dataset
from prunecert.models.evaluate import evaluate, evaluate_noise
from prunecert.models.faults import memory_errors
from prunecert.models.held_out import HeldOut
from prunecert.models.history import EpochRow, History, history_file, read_history
from prunecert.models.initialisation import ibp_init
from prunecert.models.lent import LentTraining, Rehearsal, keywords_of, offers
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import Allocation, allocate_in_pattern, reachable, refuse_pattern
from prunecert.models.pruners.both_budgets import for_network
from prunecert.models.pruners.contract import Altered, method_of, refuse_lacking
from prunecert.models.recipe import Recipe
from prunecert.models.reports import EpochReport, Report, StepHearer
from prunecert.models.schedules import Stage
from prunecert.models.training import Stop, Trainer, read_state, seed_everything, write_state

#: Of a key, in the rows of a history.
_KEY_DIGITS = 12
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
        data: What the card says of the data set: name, shape and classes; nothing for CIFAR-10.
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
    data: Mapping[str, Any] = field(default_factory=dict)

    def pretraining(self) -> dict[str, Any]:
        """Returns what the pre-trained network depends on."""
        own = {"network": self.network, "objective": self.objective, "eps": self.eps_text, "seed": self.seed}
        return {**own, **self.recipe.pretraining()}

    @property
    def epochs(self) -> int:
        """Epochs after pre-training."""
        return self.recipe.prune_epochs + self.recipe.finetune_epochs

    @property
    def from_scratch(self) -> bool:
        """Whether the pruner begins at the initial weights, with the epochs of pre-training for its own."""
        return self.pruner != DENSE and method_of(PRUNERS.get(self.pruner)).from_scratch

    @property
    def pretrains(self) -> bool:
        """Whether it begins with a network that is pre-trained for it, and perhaps for others."""
        return not self.from_scratch and not self.recipe.parent

    def refuse_unreachable(self) -> None:
        """Refuses what this network cannot be, before data is loaded or anything is trained for it.

        Raises:
            UserError: The objective or an add-on bounds the network, and it has a layer without bounds; or the
                compression cannot be reached: too few weights, or the pruner says so from the network's shape; or the
                pruner keeps no pattern, lacks a hook under the objective, or refuses a setting, or too few epochs.
        """
        model = build_for(self.network, self.data)
        bounding = sorted(BOUNDING & {self.objective, *self.recipe.addons})
        if bounding:
            try:
                boundable(model)
            except UserError as error:
                raise UserError(
                    f"{self.name}: {', '.join(bounding)} needs bounds of {self.network}. {error}"
                ) from error
        shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
        try:
            kept = reachable({name: math.prod(shape) for name, shape in shapes.items()}, self.compression)
            if self.pruner == DENSE:
                return
            prune = PRUNERS.get(self.pruner)
            if not method_of(prune).keeps_patterns:
                refuse_pattern(self.recipe.allocation)
            if "allocation" in keywords_of(prune, {"allocation": ""}):
                allocate_in_pattern(shapes, kept, self.allocation(model))
            refuse_lacking(self.pruner, prune, offers(self.objective), f"training by {self.objective}")
            self._rehearse(prune, model)
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from error

    def allocation(self, model: nn.Module) -> Allocation:
        """Returns what the pruner is lent: the recipe's, or layers' parts where that takes the network's shape."""
        return for_network(self.recipe.allocation, model, self.data.get("shape", SHAPE), self.compression)

    def _rehearse(self, prune: Callable[..., Any], model: nn.Module) -> None:
        """Asks a pruner that trains, or that refuses by shape, what it would refuse."""
        recipe, radius = self.recipe, self.eps * self.recipe.train_eps_factor
        epochs = self.epochs + (recipe.pretrain_epochs if self.from_scratch else 0)
        settings = (recipe if self.from_scratch else recipe.finetuning()).objective
        train = Rehearsal(epochs, recipe.prune_epochs, radius, objective=self.objective, settings=settings)
        lent = keywords_of(prune, {"allocation": self.allocation(model), "seed": self.seed, "train": train})
        if "train" not in lent and not method_of(prune).refuses_by_shape:
            return
        with contextlib.suppress(Rehearsal.BeganError):
            prune(model, self.compression, **lent, **recipe.pruners.get(self.pruner, {}))


def parent_file(job: Job, folder: Path) -> Path:
    """Returns the checkpoint that a job begins with in place of a pre-trained network.

    Args:
        job: A job whose recipe names one.
        folder: Where to look before the shipped checkpoints.

    Raises:
        UserError: There is none of that name, it isn't a dense one of the job's network, or the job's pruner begins at
            the initial weights.
    """
    name = job.recipe.parent
    file = next((place / f"{name}.json" for place in (folder, ZOO) if (place / f"{name}.json").is_file()), None)
    if file is None:
        raise UserError(
            f"{job.name}: there is no parent {name!r} in {str(folder)!r} or among the shipped checkpoints; allowed is "
            "the name of a dense checkpoint, without its ending."
        )
    card = load_card(file)
    if card.network != job.network or card.kept != card.weights or card.surgery:
        raise UserError(
            f"{job.name}: the parent {name!r} is refused: it is a {card.network} that keeps {card.kept:,} of "
            f"{card.weights:,} weights; it must be a dense {job.network}."
        )
    if job.from_scratch:
        raise UserError(
            f"{job.name}: {job.pruner} begins at the initial weights, so that a parent has no use; leave out "
            "parent, or choose another pruner."
        )
    return file.with_suffix(".safetensors")


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
        hear_step: Told of every step.
        stop: Asked after every epoch, with its seconds, whether to stop.
        unfit: Why nothing that is trained here may be published, or nothing.
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
        pretrained: Path | None = None,
    ) -> None:
        self.folder, self.work, self.dense = folder, work, pretrained or work
        self.train, self.val = train, val
        self.device, self.stop, self.unfit = device, stop, unfit
        self._report, self._hear_step = report, hear_step
        self._seconds: dict[str, tuple[int, float]] = {}
        self._history: History | None = None
        self._held_out: HeldOut | None = None

    def report(self, epoch: EpochReport) -> None:
        """Notes an epoch's throughput, writes its row into the history, and passes the report on."""
        images, seconds = self._seconds.get(epoch.stage, (0, 0.0))
        self._seconds[epoch.stage] = images + len(self.train), seconds + epoch.seconds
        if self._history is not None:
            self._history.add(epoch.row(self._history.key))
            epoch = replace(epoch, number=len(self._history.rows))
        self._report(epoch)

    @property
    def rows(self) -> Sequence[EpochRow]:
        """The history of the cell that is trained, or was trained last; while it is pre-trained, of that."""
        return () if self._history is None else self._history.rows

    def trainer(self, job: Job) -> Trainer:
        """Returns a trainer for a job's recipe and objective."""
        return Trainer(
            job.recipe,
            job.objective,
            self.train,
            self.device,
            self.report,
            stop=self.stop,
            val=self.val,
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

    def _data(self) -> dict[str, Any]:
        return {"data": self.train.fingerprint, "images": len(self.train)}

    def _parent(self, job: Job) -> dict[str, Any]:
        """Returns what tells one parent from another of its name."""
        return {"parent_sha256": load_card(parent_file(job, self.folder)).sha256} if job.recipe.parent else {}

    def _pretraining(self, job: Job) -> tuple[str, str]:
        """Returns the key of the network that is pre-trained for a job, and how its files' names begin."""
        key = digest({**job.pretraining(), **self._data()})
        return key, f"{job.network}_{job.objective}_{job.eps_text.replace('/', '-')}_s{job.seed}_{key[:12]}"

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
            recipe = job.recipe
            stage = Stage(
                "pretrain",
                recipe.pretrain_epochs,
                recipe.lr,
                job.eps * recipe.train_eps_factor,
                recipe.warmup_epochs,
                recipe.ramp_epochs,
            )
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
        self._held_out = HeldOut(self.val, job.eps, self.device, noisy=noisy)
        model = self.initial(job).to(self.device) if job.from_scratch else self.pretrained(job)
        started = time.perf_counter()
        recipe = job.recipe
        trainer = self.trainer(job if job.from_scratch else replace(job, recipe=recipe.finetuning()))
        key = digest({**job.pretraining(), **recipe.to_dict(), "cell": job.name, **self._data(), **self._parent(job)})
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
        if job.pruner != DENSE:
            trainer.estimate_statistics(model)
        # The same words for every pruner: the same batches in the same order.
        if train.left:
            train(model, train.left, name="finetune", masks=masks)
        if recipe.storage == "float16":
            round_to_half(model)
        with memory_errors(f"Measuring {job.name} on {self.device}"):
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
            throughput={stage: round(images / seconds) for stage, (images, seconds) in self._seconds.items()},
            unfit=self.unfit,
            surgery=pruned.surgery,
            data=dict(job.data),
            notes=train.notes,
        )
        train.clean()
        return card

    def _prune(self, job: Job, model: nn.Module, train: LentTraining) -> Altered:
        """Returns the pruner's network, which it may have trained, and masks."""
        if job.pruner == DENSE:
            return Altered(model, Masks.dense(model), {})
        prune = PRUNERS.get(job.pruner)
        lent: dict[str, Any] = {"allocation": job.allocation(model), "seed": job.seed, "train": train}
        settings = job.recipe.pruners.get(job.pruner, {})
        pruned = prune(model, job.compression, **keywords_of(prune, lent), **settings)
        return pruned if isinstance(pruned, Altered) else Altered(model, pruned, {})


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
