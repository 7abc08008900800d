from __future__ import annotations

import pytest

from prunecert.bench.site.view import make_rows
from tests.bench import boards


def test_retention_is_paired_with_the_dense_control_of_the_same_protocol() -> None:
    dense, pruned = boards.make("dense", 1.0), boards.make("lwm", 10.0)
    other = boards.make("dense", 1.0, by="somebody else")
    rows = {row.name: row for row in make_rows([pruned, other, dense])}
    row = rows[pruned["name"]]
    assert row.dense is not None
    assert row.dense.name == dense["name"]
    assert row.kept is not None
    ours, theirs = (e["result"]["verified"]["k"] for e in (pruned, dense))
    assert row.kept["verified"].value == pytest.approx(ours / theirs)
    assert rows[dense["name"]].kept is None
    assert make_rows([pruned, other])[0].kept is None
