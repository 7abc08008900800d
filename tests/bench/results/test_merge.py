from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.bench.results.merge import merge
from prunecert.bench.results.store import Writer
from prunecert.errors import UserError
from tests.bench.rowkit import SESSION, all_typed, documents, typed
from tests.fuzz.rows import run_rows


def test_rows_of_all_parts_are_joined_and_keep_apart_by_their_writers(tmp_path: Path) -> None:
    rows = run_rows()
    for name in ("a", "b"):
        with Writer(tmp_path / name) as writer:
            writer.append(*all_typed(rows))
            writer.save_witness(f"{name}1", np.zeros(3, dtype=np.float32))
    with (tmp_path / "b" / "instances.main.jsonl").open("a") as stream:
        stream.write('{"type":"verd')
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "joined")
    assert sorted(path.name for path in (tmp_path / "joined").glob("instances.*")) == [
        "instances.part1-main.jsonl",
        "instances.part2-main.jsonl",
    ]
    joined = documents(tmp_path / "joined")
    assert len(joined) == 2 * len(rows), "a line that was cut off is no row"
    assert [row["writer"] for row in joined if row["type"] == "session"] == ["part1-main", "part2-main"]
    assert [{**row, "writer": 0} for row in joined[: len(rows)]] == [{**row, "writer": 0} for row in rows]
    assert {path.stem for path in (tmp_path / "joined" / "witnesses").iterdir()} == {"a1", "b1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "other"}, "their suite differ"),
        ({"profile": "half"}, "their profile differ"),
        ({"device": "cuda"}, "their device differ"),
        ({"suite_digest": "1"}, "their suite_digest differ"),
        ({"data": [{**SESSION["data"][0], "fingerprint": "0" * 64}]}, "run on different data"),
    ],
)
def test_only_parts_of_one_run_are_joined(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    for name, fields in (("a", {}), ("b", change)):
        with Writer(tmp_path / name) as writer:
            writer.append(typed({"type": "session", **fields}))
    with pytest.raises(UserError, match=message):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
    with pytest.raises(UserError, match="given twice"):
        merge([tmp_path / "a", tmp_path / "a"], tmp_path / "joined")
    with pytest.raises(UserError, match="holds a run already"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "a")
