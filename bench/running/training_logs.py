"""Experiment trackers that are told of a training: TensorBoard, Weights & Biases, MLflow, each where it is installed.

An adapter each, imported when it is asked for; what a tracker is told is what the history has.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prunecert.errors import UserError, did_you_mean
from prunecert.onnx.io import first_line

if TYPE_CHECKING:
    from prunecert.models.pipeline import Job
    from prunecert.models.reports import EpochReport


class Tracker:
    """What a tracker does for one cell.

    Args:
        job: The cell.
        folder: Where its files go.
    """

    #: The module that must be importable, and what installs it.
    module: ClassVar[str]
    install: ClassVar[str]

    def __init__(self, job: Job, folder: Path) -> None:
        raise NotImplementedError

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Notes an epoch.

        Args:
            number: Its number in the cell, from 1, over all stages.
            values: What is known of it, by name.
        """
        raise NotImplementedError

    def end(self, accuracy: Mapping[str, float], *, finished: bool) -> None:
        """Notes what the finished network is worth, and closes the run; an unfinished one has no accuracy."""
        raise NotImplementedError


class TensorBoard(Tracker):
    """Event files for ``tensorboard --logdir``, in a folder of the cell's name; training that goes on adds one."""

    module, install = "torch.utils.tensorboard", "pip install tensorboard"

    def __init__(self, job: Job, folder: Path) -> None:
        tensorboard: Any = importlib.import_module(self.module)
        self._writer = tensorboard.SummaryWriter(str(folder / job.name))

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Notes an epoch."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def end(self, accuracy: Mapping[str, float], *, finished: bool) -> None:
        """Closes the event file."""
        for name, value in accuracy.items():
            self._writer.add_scalar(f"final/{name}", value, 0)
        self._writer.close()


class WeightsAndBiases(Tracker):
    """A run of Weights & Biases, which goes on where training does; WANDB_PROJECT and the like are heeded."""

    module, install = "wandb", "pip install wandb"

    def __init__(self, job: Job, folder: Path) -> None:
        wandb: Any = importlib.import_module("wandb")
        folder.mkdir(parents=True, exist_ok=True)
        project = os.environ.get("WANDB_PROJECT", "prunecert")
        self._run = wandb.init(
            project=project, name=job.name, id=job.name, resume="allow", dir=str(folder), config=_settings(job)
        )

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Notes an epoch."""
        self._run.log({**values, "epoch": number})

    def end(self, accuracy: Mapping[str, float], *, finished: bool) -> None:
        """Closes the run."""
        self._run.summary.update({f"final/{name}": value for name, value in accuracy.items()})
        self._run.finish()


class MLflow(Tracker):
    """A run of MLflow, in a database beside the checkpoints unless MLFLOW_TRACKING_URI says another place."""

    module, install = "mlflow", "pip install mlflow"

    def __init__(self, job: Job, folder: Path) -> None:
        self._mlflow: Any = importlib.import_module("mlflow")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            folder.mkdir(parents=True, exist_ok=True)
            self._mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').absolute()}")
        self._mlflow.set_experiment("prunecert")
        self._mlflow.start_run(run_name=job.name)
        self._mlflow.log_params(_settings(job))

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Notes an epoch."""
        self._mlflow.log_metrics(dict(values), step=number)

    def end(self, accuracy: Mapping[str, float], *, finished: bool) -> None:
        """Closes the run."""
        if accuracy:
            self._mlflow.log_metrics({f"final/{name}": value for name, value in accuracy.items()})
        self._mlflow.end_run("FINISHED" if finished else "KILLED")


TRACKERS: Mapping[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}


def check_trackers(text: str | None) -> tuple[str, ...]:
    """Returns the trackers that are named, with commas between; each is installed.

    Raises:
        UserError: A name is unknown, or not installed: it says what installs it.
    """
    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    if text is not None and not names:
        raise UserError(f"--log is empty; name some of {', '.join(TRACKERS)}.")
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--log: {did_you_mean('tracker', name, TRACKERS)}")
        try:
            importlib.import_module(TRACKERS[name].module)
        except Exception as error:
            # Where it is there, it may refuse the version of a package beside it, in any way.
            why = "it isn't installed here" if isinstance(error, ImportError) else "it doesn't work here"
            raise UserError(
                f"--log {name} is refused: {why} ({first_line(error)}); {TRACKERS[name].install}, or leave it out: the "
                "history is written anyway."
            ) from error
    return names


def _settings(job: Job) -> dict[str, Any]:
    """Returns what tells a cell from others, flat: trackers sort runs by it."""
    names = ("network", "objective", "pruner", "compression", "seed")
    recipe = {f"recipe.{key}": str(value) for key, value in job.recipe.to_dict().items()}
    return {**{name: getattr(job, name) for name in names}, "eps": job.eps_text, **recipe}


def values_of(report: EpochReport) -> dict[str, float]:
    """Returns what a tracker is told of an epoch."""
    values = {"loss": report.loss, "eps": report.eps, "lr": report.lr, "images_per_s": report.rate}
    if report.held_out is not None:
        shares = {name: getattr(report.held_out, name) for name in ("clean", "pgd", "ibp", "crown_ibp", "noisy")}
        values |= {f"held_out/{name}": share for name, share in shares.items() if share is not None}
    return values
