"""Splitting inputs: answers against exact ones, sub-boxes that cover the box, and when it is done at all."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab import branch_and_bound, input_splits, search
from prunecert.verifiers.sparse.bab.counterexamples import Hunt
from prunecert.verifiers.sparse.bab.input_splits import FEW, InputSplits, halves, possible
from prunecert.verifiers.sparse.bab.open_boxes import Boxes
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.root import Root, Standing, Task
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.threads import threads
from tests.soundness.networks import Network as Drawn
from tests.soundness.networks import fully_connected
from tests.soundness.oracle import exact_margin
from tests.verifiers.sparse.bab import segments
from tests.verifiers.sparse.bab.test_box_bounds import plain
from tests.verifiers.sparse.searching import Prepared, ask, bab, draw
from tests.verifiers.sparse.searching import search as answer

#: How far from the exact minimum questions are asked, in shares of the outputs' spread.
_SAFE, _FAR, _UNSAFE = 1e-5, 2e-2, 1e-4


def randomly(rng: np.random.Generator, folder: Path) -> tuple[Drawn, Network]:
    """Draws a network of 2 to 5 inputs and 2 to 4 layers, some of them pruned."""
    widths = [int(rng.integers(2, 6)), *rng.integers(3, 8, int(rng.integers(1, 4))).tolist(), 3]
    net = fully_connected("net", rng, widths, sparsity=float(rng.choice([0.0, 0.5]))).balance(rng)
    return net, read_network(net.save(folder / "net.onnx"))


def unsafe_set(rng: np.random.Generator, outputs: Float64Array) -> OutputSpec:
    """Draws one to three disjuncts of one to three rows, around outputs that occur."""
    disjuncts = []
    for _ in range(int(rng.integers(1, 4))):
        a = np.round(rng.normal(size=(int(rng.integers(1, 4)), outputs.shape[1])), 2)
        disjuncts.append((a, a @ outputs[rng.integers(len(outputs))]))
    return OutputSpec(tuple(disjuncts))


def moved(spec: OutputSpec, distance: float) -> OutputSpec:
    return OutputSpec(tuple((a, b + distance) for a, b in spec.disjuncts))


def check_networks(seeds: range, folder: Path) -> int:
    """Asks both ways of splitting about properties just above and below the exact minimum; returns how many splits."""
    splits = undecided = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        drawn, network = randomly(rng, folder)
        center, radius = rng.random(drawn.inputs), rng.uniform(0.1, 0.6, drawn.inputs)
        radius[rng.random(drawn.inputs) < 0.15] = 0.0
        low, high = (np.float32(center + side * radius).astype(float) for side in (-1, 1))
        outputs = network.evaluate(rng.uniform(low, high, (200, drawn.inputs)))
        spec = unsafe_set(rng, outputs)
        margin = exact_margin(drawn, low, high, spec)
        scale = max(1.0, float(np.abs(outputs).max()))
        for distance, truth in ((-_SAFE, Status.UNSAT), (-_FAR, Status.UNSAT), (_UNSAFE, Status.SAT)):
            question = moved(spec, (margin.low if truth is Status.UNSAT else margin.high) + distance * scale)
            for split in ("input", "auto", "relu"):
                # Either alone may take too many splits: of inputs where the minimum is nearly attained in more than a
                # point, of ReLUs where rows keep apart.
                hard = split == ("input" if distance == -_SAFE else "relu") or (split == "relu" and distance < 0)
                run, out = answer(network, low, high, question, 1 if hard else 300, split=split)
                assert out.status is truth or (hard and out.status is Status.TIMEOUT), (
                    f"network {seed}, {distance}, {split}: {out.status} {out.detail}"
                )
                undecided += out.status is Status.TIMEOUT
                if out.status is Status.UNSAT:
                    assert out.bounds is not None
                    assert 0 < min(out.bounds) <= -distance * scale + 1e-6
                if out.status is Status.SAT:
                    assert out.witness is not None
                    assert np.all((run.lower <= out.witness) & (out.witness <= run.upper))
                if split == "input":
                    splits += out.rounds
                    assert not run.leaves
    # A busy machine leaves some of the hard ones open.
    assert undecided <= max(2, len(seeds) // 5)
    return splits


def test_answers_are_exact(tmp_path: Path) -> None:
    assert check_networks(range(3), tmp_path) > 3


@pytest.mark.slow
def test_answers_of_thirty_networks_are_exact(tmp_path: Path) -> None:
    """Beside the soundness suite's 614 questions, which are asked with input splits, too."""
    assert check_networks(range(100, 130), tmp_path) > 30


def check_ties(seeds: range) -> int:
    """Asks about networks of one input nearly at their exact margin; returns how many proofs there were."""
    proofs = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        net, first, last = segments.draw(rng)
        with np.errstate(all="ignore"):
            spec, margin = segments.tie(rng, net, first, last)
        corners = np.array([first]), np.array([last])
        out = answer(net, *corners, spec, seconds=0.05, split="input", attack_steps=20 * (seed % 2))[1]
        if out.status is Status.UNSAT:
            assert margin > 0, seed
            assert out.bounds is not None
            for value, disjunct in zip(out.bounds, spec.disjuncts, strict=True):
                if np.isfinite(value):
                    exact = segments.margin(net, float(first), float(last), OutputSpec((disjunct,)))
                    assert Fraction(value) <= exact, seed
            proofs += 1
    return proofs


def test_no_tie_is_proved() -> None:
    assert check_ties(range(30)) > 0


@pytest.mark.slow
def test_no_tie_of_many_is_proved() -> None:
    assert check_ties(range(1000, 1300)) > 30


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_halves_cover_a_box_without_a_gap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.normal(size=(6, 3)) * 10.0 ** rng.uniform(-30, 30, (6, 3))
    high = low + np.abs(low) * 10.0 ** rng.uniform(-16, 1, (6, 3))
    # Neighbouring numbers, of float32 and of float64.
    high[0] = np.nextafter(low[0].astype(np.float32), np.float32(np.inf)).astype(float)
    high[0] = np.maximum(high[0], low[0])
    high[1] = np.nextafter(low[1], np.inf)
    axis = rng.integers(-1, 3, 6)
    left, right, names = halves(Boxes(low, high, np.arange(6), np.zeros(6), axis))
    assert len(names) == 6 + int((axis >= 0).sum())
    for box in range(6):
        parts = np.flatnonzero(names == box)
        if axis[box] < 0:
            (part,) = parts
            np.testing.assert_array_equal((left[part], right[part]), (low[box], high[box]))
            continue
        one, other = parts
        np.testing.assert_array_equal((left[one], right[other]), (low[box], high[box]))
        others = np.arange(3) != axis[box]
        np.testing.assert_array_equal(right[one][others], high[box][others])
        np.testing.assert_array_equal(left[other][others], low[box][others])
        middle = right[one, axis[box]]
        assert middle == left[other, axis[box]]
        assert low[box, axis[box]] <= middle <= high[box, axis[box]]


class Recorded(InputSplits):
    """Keeps the corners of all sub-boxes as they were bounded, and as they were left open."""

    def __init__(self, task: Task, standing: Standing, root: Root) -> None:
        self.bounded: list[tuple[Float64Array, Float64Array]] = []
        super().__init__(task, standing, root)

    def _bound(self, low: Float64Array, high: Float64Array, disjunct: Any) -> bool:
        self.bounded.append((low.copy(), high.copy()))
        return super()._bound(low, high, disjunct)


def start(question: Prepared, spec: OutputSpec, seconds: float = 60.0, **limits: Any) -> tuple[Recorded, Standing]:
    question = Prepared(question.checker.network, question.lower, question.upper, spec)
    bounded = Limits(**limits)
    hunt = Hunt(question.checker, spec, question.lower, question.upper, bounded, None)
    task = Task(question.checker, hunt, bounded, time.monotonic() + seconds, None, None)
    ends = np.cumsum([0, *(len(b) for _, b in spec.disjuncts)]).tolist()
    root = Root(
        open=np.arange(len(spec.disjuncts)),
        rows=question.rows,
        offsets=question.offsets,
        shift=np.zeros(len(question.offsets)),
        disjuncts=list(itertools.pairwise(ends)),
        bounds=question.bounds,
        postponed=None,
    )
    standing = Standing(spec, ())
    return Recorded(task, standing, root), standing


def just_safe(question: Prepared, drawn: Drawn, distance: float) -> OutputSpec:
    """Returns the unsafe set y0 - y1 <= b with its exact minimum so far above b."""
    spec = OutputSpec(((np.array([[1.0, -1.0, 0.0]]), np.zeros(1)),))
    margin = exact_margin(drawn, question.lower.astype(float), question.upper.astype(float), spec)
    return moved(spec, margin.low - distance)


def prepared(folder: Path, radius: float = 0.4) -> tuple[Drawn, Prepared]:
    drawn, network = draw("fc", 5, folder)
    center = np.random.default_rng(5).random(drawn.inputs)
    return drawn, Prepared(network, center - radius, center + radius, OutputSpec.robustness(0, 3))


def test_every_unsafe_point_stays_in_an_open_sub_box(tmp_path: Path) -> None:
    """After each round, what is below the threshold lies in the pool: nothing else was cut off or counted as proved."""
    drawn, question = prepared(tmp_path)
    spec = just_safe(question, drawn, -0.3)
    splits, _ = start(question, spec, attack_steps=0)
    points = np.random.default_rng(1).uniform(question.lower, question.upper, (10_000, 4))
    ((a, b),) = spec.disjuncts
    points = points[(question.checker.network.evaluate(points) @ a.T - b).max(axis=1) <= 0]
    assert len(points) > 20
    rounds = 0
    splits._bound(question.lower.astype(float)[None], question.upper.astype(float)[None], np.zeros(1, dtype=np.int64))
    while len(splits.pool) and rounds < 12:
        boxes = splits.pool.open()
        inside = (boxes.low[None] <= points[:, None]) & (points[:, None] <= boxes.high[None])
        assert inside.all(axis=2).any(axis=1).all()
        splits.rounds += 1
        splits._bound(*halves(splits.pool.worst(64)))
        rounds += 1
    assert splits.leaves > 0


def test_it_ends_with_the_box_proved_and_every_sub_box_inside(tmp_path: Path) -> None:
    drawn, question = prepared(tmp_path)
    splits, standing = start(question, just_safe(question, drawn, 1e-3))
    assert splits.run()
    assert standing.outcome.status is Status.UNSAT
    assert standing.outcome.stage == "bab"
    assert splits.domains == sum(len(low) for low, _ in splits.bounded) > 3
    for low, high in splits.bounded:
        assert np.all(question.lower.astype(float) <= low)
        assert np.all(low <= high)
        assert np.all(high <= question.upper.astype(float))


def test_a_threshold_that_is_attained_is_never_proved() -> None:
    """y = relu(x0) + relu(-x0) + relu(x1) is 0 at 0 alone: y <= 0 is unsafe there, y <= -1e-7 nowhere."""
    network = plain([np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]), np.ones((1, 3))])
    low, high = np.array([-0.7, -0.3]), np.array([0.9, 0.8])

    def status(b: float, *limits: Any, attack_steps: int = 20) -> Status:
        spec = OutputSpec(((np.ones((1, 1)), np.array([b])),), limits)
        return answer(network, low, high, spec, seconds=0.25, split="input", attack_steps=attack_steps)[1].status

    assert status(-1e-7) is Status.UNSAT
    assert status(-1e-13) is not Status.SAT
    assert status(1e-3) is Status.SAT
    for steps in (0, 20):
        assert status(0.0, attack_steps=steps) in (Status.SAT, Status.TIMEOUT, Status.UNKNOWN)
    # Strictly below 0 there is nothing, but a proof would be one of the points at 0, too.
    assert status(0.0, np.array([-5e-324])) in (Status.TIMEOUT, Status.UNKNOWN)


def test_inputs_that_do_not_vary_are_not_split(tmp_path: Path) -> None:
    drawn, network = draw("fc", 5, tmp_path)
    center = np.random.default_rng(5).random(drawn.inputs).astype(np.float32)
    radius = np.array([0.4, 0, 0.4, 0], dtype=np.float32)
    lower, upper = center - radius, center + radius
    question = Prepared(network, lower, upper, OutputSpec.robustness(0, 3))
    splits, standing = start(question, just_safe(question, drawn, 1e-4))
    assert splits.run()
    assert standing.outcome.status is Status.UNSAT
    assert {low.shape[1] for low, _ in splits.bounded} == {2}


def test_a_point_is_no_box_to_split(tmp_path: Path) -> None:
    _, question = prepared(tmp_path, radius=0.0)
    splits, _ = start(question, OutputSpec.robustness(0, 3))
    assert not possible(splits._task, splits._root, forced=True)


def test_the_limit_holds_and_the_bound_so_far_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    net = fully_connected("large", rng, [8, 60, 60, 60, 3]).balance(rng)
    path = net.save(tmp_path / "large.onnx")
    question = ask(path, net, np.full(net.inputs, 0.5), 0.3, timeout=0.6)
    verifier = bab(path, attack_steps=0, split="input")
    # Of the processor: other programs on the machine don't count.
    begin = time.process_time()
    verdict = verifier.solve([question])[0]
    assert time.process_time() - begin < threads() * (0.6 + 0.5)
    assert verdict.status is Status.TIMEOUT
    assert "sub-boxes open" in verdict.detail
    assert verdict.domains is not None
    assert verdict.domains > 2


def test_open_sub_boxes_may_not_fill_memory(tmp_path: Path) -> None:
    drawn, question = prepared(tmp_path)
    splits, standing = start(question, just_safe(question, drawn, 1e-4), memory_mb=1e-6)
    assert splits.run()
    assert standing.outcome.status is Status.UNKNOWN
    assert "sub-boxes fill" in standing.outcome.detail


def test_where_the_estimate_says_no_relus_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, question = prepared(tmp_path)
    spec = just_safe(question, drawn, 1e-3)
    monkeypatch.setattr(input_splits, "_TRIAL", 8)
    monkeypatch.setattr(input_splits, "_MOST", 16)
    monkeypatch.setattr(InputSplits, "promising", lambda self: False)
    network, low, high = question.checker.network, question.lower.astype(float), question.upper.astype(float)
    run, out = answer(network, low, high, spec, split="auto")
    assert out.status is Status.UNSAT
    assert run.leaves
    alone = answer(network, low, high, spec, split="relu")[1]
    assert out.domains >= alone.domains + 8


def test_inputs_go_on_where_relus_run_out_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, question = prepared(tmp_path)
    spec = just_safe(question, drawn, 1e-3)
    monkeypatch.setattr(input_splits, "_TRIAL", 8)
    monkeypatch.setattr(input_splits, "_MOST", 16)
    looks = iter([False])
    monkeypatch.setattr(InputSplits, "promising", lambda self: next(looks, True))

    def late(*arguments: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(search, "BranchAndBound", late)
    low, high = question.lower.astype(float), question.upper.astype(float)
    run, out = answer(question.checker.network, low, high, spec, split="auto")
    assert out.status is Status.UNSAT
    assert not run.leaves


def test_a_turn_of_relus_leaves_no_tree_where_inputs_have_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that was cut off in the middle proves nothing, and isn't taken for the proof."""
    drawn, question = prepared(tmp_path)
    spec = just_safe(question, drawn, 1e-3)
    monkeypatch.setattr(input_splits, "_TRIAL", 8)
    monkeypatch.setattr(input_splits, "_MOST", 16)
    looks = iter([False])
    monkeypatch.setattr(InputSplits, "promising", lambda self: next(looks, True))
    leaves: list[int] = []
    branch = branch_and_bound.BranchAndBound.branch

    def cut_off(self: branch_and_bound.BranchAndBound) -> None:
        branch(self)
        leaves.append(len(self.leaves))
        raise TimeoutError

    monkeypatch.setattr(branch_and_bound.BranchAndBound, "branch", cut_off)
    low, high = question.lower.astype(float), question.upper.astype(float)
    run, out = answer(question.checker.network, low, high, spec, split="auto")
    assert out.status is Status.UNSAT
    assert leaves[0] > 0
    assert run.branched is None
    assert not run.leaves


def test_the_estimate_doubles_with_each_half_that_is_still_to_come(tmp_path: Path) -> None:
    drawn, question = prepared(tmp_path)
    splits, _ = start(question, just_safe(question, drawn, 1e-3), seconds=1000)
    splits._whole[:] = -2.0
    splits.domains, splits.leaves, splits.seconds = 100, 25, 10.0
    box = (question.lower.astype(float)[None].copy(), question.upper.astype(float)[None].copy())
    box[1][0, 0] = 0.5 * (box[0][0, 0] + box[1][0, 0])
    # One half has gained 1.6 of 2: a quarter of another would do, at 0.1 s each. Or 0.1: 19 more.
    for bound, fits in ((-0.4, True), (-1.5, True), (-1.9, False), (-2.0, False), (-np.inf, False)):
        splits.pool.put(Boxes(*box, np.zeros(1, dtype=np.int64), np.array([bound]), np.zeros(1, dtype=np.int64)))
        assert splits.promising() is fits
        splits.leaves = 24
        assert not splits.promising()
        splits.leaves = 25
        splits.pool.worst(1)


def test_images_go_the_way_that_they_went(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many inputs vary, or proofs are kept, `auto` is `relu`."""

    def never(*arguments: Any) -> None:
        raise AssertionError

    small, _ = draw("fc", 5, tmp_path)
    storing = bab(tmp_path / "net.onnx", proofs=str(tmp_path / "proofs"), split="auto")
    monkeypatch.setattr(search, "InputSplits", never)
    drawn, network = draw("conv", 9, tmp_path)
    assert drawn.inputs > FEW
    center = np.random.default_rng(0).random(drawn.inputs)
    spec = OutputSpec.robustness(int(network.evaluate(center[None])[0].argmax()), drawn.classes)
    first, second = (answer(network, center - 0.3, center + 0.3, spec, split=split)[1] for split in ("auto", "relu"))
    assert (first.status, first.bounds, first.domains) == (second.status, second.bounds, second.domains)
    again, _ = draw("fc", 5, tmp_path)
    question = ask(tmp_path / "net.onnx", again, np.full(small.inputs, 0.5), 0.2)
    assert storing.solve([question])[0].status.decided


def test_the_setting_is_recorded_where_it_is_not_the_default() -> None:
    adapter = VERIFIERS.get("sparse-bab")
    assert "split" not in adapter.resolve() == adapter.resolve({"split": "auto"})
    assert adapter.resolve({"split": "relu"})["split"] == "relu"
