from __future__ import annotations

import numpy as np
import scipy.sparse

from prunecert.verifiers.sparse.bab.box_program import PIECE, BoxProgram, columns, lay_out, scratch
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.node_bounds import CheckedBounds


def program(*, exact: bool = True, most: int = 2**31, lower: float = -1.0) -> BoxProgram:
    """Lays out V relu(W x + b) + U x of two inputs, the second of which is fixed, three hidden units and one output."""

    def term(source: int, activated: bool, rows: list[list[float]], exact: bool = True) -> Term:
        matrix = scipy.sparse.csr_array(np.array(rows, dtype=np.float32))
        return Term(source, activated, matrix, exact)

    def node(name: str, bias: list[float], *terms: Term) -> Node:
        zeros = np.zeros(len(bias), dtype=np.float32)
        return Node(name, len(bias), (len(bias),), terms, np.array(bias, dtype=np.float32), zeros)

    hidden = term(0, False, [[1, 0], [2, 0], [0, -1]], exact)
    last = term(1, True, [[1, 1, 1]]), term(0, False, [[5, 0]])
    net = Network("net", (2,), (node("x", [0, 0]), node("h", [0.5, -3, 0], hidden), node("y", [0], *last)))
    ends = [np.array([-1.0, 2.0]), np.array([-0.5, -5.0, lower]), np.array([np.nan])]
    tops = [np.array([1.0, 2.0]), np.array([1.5, -1.0, -0.1]), np.array([np.nan])]
    return lay_out(net, CheckedBounds(ends, tops, []), most)


def test_a_row_multiplies_values_and_their_relus_which_come_after_all_values() -> None:
    laid = program()
    assert laid.starts.tolist() == [0, 2, 5, 6]
    assert laid.activated.tolist() == [False, True, False]
    rows = [laid.slots[a:b].tolist() for a, b in zip(laid.pointers, laid.pointers[1:], strict=False)]
    assert rows == [[], [], [0], [0], [1], [6 + 2, 6 + 3, 6 + 4, 0]]
    assert laid.weights.tolist() == [1, 2, -1, 1, 1, 1, 5]
    # The second hidden unit takes what the first takes; the first of a node is compared with none of another node.
    assert laid.alike.tolist() == [False, False, False, True, False, False]
    assert laid.varying.tolist() == [0]


def test_what_is_no_number_bounds_nothing_and_inexact_weights_are_loose() -> None:
    laid = program(exact=False)
    assert (laid.lower[-1], laid.upper[-1]) == (-np.inf, np.inf)
    assert (laid.loose[2:5] > 2.0**-25).all()
    assert laid.loose[5] == 0
    assert not program().loose.any()
    # More products, more rounding.
    assert laid.gamma[5] > laid.gamma[2] > 0


def test_there_is_a_column_for_each_input_that_varies_and_each_relu_that_may_be_unstable() -> None:
    assert columns(program()) == 1 + 1 + 1
    assert columns(program(most=2)) == 2
    # Never less than the constant and the inputs.
    assert columns(program(most=1)) == 2
    room = scratch(program())
    assert room.table.shape == (12, PIECE)
    assert room.picked.shape == (13,)
