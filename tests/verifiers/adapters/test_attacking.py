"""What the attacks make small is the property's own margin, and a point counts only beyond rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.adapters.attacking import MARGIN, breaking, loss_of, verdicts_on
from prunecert.verifiers.base import Instance, OutputSpec, Status, Times, Verdict

CPU = torch.device("cpu")


def instance(spec: OutputSpec, classes: int = 3) -> Instance:
    corner = np.zeros(classes, np.float32)
    return Instance(Path("net.onnx"), "", corner, corner + np.float32(1), spec, timeout=1.0, classes=classes)


@given(seed=st.integers(0, 2**20), shapes=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1))
def test_the_margin_is_that_of_the_property(seed: int, shapes: list[list[int]]) -> None:
    rng = np.random.default_rng(seed)
    instances = [
        instance(OutputSpec(tuple((rng.integers(-2, 3, (m, 3)).astype(float), rng.integers(-2, 3, m) / 2) for m in ms)))
        for ms in shapes
    ]
    outputs = rng.standard_normal((len(instances), 3)).astype(np.float32)
    margins, scale = loss_of(instances, CPU)(torch.from_numpy(outputs))
    assert bool((scale >= 1).all())
    for item, output, margin in zip(instances, outputs, margins.tolist(), strict=True):
        # A disjunct without rows holds of every output; its margin is 0, which no attack can make smaller.
        rows = [(a @ output - b).max(initial=0.0 if len(b) == 0 else -np.inf) for a, b in item.spec.disjuncts]
        assert abs(min(rows) - margin) < 1e-5


def test_a_point_counts_inside_of_its_box_and_beyond_rounding() -> None:
    spec = OutputSpec(((np.array([[1.0, 0.0, 0.0]]), np.array([0.5])),))
    instances = [instance(spec)] * 4
    first = torch.tensor([0.4, 0.5, 0.5 - 0.5 * MARGIN, -7.0])
    points = torch.stack([first, torch.ones(4), torch.ones(4)], dim=1)
    ends = breaking(torch.nn.Identity(), points, instances, loss_of(instances, CPU))
    assert ends[0] is not None
    assert ends[1] is None
    assert ends[2] is None
    # What lies outside is moved in first.
    assert ends[3] is not None
    assert ends[3][0] == 0.0


def test_what_withstood_has_the_verdict_of_those_that_were_missed() -> None:
    missed = Verdict(Status.UNKNOWN, "nothing", device="cpu")
    point = np.ones(2, np.float32)
    sat, none, absent = verdicts_on(3, {0: point, 1: None}, missed, Times(bound_s=1.0))
    assert (sat.status, sat.stage, sat.times.bound_s) == (Status.SAT, "attack", 1.0)
    assert sat.witness is point
    assert none is missed
    assert absent is missed
