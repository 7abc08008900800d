"""One table, whatever a folder holds: checkpoints, a run or entries."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prunecert.bench.impact.kept import cells_of_suite, kept_accuracies
from prunecert.bench.results.store import Writer
from prunecert.errors import UserError
from prunecert.models.checkpoint import ZOO
from tests.bench import summarykit
from tests.bench.rowkit import all_typed

ENTRIES = Path(__file__).parents[3] / "results"


def test_checkpoints_have_cards_and_verified_networks_have_intervals(tmp_path: Path) -> None:
    checkpoints, run = tmp_path / "checkpoints", tmp_path / "run"
    checkpoints.mkdir()
    for file in ZOO.glob("cnn-small_ibp_eps2_dense_x1_s0.*"):
        shutil.copy(file, checkpoints)
    with Writer(run) as writer:
        writer.append(*all_typed([summarykit.session(summarykit.cell(images=6)), *summarykit.everything()]))
    assert "CROWN-IBP %" in kept_accuracies(checkpoints, None, None)
    for source in (run, ENTRIES):
        table = kept_accuracies(source, {1.0}, None)
        assert "verified % (95 %)" in table
        assert "| cnn-small, ibp, 2/255, 0 | dense | 1 |" in table


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        kept_accuracies(tmp_path / "none", None, None)
    with pytest.raises(UserError, match=r"no checkpoints .*, no run and no leaderboard entries"):
        kept_accuracies(tmp_path, None, None)
    with pytest.raises(UserError, match="no finished network of those asked for"):
        kept_accuracies(ENTRIES, {3.0}, None)


def test_a_suite_chooses_its_cells() -> None:
    only = cells_of_suite("cifar10-4nets")
    assert only is not None
    table = kept_accuracies(ENTRIES, {10.0}, "cnn-small_ibp*_s0", only)
    assert [row.split("|")[2].strip() for row in table.splitlines()[2:]] == ["lwm", "lwm-iterative", "hydra"]
    cards = kept_accuracies(None, {10.0}, "cnn-small_ibp*_s0", only)
    assert [row.split("|")[2].strip() for row in cards.splitlines()[2:]] == ["lwm", "lwm-iterative", "hydra"]
    assert cells_of_suite(None) is None
    with pytest.raises(UserError, match="Did you mean 'cifar10-4nets'"):
        cells_of_suite("cifar10-4net")
    with pytest.raises(UserError, match="no finished network of those asked for"):
        kept_accuracies(ENTRIES, None, None, frozenset())
