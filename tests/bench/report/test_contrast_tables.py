from __future__ import annotations

from prunecert.bench.report.contrast_tables import CONTRAST_NOTE, contrasts_table, unmatched_note
from prunecert.bench.results.impact.contrasts import ContrastLine
from prunecert.bench.results.impact.images import Metric
from prunecert.bench.results.impact.pairs import Change


def line(unmatched: tuple[str, ...] = ()) -> ContrastLine:
    changes: dict[Metric, Change] = {"attacked": Change(-0.02, -0.05, 0.01, 0.2)}
    family, title = "cnn-small, pgd, 2/255", "a against b"
    matched = frozenset({("a", 10.0, "b", 10.0), ("a", 10.0, "c", 100.0)})
    return ContrastLine(
        family, title, "multiply-adds", 10, ("a",), ("b", "c"), unmatched, 2, 100, 1.104, matched, changes
    )


def test_a_line_says_by_what_its_groups_are_equal_and_what_is_not_known_is_a_dash() -> None:
    table = contrasts_table([line()])
    assert table.rows == [
        ["a against b", "10", "multiply-adds (1.10)", "1, 2", "2", "–", "–", "-2.0 (-5.0 +1.0)", "0.20"]
    ]
    assert "within 10 % of weights and 25 % of multiply-adds" in CONTRAST_NOTE


def test_methods_that_are_left_out_are_named() -> None:
    assert unmatched_note([line()]) == ""
    assert "cstar at 10× by multiply-adds (a against b)" in unmatched_note([line(("cstar",))])
