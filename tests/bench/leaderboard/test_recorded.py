"""What is recorded of networks reads the same of a run, of its summary and of entries; what is none is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prunecert.bench.leaderboard.recorded import recorded_cells, recorded_networks
from prunecert.bench.results.store import Writer
from prunecert.bench.results.summary import summarise
from prunecert.errors import UserError
from tests.bench import summarykit
from tests.bench.report.test_kept_accuracies import cell, summary_data
from tests.bench.rowkit import all_typed

LEADERBOARD = Path(__file__).parents[3] / "results" / "leaderboard"
NAME = "cnn-small_ibp_eps2_lwm_x10_s0"


def test_a_run_and_its_summary_have_the_same_cells(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.append(*all_typed([summarykit.session(summarykit.cell(images=6)), *summarykit.everything()]))
    of_run = recorded_cells(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps(summarise(tmp_path)))
    assert [one.images for one in of_run] == [6]
    assert recorded_cells(tmp_path) == recorded_cells(tmp_path / "summary.json") == of_run


def test_a_network_that_two_suites_verified_is_there_once(tmp_path: Path) -> None:
    (tmp_path / "leaderboard").mkdir()
    files = list(LEADERBOARD.glob(f"{NAME}.*.json"))
    assert len({json.loads(file.read_text())["protocol"]["suite"] for file in files}) > 1
    for file in files:
        shutil.copy(file, tmp_path / "leaderboard")
    (one,) = recorded_cells(tmp_path)
    result = json.loads(files[0].read_text())["result"]
    assert (one.name, one.images, one.clean.k) == (NAME, 1000, result["clean"]["k"])
    assert recorded_cells(tmp_path / "leaderboard") == [one]


def test_entries_say_how_long_their_networks_were_trained_with_their_parents(tmp_path: Path) -> None:
    (tmp_path / "leaderboard").mkdir()
    family = "cnn-small_mtl-ibp_eps2"
    for member in ("dense_x1_s0", "lwm_x100_s0", "lwm-iterative_x100_s0"):
        (file,) = LEADERBOARD.glob(f"{family}_{member}.*.json")
        shutil.copy(file, tmp_path / "leaderboard")
    epochs = {network.cell.pruner: network.epochs for network in recorded_networks(tmp_path)}
    assert epochs == {"dense": 180, "lwm": 180, "lwm-iterative": 220}
    # Without its parent's entry nobody knows how long a network was trained.
    next((tmp_path / "leaderboard").glob("*dense*")).unlink()
    epochs = {network.cell.pruner: network.epochs for network in recorded_networks(tmp_path)}
    assert epochs == {"lwm": 180, "lwm-iterative": None}


def test_an_entry_with_a_field_of_another_type_is_refused(tmp_path: Path) -> None:
    entry = json.loads(next(LEADERBOARD.glob(f"{NAME}.*.json")).read_text())
    (tmp_path / "odd.json").write_text(json.dumps({**entry, "verdicts": 3}))
    with pytest.raises(UserError, match="verdicts"):
        recorded_cells(tmp_path)


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert recorded_cells(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "is no JSON"),
        ("[]", "is no summary"),
        ('{"kind": "gate"}', "is no run's summary"),
        ('{"kind": "summary", "cells": []}', "is damaged: object missing required field `schema_version`"),
        (json.dumps({**summary_data(), "schema_version": 2}), "newer than this program reads .*upgrade"),
        (
            json.dumps(summary_data(cell(verified="13"))),
            r"field cells\[0\]\.verified: it must be of type object",
        ),
        (json.dumps(summary_data(cell(undecided="0"))), r"field cells\[0\]\.undecided: it must be of type object, not"),
        ('{"kind": "summary", "cells": ' + 5000 * "[" + 5000 * "]" + "}", "deep in each other"),
        ('{"kind": "summary", "cells": NaN}', "is no JSON"),
    ],
)
def test_what_is_no_summary_is_refused(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError, match=match):
        recorded_cells(path)
