from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from prunecert.bench.report import pairs_table, table
from prunecert.bench.results.summary import Rows, summary_of
from tests.bench.rowkit import all_typed
from tests.fuzz.rows import pair_rows


def summary(image: int = 1) -> dict[str, Any]:
    rows = Rows()
    changed = [{**row, "image": image} if row["type"] == "pair" and row["image"] else row for row in pair_rows()]
    rows.add(all_typed(changed))
    return summary_of(rows)


def test_a_line_says_with_what_it_is_compared_and_what_came_of_it() -> None:
    (row,) = pairs_table.rows(summary())
    text = dict(zip((heading for heading, _ in pairs_table.COLUMNS), row, strict=True))
    assert (text["compared with"], text["asked"], text["n"]) == ("dense", "class", "2")
    assert text["same decision, proved %"].startswith("50.0 (")
    assert (text["different %"], text["proved by"], text["undecided"]) == ("50.0", "sparse-pair 1", "0")


def test_eighty_columns_are_enough() -> None:
    whole = summary()
    (pair,) = whole["pairs"]
    pair |= {"name": "cnn-small_ibp_eps2_lwm_x10_s0", "pruner": "lwm", "compression": 10.0}
    step = {**pair, "partner": "cnn-small_ibp_eps2_lwm_x2_s0", "step": True}
    whole["pairs"] = [pair, {**pair, "alike": "class:0.5"}, step]
    stream = io.StringIO()
    table.show({**whole, "cells": []}, Console(file=stream, width=80, force_terminal=True, color_system=None))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert sum(line[:4] == ["pruner", "seed", "×", "with"] for line in lines) == 2
    shown = ["50.0", f"({100 * pair['same']['low']:.1f}–{100 * pair['same']['high']:.1f})", "50.0", "0"]
    assert [line[3:-1] for line in lines if line[:1] == ["lwm"]] == [
        ["dense", *shown],
        ["x2_s0", *shown],
        ["dense", *shown],
    ]
    assert max(len(line) for line in stream.getvalue().splitlines()) <= 80


def test_missing_answers_are_to_do() -> None:
    assert pairs_table.rows(summary(image=0))[0][-2] == "0 + 1 to do"


def test_a_step_names_its_partner_and_nothing_is_said_without_pairs() -> None:
    whole = summary()
    whole["pairs"][0]["step"] = True
    assert pairs_table.rows(whole)[0][5] == "d"
    assert "| 50.0 (" in pairs_table.markdown(whole)
    without: dict[str, list[object]] = {"pairs": []}
    assert pairs_table.markdown(without) == ""
    assert pairs_table.rows({}) == []
    assert pairs_table.notes({}) == []
