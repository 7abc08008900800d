from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.results.stats import paired_difference, wilson
from prunecert.bench.site.ranking import Rank, ranks, surely_ahead
from prunecert.bench.site.view import make_rows
from tests.bench import boards


def row(name: str, proved: list[bool], *, answers: bool = True, eps: float = 0.1) -> Any:
    """Returns a row of which these images are proved; without answers its counts alone are known."""
    k, n = sum(proved), len(proved)
    low, high = wilson(k, n)
    return SimpleNamespace(
        name=name,
        can_verify=True,
        eps=eps,
        images=n,
        data_fingerprint="f",
        larger=None if answers else "a run",
        entry={"data": {"images_sha256": "i"}},
        result={"verified": {"k": k, "low": low, "high": high}},
        outcomes=[SimpleNamespace(result="unsat" if yes else "sat") for yes in proved],
    )


@st.composite
def boards_of_rows(draw: st.DrawFn) -> list[Any]:
    count, images = draw(st.integers(1, 5)), draw(st.integers(1, 40))
    proved = np.random.default_rng(draw(st.integers(0, 99))).random((count, images)) < draw(st.floats(0, 1))
    return [row(str(i), list(map(bool, line)), answers=draw(st.booleans())) for i, line in enumerate(proved)]


@given(boards_of_rows())
def test_a_place_lies_among_those_that_its_intervals_allow(rows: list[Any]) -> None:
    places = ranks(rows)
    assert len(places) == len(rows)
    for one in rows:
        rank = places[one.name]
        assert 1 <= rank.best <= rank.place <= rank.worst <= rank.of == len(rows)
        for other in rows:
            ahead = one.result["verified"]["k"] > other.result["verified"]["k"]
            assert (rank.place < places[other.name].place) == ahead


@given(boards_of_rows())
def test_pairs_are_judged_as_statistics_says(rows: list[Any]) -> None:
    ahead = surely_ahead(rows)
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            if one.larger is None and other.larger is None:
                pairs = [
                    (a.result == "unsat", b.result == "unsat")
                    for a, b in zip(one.outcomes, other.outcomes, strict=True)
                ]
                b, c = pairs.count((False, True)), pairs.count((True, False))
                assert ahead[i, j] == (paired_difference(b, c, len(pairs))[1] > 0)
            else:
                assert ahead[i, j] == (one.result["verified"]["low"] > other.result["verified"]["high"])


def test_answers_on_the_same_images_tell_more_than_intervals() -> None:
    better, worse = [True] * 60 + [False] * 40, [True] * 50 + [False] * 50
    paired = ranks([row("a", better), row("b", worse)])
    assert (paired["a"], paired["b"]) == (Rank(1, 1, 1, 2), Rank(2, 2, 2, 2))
    counts = ranks([row("a", better, answers=False), row("b", worse)])
    assert (str(counts["a"]), str(counts["b"])) == ("1 (1–2)", "2 (1–2)")


def test_radii_and_numbers_of_images_are_never_ranked_together() -> None:
    rows = [row("a", [True] * 10), row("b", [False] * 10, eps=0.2), row("c", [True] * 9)]
    assert {rank.of for rank in ranks(rows).values()} == {1}


def test_an_attack_alone_has_no_rank() -> None:
    entries = [boards.make(), boards.make("hydra", verifiers=("pgd",))]
    assert list(ranks(make_rows(entries))) == [entries[0]["name"]]
