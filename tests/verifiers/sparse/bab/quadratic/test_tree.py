"""Trees with second-order bounds: what they prove holds, to just below the least value."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import Float64Array, Int8Array
from prunecert.verifiers.sparse.bab.quadratic import tree as module
from prunecert.verifiers.sparse.bab.quadratic.ascent import Ascended, LayerAscent, ascend, begin
from prunecert.verifiers.sparse.bab.quadratic.last_layer import Multipliers
from prunecert.verifiers.sparse.bab.quadratic.tree import QuadraticTree, Subject, TreeOutcome
from tests.soundness.oracle import exact_margin
from tests.verifiers.sparse.bab.quadratic.layers import KINDS, Small, parted, small
from tests.verifiers.sparse.searching import draw


def grow(question: Small, constant: float, most: int = 600) -> TreeOutcome:
    subject = replace(question.subject, constant=constant)
    return QuadraticTree(subject, time.monotonic() + 60, most, -np.inf, 1e3, lambda w: False).run()


def between(folder: Path) -> Subject:
    """Returns a row whose threshold lies between the whole box's bound and values that occur, so that it is split."""
    question = small("conv", 1, folder)
    lowest = float(question.values(question.points(np.random.default_rng(0), 3000)).min())
    root = grow(question, question.subject.constant, most=1).lowest
    return replace(question.subject, constant=question.subject.constant - root - 0.6 * (lowest - root))


def check(kind: str, seed: int, tmp_path: Path) -> bool:
    """Asks about the row above and below its exact minimum; returns whether what holds is proved."""
    question = small(kind, seed, tmp_path, radius=0.2)
    row = question.subject.row
    margin = exact_margin(
        draw(kind, seed, tmp_path)[0], question.low, question.high, OutputSpec(((row[None], np.zeros(1)),))
    )
    spread = float(np.ptp(question.values(question.points(np.random.default_rng(0), 200))))
    assert grow(question, -1e-6 * spread - margin.high, most=100).proved is None
    far = grow(question, 0.2 * spread - margin.low, most=100)
    assert far.proved is None or far.proved <= 0.2 * spread + 1e-6
    return far.proved is not None


@pytest.mark.slow
def test_what_is_proved_holds_and_most_of_what_holds_is_proved(tmp_path: Path) -> None:
    proved = [check(kind, seed, tmp_path) for kind in KINDS for seed in range(3)]
    assert sum(proved) > len(proved) / 2


def test_gaps_are_those_of_free_neurons(tmp_path: Path) -> None:
    question = small("conv", 1, tmp_path)
    subject, rng = question.subject, np.random.default_rng(1)
    signs = np.where(rng.random(subject.net.unstable) < 0.3, 1, 0).astype(np.int8)
    layer, mine = parted(subject, signs)
    ascended = ascend(layer, mine, begin(layer), 40, np.inf, np.inf)
    gaps = subject.gaps(signs, ascended)
    assert gaps.shape == (subject.net.unstable,)
    assert (gaps[signs != 0] == 0).all()
    assert np.isfinite(gaps).all()
    assert gaps.max() > 0


def test_limits_end_a_tree(tmp_path: Path) -> None:
    question = small("fc", 0, tmp_path)
    low = float(question.values(question.points(np.random.default_rng(0), 500)).min()) - question.subject.constant
    out = grow(question, 1e-4 - low, most=3)
    assert out.domains <= 4
    over = time.monotonic() - 1
    late = QuadraticTree(replace(question.subject, constant=-low), over, 100, -np.inf, 1e3, lambda w: False).run()
    assert late.proved is None
    assert late.domains == 1


def test_a_counterexample_ends_a_tree(tmp_path: Path) -> None:
    question = small("fc", 0, tmp_path)
    subject, deadline = replace(question.subject, constant=-1e3), time.monotonic() + 60
    out = QuadraticTree(subject, deadline, 100, -np.inf, 1e3, lambda w: True).run()
    assert out.won
    assert out.proved is None
    assert out.domains == 1


def test_a_whole_box_far_from_a_proof_is_not_split(tmp_path: Path) -> None:
    question = small("fc", 0, tmp_path)
    subject, deadline = replace(question.subject, constant=-1e3), time.monotonic() + 60
    out = QuadraticTree(subject, deadline, 100, -1.0, 1e3, lambda w: False).run()
    assert out.domains == 1
    assert out.lowest < -1.0
    assert out.proved is None


def test_earlier_neurons_are_split_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only these have gaps, what is proved is still below every value."""
    gaps = Subject.gaps
    proved = 0
    for seed in range(4):
        question = small("conv", seed, tmp_path)
        first = question.subject.net.levels[-1][0]

        def early(subject: Subject, signs: Int8Array, ascended: Ascended, first: int = first) -> Float64Array:
            costs = gaps(subject, signs, ascended)
            costs[:first] = np.where(signs[:first] == 0, np.maximum(costs[:first], 1e-9), 0.0)
            costs[first:] = 0.0
            return costs

        monkeypatch.setattr(Subject, "gaps", early)
        lowest = float(question.values(question.points(np.random.default_rng(seed), 3000)).min())
        subject = question.subject
        root = grow(question, subject.constant, most=1).lowest
        for share in (0.2, 0.5):
            # Between the whole box's bound and values that occur.
            shift = -(root + share * (lowest - root))
            out = grow(question, subject.constant + shift, most=40)
            assert out.proved is None or out.proved <= lowest + shift + 1e-5
            proved += out.proved is not None
    assert proved


def test_rows_that_are_not_kept_are_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no memory for rows trees are the same."""
    subject = between(tmp_path)
    trees = []
    for share in (0.5, 0.0):
        monkeypatch.setattr(module, "_ROWS", share)
        tree = QuadraticTree(subject, time.monotonic() + 60, 60, -np.inf, 1e3, lambda w: False)
        out = tree.run()
        trees.append((out.domains, out.leaves, out.proved, out.lowest))
        assert tree._rows_mb <= share * 1e3
        if not tree._open:
            assert tree._rows_mb == pytest.approx(0.0, abs=1e-9)
            assert tree._else_mb == pytest.approx(0.0, abs=1e-9)
    assert trees[0][0] > 3
    assert trees[0] == pytest.approx(trees[1])


def test_a_tree_that_pauses_is_the_same_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = QuadraticTree._whole_box
    monkeypatch.setattr(QuadraticTree, "_whole_box", lambda self, dual, _: whole(self, dual, np.inf))
    subject = between(tmp_path)
    trees = []
    for until in (np.inf, 0.0):
        tree = QuadraticTree(subject, time.monotonic() + 60, 60, -np.inf, 1e3, lambda w: False)
        turns, out = 1, tree.run(until)
        while tree.paused:
            domains = out.domains
            turns, out = turns + 1, tree.run(until)
            assert out.domains > domains, "each turn bounds something"
        trees.append((out.domains, out.leaves, out.proved, out.lowest, len(tree.kept.leaves)))
        assert (turns > 1) is (until == 0)
    assert trees[0][0] > 3
    assert trees[0] == trees[1]


def test_the_whole_boxs_ascent_ends_with_a_turn_and_goes_on_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is most of a turn where there are many rows: 9 s of one that should have taken 0.35."""
    subject = between(tmp_path)
    whole = QuadraticTree(subject, time.monotonic() + 60, 60, -np.inf, 1e3, lambda w: False)
    expected = whole.run()
    limits: list[float] = []
    climb = LayerAscent.climb

    def short(self: LayerAscent, phases: Int8Array, dual: Multipliers, steps: int, *rest: Any, **later: Any) -> Any:
        limits.append(rest[-1])
        if len(limits) < 3:
            steps = 5
            time.sleep(0.02)
        return climb(self, phases, dual, steps, *rest, **later)

    monkeypatch.setattr(LayerAscent, "climb", short)
    tree = QuadraticTree(subject, time.monotonic() + 60, 60, -np.inf, 1e3, lambda w: False)
    soon = time.monotonic() + 0.01
    first = tree.run(soon)
    assert (tree.paused, first.domains, first.proved, limits) == (True, 1, None, [soon])
    later = time.monotonic() + 0.01
    assert (tree.run(later).domains, tree.paused) == (1, True)
    out = tree.run()
    assert limits[1] == later
    assert limits[2] > later + 1
    assert (out.proved is None) == (expected.proved is None)
    assert out.lowest == pytest.approx(expected.lowest, abs=0.05 * abs(expected.lowest) + 1e-3)
    assert tree.run() is out, "what has ended doesn't begin again"


def test_what_is_begun_ends_with_the_last_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    question = small("conv", 1, tmp_path)
    limits: list[float] = []
    climb = LayerAscent.climb

    def noted(self: LayerAscent, *arguments: Any, **later: Any) -> Any:
        limits.append(arguments[-1])
        return climb(self, *arguments, **later)

    monkeypatch.setattr(LayerAscent, "climb", noted)
    subject = replace(question.subject, constant=-1e3)
    end, until = time.monotonic() + 60, time.monotonic() + 30
    QuadraticTree(subject, end, 9, -np.inf, 1e3, lambda w: False).run(until, last=True)
    assert set(limits) == {until}
    limits.clear()
    QuadraticTree(subject, end, 9, -np.inf, 1e3, lambda w: False).run(until)
    assert limits[0] == until
    assert set(limits[1:]) == {end}


def test_memory_ends_a_tree(tmp_path: Path) -> None:
    question = small("fc", 0, tmp_path)
    subject, deadline = replace(question.subject, constant=-1e3), time.monotonic() + 60
    out = QuadraticTree(subject, deadline, 100, -np.inf, 1e-6, lambda w: False).run()
    assert out.domains == 1
    assert out.proved is None


def test_neurons_in_another_order_are_refused(tmp_path: Path) -> None:
    subject = small("conv", 1, tmp_path).subject
    net = subject.net
    with pytest.raises(ValueError, match="from first to last"):
        replace(subject, net=replace(net, nodes=net.nodes[::-1].copy()))
    with pytest.raises(ValueError, match="its unstable ones, in order"):
        replace(subject, net=replace(net, indices=net.indices[::-1].copy()))
