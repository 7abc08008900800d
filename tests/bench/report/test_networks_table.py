"""What networks keep and cost: each number from its place, and 80 columns are enough."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from prunecert.bench.report.medium import Table
from prunecert.bench.report.networks_table import (
    NetworkLine,
    NetworkSizes,
    accuracies_table,
    cost_note,
    costs_table,
    families,
    lines_of,
)
from prunecert.bench.results.summary_cells import SummaryCell
from tests.bench.report.test_kept_accuracies import cell, share

ANSWERS = {
    **dict.fromkeys(("asked", "unsat", "sat", "unknown", "timeout", "memout", "error", "unsupported"), 0),
    **{"version": "1", "versions_seen": [], "settings_hash": "0", "device": "cpu", "everyone": False},
    **{"median_s": None, "median_domains": None, "timeout_s": 1.0, "total_s": 0.0},
}


def network(pruner: str, compression: float, **changes: Any) -> SummaryCell:
    counts = {"pgd": None, "ibp": 1436.0, "sparse-bab": 700.0}
    fields = {
        "name": f"{pruner}{compression:g}",
        "pruner": pruner,
        "compression": compression,
        "time": {"median_s": 0.25, "p90_s": 1.0, "total_s": 90.0, "images": 50},
        "by_verifier": {name: {**ANSWERS, "median_unstable": count} for name, count in counts.items()},
        **changes,
    }
    return msgspec.convert(cell(**fields), SummaryCell)


DENSE = network("dense", 1.0, clean=share(80), attacked=share(60), verified=share(50))
PRUNED = network("lwm", 10.0, clean=share(60), attacked=share(45), verified=share(40))
SIZES = {"dense1": NetworkSizes(17_189_568, 150_000_000), "lwm10": NetworkSizes(1_718_957, 37_500_000)}


def rows(table: Table) -> list[dict[str, str]]:
    return [dict(zip((heading for heading, _ in table.columns), row, strict=True)) for row in table.rows]


def test_accuracies_are_brackets_and_shares_of_the_dense_network_s() -> None:
    dense, pruned = rows(accuracies_table(lines_of([PRUNED, DENSE], SIZES)))
    assert dense["pruner"] == "dense"
    assert dense["kept %"] == "–"
    assert pruned["clean %"] == "60.0"
    assert pruned["[verified, attacked] %"] == "[40.0, 45.0]"
    assert pruned["95 %"] == "35.0–45.0"
    assert pruned["kept %"] == "75/75/80"
    assert pruned["open"] == "3"
    assert (pruned["seed"], pruned["images"], pruned["×"]) == ("0", "100", "10")


def test_costs_are_of_the_checkpoint_the_first_bounds_and_all_images() -> None:
    dense, pruned = rows(costs_table(lines_of([DENSE, PRUNED], SIZES)))
    assert (dense["kept weights"], dense["multiply-adds"], dense["% of dense"]) == (
        "17,189,568",
        "150,000,000",
        "100.0",
    )
    assert (pruned["kept weights"], pruned["multiply-adds"], pruned["% of dense"]) == (
        "1,718,957",
        "37,500,000",
        "25.0",
    )
    assert (pruned["unstable"], pruned["median s"], pruned["total min"]) == ("1,436", "0.25", "1.5")
    (_, narrow) = rows(costs_table(lines_of([DENSE, PRUNED], SIZES), narrow=True))
    assert (narrow["weights"], narrow["M m-adds"], narrow["% dense"]) == ("1,718,957", "37.5", "25.0")


def test_what_is_not_known_is_a_dash_and_said() -> None:
    nothing = {name: {**ANSWERS, "median_unstable": None} for name in ("pgd",)}
    idle = {"median_s": None, "p90_s": None, "total_s": 0.0, "images": 0}
    attacked = network("hydra", 10.0, note="attack only", by_verifier=nothing, time=idle)
    lines = lines_of([DENSE, attacked], {})
    (_, row), (_, cost) = rows(accuracies_table(lines)), rows(costs_table(lines))
    assert (row["[verified, attacked] %"], row["95 %"]) == ("[–, 40.0]", "–")
    assert row["kept %"] == "62/67"
    assert set(list(cost.values())[5:]) == {"–"}
    assert cost_note(lines).endswith("No checkpoint of that hash is here of dense1, hydra10.")
    assert "by the bounds of ibp" in cost_note(lines)
    assert "by the bounds" not in cost_note(lines[1:])
    assert "No checkpoint" not in cost_note(lines_of([DENSE, PRUNED], SIZES))


def test_networks_are_grouped_by_what_their_title_says_and_unfinished_ones_are_left_out() -> None:
    cells = [
        network("lwm", 10.0, seed=1),
        network("lwm", 100.0, finished=False),
        PRUNED,
        DENSE,
        network("lwm", 10.0, network="vgg-8"),
    ]
    grouped = families(lines_of(cells, SIZES))
    assert {title: [one.cell.name for one in lines] for title, lines in grouped.items()} == {
        f"{DENSE.network}, {DENSE.objective}, {DENSE.eps}, seed 0, 100 images": ["dense1", "lwm10"],
        f"{DENSE.network}, {DENSE.objective}, {DENSE.eps}, seed 1, 100 images": ["lwm10"],
        f"vgg-8, {DENSE.objective}, {DENSE.eps}, seed 0, 100 images": ["lwm10"],
    }


@pytest.fixture
def widest() -> list[NetworkLine]:
    """Networks whose numbers are as wide as they come."""
    names = ("dense", "lwm", "lwm-iterative")
    cells = [network(name, 1.0 if name == "dense" else 100.0, undecided={"total": 1000}) for name in names]
    sizes = NetworkSizes(17_189_568, 149_999_999)
    return lines_of(cells, dict.fromkeys((one.name for one in cells), sizes))


@pytest.mark.parametrize("table", [accuracies_table, costs_table])
def test_a_terminal_of_80_columns_shows_each_network_on_one_line(widest: list[NetworkLine], table: Any) -> None:
    small, stream = table(widest, narrow=True), io.StringIO()
    Console(file=stream, width=80).print(small.terminal("a title"))
    printed = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert all(" ".join(row) in printed for row in small.rows)
    assert not {"seed", "images"} & {heading for heading, _ in small.columns}
