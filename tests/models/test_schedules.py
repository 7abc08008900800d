"""Schedules rise, fall and end where they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.models.recipe import Recipe
from prunecert.models.schedules import Stage, ramp

SHARES = st.floats(0, 1)


@given(SHARES, SHARES, st.sampled_from(["linear", "smoothed"]))
def test_a_ramp_never_falls_and_ends_at_its_target(one: float, other: float, shape: str) -> None:
    low, high = sorted((one, other))
    assert 0 <= ramp(low, shape) <= ramp(high, shape) <= 1 + 1e-12
    assert ramp(1.5, shape) == ramp(1.0, shape) == pytest.approx(1)
    assert ramp(-1.0, shape) == 0


def test_the_smoothed_ramp_has_no_corner() -> None:
    left, middle, right = (ramp(0.25 + step, "smoothed") for step in (-1e-6, 0.0, 1e-6))
    assert middle - left == pytest.approx(right - middle, rel=1e-4)


def test_a_stage_warms_up_grows_and_holds() -> None:
    stage = Stage("pretrain", 10, 1.0, 0.1, warmup=2, ramp=4)
    assert [stage.progress(epoch) for epoch in (0, 1.9, 4, 6, 9)] == [0, 0, 0.5, 1, 1]
    assert Stage("finetune", 10, 1.0, 0.1).progress(0) == 1


def test_the_cosine_falls_to_a_hundredth_and_steps_step() -> None:
    stage = Stage("a", 10, 1.0, 0.1)
    recipe = Recipe(decay=0.5)
    assert [stage.rate(epoch, recipe) for epoch in (0, 5, 10)] == pytest.approx([1, 1, 0.01])
    steps = Recipe(lr_schedule="step", lr_milestones=(0.5, 0.75), lr_gamma=0.1)
    assert [stage.rate(epoch, steps) for epoch in (0, 5, 7.5)] == pytest.approx([1, 0.1, 0.01])
    assert Stage("a", 10, 1.0, 0.1, first=2, last=7).end == 7
