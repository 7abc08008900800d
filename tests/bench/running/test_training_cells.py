from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from torch import nn

import prunecert.models.data
import prunecert.models.pipeline
from prunecert.bench.running import training_cells
from prunecert.bench.running.training import plan
from prunecert.bench.running.training_cells import TrainingRequest, train_cells
from prunecert.bench.schema.suite import available_suites, load_suite
from prunecert.errors import UserError
from prunecert.models.building import build_for
from prunecert.models.checkpoint import load_card
from prunecert.models.data import Dataset
from prunecert.models.history import read_history
from prunecert.models.pipeline import Job, exclusive
from tests.bench.trainkit import SUITE
from tests.models.conftest import blobs

#: Suites of networks of millions of weights.
LARGE = ("cifar10-ap", "cifar10-attacked", "cifar10-smoothing")
CELL = "cnn-small_natural_eps2_lwm_x10_s0"


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def load(split: str, *_: Any, **__: Any) -> Dataset:
        return blobs(60 if split == "train" else 20, split)

    monkeypatch.setattr(prunecert.models.data, "load", load)
    file = tmp_path / "tiny.yaml"
    file.write_text(SUITE)

    def make(**options: Any) -> TrainingRequest:
        defaults = {"suite": load_suite(str(file)), "named": str(file), "cells": CELL, "out": tmp_path / "zoo"}
        return TrainingRequest(**{**defaults, **options})

    return make


def test_a_dry_run_says_how_long_it_takes_and_touches_nothing(request_of: Any, tmp_path: Path) -> None:
    lines: list[str] = []
    train_cells(request_of(dry_run=True), lines.append)
    assert lines[0] == "1 cells, 0 trained already, 1 to train."
    assert lines[1].startswith(f"  {CELL}: 2 + 2 epochs, ")
    assert not (tmp_path / "zoo").exists()
    text = SUITE.replace("objectives: [natural]", "objectives: [ibp]").replace("default: {", "default: {lr: 0.001, ")
    (tmp_path / "ibp.yaml").write_text(text)
    suite = load_suite(str(tmp_path / "ibp.yaml"))
    train_cells(request_of(dry_run=True, suite=suite, cells="*_dense_x1_s0"), lines.append)
    assert lines[-1].startswith("  All: about "), "shipped checkpoints say how fast cnn-small is trained by IBP"


@pytest.mark.parametrize(
    ("old", "new", "cell", "message"),
    [
        ("pruners: [lwm, ", "pruners: [lwm-2of4, lwm, ", "*lwm-2of4_x1.5_s0", "allowed is a compression of at least 2"),
        ("default: {", "default: {allocation: 2of4, ", "*drop-grow_x10_s0", "this pruner keeps to no pattern"),
        ("default: {", "default: {parent: nobody, ", "*lwm_x10_s0", "there is no parent 'nobody'"),
        ("default: {", 'default: {parent: "nobody_s{seed}", ', "*lwm_x10_s0", "there is no parent 'nobody_s0'"),
    ],
)
def test_a_dry_run_refuses_what_training_would(
    request_of: Any, tmp_path: Path, old: str, new: str, cell: str, message: str
) -> None:
    (tmp_path / "odd.yaml").write_text(SUITE.replace(old, new).replace("[1, 2, 10]", "[1, 1.5, 10]"))
    with pytest.raises(UserError, match=message):
        train_cells(request_of(dry_run=True, suite=load_suite(str(tmp_path / "odd.yaml")), cells=cell))


def test_training_never_sees_a_test_image(request_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that noise in the place of the test set changes no choice: nobody asks for it."""
    loaded: list[str] = []

    def load(split: str, *_: Any, **__: Any) -> Dataset:
        loaded.append(split)
        return blobs(60 if split == "train" else 20, split)

    monkeypatch.setattr(prunecert.models.data, "load", load)
    train_cells(request_of(), lambda _: None)
    assert sorted(loaded) == ["train", "val"]


#: Cells that begin at the dense network of their seed, which stands behind them.
WITH_PARENTS = (
    SUITE.replace("pruners: [lwm, drop-grow]", "pruners: [lwm]")
    .replace("cnn-small:", 'cnn-small/natural/2x: {parent: "cnn-small_natural_eps2_dense_x1_s{seed}"}\n  cnn-small:')
    .replace("[1, 2, 10]", "[2, 1]")
)


def test_a_cell_that_others_begin_with_is_trained_before_them(request_of: Any, tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(WITH_PARENTS)
    suite = load_suite(str(tmp_path / "parents.yaml"))
    lines: list[str] = []
    train_cells(request_of(suite=suite, cells="*_s1"), lines.append)
    assert "The parent is cnn-small_natural_eps2_dense_x1_s1, which is trained first." in lines
    dense, pruned = (load_card(tmp_path / "zoo" / f"cnn-small_natural_eps2_{end}_s1") for end in ("dense_x1", "lwm_x2"))
    assert pruned.recipe["parent"] == dense.name
    assert pruned.parent_sha256 == dense.sha256
    # What is trained already is a file, of which no more is said than which.
    lines.clear()
    train_cells(request_of(suite=suite, cells="*lwm*_s1", force=True, dry_run=True), lines.append)
    assert f"The parent is {tmp_path / 'zoo' / dense.name}.safetensors." in lines


def test_what_begins_at_a_network_that_another_process_trains_is_left_to_it(request_of: Any, tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(WITH_PARENTS)
    suite = load_suite(str(tmp_path / "parents.yaml"))
    lines: list[str] = []
    with exclusive(tmp_path / "zoo" / ".work" / "cnn-small_natural_eps2_dense_x1_s0.lock", wait=False):
        train_cells(request_of(suite=suite, cells="*_s0"), lines.append)
    assert "cnn-small_natural_eps2_dense_x1_s0: another process is training it; left to it." in lines
    assert "cnn-small_natural_eps2_lwm_x2_s0: another process is training its parent; left to it." in lines
    assert not list((tmp_path / "zoo").glob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", available_suites())
def test_no_cell_of_a_shipped_suite_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is rehearsed as by --dry-run, one of its seeds (of large networks the largest compression)."""
    built: dict[str, nn.Module] = {}

    def build(network: str, data: Mapping[str, Any]) -> nn.Module:
        key = f"{network} {sorted(data.items())}"
        if key not in built:
            built[key] = build_for(network, data)
        return copy.deepcopy(built[key])

    monkeypatch.setattr(prunecert.models.pipeline, "build_for", build)
    jobs: dict[tuple[str, ...], Job] = {}
    for job in plan(load_suite(name), None, name):
        way = (job.network, job.objective, job.pruner, repr(job.recipe.to_dict()))
        if name not in LARGE or way not in jobs or jobs[way].compression < job.compression:
            jobs[way if name in LARGE else (*way, str(job.compression))] = job
    assert jobs
    for job in jobs.values():
        job.refuse_unreachable()


@pytest.mark.draws
@pytest.mark.slow
def test_history_figure_and_trackers_tell_of_every_epoch(
    request_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    class Tracker:
        def __init__(self, job: Any, folder: Path) -> None:
            calls.append((job.name, folder.name))

        def epoch(self, number: int, values: dict[str, float]) -> None:
            calls.append((number, values["loss"]))

        def end(self, accuracy: dict[str, float], *, finished: bool) -> None:
            assert finished == bool(accuracy)
            calls.append(("end", sorted(accuracy)))

    monkeypatch.setattr(training_cells, "TRACKERS", {"noting": Tracker})
    monkeypatch.setattr(training_cells, "cores", lambda: 0)
    lines: list[str] = []
    train_cells(request_of(trackers=("noting",)), lines.append)
    rows = read_history(tmp_path / "zoo" / f"{CELL}.history.jsonl")
    assert [(row.stage, row.epoch) for row in rows] == [
        ("pretrain", 1),
        ("pretrain", 2),
        ("finetune", 1),
        ("finetune", 2),
    ]
    assert calls == [
        (CELL, "noting"),
        *((number, row.loss) for number, row in enumerate(rows, 1)),
        ("end", ["clean", "crown_ibp", "ibp", "pgd"]),
    ]
    root = ElementTree.parse(tmp_path / "zoo" / f"{CELL}.history.svg").getroot()
    assert root.tag.endswith("svg")
    assert any(line.startswith("hint: ") for line in lines)
    assert any(line.startswith(f"{CELL}: kept ") for line in lines)
    suite, zoo = tmp_path / "tiny.yaml", tmp_path / "zoo"
    command = f"prunecert run --suite {suite} --checkpoints {zoo}"
    assert lines[-1] == f"checkpoints are in {zoo}; to verify them: {command}"


@pytest.mark.slow
def test_a_training_that_is_stopped_leaves_its_history_and_ends_its_trackers(
    request_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[dict[str, float], bool]] = []
    epochs: list[int] = []

    def stop(number: int, _: object) -> None:
        epochs.append(number)
        if number == 3:
            raise KeyboardInterrupt

    tracker = SimpleNamespace(epoch=stop, end=lambda accuracy, *, finished: ends.append((accuracy, finished)))
    monkeypatch.setattr(training_cells, "TRACKERS", {"stopping": lambda *_: tracker})
    with pytest.raises(KeyboardInterrupt):
        train_cells(request_of(trackers=("stopping",)), lambda _: None)
    assert ends == [({}, False)]
    path = tmp_path / "zoo" / f"{CELL}.history.jsonl"
    assert [(row.stage, row.epoch) for row in read_history(path)][-1] == ("finetune", 1)
    assert path.with_suffix(".svg").exists()
    train_cells(request_of(), lambda _: None)
    whole = [("pretrain", 1), ("pretrain", 2), ("finetune", 1), ("finetune", 2)]
    assert [(row.stage, row.epoch) for row in read_history(path)] == whole
