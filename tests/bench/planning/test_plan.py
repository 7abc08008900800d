from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.plan import CellPlan, box, box_of_ball, in_shard, instance_id, question_id
from prunecert.bench.planning.stages import Installed, make_stages
from prunecert.bench.schema.cell import Cell, Protocol
from prunecert.models.data import Dataset

EPS = Fraction(2, 255)
CELL = Cell("cnn-small", "ibp", EPS, "lwm", 10.0, 0)
PROTOCOL = Protocol(
    images=3,
    cascade=("fake-bound", "fake-complete", "fake-missing"),
    cross_check=("fake-bound",),
    timeouts={"fake-bound": 1.0, "fake-complete": 2.0, "fake-missing": 3.0},
    settings={"fake-bound": {"share": 0.25}},
)


def plan(protocol: Protocol = PROTOCOL, cell: Cell = CELL) -> CellPlan:
    rng = np.random.default_rng(0)
    data = Dataset(
        images=rng.random((3, 3, 32, 32), dtype=np.float32),
        labels=np.array([1, 2, 1]),
        indices=np.array([0, 1, 2]),
        split="test",
        fingerprint="f",
        official=True,
        sample=False,
        source="",
    )
    export = Export(Path("x.onnx"), "a" * 64, 0.9, 10.0, "b" * 64, {})
    return CellPlan(cell, protocol, export, make_stages(protocol, Installed("cpu")), {}, data, 3)


def test_stages_are_resolved_and_missing_verifiers_left_out() -> None:
    first, second = make_stages(PROTOCOL, Installed("cpu"))
    assert (first.verifier, first.everyone, first.batch, first.timeout) == ("fake-bound", True, 4, 1.0)
    assert first.settings == {"share": 0.25, "delay": 0.0}
    assert (second.verifier, second.everyone, second.batch) == ("fake-complete", False, 1)
    assert Installed("cpu").missing([PROTOCOL]) == {"fake-missing": "install fake-missing by hand."}
    assert Installed("cuda:1").device_of("fake-bound") == "cpu"


def test_ids_change_with_all_that_decides_the_answer_and_with_nothing_else() -> None:
    base = plan()
    ids = {instance_id(base.instance(p, s), base.stages[s]) for p in range(3) for s in range(2)}
    assert len(ids) == 6
    assert len({*base.keys}) == 2
    other = plan(replace(PROTOCOL, settings={"fake-bound": {"share": 0.5}}))
    slower = plan(replace(PROTOCOL, timeouts={**PROTOCOL.timeouts, "fake-bound": 9.0}))
    wider = plan(cell=replace(CELL, eps=Fraction(8, 255)))
    for changed in (other, slower, wider):
        assert changed.keys[0] != base.keys[0]
        assert instance_id(changed.instance(0, 0), changed.stages[0]) not in ids
    same = plan(replace(PROTOCOL, images=2, memory_mb=512), cell=replace(CELL, pruner="hydra"))
    assert same.keys == base.keys
    assert instance_id(same.instance(0, 0), same.stages[0]) in ids


def test_the_question_is_the_same_for_all_verifiers_and_limits() -> None:
    base = plan()
    assert question_id(base.instance(0, 0)) == question_id(base.instance(0, 1))
    assert question_id(base.instance(0, 0)) != question_id(base.instance(1, 0))


@given(hnp.arrays(np.float32, (3, 2, 2), elements=st.floats(0, 1, width=32)), st.integers(1, 255))
def test_boxes_hold_the_image_and_are_clipped(image: np.ndarray, over: int) -> None:
    eps = Fraction(over, 255)
    lower, upper = box(image, eps)
    assert lower.dtype == upper.dtype == np.float32
    assert np.all((lower >= 0) & (lower <= image) & (image <= upper) & (upper <= 1))
    inside = (image > float(eps)) & (image < 1 - float(eps))
    np.testing.assert_allclose((upper - lower)[inside], 2 * float(eps), atol=1.3e-7)


@given(st.integers(1, 9), st.integers(0, 10_000))
def test_every_image_is_in_just_one_shard(count: int, image: int) -> None:
    assert sum(in_shard(CELL, image, (number, count)) for number in range(1, count + 1)) == 1
    assert in_shard(CELL, image, None)


def test_a_ball_lies_in_its_box_of_pixels() -> None:
    images = np.random.default_rng(0).random((4, 3, 2, 2), dtype=np.float32)
    images[0] = [0.0]
    for image in images:
        for eps in (Fraction(1, 10), Fraction(2, 255)):
            lower, upper = box_of_ball(image, eps)
            assert lower.dtype == upper.dtype == np.float32
            exact = image.astype(np.float64)
            assert np.all(lower <= np.clip(exact - float(eps), 0, 1))
            assert np.all(upper >= np.clip(exact + float(eps), 0, 1))
            assert lower.min() >= 0
            assert upper.max() <= 1
            assert np.all(lower >= exact - float(eps) - 1e-6)


def test_a_ball_is_another_question_than_the_box() -> None:
    ball = replace(CELL, eps=Fraction(1, 4), trained_eps=EPS, ball=True)
    over_ball, over_box = plan(cell=ball), plan(cell=replace(ball, ball=False))
    question, other = over_ball.instance(1, 0), over_box.instance(1, 0)
    assert (question.norm, question.eps, other.norm) == ("l2", 0.25, "linf")
    assert question.center is not None
    np.testing.assert_array_equal(question.center, over_ball.data.images[1])
    assert question_id(question) != question_id(other)
    assert not set(over_ball.keys) & set(over_box.keys)
