"""Where the search for counterexamples starts, and what counts as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.bab.counterexamples import Attackable, Hunt, ReducedHunt
from prunecert.verifiers.sparse.bab.outcome import Limits
from tests.verifiers.sparse.bab.test_dual import prepared
from tests.verifiers.sparse.searching import Prepared


def threshold(question: Prepared, share: float) -> OutputSpec:
    """Returns the unsafe set y0 <= b, b at a share of what outputs reach in the box."""
    t = np.random.default_rng(0).uniform(-1, 1, (2000, len(question.net.pixels)))
    values = question.checker.network.evaluate(question.net.point(np.sign(t)))[:, 0]
    return OutputSpec(((np.array([[1.0, 0.0, 0.0]]), np.array([np.quantile(values, share)])),))


def hunter(
    question: Prepared, spec: OutputSpec, limits: Limits | None = None, witness: np.ndarray | None = None
) -> Hunt:
    return Hunt(question.checker, spec, question.lower, question.upper, limits or Limits(), witness)


def everything(spec: OutputSpec) -> Attackable:
    ((rows, offsets),) = spec.disjuncts
    return Attackable(rows, offsets, np.array([0, len(offsets)]))


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_what_falls_easily_is_broken_within_the_box(share: float, tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    spec = threshold(question, share)
    witness = hunter(question, spec).quick(np.array([0]), everything(spec))
    assert witness is not None
    assert np.all((witness >= question.lower) & (witness <= question.upper))
    assert question.checker.network.evaluate(witness[None])[0, 0] <= spec.disjuncts[0][1][0] + 1e-6


def test_without_attack_steps_nothing_is_tried(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    spec = threshold(question, 0.6)
    hunt = hunter(question, spec, Limits(attack_steps=0))
    assert hunt.quick(np.array([0]), everything(spec)) is None
    inside = ReducedHunt(hunt, question.dual, np.zeros(len(question.rows)))
    assert inside.root(question.dual.start([0])) is None


def test_a_safe_property_has_none_and_points_outside_are_drawn_into_the_box(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    safe = OutputSpec(((np.array([[1.0, 0.0, 0.0]]), np.array([-1e6])),))
    hunt = hunter(question, safe, witness=question.lower)
    assert hunt.replay() is None
    assert hunt.quick(np.array([0]), everything(safe)) is None
    assert hunt.confirm(np.stack([question.lower, question.upper]).astype(np.float64)) is None
    broken = OutputSpec(((np.array([[1.0, 0.0, 0.0]]), np.array([1e6])),))
    np.testing.assert_array_equal(hunter(question, broken, witness=question.lower - 5).replay(), question.lower)
    np.testing.assert_array_equal(
        hunter(question, broken).confirm(question.upper[None].astype(np.float64) + 9.0), question.upper
    )


def test_in_what_is_left_the_root_s_attack_reaches_what_random_points_reach(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    outputs = question.checker.network.evaluate(question.net.point(np.zeros((1, len(question.net.pixels)))))
    label = int(outputs[0].argmax())
    robust = OutputSpec.robustness(label, 3)
    question = Prepared(question.checker.network, question.lower, question.upper, robust)
    t = np.sign(np.random.default_rng(0).uniform(-1, 1, (2000, len(question.net.pixels))))
    rows = question.checker.network.evaluate(question.net.point(t)) @ question.rows.T
    inside = ReducedHunt(hunter(question, robust), question.dual, np.zeros(len(question.rows)))
    witness = inside.root(question.dual.start(np.arange(2)))
    assert (witness is not None) == bool(rows.min() < 0)
