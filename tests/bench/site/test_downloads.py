from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from prunecert.bench.publish import main
from prunecert.bench.site import downloads
from prunecert.bench.site.ranking import ranks
from prunecert.bench.site.view import make_rows
from prunecert.errors import UserError
from prunecert.models.ap_taxonomy import read_taxonomy
from prunecert.models.pruners.taxonomy import TAXONOMIES
from tests.bench import boards
from tests.bench.boards import NASTY, nasty_board


def test_an_attack_alone_says_nothing_of_verified_accuracy(site: Path) -> None:
    entry = boards.make("attack-only", 4.0, verifiers=("pgd",), by="=1+1", title="@SUM(A1)")
    assert "not asked" in (site / "entries" / f"{entry['name']}.html").read_text()
    (record,) = [r for r in read_csv(site) if r["name"] == entry["name"]]
    assert record["verified_share"] == ""
    assert record["attacked_share"] != ""


def read_csv(site: Path) -> list[dict[str, str]]:
    with (site / "leaderboard.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_csv_has_full_precision_and_no_formula(site: Path) -> None:
    records = read_csv(site)
    assert len(records) == len(nasty_board())
    assert {record["by"] for record in records} == {"tester", NASTY, "'=1+1"}
    assert "'@SUM(A1)" in {record["title"] for record in records}
    for record in records:
        entry = json.loads((site / "entries" / f"{record['name']}.json").read_text())
        assert float(record["attacked_share"]) == entry["result"]["attacked"]["value"]
        assert not any(value.startswith(("=", "+", "@")) for value in record.values())


def test_methods_are_there_in_the_benchmark_s_taxonomy(site: Path) -> None:
    methods = read_taxonomy(site / "taxonomy.json")
    ours = {entry["cell"]["pruner"] for entry in nasty_board()} & set(TAXONOMIES)
    assert {method.key for method in methods} == ours
    assert "taxonomy.json" in (site / "index.html").read_text()


def test_parquet_holds_the_same_records(site: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow (extra 'publish')")
    table = parquet.read_table(site / "leaderboard.parquet").to_pylist()
    rows = make_rows(nasty_board())
    places = ranks(rows)
    assert table == [downloads.record(row, places.get(row.name)) for row in rows]
    assert {record["rank"] for record in table} > {1, 2, None}


def test_without_pyarrow_the_extra_is_named_and_nothing_links_to_parquet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(downloads, "has_pyarrow", lambda: False)
    root = boards.write(tmp_path / "results", boards.make())
    assert main([str(root), "--out", str(tmp_path / "site")]) == 0
    assert "pip install 'prunecert[publish]'" in capsys.readouterr().out
    assert "parquet" not in (tmp_path / "site" / "index.html").read_text()
    with pytest.raises(UserError, match="prunecert\\[publish\\]"):
        downloads.write_parquet([{}], tmp_path / "x.parquet")
