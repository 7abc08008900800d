from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.check import main
from prunecert.bench.leaderboard.check import check_tree
from prunecert.bench.leaderboard.entry import Entry
from prunecert.bench.leaderboard.runs import larger_runs
from prunecert.bench.results.stats import wilson
from tests.bench import boards

RESULTS = Path(__file__).parents[3] / "results"


def test_every_shipped_entry_has_its_thousand_images() -> None:
    good, _ = check_tree(RESULTS)
    runs, problems = larger_runs(RESULTS, good)
    assert problems == []
    # By itself, or by a summary.
    assert all((runs[name].images if name in runs else entry["data"]["images"]) == 1000 for name, entry in good.items())
    for name, run in runs.items():
        assert run.cell.name == good[name]["cell"]["name"]


@pytest.fixture
def entry() -> Entry:
    return boards.make()


def write(root: Path, entry: Entry, **changes: Any) -> Path:
    """Writes a results tree with a run over 200 images; names change fields of its cell, else of the run."""
    run = boards.larger(entry, 200)
    cell = run["cells"][0]
    for path, value in changes.items():
        *way, last = path.split("__")
        place: Any = cell if path.partition("__")[0] in cell else run
        for key in way:
            place = place[key]
        place[last] = value
    boards.write(root, entry)
    (root / "zoo").mkdir()
    (root / "zoo" / "run.json").write_text(json.dumps(run))
    return root


def fields(root: Path, entry: Entry) -> list[str]:
    runs, problems = larger_runs(root, {entry["name"]: entry})
    assert bool(runs) != bool(problems)
    return [problem.field.rpartition(entry["cell"]["name"] + ".")[2] for problem in problems]


def test_a_run_that_fits_its_entry_is_taken(tmp_path: Path, entry: Entry) -> None:
    root = write(tmp_path, entry)
    assert fields(root, entry) == []
    assert larger_runs(root, {entry["name"]: entry})[0][entry["name"]].result["clean"]["n"] == 200
    assert larger_runs(tmp_path / "elsewhere", {entry["name"]: entry}) == ({}, [])


def test_an_entry_on_the_images_that_are_ranked_stands_for_itself(
    tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's counts must fit it all the same."""
    monkeypatch.setattr("prunecert.bench.leaderboard.runs.RANKED_IMAGES", entry["data"]["images"])
    assert larger_runs(write(tmp_path / "fit", entry), {entry["name"]: entry}) == ({}, [])
    assert fields(write(tmp_path / "unfit", entry, undecided__total=199), entry) == ["undecided.total"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"verified__low": 0.0}, "verified.low"),
        ({"verified__k": 201}, "verified"),
        ({"clean__n": 100}, "clean"),
        ({"undecided__total": 199}, "undecided.total"),
        ({"finished": False}, "finished"),
        ({"images_asked": 500}, "finished"),
        ({"publishable": False, "unpublishable": ["a sample"]}, "publishable"),
        ({"schema_version": 99}, "file"),
    ],
)
def test_what_is_wrong_with_a_run_is_named(tmp_path: Path, entry: Entry, changes: dict[str, Any], field: str) -> None:
    assert field in fields(write(tmp_path, entry, **changes), entry)


def test_counts_that_the_entrys_answers_exclude_are_refused(
    tmp_path: Path, entry: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 200 images 60 are the entry's: no more can be verified than the rest and what the entry left unbroken."""
    most = entry["result"]["attacked"]["k"] + 140

    def share(k: int) -> dict[str, Any]:
        low, high = wilson(k, 200)
        return {"k": k, "n": 200, "value": k / 200, "low": low, "high": high}

    shares = {"clean": share(199), "verified": share(most + 1), "attacked": share(most + 1)}
    root = write(tmp_path, entry, **shares, undecided={"total": 0})
    assert fields(root, entry) == ["verified.k"]
    assert main([str(root)]) == 1
    printed = capsys.readouterr().out
    assert f"zoo/run.json: cells.{entry['cell']['name']}.verified.k: {most + 1} can't be" in printed
