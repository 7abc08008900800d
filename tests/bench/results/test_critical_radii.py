from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.results.critical_radii import RadiusRow, contradictions_with, read_radii, summarise_radii
from prunecert.errors import UserError


def row(image: int, proved: str = "2/255", broken: str | None = "3/255", **fields: Any) -> RadiusRow:
    defaults: dict[str, Any] = {"key": "k", "network": "mine", "pruner": "pruned", "label": 0, "correct": True}
    defaults |= {"highest": "32/255", "questions": 7, "seconds": 1.5}
    return RadiusRow(image=image, proved=proved, broken=broken, **{**defaults, **fields})


def test_the_last_row_of_an_image_counts_and_a_cut_line_doesn_t(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    rows = [row(0), row(1), row(0, "5/255", None)]
    data = b"".join(msgspec.json.encode(one) + b"\n" for one in rows)
    path.write_bytes(data + b'{"key": "k"')
    assert read_radii(path) == [rows[2], rows[1]]
    assert read_radii(tmp_path / "none") == []
    path.write_bytes(b'{"key": 3}\n')
    with pytest.raises(UserError, match="line 1, is no critical radius"):
        read_radii(path)
    path.write_bytes(msgspec.json.encode(row(0, schema_version=2)) + b"\n")
    with pytest.raises(UserError, match="schema version 2, newer"):
        read_radii(path)
    path.write_bytes(msgspec.json.encode(row(0, "1/0")) + b"\n")
    with pytest.raises(UserError, match="line 1, is no"):
        read_radii(path)


def test_a_summary_has_the_middle_image_and_counts_a_misclassified_one_as_0() -> None:
    rows = [row(0, "1/255", "2/255"), row(1, "4/255", None), row(2, "0", None, correct=False), row(3, "3/255", "5/255")]
    (summary,) = summarise_radii(rows)
    assert (summary.images, summary.correct) == (4, 3)
    assert summary.proved == (Fraction(0), Fraction(1, 255), Fraction(3, 255))
    assert summary.broken == (Fraction(0), Fraction(2, 255), Fraction(5, 255))
    assert str(summary) == (
        "mine (pruned): the median image is proved up to 1/255 and broken at 2/255; quartiles of what is proved 0/255 "
        "and 3/255 (4 images, 3 classified correctly; few images, so take it as a hint)"
    )
    (far,) = summarise_radii([row(0, "32/255", None)])
    assert far.broken == (None, None, None)
    assert "proved up to 32/255 and not broken up to 32/255" in str(far)
    (lost,) = summarise_radii([row(0, "0", None, correct=False), row(1, "0", None, correct=False)])
    assert str(lost) == "mine (pruned): none of 2 images is classified correctly, so no radius"
    assert [one.pruner for one in summarise_radii([row(0), row(0, pruner="dense")])] == ["pruned", "dense"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=30))
def test_half_of_the_images_reach_the_median(ends: list[tuple[int, int]]) -> None:
    rows = [row(i, f"{low}/255", f"{low + gap}/255") for i, (low, gap) in enumerate(ends)]
    (summary,) = summarise_radii(rows)
    assert 2 * sum(one.ends[0] >= summary.proved[1] for one in rows) >= len(rows)
    assert summary.broken[1] is not None
    assert summary.proved[1] < summary.broken[1]


def test_a_radius_that_contradicts_the_run_is_named() -> None:
    rows = [row(0, "2/255", "3/255"), row(1, "2/255", None)]

    def at(image: int, eps: str, status: str, key: str = "k") -> list[str]:
        return contradictions_with(rows, {(key, image): {Fraction(eps): status}})

    assert at(0, "2/255", "unsat") == at(0, "3/255", "sat") == at(0, "5/510", "unknown") == at(7, "1/255", "sat") == []
    assert at(0, "2/255", "sat") == ["mine (pruned) image 0: broken at 2/255, and proved up to 2/255"]
    assert at(0, "3/255", "unsat") == ["mine (pruned) image 0: proved at 3/255, and broken at 3/255"]
    assert at(1, "1/255", "sat") != []
    assert at(1, "9/255", "unsat") == []
    # Of another network of the same name and pruner nothing follows.
    assert at(0, "2/255", "sat", "other") == []


def test_networks_of_one_name_and_pruner_are_told_apart() -> None:
    """At 2x and at 10x, say."""
    first, second = summarise_radii([row(0, "4/255", "5/255"), row(0, "1/255", "2/255", key="other")])
    assert (first.images, first.proved[1], second.proved[1]) == (1, Fraction(4, 255), Fraction(1, 255))
