"""The contract: what an instance is, what decides its identity, what a verdict writes down."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.verifiers.base import Instance, OutputSpec, Status, Times, Verdict

BASE = Instance(
    onnx=Path("net.onnx"),
    onnx_sha256="0" * 64,
    lower=np.zeros((1, 2, 2), np.float32),
    upper=np.ones((1, 2, 2), np.float32),
    spec=OutputSpec.robustness(1, 3),
    timeout=10.0,
    classes=3,
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lower": np.full((1, 2, 2), 2, np.float32)}, "lower > upper"),
        ({"lower": np.full((1, 2, 2), np.nan, np.float32)}, "no NaN"),
        ({"lower": np.zeros((4,), np.float32)}, "shapes"),
        ({"lower": np.zeros((1, 2, 2))}, "must be float32"),
        ({"timeout": 0.0}, "above 0 seconds"),
        ({"timeout": float("nan")}, "above 0 seconds"),
        ({"norm": "l2"}, "centre and eps"),
    ],
)
def test_what_is_no_question_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]


def test_the_answer_depends_on_what_is_hashed_and_on_nothing_else() -> None:
    same = dataclasses.replace(
        BASE, onnx=Path("elsewhere.onnx"), name="other", allowance=(1.0, 1.0), starts={"x": BASE.lower}, label=1
    )
    assert same.digest() == BASE.digest()
    slower = dataclasses.replace(BASE, timeout=20.0)
    assert slower.digest() != BASE.digest()
    assert slower.question() == BASE.question()
    others = [
        dataclasses.replace(BASE, onnx_sha256="1" * 64),
        dataclasses.replace(BASE, upper=BASE.upper * np.float32(0.5)),
        dataclasses.replace(BASE, spec=OutputSpec.robustness(0, 3)),
        dataclasses.replace(BASE, norm="l2", eps=0.5, center=BASE.lower),
        dataclasses.replace(BASE, norm="l2", eps=0.6, center=BASE.lower),
    ]
    assert len({item.question() for item in (BASE, *others)}) == 6


@given(times=st.floats(0, 10), allowance=st.floats(0, 5), output=st.lists(st.floats(-9, 9), min_size=3, max_size=3))
def test_what_is_tightened_is_unsafe_where_the_property_is(times: float, allowance: float, output: list[float]) -> None:
    tight = dataclasses.replace(BASE, allowance=(allowance, allowance)).tightened(times)
    assert tight.violated_by(output) or not BASE.spec.violated_by(output)
    margin = min(output[1] - output[j] for j in (0, 2))
    assert tight.violated_by(output) == (margin <= times * allowance)
    assert BASE.tightened() is BASE.spec


def test_a_ball_is_cut_with_its_box() -> None:
    ball = dataclasses.replace(BASE, norm="l2", eps=0.5, center=BASE.lower)
    near = np.full((1, 2, 2), 0.25, np.float32)
    assert ball.contains(near)
    assert not ball.contains(near + np.float32(0.1))
    assert not ball.contains(near - np.float32(0.3))
    assert not ball.contains(near.reshape(-1))
    assert BASE.contains(near + np.float32(0.1))


def test_a_verdict_is_plain_data_without_its_witness() -> None:
    verdict = Verdict(
        Status.SAT, witness=BASE.lower, bounds=(0.5,), times=Times(load_s=1.0), witness_check={"ok": True}
    )
    plain = json.loads(json.dumps(verdict.to_json()))
    assert plain["status"] == "sat"
    assert plain["times"]["load_s"] == 1.0
    assert (plain["bounds"], plain["witness_check"], plain["certificate"]) == ([0.5], {"ok": True}, None)
    assert "witness" not in plain
    assert [status for status in Status if status.decided] == [Status.UNSAT, Status.SAT]


def test_the_surface_of_a_ball_is_found_in_exact_arithmetic() -> None:
    """3-4-5: on the surface; one rounding farther out it isn't, and no float64 distance tells the two apart."""
    center = np.zeros((1, 1, 3), dtype=np.float32)
    point = np.array([[[0.75, 1.0, 0.0]]], dtype=np.float32)
    ball = dataclasses.replace(BASE, lower=center - 2, upper=center + 2, norm="l2", eps=1.25, center=center)
    assert ball.contains(point)
    assert not ball.contains(np.nextafter(point, np.float32(2)))
    assert ball.contains(np.nextafter(point, np.float32(0)))
    beyond = point.copy()
    beyond[0, 0, 2] = 1e-12
    assert np.linalg.norm(beyond.astype(np.float64)) == 1.25
    assert not ball.contains(beyond)
    assert dataclasses.replace(ball, eps=0.0).contains(center)
    assert not dataclasses.replace(ball, eps=0.0).contains(beyond * 0 + np.float32(1e-30))
    assert not dataclasses.replace(ball, eps=float("nan")).contains(center)
