from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from prunecert.bench.report import screen


def share(k: int, n: int = 100) -> dict[str, Any]:
    return {"k": k, "n": n, "value": k / n, "low": max(0.0, k / n - 0.1), "high": min(1.0, k / n + 0.1)}


def cell(pruner: str, compression: float, verified: int, *, seed: int = 0, images: int = 100) -> dict[str, Any]:
    return {
        "network": "cnn-small",
        "objective": "crown-ibp",
        "eps": "2/255",
        "pruner": pruner,
        "compression": compression,
        "measured_compression": compression,
        "seed": seed,
        "split": "test",
        "images": images,
        "images_asked": images,
        "pending": 0,
        "data_fingerprint": "f",
        "clean": share(70, images),
        "verified": share(verified, images),
        "attacked": share(verified + 3, images),
        "undecided": {"total": 3},
        "time": {"median_s": 0.01234},
        "decided_by": {"sparse-crown-ibp": {"unsat": verified - 1, "sat": 0}, "sparse-bab": {"unsat": 1, "sat": 9}},
    }


SUMMARY = {
    "cells": [
        cell("dense", 1, 50),
        cell("lwm", 10, 49),
        cell("lwm-iterative", 100, 46),
        cell("hydra", 100, 30),
        cell("lwm", 10, 20, seed=1),
    ]
}


@pytest.mark.parametrize("width", [80, 120])
def test_no_word_is_cut_and_every_row_is_one_line(width: int) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    for title, table in screen.tables(SUMMARY, width):
        assert title == "cnn-small, crown-ibp, ε = 2/255, 100 images"
        console.print(table.terminal(title))
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    rows = [line for line in lines if "%" not in line and "(" in line]
    assert len(rows) == len(SUMMARY["cells"])
    assert ("50.0 (40–60)" if width == 80 else "50.0 (40.0–60.0)") in rows[0]
    assert rows[2].split()[:3] == ["lwm-iterative", "0", "100"]
    assert ("sparse-crown-ibp 45, +1" in rows[2]) == (width == 120)
    for heading in ("pruner", "seed", "verified %", "kept %", "attack %"):
        assert any(heading in line for line in lines), heading


def test_what_is_kept_is_of_the_same_seeds_dense_network() -> None:
    dense, lwm, _, hydra, other = SUMMARY["cells"]
    assert screen.kept(SUMMARY, lwm) == pytest.approx(0.98)
    assert screen.kept(SUMMARY, hydra) == pytest.approx(0.6)
    assert screen.kept(SUMMARY, dense) is None
    assert screen.kept(SUMMARY, other) is None
    assert screen.kept({"cells": [dense, cell("lwm", 10, 49, images=90)]}, cell("lwm", 10, 49, images=90)) is None


def test_rounded_weights_are_compared_with_the_dense_network_in_float32() -> None:
    def rounded(pruner: str, compression: float, verified: int, bits: int) -> dict[str, Any]:
        label = "cnn-small" if bits == 32 else f"cnn-small {bits}-bit"
        return {**cell(pruner, compression, verified), "network": label, "size": {"bits": [bits, bits]}}

    dense, eight, four = rounded("dense", 1, 50, 32), rounded("dense", 1, 40, 8), rounded("lwm", 10, 25, 4)
    summary = {"cells": [eight, dense, four]}
    assert [screen.kept(summary, one) for one in (dense, eight, four)] == [None, 0.8, 0.5]
    assert screen.control({"cells": [eight, four]}, four) is None
    # The finding is about what pruning keeps.
    assert "by lwm, cnn-small 4-bit" in screen.finding(summary)
    assert screen.finding({"cells": [eight, dense]}) == ""


def test_the_finding_is_about_the_most_pruned_network_that_keeps_nine_tenths() -> None:
    assert screen.finding(SUMMARY) == (
        "Pruned to 100× by lwm-iterative, cnn-small (crown-ibp, ε = 2/255) keeps 92 % of its dense network's verified "
        "accuracy: 46.0 % of 100 images, dense 50.0 %."
    )
    own = [{**one, "network": "mine", "objective": "own"} for one in (cell("dense", 1, 50), cell("pruned", 5, 48))]
    assert screen.finding({"cells": own}).startswith("Pruned to 5×, mine (ε = 2/255) keeps 96 % of")
    bad = {"cells": [cell("dense", 1, 50, images=40), cell("lwm", 100, 10, images=40)]}
    bad["cells"][0]["verified"]["k"] = 30
    assert "keeps 33 % of" in screen.finding(bad)
    assert screen.finding(bad).endswith("Only 40 images: mind the intervals.")
    assert screen.finding({"cells": [cell("dense", 1, 50)]}) == ""


def test_the_finding_is_about_many_images_where_there_are_any() -> None:
    few = [{**one, "network": "other"} for one in (cell("dense", 1, 10, images=20), cell("lwm", 200, 10, images=20))]
    assert screen.finding({"cells": [*few, *SUMMARY["cells"]]}) == screen.finding(SUMMARY)
    assert "Pruned to 200×" in screen.finding({"cells": few})


def test_who_verified_most_comes_first_and_the_rest_is_summed_up() -> None:
    one = cell("dense", 1, 50)
    one["decided_by"] = {name: {"unsat": k, "sat": 0} for name, k in (("crown", 20), ("ibp", 25), ("bab", 4), ("x", 1))}
    for width, text in ((250, "ibp 25, crown 20, bab 4, x 1"), (118, "ibp 25, crown 20, bab 4, x 1")):
        assert screen.tables({"cells": [one]}, width)[0][1].rows[0][-1] == text
    one["decided_by"]["crown"]["unsat"] = 200_000_000_000
    one["decided_by"]["ibp"]["unsat"] = 2_500_000
    assert screen.tables({"cells": [one]}, 118)[0][1].rows[0][-1] == "crown 200000000000, +2500005"


def test_rows_go_by_seed_and_compression() -> None:
    cells = [cell("lwm", 10, 20, seed=1), cell("hydra", 100, 30), cell("lwm", 10, 49), cell("dense", 1, 50)]
    ((_, shown),) = screen.tables({"cells": cells}, 80)
    assert [row[:3] for row in shown.rows] == [
        ["dense", "0", "1"],
        ["lwm", "0", "10"],
        ["hydra", "0", "100"],
        ["lwm", "1", "10"],
    ]


def test_few_images_are_named() -> None:
    ((title, _),) = screen.tables({"cells": [cell("dense", 1, 4, images=12)]}, 80)
    assert title.endswith("12 images, few: mind the intervals")


def test_the_legend_is_about_the_columns_that_are_there() -> None:
    assert "median seconds" in screen.legend(118)
    assert "median seconds" not in screen.legend(80)
