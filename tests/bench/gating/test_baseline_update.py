from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.gating import baseline_file
from prunecert.bench.gating.baseline_update import check, entry, history_of
from prunecert.errors import UserError
from tests.bench import gatekit as kit


def test_a_run_that_must_not_be_published_is_taken_on_request_only(tmp_path: Path) -> None:
    run = replace(kit.snapshot(kit.cell(kit.PROVED)), unpublishable=("it is the sample",))
    with pytest.raises(UserError, match=r"not publishable \(it is the sample\)\. .*--allow-unpublishable"):
        check(run, Path("run"), allow_unpublishable=False, allow_errors=True)
    check(run, Path("run"), allow_unpublishable=True, allow_errors=False)
    baseline_file.write(tmp_path / "b.json", run)
    assert baseline_file.read(tmp_path / "b.json").unpublishable == ("it is the sample",)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"unfinished": (kit.NAME,)}, r"it is not complete \(" + kit.NAME),
        (
            {"contradictions": ({"cell": "c", "image": 4},)},
            r"1 contradiction between verifiers, first on c image 4",
        ),
    ],
)
def test_runs_that_are_no_yardstick_are_refused_whatever_is_allowed(changed: dict[str, Any], message: str) -> None:
    run = replace(kit.snapshot(kit.cell(kit.PROVED)), **changed)
    with pytest.raises(UserError, match=message):
        check(run, Path("run"), allow_unpublishable=True, allow_errors=True)


def test_failures_are_taken_on_request_only() -> None:
    run = kit.snapshot(kit.cell(kit.PROVED, kit.ERROR))
    with pytest.raises(UserError, match=rf"failed 1 time, first bab on {kit.NAME} image 1\..*--allow-errors"):
        check(run, Path("run"), allow_unpublishable=True, allow_errors=False)
    check(run, Path("run"), allow_unpublishable=False, allow_errors=True)


def test_a_run_without_images_is_no_yardstick() -> None:
    for run, word in ((kit.snapshot(kit.cell()), f"cell {kit.NAME}"), (kit.snapshot(), "the run")):
        with pytest.raises(UserError, match=f"{word} has no verified images"):
            check(run, Path("run"), allow_unpublishable=True, allow_errors=True)


def test_the_history_counts_what_the_cells_were() -> None:
    line = entry(kit.snapshot(kit.cell(kit.PROVED, kit.SEARCHED, kit.BROKEN, kit.TIMEOUT, kit.MISCLASSIFIED)), "why")
    cell = line.cells[kit.NAME]
    assert (line.reason, cell.n, cell.verified, cell.attacked, cell.clean) == ("why", 5, 2, 3, 4)


def test_the_history_of_a_baseline_is_its_own_suites_and_no_cell_goes_silently(tmp_path: Path) -> None:
    path, both = tmp_path / "b.json", kit.snapshot(kit.cell(kit.PROVED), kit.cell(kit.PROVED, name=kit.OTHER_NAME))
    assert history_of(path, both, drop_cells=False) == ()
    baseline_file.write(path, both)
    assert [line.reason for line in history_of(path, both, drop_cells=False)] == ["first"]
    fewer = kit.snapshot(kit.cell(kit.PROVED))
    with pytest.raises(UserError, match=rf"lacks 1 cells of .*{kit.OTHER_NAME}.*--drop-cells"):
        history_of(path, fewer, drop_cells=False)
    assert len(history_of(path, fewer, drop_cells=True)) == 1
    with pytest.raises(UserError, match=r"baseline of suite 'tiny', and the run is of 'own'"):
        history_of(path, kit.with_head(both, suite="own"), drop_cells=True)
