"""A suite's cell over l2 balls: the cascade gets to `sparse-bab`, and branch and bound decides."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunecert.bench import run
from prunecert.errors import UserError
from prunecert.models import NETWORKS, PRUNERS
from prunecert.models.checkpoint import save
from prunecert.models.datasets.reading import Part, Pixels
from tests.bench.cardkit import UNTRAINED
from tests.bench.rowkit import documents

SHAPE, CELL = (1, 8, 8), "cnn-small_ibp_eps2_lwm_x10_s0"
#: At the first radius one walk proves it; at the second, bounds leave it open, and so do optimised slopes.
EASY, HARD = "2/5", "1"
SUITE = f"""\
name: balls
description: l2 balls of an untrained network
data: {{name: tiny, shape: [1, 8, 8], classes: 10, reader: 'tests.bench.test_balls:pixels'}}
cells:
  - networks: [cnn-small]
    objectives: [ibp]
    trained_eps: 2/255
    norm: l2
    eps: ["{EASY}", "{HARD}"]
    pruners: [lwm]
    compression: [10]
verify:
  images: 2
  cascade: [sparse-crown, sparse-bab]
  timeouts: {{sparse-crown: 60, sparse-bab: 60}}
"""


def pixels(part: Part, root: Path | None = None, *, download: bool = False) -> Pixels:
    """Returns two images with the network's own classes; see `prunecert.models.datasets.source`."""
    images = np.random.default_rng(3).random((2, *SHAPE), dtype=np.float32)
    model, _ = network()
    with torch.no_grad():
        labels = model(torch.from_numpy(images)).argmax(1).numpy()
    return Pixels(images, labels, "made up")


def network() -> tuple[torch.nn.Module, Any]:
    """Returns `cnn-small`, its numbers enlarged so that it bends, and its masks."""
    torch.manual_seed(0)
    model = NETWORKS.get("cnn-small")(SHAPE, 10).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.2)
    masks = PRUNERS.get("lwm")(model, 10.0)
    masks.apply_(model)
    return model, masks


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    model, masks = network()
    card: dict[str, Any] = {
        **UNTRAINED,
        "command": "none",
        "data": {"name": "tiny", "shape": list(SHAPE), "classes": 10},
    }
    save(tmp_path / "nets", model, masks, name=CELL, pruner="lwm", compression=10.0, **card)
    path = tmp_path / "balls.yaml"
    path.write_text(SUITE)
    return path


def test_certificates_of_balls_are_refused_before_anything_runs(suite: Path, tmp_path: Path) -> None:
    words = ["--suite", str(suite), "--checkpoints", str(tmp_path / "nets"), "--out", str(tmp_path / "run")]
    with pytest.raises(UserError, match="--certificates is refused: all of these cells are verified over l2 balls"):
        run.main([*words, "--certificates", "--dry-run"])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_bounds_leave_open_is_split_until_it_is_proved(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command takes SIGTERM for Ctrl-C; pytest must not keep that.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    out = tmp_path / "run"
    options = {"--suite": suite, "--checkpoints": tmp_path / "nets", "--exports": tmp_path / "exports", "--out": out}
    words = [word for key, value in options.items() for word in (key, str(value))]
    assert run.main([*words, "--workers", "1", "--data-root", str(tmp_path)]) == 0
    rows = documents(out, "verdict")
    cells = sorted({row["cell"] for row in rows})
    assert len(cells) == 2
    by_cell = {cell: [row for row in rows if row["cell"] == cell] for cell in cells}
    easy, hard = sorted(by_cell.values(), key=len)
    assert [(row["verifier"], row["status"], row.get("stage")) for row in easy] == [
        ("sparse-crown", "unsat", "incomplete")
    ] * 2
    answers = [(row["verifier"], row["status"], row.get("stage")) for row in hard]
    assert sorted(answers) == [("sparse-bab", "unsat", "bab")] * 2 + [("sparse-crown", "unknown", None)] * 2
    assert all(row["domains"] > 1 for row in hard if row["verifier"] == "sparse-bab")
    summary = json.loads((out / "summary.json").read_text())
    assert [cell["verified"]["k"] for cell in summary["cells"]] == [2, 2]
    assert not summary["contradictions"]
