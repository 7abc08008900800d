from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from prunecert.bench.running.training_logs import TRACKERS, check_trackers, values_of
from prunecert.errors import UserError
from prunecert.models.history import HeldOutAccuracy
from prunecert.models.pipeline import Job
from prunecert.models.reports import EpochReport
from tests.bench.trainkit import SUITE, jobs

ACCURACY = HeldOutAccuracy(images=20, clean=0.5, pgd=0.25, seconds=1.0)
REPORT = EpochReport("pretrain", 1, 2, 1.5, 100.0, 3.0, 0.01, 1e-3, ACCURACY, number=7)
VALUES = {"loss": 1.5, "eps": 0.01, "lr": 1e-3, "images_per_s": 100.0, "held_out/clean": 0.5, "held_out/pgd": 0.25}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    file = tmp_path / "tiny.yaml"
    file.write_text(SUITE)
    return jobs(str(file))[0]


class Calls(list[tuple[Any, ...]]):
    """Notes what is called, in order."""

    def noting(self, name: str, result: Any = None) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.append((name, *args, options))
            return result

        return call


def test_what_is_told_is_what_the_history_has() -> None:
    assert values_of(REPORT) == VALUES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorbord", "Did you mean 'tensorboard'"),
        (",", "--log is empty; name some of tensorboard, wandb, mlflow"),
        ("wandb", r"--log wandb is refused: it isn't installed here .*; pip install wandb, or leave it out"),
        ("mlflow", r"pip install mlflow, or"),
        ("tensorboard", r"pip install tensorboard, or"),
    ],
)
def test_a_tracker_that_is_not_there_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    for tracker in TRACKERS.values():
        monkeypatch.setitem(sys.modules, tracker.module, None)
    with pytest.raises(UserError, match=message):
        check_trackers(text)
    assert check_trackers(None) == ()


def test_a_tracker_that_breaks_on_import_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TensorBoard does beside an older protobuf, whose error is none of an import."""
    (tmp_path / "mlflow.py").write_text("raise RuntimeError('gencode 6 runtime 5\\nsee elsewhere')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mlflow", raising=False)
    with pytest.raises(UserError, match=r"--log mlflow is refused: it doesn't work here \(gencode 6 runtime 5\);"):
        check_trackers("mlflow")


def test_several_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert check_trackers("mlflow, wandb,mlflow") == ("mlflow", "wandb")


def test_weights_and_biases_goes_on_in_the_same_run(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    run = SimpleNamespace(
        log=calls.noting("log"), finish=calls.noting("finish"), summary=SimpleNamespace(update=calls.noting("summary"))
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=calls.noting("init", run)))
    tracker = TRACKERS["wandb"](job, tmp_path / "logs")
    tracker.epoch(7, VALUES)
    tracker.end({"clean": 0.5}, finished=True)
    assert calls[0][-1]["id"] == calls[0][-1]["name"] == job.name
    assert calls[0][-1]["resume"] == "allow"
    assert calls[0][-1]["config"]["eps"] == "2/255"
    assert calls[1:] == [("log", {**VALUES, "epoch": 7}, {}), ("summary", {"final/clean": 0.5}, {}), ("finish", {})]


def test_mlflow_writes_beside_the_checkpoints_unless_told_otherwise(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()
    names = ("set_tracking_uri", "set_experiment", "start_run", "log_params", "log_metrics", "end_run")
    module: Any = SimpleNamespace(**{name: calls.noting(name) for name in names})
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = TRACKERS["mlflow"](job, tmp_path / "logs")
    tracker.epoch(7, VALUES)
    tracker.end({}, finished=False)
    assert calls[0] == ("set_tracking_uri", f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}", {})
    assert ("log_metrics", VALUES, {"step": 7}) in calls
    assert calls[-1] == ("end_run", "KILLED", {})
    # What no images were held out of is finished without accuracies.
    tracker.end({}, finished=True)
    assert calls[-1] == ("end_run", "FINISHED", {})
    assert not any(call[:2] == ("log_metrics", {}) for call in calls)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    calls.clear()
    TRACKERS["mlflow"](job, tmp_path / "logs")
    assert [call[0] for call in calls][:1] == ["set_experiment"]


def test_tensorboard_has_a_folder_a_cell(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            calls.append(("folder", folder))
            self.add_scalar, self.flush, self.close = (calls.noting(n) for n in ("add_scalar", "flush", "close"))

    module: Any = SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    tracker = TRACKERS["tensorboard"](job, tmp_path)
    tracker.epoch(7, VALUES)
    tracker.end({"clean": 0.5}, finished=True)
    assert calls[0] == ("folder", str(tmp_path / job.name))
    assert ("add_scalar", "held_out/clean", 0.5, 7, {}) in calls
    assert calls[-2:] == [("add_scalar", "final/clean", 0.5, 0, {}), ("close", {})]


def test_tensorboard_itself_reads_what_it_is_told(job: Job, tmp_path: Path) -> None:
    try:
        check_trackers("tensorboard")
    except UserError as error:
        pytest.skip(str(error))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = TRACKERS["tensorboard"](job, tmp_path)
    tracker.epoch(7, VALUES)
    tracker.end({"clean": 0.5}, finished=True)
    events = EventAccumulator(str(tmp_path / job.name))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(7, 1.5)]
