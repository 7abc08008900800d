from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.bench.check import main
from prunecert.bench.leaderboard.entry import dump
from prunecert.bench.leaderboard.proofs import read_record
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from tests.bench import boards


def test_command_lists_problems_and_says_how_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = boards.small_board()[:3]
    root = boards.write(tmp_path, *entries)
    assert main([str(root)]) == 0
    assert "3 entries: 3 valid, 0 with problems" in capsys.readouterr().out
    board = root / "leaderboard"
    (board / "cut.json").write_text(dump(entries[0])[:500])
    (board / "list.json").write_text("[]")
    (board / "nan.json").write_text('{"kind": "leaderboard-entry", "x": NaN}')
    (board / "newer.json").write_text(json.dumps({"kind": "leaderboard-entry", "schema_version": 2}))
    (board / "older.json").write_text(json.dumps({"kind": "leaderboard-entry", "schema_version": True}))
    (board / "renamed.json").write_text(dump(entries[1]))
    assert main([str(root)]) == 1
    out = capsys.readouterr().out
    assert "cut.json: file: this is no readable JSON file" in out or "cut.json: this is" in out
    assert "list.json: kind: this is no leaderboard entry" in out
    assert "nan.json" in out
    assert "newer.json: schema_version: 2 is newer" in out
    assert "older.json: schema_version: True is refused" in out
    assert "renamed.json: name:" in out
    assert "9 entries: 3 valid, 6 with problems" in out


def check(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    began = time.monotonic()
    code = main([str(root)])
    assert time.monotonic() - began < 10
    return code, capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"seconds": [', f'"seconds": [1{"0" * 400},', "verdicts.ibp.seconds[0]: a number of 401 characters"),
        ('"seconds": [', '"seconds": [1e999,', "verdicts.ibp.seconds[0]: 1e999 is refused; it must be a finite number"),
        ('"seconds": [', f'"seconds": [0.{"1" * 400},', "verdicts.ibp.seconds[0]: a number of 402 characters"),
        ('"seconds": [', '"seconds": [NaN,', "verdicts.ibp.seconds[0]: NaN is no number in JSON"),
        ('"cpu": "x"', '"cpu": "\\ud800"', "protocol.machine.cpu: '\\ud800' is refused"),
        ('"cpu": "x"', '"cpu": "x", "cpu": "y"', "protocol.machine.cpu: the field stands there twice"),
        (
            '"seed": 0',
            f'"seed": {"[" * 400}{"]" * 400}',
            f"cell.seed{'[0]' * 11}: it is nested more than 12 levels deep",
        ),
        ('"seed": 0', f'"seed": {"[" * 100_000}', "file: this is no readable JSON file (it is nested thousands"),
        ('"seed": 0', f'"seed": {"9" * 5000}', "cell.seed: a number of 5,000 characters"),
        (
            '"recipe": {',
            f'"recipe": {{"{"k" * 300}": 1,',
            f"training.recipe.{'k' * 30}… (300 characters) …{'k' * 15}: the name is refused; allowed are 200 printable",
        ),
        ('"by": "tester"', f'"by": "{"b" * (17 << 20)}"', "file: this is no readable JSON file"),
    ],
)
def test_what_is_beyond_any_use_is_named_by_its_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, field: str
) -> None:
    first, second = boards.make(), boards.make("hydra")
    root = boards.write(tmp_path, first, second)
    path = root / "leaderboard" / f"{second['name']}.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    code, out = check(root, capsys)
    assert code == 1
    assert f"{path.name}: {field}" in out
    assert "2 entries: 1 valid, 1 with problems" in out


def test_pipes_devices_and_folders_hold_nobody_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = boards.write(tmp_path, boards.make())
    os.mkfifo(root / "leaderboard" / "pipe.json")
    (root / "leaderboard" / "zero.json").symlink_to("/dev/zero")
    (root / "leaderboard" / "folder.json").mkdir()
    (root / "leaderboard" / "gone.json").symlink_to("nowhere")
    code, out = check(root, capsys)
    assert code == 1
    for name in ("pipe.json: file: ", "zero.json: file: ", "folder.json: file: ", "gone.json: file: "):
        assert f"\n{name}" in f"\n{out}"
    assert "5 entries: 1 valid, 4 with problems" in out


def test_names_of_files_command_neither_terminal_nor_ci(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = boards.write(tmp_path, boards.make())
    board = root / "leaderboard"
    for name in ("a\n::error::b.json", "::error::c.json", "\x1b[2Jd.json", os.fsdecode(b"\xff.json")):
        (board / name).write_text("[]")
    code, out = check(root, capsys)
    assert code == 1
    assert "a\\n::error::b.json: kind" in out
    assert "\\x1b[2Jd.json: kind" in out
    assert "\\udcff.json: kind" in out
    assert not any(line.lstrip().startswith("::") for line in out.splitlines())
    assert "\x1b" not in out
    out.encode("utf-8")


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = boards.write(tmp_path, boards.make())

    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(PermissionError):
        main([str(root)])


def test_an_empty_or_missing_tree_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no leaderboard entry"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="no such folder"):
        main([str(tmp_path / "gone")])


def test_certificates_that_cannot_be_checked_are_problems_and_may_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = boards.with_proofs()
    root = boards.write(tmp_path, entry, boards.make("hydra"))
    images, labels = np.zeros((boards.IMAGES, 3, 32, 32), dtype=np.float32), np.zeros(boards.IMAGES, dtype=np.int64)
    data = Dataset(images, labels, np.arange(boards.IMAGES), "test", "f", True, False, "made up")
    monkeypatch.setattr("prunecert.bench.check.load", lambda *_, **__: data)
    assert main([str(root), "--record"]) == 1
    out = capsys.readouterr().out
    assert f"{entry['name']}.json: proofs: the images at hand are others" in out
    assert "2 entries: 1 valid, 1 with problems (1 in all)" in out
    assert read_record(root / "leaderboard", entry) is None
    assert main([str(root), "--no-proofs"]) == 0


def test_problems_of_larger_runs_are_not_forgotten_over_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = boards.write(tmp_path, *boards.small_board()[:1])
    folder = root / "zoo"
    folder.mkdir()
    (folder / "cut.json").write_text("{")
    for words in ([], ["--no-proofs"]):
        assert main([str(root), *words]) == 1
        assert "runs over more images: 1 problems" in capsys.readouterr().out


def test_a_sample_cannot_be_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = boards.write(tmp_path, *boards.small_board()[:1])
    seeds: list[int] = []

    def checked(*_: object, seed: int, **__: object) -> tuple[dict[str, object], list[object]]:
        seeds.append(seed)
        return {}, []

    monkeypatch.setattr("prunecert.bench.check.check_proofs", checked)
    for words in ([], [], [], ["--seed", "5"]):
        main([str(root), "--sample", "1", *words])
    assert seeds[3] == 5
    assert len(set(seeds)) > 2
