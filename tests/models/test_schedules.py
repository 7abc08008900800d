"""Schedules rise, fall and end where they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.models.recipe import Recipe
from prunecert.models.schedules import Stage, ramp
from tests.models.training_kit import recipe

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


def test_schedules() -> None:
    stage = Stage("pretrain", 10, 1.0, 0.1, warmup=2, ramp=4)
    assert [stage.progress(epoch) for epoch in (0, 1.99, 2, 4, 6, 9)] == [0, 0, 0, 0.5, 1, 1]
    cosine, constant = recipe(decay=0.5), recipe(decay=0.0)
    assert stage.rate(5.0, cosine) == 1.0
    assert stage.rate(7.5, cosine) == pytest.approx(0.505)
    assert stage.rate(10.0, cosine) == pytest.approx(0.01)
    assert stage.rate(9.0, constant) == 1.0
    steps = recipe(lr_schedule="step", lr_milestones=[0.5, 0.8], lr_gamma=0.1)
    assert [stage.rate(epoch, steps) for epoch in (0, 4.9, 5, 7.9, 8, 10)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_the_smoothed_ramp_is_smooth() -> None:
    assert [ramp(share, "smoothed") for share in (-1, 0, 1, 2)] == pytest.approx([0, 0, 1, 1])
    # auto_LiRPA's schedule with its defaults (middle 1/4, power 4): value and slope agree at the joint.
    factor = 1 / (0.25**4 + 4 * 0.25**3 * 0.75)
    assert ramp(0.25, "smoothed") == pytest.approx(factor * 0.25**4)
    assert ramp(0.125, "smoothed") == pytest.approx(factor * 0.125**4)
    step = 1e-6
    slopes = [(ramp(at + step, "smoothed") - ramp(at, "smoothed")) / step for at in (0.25 - step, 0.25, 0.9)]
    assert slopes == pytest.approx([factor * 4 * 0.25**3] * 3, rel=1e-4)
    values = [ramp(share / 100, "smoothed") for share in range(101)]
    assert values == sorted(values)
    assert all(value <= share / 100 + 1e-12 for share, value in enumerate(values)), "it lags behind the linear one"
