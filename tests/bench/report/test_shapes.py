from __future__ import annotations

from typing import Any

from prunecert.bench.report import shapes


def record(*layers: tuple[list[int], list[int]], relus: tuple[int, int] = (100, 40)) -> dict[str, Any]:
    return {
        "layers": [
            {"name": f"l{number}", "operator": "Conv", "before": before, "after": after}
            for number, (before, after) in enumerate(layers)
        ],
        "relus": list(relus),
    }


SHRUNK = record(([16, 3, 4, 4], [12, 3, 4, 4]), ([10, 100], [10, 100]))


def test_networks_that_lost_nothing_have_no_line() -> None:
    whole = record(([2, 3], [2, 3]))
    assert shapes.rows([("none", 1.0, None), ("whole", 1.0, whole), ("shrunk", 10.0, SHRUNK)]) == [
        ["shrunk", "10", "16→12 10", "1,768 → 1,576", "89.1", "100 → 40", "40.0"]
    ]


def test_a_network_without_units_is_divided_by_nothing() -> None:
    (line,) = shapes.rows([("none", 2.0, record(([4, 4], [2, 4]), relus=(0, 0)))])
    assert line[-1] == "0.0"


def test_layers_are_shown_with_their_shapes() -> None:
    assert shapes.layers(SHRUNK) == [
        ["l0", "Conv", "16×3×4×4", "12×3×4×4", "75.0"],
        ["l1", "Conv", "10×100", "10×100", "100.0"],
    ]


def test_a_summary_has_the_same_lines_and_an_empty_table_no_text() -> None:
    cell = {"name": "shrunk", "compression": 10.0, "compaction": SHRUNK}
    lines = shapes.of_summary({"cells": [cell, {**cell, "compaction": None}]})
    assert lines == shapes.rows([("shrunk", 10.0, SHRUNK)])
    text = shapes.markdown(lines)
    assert text.splitlines()[0].startswith("| ")
    assert "16→12 10" in text
    assert shapes.markdown([]) == ""
