from __future__ import annotations

import pytest

from prunecert.bench.results.impact.costs import Costs
from prunecert.bench.results.impact.methods import MethodLine, method_lines
from prunecert.bench.results.stats import mcnemar_exact
from tests.bench.results.impact.networks import network, proved


def lines() -> dict[tuple[str, float], MethodLine]:
    parts = [
        network(proved(*range(20)), pruner="dense"),
        network(proved(*range(12))),
        network(proved(*range(20)), pruner="hydra"),
        network(proved(*range(4, 20)), pruner="harp"),
        network(proved(*range(20)), pruner="structured", compression=4.0, attacked=proved(*range(30))),
    ]
    (board,) = method_lines(parts, {parts[1].cell.name: Costs(60.0, 1000)})
    assert [(line.pruner, line.compression) for line in board] == [
        ("dense", 1),
        ("structured", 4),
        ("harp", 10),
        ("hydra", 10),
        ("lwm", 10),
    ]
    return {(line.pruner, line.compression): line for line in board}


def test_methods_are_held_against_dense_and_against_lwm_at_their_compression() -> None:
    board = lines()
    assert board["dense", 1].to_dense is None
    lwm = board["lwm", 10].to_dense
    assert lwm is not None
    assert lwm.value == pytest.approx(-0.2)
    assert board["lwm", 10].to_baseline is None
    # LWM has no fourfold network here.
    assert board["structured", 4].to_baseline is None
    hydra = board["hydra", 10].to_baseline
    assert hydra is not None
    # Two tests are made in the family.
    assert hydra.p == pytest.approx(2 * mcnemar_exact(0, 8))


def test_what_was_not_measured_is_missing() -> None:
    board = lines()
    assert (board["lwm", 10].train_seconds, board["lwm", 10].macs) == (60.0, 1000.0)
    assert board["harp", 10].train_seconds is None
    assert board["harp", 10].macs is None
    assert board["structured", 4].attacked == 0.75
    assert board["harp", 10].unstable == 29.5


def test_of_what_was_attacked_alone_the_attacked_accuracy_is_compared() -> None:
    (board,) = method_lines(
        [network(proved(*range(20)), pruner="dense", kind="attack"), network(proved(*range(18)), kind="attack")], {}
    )
    assert [line.verified for line in board] == [None, None]
    change = board[1].to_dense
    assert change is not None
    assert change.value == pytest.approx(-0.05)
