from __future__ import annotations

import time
from pathlib import Path

import pytest

from prunecert.bench.leaderboard.entry import seal
from prunecert.bench.leaderboard.proofs import Record, write_records
from prunecert.bench.publish import main
from prunecert.errors import UserError
from tests.bench import boards


def test_of_two_entries_that_contradict_each_other_neither_is_shown(tmp_path: Path) -> None:
    honest, forged = boards.make(), boards.make(by="rival", name="aaa")
    honest["verdicts"]["ibp"]["status"][0], honest["verdicts"]["pgd"]["status"][0] = "unsat", "unknown"
    forged["verdicts"]["ibp"]["status"][0], forged["verdicts"]["pgd"]["status"][0] = "unknown", "sat"
    network = honest["files"]["onnx_sha256"]
    forged["files"]["onnx_sha256"] = network
    forged["protocol"]["image_key"] = honest["protocol"]["image_key"]
    boards.rekey(forged)
    third = boards.make("hydra")
    root = boards.write(tmp_path, seal(honest), seal(forged), third)
    with pytest.raises(UserError, match="says otherwise") as caught:
        main([str(root), "--out", str(tmp_path / "site")])
    assert {line.partition(".json")[0] for line in caught.value.details} == {honest["name"], forged["name"]}
    assert main([str(root), "--out", str(tmp_path / "site"), "--skip-invalid"]) == 0
    assert [path.stem for path in (tmp_path / "site" / "entries").glob("*.json")] == [third["name"]]


def test_a_folder_that_may_not_be_written_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = boards.write(tmp_path, boards.make())
    (tmp_path / "site").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="this user may not write into it"):
        main([str(root), "--out", str(tmp_path / "site")])
    with pytest.raises(UserError, match="root of the file system"):
        main([str(root), "--out", "/"])
    # Nothing is left beside it.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leaderboard", "site"]


def test_an_invalid_entry_stops_publishing_unless_it_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = boards.write(tmp_path / "results", *boards.small_board()[:2])
    (root / "leaderboard" / "wrong.json").write_text("{}")
    with pytest.raises(UserError, match=r"nothing is published.*\n.*wrong\.json: kind"):
        main([str(root), "--out", str(tmp_path / "site")])
    assert not (tmp_path / "site").exists()
    assert main([str(root), "--out", str(tmp_path / "site"), "--skip-invalid"]) == 0
    assert "left out: wrong.json: kind" in capsys.readouterr().out
    assert len(list((tmp_path / "site" / "entries").glob("*.html"))) == 2


def test_the_board_says_how_many_proofs_we_have_checked(tmp_path: Path) -> None:
    entry = boards.with_proofs()
    root = boards.write(tmp_path / "results", entry, boards.make("hydra"))
    record = Record(digest=entry["digest"], checked=1, proofs=1, answers=11, seed=0, version="1")
    write_records(root / "leaderboard", {entry["name"]: record})
    assert main([str(root), "--out", str(tmp_path / "site")]) == 0
    board = (tmp_path / "site" / "index.html").read_text()
    assert board.count("proofs checked</span>") == 1
    pages = {path.stem: path.read_text() for path in (tmp_path / "site" / "entries").glob("*.html")}
    words = "Proofs: 1 of 1 checked by us, of 11 answers."
    assert {name for name, page in pages.items() if words in page} == {entry["name"]}


def test_an_earlier_site_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    root = boards.write(tmp_path / "results", *boards.small_board()[:3])
    out = tmp_path / "site"
    assert main([str(root), "--out", str(out)]) == 0
    next((root / "leaderboard").iterdir()).unlink()
    assert main([str(root), "--out", str(out)]) == 0
    assert len(list((out / "entries").glob("*.html"))) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(UserError, match="no site of ours"):
        main([str(root), "--out", str(root)])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no leaderboard entry"):
        main([str(empty), "--out", str(out)])


@pytest.mark.slow
def test_a_page_of_the_board_is_made_fast_enough(tmp_path: Path) -> None:
    entries = [boards.make("lwm", 2.0 + i / 10, seed=i % 5) for i in range(100)]
    root = boards.write(tmp_path / "results", *entries)
    began = time.process_time()
    assert main([str(root), "--out", str(tmp_path / "site")]) == 0
    # 2,000 in 60 s is 30 ms an entry; processor time, so that a busy machine has no say.
    assert time.process_time() - began < 100 * 0.03 + 2.0
