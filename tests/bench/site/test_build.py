from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prunecert.bench.leaderboard.entry import seal
from prunecert.bench.site.build import Content, build, check_target, find_onnx
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from tests.bench import boards


def test_a_file_is_offered_where_its_hash_is_an_entrys(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("theirs", "deep/other"):
        (tmp_path / f"{name}.onnx").write_text(name)
    entry, lacking = boards.make(), boards.make("hydra")
    entry["files"]["onnx_sha256"] = sha256_file(tmp_path / "theirs.onnx")
    entry = seal(entry)
    entries = {one["name"]: one for one in (entry, lacking)}
    onnx = find_onnx(tmp_path, entries)
    assert list(onnx.values()) == [tmp_path / "theirs.onnx"]
    assert find_onnx(None, entries) == {}
    with pytest.raises(UserError, match="no such folder"):
        find_onnx(tmp_path / "nowhere", entries)
    content = Content(entries, onnx=onnx)
    build(content, tmp_path / "site")
    page = (tmp_path / "site" / "entries" / f"{entry['name']}.html").read_text()
    (address,) = [part.partition('"')[0] for part in page.split('href="') if ".onnx" in part.partition('"')[0]]
    assert (tmp_path / "site" / "entries" / address).read_text() == "theirs"
    assert "no address is given" in (tmp_path / "site" / "entries" / f"{lacking['name']}.html").read_text()
    build(replace(content, onnx={}), tmp_path / "bare")
    assert not (tmp_path / "bare" / "onnx").exists()


def test_a_network_that_two_suites_verified_is_one_line_and_two_pages(tmp_path: Path) -> None:
    old = [boards.make("dense", 1.0, verifiers=("ibp",)), boards.make(verifiers=("ibp",))]
    new = [boards.make("dense", 1.0), boards.make()]
    for entry in new:
        entry["protocol"]["started"] = "2026-02-01T00:00:00Z"
    build(Content({one["name"]: one for one in (*old, *new)}), tmp_path)
    board = (tmp_path / "index.html").read_text()
    for before, after in zip(old, new, strict=True):
        assert f'href="entries/{after["name"]}.html"' in board
        assert before["name"] not in board
        page = (tmp_path / "entries" / f"{before['name']}.html").read_text()
        assert f'href="{after["name"]}.html"' in page
        assert f'href="{before["name"]}.html"' in (tmp_path / "entries" / f"{after['name']}.html").read_text()
    assert "2 more entries are of networks that stand above" in board
    # The downloads have all of them; who isn't on the board has no rank.
    lines = (tmp_path / "leaderboard.csv").read_text().splitlines()
    assert len(lines) == 5


def test_only_an_earlier_site_is_replaced(tmp_path: Path) -> None:
    check_target(tmp_path / "new")
    check_target(tmp_path)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="no site of ours"):
        check_target(tmp_path)
