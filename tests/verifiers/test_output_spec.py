"""What counts as robustness of a label, for every reader and verifier alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.formats.support import spec_kind


@given(st.integers(2, 6), st.data())
def test_robustness_is_recognised_in_any_order(classes: int, data: st.DataObject) -> None:
    label = data.draw(st.integers(0, classes - 1))
    disjuncts = OutputSpec.robustness(label, classes).disjuncts
    spec = OutputSpec(tuple(data.draw(st.permutations(disjuncts))))
    assert spec.label == label
    assert spec_kind(spec, classes) == "robustness"
    assert spec_kind(spec, classes + 1) == "dnf"


@pytest.mark.parametrize(
    "disjuncts",
    [
        (),
        (SPEC := OutputSpec.robustness(2, 4).disjuncts)[:-1],
        (*SPEC[:-1], SPEC[0]),
        (*SPEC, SPEC[0]),
        tuple((a, b + 1) for a, b in SPEC),
        tuple((2 * a, b) for a, b in SPEC),
        tuple((-a, b) for a, b in SPEC),
        (*SPEC[:-1], OutputSpec.robustness(1, 4).disjuncts[-1]),
        ((np.concatenate([a for a, _ in SPEC]), np.zeros(3)),),
        tuple((np.full((1, 4), np.nan), b) for _, b in SPEC),
    ],
)
def test_anything_else_is_no_robustness(
    disjuncts: tuple[
        tuple[np.ndarray[tuple[int, int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.float64]]], ...
    ],
) -> None:
    spec = OutputSpec(disjuncts)
    assert spec.label is None
    # One output has no other class, so that no property of it is robustness.
    assert {spec_kind(spec, classes) for classes in range(1, 6)} == {"dnf"}
