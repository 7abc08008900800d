from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from prunecert.bench.schema.cell import Cell
from prunecert.bench.schema.mixed_up import why_mixed_up

CELL = Cell("cnn-small", "ibp", Fraction(1, 255), "lwm", 10.0, 0)
SWEPT = replace(CELL, trained_eps=Fraction(2, 255))


def test_networks_of_two_trainings_are_not_verified_at_one_radius() -> None:
    reason = why_mixed_up([CELL, replace(SWEPT, seed=1)])
    assert reason is not None
    assert reason.startswith("cnn-small by ibp is verified at 1/255 as trained for 1/255 and for 2/255, and tables")


def test_compressions_that_print_alike_are_refused() -> None:
    assert why_mixed_up([CELL, replace(CELL, compression=10.001)]) is None
    reason = why_mixed_up([CELL, replace(CELL, compression=10.0000001)])
    assert reason is not None
    assert reason.startswith("the compressions 10.0 and 10.0000001 have one name, cnn-small_ibp_eps1_lwm_x10_s0;")


def test_balls_of_two_trainings_are_told_by_their_radius() -> None:
    ball = replace(SWEPT, ball=True)
    reason = why_mixed_up([ball, replace(ball, trained_eps=Fraction(8, 255))])
    assert reason is not None
    assert f"is verified at {ball.to_json()['eps']} as trained for 2/255 and for 8/255" in reason


def test_what_differs_in_network_objective_or_radius_stands_together() -> None:
    others = [
        replace(CELL, network="cnn-large"),
        replace(CELL, objective="mtl-ibp"),
        replace(CELL, eps=Fraction(2, 255)),
    ]
    assert why_mixed_up([SWEPT, *others, replace(SWEPT, seed=3), replace(SWEPT, bits=(8,))]) is None
