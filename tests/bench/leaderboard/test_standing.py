from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.leaderboard.entry import Entry, seal
from prunecert.bench.leaderboard.standing import one_for_each_cell, stand_ins
from prunecert.bench.retention import main
from tests.bench import boards


def started(entry: Entry, suite: str, when: str) -> Entry:
    """Returns an entry of another suite's run."""
    protocol: dict[str, Any] = {**entry["protocol"], "suite": suite, "started": when}
    return seal({**entry, "protocol": protocol})


def test_the_entry_with_most_images_stands_and_of_equals_the_latest() -> None:
    few = started(boards.make(images=100), "third", "2026-03-01T00:00:00Z")
    old = started(boards.make(images=200), "first", "2026-01-01T00:00:00Z")
    new = started(boards.make(images=200), "second", "2026-02-01T00:00:00Z")
    other = boards.make(images=100, seed=1)
    for order in ([few, old, new, other], [new, other, old, few]):
        standing = [entry for entry, _ in one_for_each_cell((entry, None) for entry in order)]
        assert [entry["name"] for entry in standing] == [e["name"] for e in order if e is new or e is other]
    # On other images it is another question.
    elsewhere = boards.make(images=100, source="SVHN")
    assert len(one_for_each_cell([(few, None), (elsewhere, None)])) == 2


def test_on_the_board_one_entry_stands_for_a_network_and_others_of_its_submitter_alone() -> None:
    old = boards.make(verifiers=("ibp",))
    new = started(boards.make(), "another", "2026-02-01T00:00:00Z")
    strangers = started(boards.make(by="a stranger"), "another", "2026-03-01T00:00:00Z")
    trained_anew = started(boards.make(), "third", "2026-03-01T00:00:00Z")
    trained_anew["files"] = {**trained_anew["files"], "onnx_sha256": "0" * 64}
    other_radius = boards.make(eps="1/255")
    assert stand_ins([old, new, strangers, trained_anew, other_radius]) == {old["name"]: new["name"]}
    assert stand_ins([]) == {}


def test_a_network_that_two_suites_verified_is_one_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [boards.make(pruner="dense", compression=1.0), boards.make(pruner="lwm", compression=10.0)]
    twice = [started(entry, "another", "2026-02-01T00:00:00Z") for entry in entries]
    root = boards.write(tmp_path, *entries, *twice)
    assert main([str(root), "--about", "methods"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith(("| dense", "| lwm"))]
    assert [row[3].strip() for row in rows[:2]] == ["1", "1"]
    assert main([str(root), "--about", "networks"]) == 0
    table = capsys.readouterr().out.split("**Costs**")[0]
    assert [table.count(f"| {pruner} |") for pruner in ("dense", "lwm")] == [1, 1]


def test_controls_are_those_of_the_seeds_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [boards.make("dense", 1.0, seed=seed) for seed in (0, 1)]
    entries += [boards.make("lwm", 10.0, seed=seed) for seed in (0, 1)]
    root = boards.write(tmp_path, *entries, boards.make("hydra", 10.0))
    assert main([str(root), "--about", "methods", "--cells", "*_hydra_x10_s0"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith(("| dense", "| lwm"))]
    assert [row[3].strip() for row in rows[:2]] == ["1", "1"]
