from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.results.store import Writer
from prunecert.bench.running import resources
from prunecert.bench.running.asking import OpenRun, ask_all
from prunecert.bench.running.cascade import Batch, CellCascade
from prunecert.bench.running.recording import read_done
from prunecert.bench.running.request import RunRequest
from prunecert.bench.schema.suite import load_suite
from prunecert.verifiers.base import Status, Verdict
from tests.bench.conftest import SUITE
from tests.bench.rowkit import documents, typed
from tests.bench.timekit import plan, stage


class Executor:
    """Answers everything in this process, and keeps what it was told."""

    options: dict[str, Any]

    def __init__(
        self, plans: Sequence[CellPlan], cascades: Sequence[CellCascade], answered: Callable[..., None], **options: Any
    ) -> None:
        self.plans, self.cascades, self.answered = plans, cascades, answered
        Executor.options = options

    def run(self) -> None:
        ready = [batch for cascade in self.cascades for batch in cascade.release()]
        while ready:
            batch: Batch = ready.pop()
            instances = [self.plans[batch.cell].instance(position, batch.stage) for position in batch.positions]
            verdicts = [Verdict(Status.UNSAT if batch.stage else Status.UNKNOWN) for _ in instances]
            self.answered(batch, instances, verdicts)
            ready += self.cascades[batch.cell].record(batch, [verdict.status for verdict in verdicts])


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunecert.bench.running.local.LocalExecutor", Executor)
    monkeypatch.setattr(
        "prunecert.verifiers.formats.counterexample.outputs",
        lambda path, images: np.eye(10, dtype=np.float32)[np.zeros(len(images), dtype=int)],
    )


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    (tmp_path / "tiny.yaml").write_text(SUITE)
    return RunRequest(suite=load_suite(str(tmp_path / "tiny.yaml")), pinned=False)


def cells() -> list[CellPlan]:
    plans = [plan(ratio, [stage("fake-bound", 2), stage("fake-complete", 1)], 5) for ratio in (1, 10)]
    pixels = np.random.default_rng(0).random(plans[0].data.images.shape, dtype=np.float32)
    return [replace(one, data=replace(one.data, images=pixels)) for one in plans]


def ask(request: RunRequest, out: Path) -> list[dict[str, Any]]:
    """Asks everything that has no answer in a run yet; returns its verdicts."""
    answers = read_done(out, frozenset())[0]
    with Writer(out) as writer:
        writer.append(typed({"type": "session"}))
        ask_all(cells(), OpenRun(request, writer, answers, 1, Console(file=io.StringIO())))
    return documents(out, "verdict")


def test_every_stage_of_every_image_is_in_the_log_once(request_: RunRequest, tmp_path: Path) -> None:
    rows = ask(request_, tmp_path / "run")
    assert len(rows) == len({row["id"] for row in rows}) == 2 * 2 * 5
    assert {(row["cell"], row["image"]) for row in rows} == {(one.name, 3 * i) for one in cells() for i in range(5)}
    assert {row["status"] for row in rows if row["verifier"] == "fake-complete"} == {"unsat"}


def test_what_is_answered_is_not_asked_again(request_: RunRequest, tmp_path: Path) -> None:
    rows = ask(request_, tmp_path / "run")
    assert ask(request_, tmp_path / "run") == rows


def test_parts_of_a_run_have_logs_of_their_own(request_: RunRequest, tmp_path: Path) -> None:
    rows = []
    for number in (1, 2):
        rows += ask(replace(request_, shard=(number, 2)), tmp_path / f"part{number}")
        assert Executor.options["log_dir"].name == f"shard-{number}-of-2"
        assert Executor.options["log_dir"].is_dir()
    assert {row["id"] for row in rows} == {row["id"] for row in ask(request_, tmp_path / "whole")}


def test_several_devices_are_shared_out(request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "share_out", lambda devices, workers: list(devices))
    ask(replace(request_, device="cuda:0,cuda:1"), tmp_path / "run")
    assert Executor.options["devices"] == ["cuda:0", "cuda:1"]
    ask(request_, tmp_path / "other")
    assert Executor.options["devices"] is None
    assert Executor.options["cores"] is None
