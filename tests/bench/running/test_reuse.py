from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.bench.planning.plan import box
from prunecert.bench.running import reuse
from prunecert.errors import UserError
from tests.bench.conftest import Zoo
from tests.bench.rowkit import documents
from tests.bench.test_run import summary

Run = Callable[..., int]
IMAGES = ("--images", "8", "--cells", "*dense*")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the figures, which take longest."""
    monkeypatch.setattr("prunecert.bench.report.figures.save", lambda summary, folder: [])
    monkeypatch.setattr("prunecert.bench.report.html.render", lambda *_: "")


def verdicts(out: Path) -> list[dict[str, Any]]:
    return documents(out, "verdict")


def edit(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    log = out / "instances.main.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    for row in rows:
        change(row)
    log.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


@pytest.mark.slow
def test_an_unchanged_network_is_not_asked_again(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(first, *IMAGES)
    assert run(second, *IMAGES, "--reuse", str(first)) == 0
    before = {row["id"]: row for row in verdicts(first)}
    after = {row["id"]: row for row in verdicts(second)}
    reused = {key for key, row in after.items() if "reused" in row}
    # A limit may be too short here and not there: those are asked again.
    assert reused == {key for key, row in before.items() if row["status"] != "timeout"}
    assert reused < set(after) == set(before)
    for key in reused:
        source = after[key].pop("reused")
        assert source == {"run": "first", "started": source["started"], "id": key}
        assert after[key] == before[key]
    for key in ("clean", "verified", "attacked", "undecided", "decided_by"):
        assert summary(first)["cells"][0][key] == summary(second)["cells"][0][key]


@pytest.mark.slow
def test_only_what_the_cascade_would_ask_is_taken_over(run: Run, zoo: Zoo, tmp_path: Path) -> None:
    everything = tmp_path / "all.yaml"
    everything.write_text(
        zoo.suite.read_text().replace("cross_check: [fake-bound]", "cross_check: [fake-bound, fake-complete]")
    )
    run(tmp_path / "all", *IMAGES, "--suite", str(everything))
    run(tmp_path / "plain", *IMAGES)
    run(tmp_path / "reused", *IMAGES, "--reuse", str(tmp_path / "all"))
    assert {row["id"] for row in verdicts(tmp_path / "reused")} == {row["id"] for row in verdicts(tmp_path / "plain")}
    assert len(verdicts(tmp_path / "all")) == 16


@pytest.mark.slow
def test_another_network_is_asked(run: Run, zoo: Zoo, tmp_path: Path) -> None:
    run(tmp_path / "first", *IMAGES)
    edit(tmp_path / "first", lambda row: row.update(key="0" * 20) if row["type"] == "verdict" else None)
    run(tmp_path / "second", *IMAGES, "--reuse", str(tmp_path / "first"))
    assert not any("reused" in row for row in verdicts(tmp_path / "second"))


def _as_if_at(out: Path, eps: str) -> None:
    """Rewrites a run as if its answers were about another radius."""
    keys: dict[str, str] = {}

    def change(row: dict[str, Any]) -> None:
        if row["type"] == "session":
            for cell in row["cells"]:
                cell["eps"] = eps
                for stage in cell["stages"]:
                    keys[stage["key"]] = stage["key"] = f"{eps}{stage['key']}"[:20]
        elif row["type"] == "verdict":
            row["key"] = keys.get(row["key"], f"{eps}{row['key']}"[:20])

    edit(out, change)


@pytest.mark.slow
@pytest.mark.parametrize(("eps", "settles"), [("8/255", True), ("1/255", False)])
def test_a_proof_over_a_larger_box_settles_a_smaller_one(run: Run, tmp_path: Path, eps: str, settles: bool) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(first, *IMAGES)
    _as_if_at(first, eps)
    run(second, *IMAGES, "--reuse", str(first))
    reused = [row for row in verdicts(second) if "reused" in row]
    proved = {(row["verifier"], row["image"]) for row in verdicts(first) if row["status"] == "unsat"}
    assert proved
    assert {(row["verifier"], row["image"]) for row in reused} == (proved if settles else set())
    for row in reused:
        assert row["status"] == "unsat"
        assert row["reused"]["eps"] == str(Fraction(eps))
        # Those bounds are of another question.
        assert "bounds" not in row


@pytest.mark.slow
@pytest.mark.parametrize(
    ("eps", "inside", "is_reused"), [("1/255", True, True), ("2/255", True, True), ("1/255", False, False)]
)
def test_a_counterexample_counts_by_replay_and_not_by_the_earlier_log(
    run: Run, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eps: str, inside: bool, is_reused: bool
) -> None:
    from prunecert.models.data import load

    first, second = tmp_path / "first", tmp_path / "second"
    run(first, *IMAGES)
    data = load("test", zoo.data)
    (first / "witnesses").mkdir()

    def broken(row: dict[str, Any]) -> None:
        if row["type"] == "verdict" and row["status"] == "unsat":
            lower, upper = box(data.images[row["image"]], Fraction(2, 255))
            np.save(first / "witnesses" / f"{row['id']}.npy", lower if inside else upper + 0.1)
            row.update(status="sat", witness=f"witnesses/{row['id']}.npy")

    edit(first, broken)
    claimed = [row for row in verdicts(first) if row["status"] == "sat"]
    assert claimed
    if eps != "2/255":
        _as_if_at(first, eps)
    # The untrained network is not broken really, so that the replay's outputs are made up; its box check is not.
    monkeypatch.setattr("prunecert.verifiers.base.OutputSpec.violated_by", lambda self, output: True)
    run(second, *IMAGES, "--reuse", str(first))
    reused = [row for row in verdicts(second) if row.get("reused") and row["status"] == "sat"]
    assert bool(reused) == is_reused
    for row in reused:
        assert (second / row["witness"]).is_file()
        assert row["witness_check"]["ok"]
    if eps != "2/255":
        return
    monkeypatch.undo()
    monkeypatch.setattr("signal.signal", lambda *_: None)
    third = tmp_path / "third"
    run(third, *IMAGES, "--reuse", str(first))
    assert not any(row["status"] == "sat" for row in verdicts(third))


@pytest.mark.slow
def test_runs_that_do_not_fit_are_refused(run: Run, tmp_path: Path) -> None:
    first = tmp_path / "first"
    run(first, "--images", "1", "--cells", "*dense*")
    with pytest.raises(UserError, match="no such directory"):
        run(tmp_path / "run", "--reuse", str(tmp_path / "nowhere"))
    other = tmp_path / "other"
    shutil.copytree(first, other)
    edit(other, lambda row: row["machine"].update(cpu="another") if row["type"] == "session" else None)
    with pytest.raises(UserError, match=r"other is refused: it was made on another machine or device \(another, "):
        run(tmp_path / "run", "--reuse", str(other))
    edit(other, lambda row: [c.update(timing={}) for c in row["cells"]] if row["type"] == "session" else None)
    with pytest.raises(UserError, match="it holds times of a timing suite, which are never taken over"):
        reuse.read_earlier([other], {}, "cpu")
