"""Clauses close what they exclude and nothing else, and shrunk leaves are proved still."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from tests.benchmarks.clauses import Clauses, counted
from tests.benchmarks.test_second_order import open_question

LITERALS = st.frozensets(st.integers(0, 9), min_size=1, max_size=3)


@given(st.lists(LITERALS, max_size=8), st.frozensets(st.integers(0, 9), max_size=4))
def test_what_is_excluded_has_no_way_left(added: list[frozenset[int]], literals: frozenset[int]) -> None:
    clauses = Clauses()
    for clause in added:
        clauses.add(clause)
    # Five neurons with two phases each.
    ways = [frozenset(2 * n + phase for n, phase in enumerate(way)) for way in itertools.product((0, 1), repeat=5)]
    possible = any(literals <= way and not any(clause <= way for clause in added) for way in ways)
    if clauses.exclude(literals):
        assert not possible
    assert not any(clause <= literals for clause in added) or clauses.exclude(literals)


def test_one_implies_another() -> None:
    clauses = Clauses()
    for clause in ({0, 2}, {0, 3, 4}, {0, 3, 5}):
        clauses.add(frozenset(clause))
    assert clauses.exclude(frozenset({0}))
    assert not clauses.exclude(frozenset({1}))
    assert not clauses.exclude(frozenset())


def test_a_tree_is_counted(tmp_path: Path) -> None:
    counts = []
    for seed in range(6):
        network, question, _ = open_question(seed, tmp_path)
        result = counted(Engine(network, 1), Checker(network), question, 20)
        if result is not None:
            counts.append(result)
            assert result.bounded + result.closed <= result.subdomains
            assert 0 <= result.needed <= result.splits
    assert counts
    assert any(result.needed < result.splits for result in counts)
