from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench import baseline
from prunecert.bench.gating import baseline_file
from prunecert.bench.gating.records import of_run
from prunecert.errors import UserError
from prunecert.hashing import digest
from tests.bench import gatekit as kit
from tests.bench.conftest import CELLS

Run = Callable[..., int]


def make(run: Path, out: Path, *more: str, reason: str = "the first") -> int:
    return baseline.main(["--run", str(run), "--out", str(out), "--reason", reason, *more])


@pytest.mark.slow
def test_a_baseline_is_made_and_updated_with_its_reasons(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "baselines" / "tiny.json"
    assert make(finished_run, out, reason="the  first\nrelease") == 0
    assert make(finished_run, out, reason="a new verifier") == 0
    printed = capsys.readouterr().out
    assert f"made {out}: the first release" in printed
    assert f"update 1 of {out}: a new verifier" in printed
    data = json.loads(out.read_text())
    assert [entry["reason"] for entry in data["history"]] == ["the first release", "a new verifier"]
    assert set(data["history"][0]["cells"]) == set(CELLS)
    cell = data["history"][0]["cells"][CELLS[0]]
    summary = json.loads((finished_run / "summary.json").read_text())["cells"][0]
    assert [cell[name] for name in ("verified", "attacked", "clean")] == [
        summary[name]["k"] for name in ("verified", "attacked", "clean")
    ]
    assert (cell["n"], cell["onnx_sha256"]) == (12, summary["onnx_sha256"])
    assert f"{CELLS[0]}: verified {cell['verified']}/12 → {cell['verified']}/12" in printed


@pytest.mark.slow
def test_what_is_read_is_what_was_written(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    make(finished_run, out)
    baseline_, run = baseline_file.read(out), of_run(finished_run)
    assert list(baseline_.cells) == list(run.cells)
    for name, cell in run.cells.items():
        assert baseline_.cells[name].info == cell.info
        assert baseline_.cells[name].stages == cell.stages
        for index, image in cell.images.items():
            other = baseline_.cells[name].images[index]
            assert (other.label, other.correct, other.question) == (image.label, image.correct, image.question)
            assert {v: a.status for v, a in other.answers.items()} == {v: a.status for v, a in image.answers.items()}
    # A line an image, and no folder of the machine.
    assert sum(line.startswith("[") for line in out.read_text().splitlines()) == 24
    assert str(finished_run.parent) not in out.read_text()
    assert baseline_file.to_json(baseline_) == json.loads(out.read_text())


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [("b.json", "  \n", "--reason is empty"), ("b.txt", "x", r"b\.txt is refused; the file's name must end in \.json")],
)
def test_bad_options_are_refused(finished_run: Path, tmp_path: Path, name: str, reason: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(finished_run, tmp_path / name, reason=reason)


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        make(tmp_path / "nothing", tmp_path / "b.json")


@pytest.mark.slow
def test_cells_are_dropped_on_purpose_only(finished_run: Path, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    make(finished_run, out)
    run(tmp_path / "one", "--images", "8", "--cells", CELLS[0])
    with pytest.raises(UserError, match=rf"lacks 1 cells of .*{CELLS[1]}.*--drop-cells"):
        make(tmp_path / "one", out)
    assert make(tmp_path / "one", out, "--drop-cells") == 0
    assert list(baseline_file.read(out).cells) == [CELLS[0]]


def test_another_suites_baseline_is_not_overwritten(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    baseline_file.write(out, kit.snapshot(kit.cell(kit.PROVED), suite="other"))
    with pytest.raises(UserError, match=r"it is the baseline of suite 'other', and the run is of 'tiny'"):
        make(finished_run, out)


# --- files that are refused ---


def rewrite(path: Path, **changed: Any) -> None:
    """Changes a baseline and gives it the digest that it needs."""
    data = {**json.loads(path.read_text()), **changed}
    del data["digest"]
    path.write_text(json.dumps({**data, "digest": digest(data)}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "b.json"
    baseline_file.write(path, kit.snapshot(kit.cell(kit.PROVED, kit.BROKEN)))
    return path


def test_a_changed_file_is_refused(file: Path) -> None:
    file.write_text(file.read_text().replace('"sat"', '"unsat"'))
    with pytest.raises(UserError, match="was changed after it was made"):
        baseline_file.read(file)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schema_version": 2}, r"schema version 2, newer than this program reads \(1\); upgrade"),
        ({"schema_version": "1"}, r"no valid schema_version \(found '1'\)"),
        ({"kind": "summary"}, "is no baseline"),
        (
            {"cells": [{"name": "c"}]},
            r"is damaged: field cells\[0\]: object missing required field `network`",
        ),
    ],
)
def test_other_files_are_refused(file: Path, changed: dict[str, Any], message: str) -> None:
    rewrite(file, **changed)
    with pytest.raises(UserError, match=message):
        baseline_file.read(file)


def test_unknown_statuses_are_refused(file: Path) -> None:
    cells = json.loads(file.read_text())["cells"]
    cells[0]["instances"][0][4][0] = "probably"
    rewrite(file, cells=cells)
    with pytest.raises(UserError, match="invalid enum value 'probably'"):
        baseline_file.read(file)


def test_no_file_and_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't be read .*make one with: prunecert baseline"):
        baseline_file.read(tmp_path / "none.json")
    (tmp_path / "list.json").write_text('{"kind": [1')
    with pytest.raises(UserError, match="is no JSON"):
        baseline_file.read(tmp_path / "list.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match="is no baseline"):
        baseline_file.read(tmp_path / "list.json")
