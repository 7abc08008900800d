from __future__ import annotations

import io

import pytest
from rich.console import Console

from prunecert.bench.report import table
from tests.bench.summarykit import cell, everything, pruned, session, summarise, verdict


def test_failures_are_seen_in_the_table() -> None:
    summary = summarise(session(cell()), *everything(), verdict("ibp", 3, "memout"))
    (row,) = table.rows(summary)
    text = dict(zip((heading for heading, _ in table.COLUMNS), row, strict=True))
    assert text["undecided"] == "2 (timeout 1, error 1); FAILED: ibp memout 1, bab error 1"
    assert text["verified by"] == "ibp 1, bab 1"
    assert text["broken by"] == "pgd 1"
    assert text["verified %"] == "33.3 (9.7–70.0)"


def test_what_is_still_to_come_is_pending_not_undecided() -> None:
    rows = [row for row in everything() if not (row["type"] == "verdict" and row["image"] == 5 and "bab" in row["key"])]
    (whole,) = summarise(session(cell(images=9)), *rows)["cells"]
    assert whole["pending"] == 1
    assert not whole["finished"]
    assert whole["undecided"]["timeout"] == 0
    assert "4 to do" in table.undecided(whole)
    cross_check_missing = [row for row in everything() if not (row.get("key") == "k-pgd-c" and row["image"] == 1)]
    assert summarise(session(cell()), *cross_check_missing)["cells"][0]["pending"] == 1


@pytest.mark.parametrize("width", [100, 250])
def test_the_table_is_shown_whole_at_any_width(width: int) -> None:
    stream = io.StringIO()
    table.show(pruned(), Console(file=stream, width=width, force_terminal=True, color_system=None))
    text = stream.getvalue()
    assert "33.3 (9.7–70.0)" in text.replace("\n", "") or "33.3" in text
    assert "…" not in text
    assert "no checkpoint yet: later" in text


def test_markdown_has_a_line_a_cell() -> None:
    text = table.markdown(pruned(), ("pruner", "×", "verified %"))
    lines = text.splitlines()
    assert lines[0] == "| pruner | × | verified % |"
    assert lines[1] == "|---|---:|---:|"
    assert lines[2] == "| dense | 1 | 33.3 (9.7–70.0) |"
    assert len(lines[2:6]) == 4


def test_rows_of_two_seeds_differ() -> None:
    summary = summarise(session(cell(), {**cell(), "name": "other", "seed": 1}), *everything())
    at = [heading for heading, _ in table.COLUMNS].index("seed")
    assert [row[at] for row in table.rows(summary)] == ["0", "1"]


def test_seconds_keep_three_digits() -> None:
    assert [table.seconds(x) for x in (None, 0.00012, 0.0999, 1.23456, 123.4)] == [
        "–",
        "0.0001",
        "0.0999",
        "1.23",
        "123",
    ]


def test_a_network_that_no_verifier_takes_has_a_line() -> None:
    summary = summarise(session({**cell(), "stages": [], "unsupported": {"ibp": "it has a Loop"}}), *everything())
    (row,) = table.rows(summary)
    assert row[-1] == "–"
    assert summary["cells"][0]["undecided"]["total"] == 5
    text = table.markdown(summary)
    assert "ibp is left out there: it has a Loop" in text


def test_who_takes_float32_networks_only_is_named_once() -> None:
    reason = "The network is refused. The node 'q{}' (QuantizeLinear) isn't taken: rounding."
    two = [{**cell(), "unsupported": {"pgd": reason.format(i), "ibp": reason.format(i)}} for i in range(2)]
    two[1]["name"] = "other_int8"
    (summary,) = [summarise(session(*two), *everything())]
    assert [line for line in table.notes(summary) if "left out" in line] == [
        "pgd: takes float32 networks only; left out of 2 int8 cells.",
        "ibp: takes float32 networks only; left out of 2 int8 cells.",
    ]


def test_those_who_leave_a_network_out_are_named_and_nobody_else() -> None:
    refusing = {"pgd": "The network is refused.", "crown": "no Tanh.", "ibp": "The network is refused."}
    summary = summarise(session({**cell(), "unsupported": refusing}), *everything())
    name = summary["cells"][0]["name"]
    assert table.notes(summary)[:2] == [
        f"{name}: pgd, ibp are left out there: The network is refused.",
        f"{name}: crown is left out there: no Tanh.",
    ]


def test_sizes_have_a_column_where_weights_are_rounded() -> None:
    size = {"bits": [4], "kept": [2000], "scales": 10, "others": 10, "kilobytes": 1.08, "compression": 16.0}
    summary = summarise(session({**cell(), "size": size}), *everything())
    assert table.columns(summary)[-1] == ("kB", True)
    assert table.rows(summary)[0][-1] == "1.08"
    assert "kB: weights that aren't zero at their bits" in table.markdown(summary)
    plain = summarise(session(cell()), *everything())
    assert table.columns(plain) == table.COLUMNS
    assert len(table.rows(plain)[0]) == len(table.COLUMNS)
    assert "size" not in plain["cells"][0]
