from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from prunecert.bench.gating import baseline_file
from prunecert.errors import UserError
from prunecert.hashing import digest
from tests.bench import gatekit as kit
from tests.bench.gatekit import Answers, snapshot

Change = Callable[[dict[str, Any]], object]


@given(kit.images)
def test_what_is_read_is_what_was_written_to_four_digits(images: list[Answers | None]) -> None:
    cell = kit.cell(*images)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deep" / "baseline.json"
        baseline_file.write(path, snapshot(cell))
        copy = baseline_file.read(path)
        assert baseline_file.to_json(copy) == json.loads(path.read_text())
    (read_cell,) = copy.cells.values()
    assert read_cell.info == cell.info
    assert read_cell.stages == cell.stages
    for index, image in cell.images.items():
        other = read_cell.images[index]
        assert (other.label, other.correct, other.question) == (image.label, image.correct, image.question)
        assert {name: answer.status for name, answer in other.answers.items()} == {
            name: answer.status for name, answer in image.answers.items()
        }
        for name, answer in image.answers.items():
            assert other.answers[name].seconds == pytest.approx(answer.seconds, rel=1e-3)


def test_no_folder_of_the_machine_is_published_and_an_image_has_a_line(tmp_path: Path) -> None:
    base = kit.with_head(snapshot(kit.cell(kit.PROVED, kit.BROKEN)), command=["python", "-m", "/home/me/run", "--x"])
    baseline_file.write(tmp_path / "b.json", base)
    text = (tmp_path / "b.json").read_text()
    assert "/home/me" not in text
    assert json.loads(text)["command"][2] == "…/run"
    lines = [line for line in text.splitlines() if line.startswith("[")]
    assert len(lines) == 2
    assert json.loads(lines[0].rstrip(","))[:3] == [0, 0, 1]


def altered(path: Path, change: Change, *, sealed: bool = True) -> Path:
    data = baseline_file.to_json(snapshot(kit.cell(kit.PROVED, kit.SEARCHED)))
    change(data)
    if sealed:
        data["digest"] = digest({key: value for key, value in data.items() if key != "digest"})
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("change", "sealed", "message"),
    [
        (lambda data: data.update(kind="summary"), True, "is no baseline; prunecert baseline makes one"),
        (lambda data: data.update(schema_version="1"), True, "no valid schema_version"),
        (lambda data: data.update(schema_version=True), True, "no valid schema_version"),
        (lambda data: data.update(schema_version=2), True, "version 2, newer than this program reads"),
        (lambda data: data.update(threads=7), False, "was changed after it was made"),
        (lambda data: data.pop("digest"), False, "was changed after it was made"),
        (lambda data: data.update(threads="many"), True, "is damaged: field threads"),
        (lambda data: data["cells"][0]["instances"].append(data["cells"][0]["instances"][0]), True, "stands there twi"),
        (lambda data: data["cells"][0]["instances"][0].pop(), True, "the instances of cell cnn-small"),
        (
            lambda data: data["cells"][0]["stages"].append(data["cells"][0]["stages"][0]),
            True,
            "verifier is named twice",
        ),
        (lambda data: data["cells"][0]["instances"][0].__setitem__(2, 7), True, "the instances of cell"),
    ],
)
def test_what_is_no_baseline_any_more_is_refused(tmp_path: Path, change: Change, sealed: bool, message: str) -> None:
    path = altered(tmp_path / "b.json", change, sealed=sealed)
    with pytest.raises(UserError, match=message) as error:
        baseline_file.read(path)
    assert "\n" not in str(error.value)


def test_a_missing_baseline_says_how_one_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"make one with: prunecert baseline"):
        baseline_file.read(tmp_path / "none.json")
    baseline_file.read(altered(tmp_path / "fine.json", lambda data: None))
