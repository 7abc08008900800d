"""Queries over two networks: what is written is what the standard's own parser takes, and reads back as it was."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.formats import vnnlib_pairs
from prunecert.verifiers.formats.vnnlib import UnsupportedPropertyError, parse_property
from prunecert.verifiers.formats.vnnlib_pairs import read_pair, speaks_of_two, write_pair

HEAD = """(vnnlib-version <2.0>)
(declare-network f (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))
(declare-network g (isomorphic-to f) (declare-input U float32 [1,2]) (declare-output V float32 [1,2]))
(assert (and (>= X[0,0] 0.0) (<= X[0,0] 0.5)))
(assert (and (>= U[0,1] 0.25) (<= X[0,1] 1.0)))
"""
SAME = "(assert (and (== U[0,0] X[0,0]) (== X[0,1] U[0,1])))\n"
UNSAFE = "(assert (or (> (+ V[0,0] (* -1.0 Y[0,0])) 0.25) (< V[0, 1] -3.0)))\n"


def spec_of(text: str) -> OutputSpec:
    (case,) = parse_property(read_pair(text, "q").text, "q").cases
    return case.spec


def test_what_a_comment_says_declares_nothing() -> None:
    assert speaks_of_two(HEAD)
    assert not speaks_of_two("; (declare-network g)\n" + HEAD.replace("(declare-network g", "; (declare-network g"))


def test_outputs_of_the_second_follow_the_firsts() -> None:
    query = read_pair(HEAD + SAME + UNSAFE, "q")
    assert not query.equal
    parsed = parse_property(query.text, "q")
    assert (parsed.inputs, parsed.outputs) == (2, 4)
    (case,) = parsed.cases
    # The second network's input is the first's, in bounds as well.
    assert (case.lower.tolist(), case.upper.tolist()) == ([0.0, 0.25], [0.5, 1.0])
    assert case.spec.violated_by([0.0, 0.0, 0.5, 0.0])
    assert case.spec.violated_by([0.0, 0.0, 0.0, -4.0])
    assert not case.spec.violated_by([0.0, -4.0, 0.25, 0.0])
    assert read_pair((HEAD + SAME + UNSAFE).replace("isomorphic-to", "equal-to"), "q").equal


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=4),
    st.lists(st.integers(-8, 8), min_size=8, max_size=8),
    st.booleans(),
)
def test_what_is_written_is_read_back(corners: list[float], numbers: list[int], strict: bool) -> None:
    vnnlib = pytest.importorskip("vnnlib")
    box = np.sort(np.array(corners).reshape(2, 2), axis=0)
    rows, bounds = np.array(numbers, dtype=float).reshape(2, 4) / 4, np.array([0.1, -1e-7])
    rows[:, 3] += 10
    limits = (np.nextafter(bounds, -np.inf),) if strict else ()
    spec = OutputSpec(((rows, bounds),), limits)
    text = write_pair(box[0], box[1], spec, 2)
    assert len(vnnlib.parse_query_string(text).networks) == 2
    assert speaks_of_two(text)
    (case,) = parse_property(read_pair(text, "q").text, "q").cases
    np.testing.assert_array_equal(case.lower, box[0])
    np.testing.assert_array_equal(case.upper, box[1])
    rng = np.random.default_rng(0)
    for outputs in rng.normal(size=(50, 4)):
        assert case.spec.violated_by(outputs) == spec.violated_by(outputs)
    # Of images each place is named by its indices.
    image = write_pair(box[0].reshape(1, 2, 1), box[1].reshape(1, 2, 1), spec, 2)
    assert "(== U[0,0,1,0] X[0,0,1,0])" in image
    np.testing.assert_array_equal(parse_property(read_pair(image, "q").text, "q").cases[0].upper, box[1])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HEAD + UNSAFE, "equates 0 of 2 inputs"),
        ("(declare-network f (declare-input X Real [1]) (declare-output Y Real [1]))", "declares 1 networks"),
        (HEAD + "(assert (== U[0,0] X[0,0]))" + UNSAFE, "equates 1 of 2 inputs"),
        (HEAD + "(assert (or (== U[0,0] X[0,0]) (== U[0,1] X[0,1])))" + UNSAFE, "equates 0 of 2 inputs"),
        (HEAD + "(assert (== U[0,0] X[0,1]))(assert (== U[0,1] X[0,0]))" + UNSAFE, "equates 0 of 2 inputs"),
        (HEAD.replace("(isomorphic-to f)", "") + SAME + UNSAFE, "doesn't say how its networks are related"),
        (HEAD.replace("(isomorphic-to f)", "(isomorphic-to h)") + SAME, "doesn't say how its networks are related"),
        (HEAD + SAME + "(define-fun h () Real 1.0)", "only assertions are taken"),
        (
            HEAD.replace("[1,2]))\n(assert (and (>=", "[1,2]) (declare-hidden H float32 [1,2] n))\n(assert (and (>="),
            "isn't taken",
        ),
        (HEAD.replace("U float32", "U float32 [1,2]) (declare-input W float32") + SAME, "one input and one output"),
        (HEAD.replace("U float32", "U int8") + SAME, "declares U as int8; allowed are bfloat16, "),
        (HEAD.replace("U float32", "U float32 float32") + SAME, "that isn't taken"),
    ],
)
def test_what_is_not_taken_is_said(text: str, reason: str) -> None:
    with pytest.raises(UnsupportedPropertyError, match=reason):
        read_pair(text, "q")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HEAD.replace("V float32 [1,2]", "V float32 [1,3]") + SAME, "different inputs or outputs to be alike"),
        (HEAD + SAME + "(assert (>= V[0,2] 1.0))", r"V\[0,2\] is declared nowhere, or out of its shape"),
        (HEAD + SAME + "(assert (>= W[0,1] 1.0))", r"W\[0,1\] is declared nowhere"),
        (HEAD + SAME + "(assert (>= V 1.0))", "V"),
        (HEAD[:-4] + SAME, "cut off"),
        (HEAD + SAME + f"(assert {'(not ' * 5000}(>= Y[0,0] 1.0){')' * 5000})", "nested too deeply"),
        (HEAD + "(declare-network)" + SAME, "declares no network"),
        # Whose output is meant by Y would be a guess.
        (HEAD.replace("V float32", "Y float32") + SAME, "declares X, Y, U, Y in f and g; allowed are different names"),
        (HEAD.replace("V float32", "X float32") + SAME, "allowed are different names"),
        (HEAD.replace("network g", "network f") + SAME, "allowed are different names"),
        (HEAD.replace("[1,2]", "[999999999,999999999,999999999]") + UNSAFE, "out of its shape"),
    ],
)
def test_what_is_no_query_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_pair(text, "q")


@pytest.mark.parametrize(("levels", "refused"), [(5, False), (30, True)])
def test_depth_is_limited_whatever_the_interpreter_allows(
    levels: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vnnlib_pairs, "_DEEPEST", 20)
    text = HEAD + SAME + f"(assert {'(or ' * levels}(>= Y[0,0] V[0,0]){')' * levels})"
    with pytest.raises(UserError, match="nested too deeply") if refused else contextlib.nullcontext():
        assert read_pair(text, "q").text
