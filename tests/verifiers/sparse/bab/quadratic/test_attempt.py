"""Second-order bounds within a search: exact answers, no tree kept, and certificates by another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab import leaf_lp
from prunecert.verifiers.sparse.bab.branch_and_bound import BranchAndBound
from prunecert.verifiers.sparse.bab.quadratic import attempt
from prunecert.verifiers.sparse.bab.quadratic.tree import QuadraticTree
from tests.soundness.oracle import exact_margin
from tests.verifiers.sparse.bab.test_input_splits import moved
from tests.verifiers.sparse.searching import draw, search


def single_rows(rng: np.random.Generator, outputs: Float64Array) -> OutputSpec:
    """Draws three disjuncts of a row each, around outputs that occur."""
    rows = np.round(rng.normal(size=(3, 1, outputs.shape[1])), 2)
    return OutputSpec(tuple((row, row @ outputs[rng.integers(len(outputs))]) for row in rows))


class Drawn(NamedTuple):
    """A network, a box, three disjuncts, their exact margin, and the size of outputs, at least 1."""

    network: Any
    low: Float64Array
    high: Float64Array
    spec: OutputSpec
    margin: Any
    scale: float


def question(kind: str, seed: int, folder: Path, radius: float = 0.15) -> Drawn:
    """Draws one whose disjuncts are near their thresholds."""
    drawn, network = draw(kind, seed, folder)
    rng = np.random.default_rng(seed)
    center = rng.random(drawn.inputs)
    low, high = (np.float32(center + side * radius).astype(float) for side in (-1, 1))
    outputs = network.evaluate(rng.uniform(low, high, (200, drawn.inputs)))
    spec = single_rows(rng, outputs)
    margin = exact_margin(drawn, low, high, spec)
    return Drawn(network, low, high, spec, margin, max(1.0, float(np.abs(outputs).max())))


def ask(network: Any, low: Any, high: Any, spec: OutputSpec) -> Any:
    # After the first split, and over improved bounds again.
    return search(network, low, high, spec, 20, tighten_after=1, second_order=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["fc", "conv", "skip", "conv-skip"])
def test_answers_are_exact(kind: str, seed: int, tmp_path: Path) -> None:
    network, low, high, spec, margin, scale = question(kind, seed, tmp_path)
    for distance, truth in ((-0.02, Status.UNSAT), (-0.1, Status.UNSAT), (1e-3, Status.SAT)):
        edge = margin.low if truth is Status.UNSAT else margin.high
        run, out = ask(network, low, high, moved(spec, edge + distance * scale))
        assert out.status is truth, f"{distance}: {out.status} {out.detail}"
        if truth is Status.UNSAT:
            assert out.bounds is not None
            assert 0 < min(out.bounds) <= -distance * scale + 1e-6
        if run.branched is not None and run.branched.second_order.closed:
            assert run.pack("sha256", ()) is None


@pytest.mark.slow
def test_answers_are_exact_where_both_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear bounds close some disjuncts, those of second order others, each of them between steps of the other."""
    monkeypatch.setattr(attempt, "_TURN", 0.0)
    monkeypatch.setattr(attempt, "_PART", 0.0)
    turns, closed, linear = 0, 0, 0
    grow = attempt.SecondOrder._grow

    def counted(self: attempt.SecondOrder, pool: Any, trees: Any, until: float, last: bool = False) -> list[int]:
        nonlocal turns
        turns += bool(trees)
        return grow(self, pool, trees, until, last)

    monkeypatch.setattr(attempt.SecondOrder, "_grow", counted)
    # In turns of no length whole boxes would never be bounded.
    whole = QuadraticTree._whole_box
    monkeypatch.setattr(QuadraticTree, "_whole_box", lambda self, dual, _: whole(self, dual, np.inf))
    for kind, seed in (("conv", 0), ("conv", 1), ("conv", 2), ("conv-skip", 0), ("fc", 1)):
        network, low, high, spec, margin, scale = question(kind, seed, tmp_path)
        for distance, truth in ((-0.005, Status.UNSAT), (1e-3, Status.SAT)):
            edge = margin.low if truth is Status.UNSAT else margin.high
            run, out = ask(network, low, high, moved(spec, edge + distance * scale))
            assert out.status is truth, f"{kind} {seed} {distance}: {out.status} {out.detail}"
            if run.branched is not None and truth is Status.UNSAT:
                closed += len(run.branched.second_order.closed)
                linear += len(run.branched.leaves)
    assert turns > 10
    assert closed
    assert linear


@pytest.mark.slow
def test_a_closed_disjuncts_stuck_leaves_are_no_reason_to_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its linear programme said nothing of a leaf, but second-order bounds prove all of the disjunct later."""
    monkeypatch.setattr(attempt, "_TURN", 5.0)
    monkeypatch.setattr(attempt, "_WORTH", 1e6)
    monkeypatch.setattr(leaf_lp, "settle", lambda *_: None)
    close, stuck = BranchAndBound._close, []

    def waiting(self: BranchAndBound) -> bool:
        """Has linear bounds go first, until they are stuck."""
        stuck.extend(self._stuck)
        return not (self._tightened and not self._stuck) and close(self)

    monkeypatch.setattr(BranchAndBound, "_close", waiting)
    network, low, high, spec, margin, scale = question("fc", 19, tmp_path, radius=0.25)
    options = {"tighten_after": 1, "second_order": True, "attack_steps": 0, "batch": 1}
    run, out = search(network, low, high, moved(spec, margin.low - 0.005 * scale), 20, **options)
    assert stuck
    assert run.branched is not None
    assert set(stuck) <= set(run.branched.second_order.closed)
    assert out.status is Status.UNSAT, out.detail
    assert not run.branched.second_order._trees, "nothing is kept of trees that are over"


@pytest.mark.slow
def test_a_disjunct_that_is_closed_is_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "_MOST", (200, 200))
    closed = 0
    for seed in range(3):
        network, low, high, spec, margin, _ = question("conv", seed, tmp_path)
        run, out = ask(network, low, high, moved(spec, margin.low - 0.02 * max(1.0, margin.high - margin.low)))
        assert out.status is Status.UNSAT
        closed += run.branched is not None and len(run.branched.second_order.closed)
    assert closed


def test_it_is_off_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt.SecondOrder, "_plant", lambda *arguments: pytest.fail("it was tried"))
    drawn, network = draw("conv", 0, tmp_path)
    center = np.random.default_rng(0).random(drawn.inputs)
    search(network, center - 0.25, center + 0.25, OutputSpec.robustness(0, drawn.classes), 5, tighten_after=1)
