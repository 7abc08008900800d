from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunecert.models import pipeline
from prunecert.models.data import Dataset
from prunecert.models.held_out import HeldOut, untouched
from prunecert.models.history import history_file, read_history
from prunecert.models.pipeline import Pipeline
from prunecert.models.reports import EpochReport
from tests.models.conftest import blobs
from tests.models.training_kit import job


def noisy_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(3600, 10)
    )


def test_looking_leaves_no_trace() -> None:
    model = noisy_net().train()
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(7)
    np.random.seed(7)
    accuracy = HeldOut(blobs(30, "val", 1), 2 / 255, "cpu").measure(model)
    assert accuracy.images == 30
    assert accuracy.pgd is not None
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.rand(3), expected[1])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model] == [True, True, True, False, True, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_modes_come_back_after_an_error() -> None:
    model = noisy_net().train()

    def look() -> None:
        with untouched(model, "cpu"):
            model.eval()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look()
    assert model.training


class Clock:
    """Seconds that measuring takes, as the clock would say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: float) -> None:
        self.now, self.cost = 0.0, cost
        monkeypatch.setattr("prunecert.models.held_out.time.perf_counter", self)

    def __call__(self) -> float:
        self.now += self.cost
        return self.now


@pytest.mark.parametrize(("cost", "epochs"), [(0.1, 1), (1.0, 4), (40.0, 134)])
def test_measuring_takes_three_per_cent_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch, cost: float, epochs: int
) -> None:
    Clock(monkeypatch, cost)
    accuracies = {"images": 2, "clean": 0.5, "pgd": 0.5, "ibp": 0.0, "crown_ibp": 0.5}
    monkeypatch.setattr("prunecert.models.held_out.evaluate", lambda *_, **__: dict(accuracies))
    held_out = HeldOut(blobs(2, "val", 1), 2 / 255, "cpu")
    model = nn.Identity()
    measured = [number for number in range(300) if held_out.after_epoch(model, 10.0, 1000.0) is not None]
    # The first one is taken on trust; from then on its price is known.
    assert measured[0] == 0
    assert all(cost * (i + 1) <= 0.03 * 10.0 * (number + 1) for i, number in enumerate(measured[1:], 1))
    assert measured[1] - measured[0] >= epochs


def test_a_short_training_is_not_measured_at_all() -> None:
    held_out = HeldOut(blobs(200, "val", 1), 2 / 255, "cpu")
    assert held_out.after_epoch(nn.Identity(), 0.01, 1000.0) is None
    nobody = Dataset(**{**vars(blobs(1)), "images": np.zeros((0, 3, 32, 32), np.float32), "labels": np.zeros(0, int)})
    assert HeldOut(nobody, 2 / 255, "cpu").after_epoch(nn.Identity(), 1e9, 1000.0) is None


def test_images_are_spread_over_the_split() -> None:
    data = blobs(100, "val", 1)
    assert list(HeldOut(data, 0.1, "cpu", images=4).data.indices) == [data.indices[i] for i in (0, 33, 66, 99)]
    assert len(HeldOut(data, 0.1, "cpu", images=1000).data) == 100


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "pruner"), [("crown-ibp", "hydra"), ("pgd", "lwm")])
def test_a_checkpoint_is_the_same_bit_by_bit_whether_anybody_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, pruner: str
) -> None:
    cards = {}
    options: dict[str, Any] = {"augment": True, "average": 0.9}
    cell = job(pruner, 10.0, objective=objective, **options)
    for name, share in (("unseen", -1.0), ("seen", 1e9)):
        monkeypatch.setattr(pipeline, "HeldOut", partial(HeldOut, share=share, images=10))
        reports: list[EpochReport] = []
        line = Pipeline(
            tmp_path / name, tmp_path / name / ".work", blobs(40), blobs(20, "val", 1), "cpu", reports.append
        )
        cards[name] = line.run(cell)
        assert all((report.held_out is not None) == (name == "seen") for report in reports)
        rows = read_history(history_file(tmp_path / name / cell.name))
        assert [(one.stage, one.epoch) for one in rows] == [(one.stage, one.epoch) for one in reports]
        assert [one.number for one in reports] == list(range(1, len(reports) + 1))
    assert cards["seen"].sha256 == cards["unseen"].sha256
