from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from prunecert.bench.report import impact_tables as tables
from prunecert.bench.results.impact.classes import class_changes
from prunecert.bench.results.impact.costs import Costs
from prunecert.bench.results.impact.methods import method_lines
from prunecert.bench.results.impact.pairs import Comparison, against_dense
from tests.bench.results.impact.networks import network, proved


def comparisons() -> list[Comparison]:
    return against_dense(
        [
            network(np.ones(200, dtype=bool), pruner="dense"),
            network(np.arange(200) % 4 != 2, attacked=np.ones(200, dtype=bool)),
            network(proved(*range(100), of=200), compression=100.0),
        ]
    )


def test_the_class_that_loses_most_stands_first_and_bears_a_star() -> None:
    table = tables.classes_table(comparisons()[0], ["cat", "dog"], repeats=199)
    assert table.rows[0][:4] == ["2 (50)", "100→100", "100→100", "100→0*"]
    assert table.rows[0][5] == "<0.001"
    assert [row[0] for row in table.rows[1:3]] == ["cat (50)", "dog (50)"]
    assert not any("*" in text for row in table.rows[1:] for text in row)
    assert tables.classes_table(comparisons()[0], repeats=199) == tables.classes_table(comparisons()[0], repeats=199)


def test_classes_that_change_otherwise_than_the_rest_are_named_with_their_accuracy() -> None:
    first = comparisons()[0]
    changes = class_changes(first, repeats=999)
    note = tables.excess_note(first, changes, ["cat", "dog", "deer"])
    # A quarter of the images is lost, all of it by one class; others lose less than the rest.
    assert "lwm 10×: " in note
    assert "deer, verified, -75.0 points beyond all images (excess p " in note
    assert "clean" not in note
    assert tables.classes_table(first, changes=changes) == tables.classes_table(first, repeats=999)
    steady = against_dense([network(proved(1), pruner="dense"), network(proved(1))])[0]
    assert tables.excess_note(steady, class_changes(steady, repeats=19)) == ""


def test_lost_and_gained_images_are_counted_with_their_classes() -> None:
    table = tables.exemplars_table(comparisons(), ["cat", "dog", "deer", "fox"])
    assert [row[:7] for row in table.rows] == [
        ["lwm", "10", "1", "50", "0", "25.0", "–"],
        ["lwm", "100", "1", "100", "0", "50.0", "–"],
    ]
    assert table.rows[0][-1] == "deer 50"
    attacked = [network(proved(0), pruner="dense", kind="attack"), network(proved(0), kind="attack")]
    assert tables.exemplars_table(against_dense(attacked)).rows == []


def test_potential_is_shown_as_compressions() -> None:
    table = tables.potential_table(comparisons())
    assert table.rows[0][:4] == ["lwm", "10 (10 to 10)", "10 (10 to 10)", "1 (1 to 1)"]
    assert table.rows[0][4] == "10, 100"


def test_methods_say_what_is_missing_by_a_dash() -> None:
    dense, pruned = network(proved(*range(20)), pruner="dense"), network(proved(*range(10)))
    (board,) = method_lines([dense, pruned, network(proved(1), pruner="hydra")], {dense.cell.name: Costs(90.0, 2000)})
    assert tables.methods_table(board).rows[0] == ["dense", "1", "1", "50.0", "50.0", "50.0"]
    tests = {row[0]: list(row[2:]) for row in tables.tests_table(board, "lwm").rows}
    assert tests["lwm"] == [tests["lwm"][0], "–", "–"]
    assert tests["lwm"][0].startswith("-25.0 (")
    assert tests["hydra"][2] == "0.004"
    costs = {row[0]: list(row[2:]) for row in tables.costs_table(board).rows}
    assert costs["dense"] == ["1.5", "2,000", "100.0", "30", "1000"]
    assert costs["lwm"][:3] == ["–", "–", "–"]


def test_a_training_that_is_an_estimate_says_so_and_reconstructions_do() -> None:
    dense, pruned = network(proved(1), pruner="dense"), network(proved(1), pruner="deadwooding")
    costs = {dense.cell.name: Costs(90.0, 2000, estimated=True), pruned.cell.name: Costs(None, 500)}
    (board,) = method_lines([dense, pruned], costs)
    assert [list(row[:5]) for row in tables.costs_table(board).rows] == [
        ["dense", "1", "~1.5", "2,000", "100.0"],
        ["deadwooding†", "10", "–", "500", "25.0"],
    ]
    assert tables.methods_table(board).rows[1][0] == "deadwooding†"
    assert "deadwooding, of its abstract" in tables.reconstruction_note(line.pruner for line in board)
    assert tables.reconstruction_note(["lwm"]) == ""


def test_structured_methods_say_what_is_left_of_filters_and_neurons() -> None:
    layers = [
        {"name": "a", "operator": "Conv", "before": [16, 3, 4, 4], "after": [8, 3, 4, 4]},
        {"name": "b", "operator": "Gemm", "before": [10, 16], "after": [10, 8]},
    ]
    record = {"schema_version": 1, "masked_sha256": "0", "domain": None, "exact": True, "layers": layers}
    record |= {"relus": [1, 1], "folded": 0, "merged": 0}
    parts = [network(proved(1), pruner=name, compression=4.0, compaction=record) for name in ("structured", "lwm")]
    (board,) = method_lines(parts, {})
    assert tables.structure_table(board).rows == [["structured", "4", "50.0", "–", "25.0"]]
    (uncompacted,) = method_lines([network(proved(1), pruner="structured")], {})
    assert tables.structure_table(uncompacted).rows == []


def test_gradients_and_losses_are_put_side_by_side() -> None:
    dense = SimpleNamespace(losses=np.array([1.0, 1.0, 1.0, np.nan]), gradients=np.array([1.0, 2.0, 3.0, np.nan]))
    pruned = SimpleNamespace(losses=np.array([1.1, 1.2, 1.6, np.nan]), gradients=np.empty(0))
    assert tables.gradients_table([("net", dense, pruned)], ["a", "b", "c"]).rows[0][:4] == [
        "net",
        "+0.300",
        "c",
        "+1.00",
    ]


@pytest.mark.parametrize(("p", "text"), [(0.0001, "<0.001"), (0.0123, "0.012"), (0.5, "0.50"), (1, "1.00")])
def test_p_values_have_the_digits_that_they_deserve(p: float, text: str) -> None:
    assert tables.p_value(p) == text


def test_few_images_are_warned_of() -> None:
    assert "Only 49 images" in tables.warning(49)
    assert tables.warning(50) == ""
