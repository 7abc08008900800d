"""Splitting one box: every answer is decided by leaves, and they cover it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.bab import branching
from prunecert.verifiers.sparse.bab.branch_and_bound import BranchAndBound
from prunecert.verifiers.sparse.bab.composed import compose
from prunecert.verifiers.sparse.bab.counterexamples import Hunt
from prunecert.verifiers.sparse.bab.dual import Batch, Dual
from prunecert.verifiers.sparse.bab.open_domains import Pool, timeout
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.bab.root import Root, Standing, Task
from prunecert.verifiers.sparse.onnx.neuron_names import Names
from tests.verifiers.sparse.bab.test_dual import prepared
from tests.verifiers.sparse.searching import Prepared


def below(question: Prepared, gap: float) -> OutputSpec:
    """Returns the unsafe set y0 <= b, b some way above CROWN's bound of y0, in shares of what it leaves open."""
    t = np.random.default_rng(0).uniform(-1, 1, (4000, len(question.net.pixels)))
    least = float(question.checker.network.evaluate(question.net.point(np.sign(t)))[:, 0].min())
    one = np.array([[1.0, 0.0, 0.0]])
    unbounded = OutputSpec(((one, np.zeros(1)),))
    root = Prepared(question.checker.network, question.lower, question.upper, unbounded).root
    bound = float(root.rows[0])
    return OutputSpec(((one, np.array([bound + gap * (least - bound)])),))


def start(question: Prepared, spec: OutputSpec, limits: Limits, seconds: float = 60) -> tuple[BranchAndBound, Standing]:
    question = Prepared(question.checker.network, question.lower, question.upper, spec)
    hunt = Hunt(question.checker, spec, question.lower, question.upper, limits, None)
    task = Task(question.checker, hunt, limits, time.monotonic() + seconds, None, None)
    standing = Standing(spec, ())
    shift = np.zeros(1)
    root = Root(np.array([0]), question.rows, question.offsets, shift, [(0, 1)], question.bounds, None)
    return BranchAndBound(task, standing, root), standing


@pytest.mark.parametrize("share_from", [0.0, 1e12])
@pytest.mark.parametrize("tighten_after", [0, 8])
def test_leaves_cover_the_box(tighten_after: int, share_from: float, tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    limits = Limits(tighten_after=tighten_after, root_steps=3, steps=2, share_from=share_from)
    bab, standing = start(question, below(question, 0.8), limits)
    if bab.start(again=False):
        bab.branch()
    out = standing.outcome
    assert out.status is Status.UNSAT
    assert out.bounds is not None
    assert min(out.bounds) > 0
    assert out.rounds > 0
    net = bab.composed.net
    t = np.random.default_rng(1).uniform(-1, 1, (500, len(net.pixels)))
    values = question.checker.network.forward(net.point(t))
    z = np.stack([values[node][:, index] for node, index in zip(net.nodes, net.indices, strict=True)], 1)
    signs = np.concatenate([leaf.sign for leaf in bab.leaves])
    assert np.all((z[:, None] * signs[None] >= 0).all(axis=2).any(axis=1))
    # The tree that the next network's search starts from says the same of each leaf.
    for leaf in bab.leaves:
        for sign, place in zip(leaf.sign, leaf.place.tolist(), strict=True):
            phases = np.zeros_like(sign)
            while bab.tree.parent[place] >= 0:
                phases[bab.tree.neuron[place]] = bab.tree.sign[place]
                place = bab.tree.parent[place]
            np.testing.assert_array_equal(phases, sign)


@pytest.mark.parametrize("certified", [-0.5, 0.0, -np.inf, np.nan])
def test_what_no_certificate_proves_stays_open(
    certified: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = prepared("fc", 1, tmp_path)
    bab, standing = start(question, below(question, 0.8), Limits(root_steps=3, steps=2, attack_steps=0))
    assert bab.start(again=False)
    batch = bab.pool.take(1)
    assert not len(bab.pool)
    monkeypatch.setattr(bab._prover, "certify", lambda batch: np.full(len(batch), certified))
    batch.bound[:] = 1.0
    bab._accept(batch)
    assert len(bab._pending) == 1
    bab._flush()
    assert not bab.leaves
    assert len(bab.pool) == 1
    assert not bab.pool.take(1).bound > 0
    assert (standing.outcome.certified, standing.outcome.refused) == (0, 1)


@pytest.mark.parametrize(("steps", "each"), [(12, 6), (5, 2), (1, 1)])
def test_a_pair_of_children_shares_its_steps(
    steps: int, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = prepared("fc", 1, tmp_path)
    bab, _ = start(question, below(question, 0.8), Limits(steps=steps))
    dual, counts = bab.composed.dual, list[int]()
    parents = dual.optimise(dual.start([0]), 10)
    both = branching.children(parents, np.array([dual.net.unstable - 1]))
    before = dual.bound(both.take([0, 1])).copy()
    optimise = Dual.optimise

    def count(self: Dual, batch: Batch, steps: int, *rest: Any, **more: Any) -> Batch:
        counts.append(steps)
        return optimise(self, batch, steps, *rest, **more)

    monkeypatch.setattr(Dual, "optimise", count)
    after = bab._ascend(both)
    assert counts == [each]
    assert np.all(after.bound >= before)
    assert np.all(after.beta >= 0)
    np.testing.assert_array_equal(after.sign, both.sign)
    # What a child's multiplier gains beyond its parent's bound is there after few steps.
    best = optimise(dual, both, 200, target=np.inf).bound
    assert np.all(after.bound >= before + (0.6 if each > 2 else 0.0) * (best - before) - 1e-6)


@pytest.mark.parametrize(("gain", "steps"), [(0.4, [30]), (0.6, [30, 30]), (1.1, [30])])
def test_the_whole_box_is_left_when_further_steps_would_not_prove_it(
    gain: float, steps: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = prepared("fc", 1, tmp_path)
    bab, _ = start(question, below(question, 0.8), Limits())
    counts: list[int] = []

    def optimise(self: Dual, batch: Batch, count: int, *rest: object, **more: object) -> Batch:
        counts.append(count)
        better = batch.take([0])
        better.bound[:] += gain
        return better

    monkeypatch.setattr(Dual, "optimise", optimise)
    batch = bab.composed.dual.start([0])
    batch.bound[:] = -1.0
    best = bab._climb(batch, 60)
    assert counts == steps
    assert best.bound[0] == np.float32(-1.0 + len(steps) * np.float32(gain))
    assert batch.bound[0] == -1.0


def test_a_subdomain_that_is_stuck_leaves_no_proof(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    bab, standing = start(question, below(question, 0.8), Limits())
    bab._stuck = [0]
    assert not bab._end()
    assert (standing.outcome.status, standing.outcome.stuck) == (Status.UNKNOWN, 1)
    assert "1 subdomains with every ReLU fixed" in standing.outcome.detail


def test_what_is_unsafe_is_broken(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    spec = below(question, 1.2)
    bab, standing = start(question, spec, Limits())
    if bab.start(again=False):
        bab.branch()
    out = standing.outcome
    assert out.status is Status.SAT
    assert out.witness is not None
    assert question.checker.network.evaluate(out.witness[None])[0, 0] <= spec.disjuncts[0][1][0] + 1e-5


def test_at_the_deadline_what_is_open_is_said(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    bab, standing = start(question, below(question, 0.8), Limits(root_steps=3, attack_steps=0), seconds=-1)
    with pytest.raises(TimeoutError):
        bab.start(again=False)
    timeout(standing.outcome, bab.pool)
    assert standing.outcome.status is Status.TIMEOUT


def test_the_pool_s_lowest_bound_is_reported(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    pool, out = Pool(), Outcome()
    batch = question.dual.start([0, 1])
    batch.bound[:] = [-2.5, -1.0]
    pool.put(batch)
    timeout(out, pool)
    assert (out.status, out.lowest) == (Status.TIMEOUT, -2.5)
    assert out.detail == "global lower bound -2.5, 2 subdomains open"


def test_composing_gives_a_dual_of_the_open_rows(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    spec = OutputSpec.robustness(0, 3)
    hunt = Hunt(question.checker, spec, question.lower, question.upper, Limits(), None)
    task = Task(question.checker, hunt, Limits(), time.monotonic() + 60, None, None)
    root = Root(np.array([1]), question.rows[1:], question.offsets[1:], np.zeros(1), [(0, 1)], question.bounds, None)
    composed = compose(task, root)
    assert composed.dual.rows == 1
    np.testing.assert_array_equal(composed.net.nodes, question.net.nodes)


def test_leaves_are_kept_while_there_is_room_for_all(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    batch = question.dual.start([0, 0])
    bab, _ = start(question, below(question, 0.8), Limits(memory_mb=2.5 * batch.megabytes))
    for _ in range(2):
        bab._keep(batch)
    assert (len(bab.leaves), bab.forgotten) == (2, False)
    for _ in range(2):
        bab._keep(batch)
    assert (len(bab.leaves), bab.forgotten) == (0, True)
    # A proof for other networks would lack them.
    assert bab.pack("hash", Names((), ())) is None


def test_leaves_give_way_to_what_is_open(tmp_path: Path) -> None:
    question = prepared("fc", 1, tmp_path)
    batch = question.dual.start([0, 0])
    bab, _ = start(question, below(question, 0.8), Limits(memory_mb=1e3))
    bab._keep(batch)
    bab.pool.put(batch)
    bab._limits = Limits(memory_mb=bab.pool.megabytes + 2.5 * batch.megabytes)
    bab._keep(batch)
    assert (len(bab.leaves), bab.forgotten) == (2, False)
    bab.pool._grow(10_000, batch)
    bab._keep(batch)
    assert (len(bab.leaves), bab.forgotten) == (0, True)
