"""Tables of what pruning kept of what was proved."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from prunecert.bench.report.retention import Fate, Retained, Way, lost_by_class, markdown, overview, show


def network(*ways: Way, name: str = "net_x10", compression: float = 10.0) -> Retained:
    fates = tuple(Fate(3 * i, i % 2, way, 0.5, 0.25) for i, way in enumerate(ways))
    return Retained(name, "net_x1", compression, fates)


def test_each_guarantee_is_counted_once_by_its_way() -> None:
    one = network(Way.TRANSFER, Way.TRANSFER, *(way for way in Way if way is not Way.TRANSFER))
    table = overview([one])
    headings = [heading for heading, _ in table.columns]
    (row,) = table.rows
    cells = dict(zip(headings, row, strict=True))
    assert cells["guarantees"] == "8"
    assert cells["kept"] == "5"
    assert [cells[str(way)] for way in Way] == ["2", "1", "1", "1", "1", "1", "1"]
    assert (cells["transfer s"], cells["anew s"]) == ("4.00", "2.00")


def test_lost_ones_stand_by_class_with_their_images() -> None:
    one = network(Way.TRANSFER, Way.BROKEN, Way.OPEN, Way.TRANSFER, Way.MISCLASSIFIED)
    assert lost_by_class([one], ["cat", "dog"]).rows == [
        ["net_x10", "cat", "3", "1", "6?, 12"],
        ["net_x10", "dog", "2", "1", "3"],
    ]


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_that_is_too_narrow_gets_smaller_tables(width: int) -> None:
    dense = "cnn-small_ibp_eps2_dense_x1_s0"
    fates = network(*Way, Way.BROKEN).fates
    networks = [
        Retained("cnn-small_ibp_eps2_lwm_x10_s0", dense, 10.0, fates),
        Retained(f"{dense}_int8", dense, 1.0, fates, "int8"),
    ]
    stream = io.StringIO()
    show(networks, ["cat", "dog"], Console(file=stream, width=width, force_terminal=True, color_system=None))
    lines = stream.getvalue().splitlines()
    if width == 160:
        assert stream.getvalue() == markdown(networks, ["cat", "dog"])
        return
    assert max(len(line) for line in lines) <= 80
    rows = [line.split() for line in lines]
    cat, dog = ["cat", "4", "2", "12,", "18?"], ["dog", "4", "2", "15,", "21"]
    names = ("lwm_x10_s0", "int8")
    assert [row for row in rows if row and row[0] in names] == [
        *([name, "4", *"1111121"] for name in names),
        *([name, *rest] for name in names for rest in (cat, dog)),
    ]


def test_nothing_lost_has_no_second_table() -> None:
    text = markdown([network(Way.TRANSFER, Way.SEARCH)], ["cat", "dog"])
    assert text.startswith("- net_x10: of 2 guarantees of net_x1, 2 survive 10x (100.0 %)\n")
    assert "lost images" not in text
    assert "lost images" in markdown([network(Way.BROKEN)], ["cat", "dog"])
    assert network().sentence() == "net_x10: of 0 guarantees of net_x1, 0 survive 10x"
    assert network(Way.BROKEN).sentence() == "net_x10: of 1 guarantee of net_x1, 0 survive 10x (0.0 %)"
    int8 = Retained("net_x10_int8", "net_x10", 10.0, network(Way.INTERVALS, Way.OPEN).fates, "int8")
    assert int8.sentence() == "net_x10_int8: of 2 guarantees of net_x10, 1 survives int8 (50.0 %)"
