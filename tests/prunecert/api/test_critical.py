from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import prunecert
from prunecert.api.critical import CriticalRadius, bisect
from prunecert.errors import UserError
from prunecert.verifiers.base import Status, Verdict

radii = st.fractions(min_value=Fraction(1, 1000), max_value=Fraction(2))


@pytest.mark.slow
@given(radii, st.fractions(min_value=0, max_value=Fraction(1, 4)), st.fractions(Fraction(1, 500), Fraction(1, 10)))
def test_the_ends_close_in_on_the_truth_and_never_pass_it(
    truth: Fraction, silence: Fraction, tolerance: Fraction
) -> None:
    """Within `silence` of the truth nobody can say anything."""
    questions: list[Fraction] = []

    def verdict_at(eps: Fraction) -> Verdict:
        questions.append(eps)
        if abs(eps - truth) < silence:
            return Verdict(Status.TIMEOUT, "why")
        return Verdict(Status.SAT if eps >= truth else Status.UNSAT)

    highest = Fraction(1)
    critical = bisect(verdict_at, highest, tolerance)
    assert critical.questions == len(questions) == len(set(questions))
    assert critical.proved < truth
    assert critical.broken is None or critical.broken >= truth
    reach = silence + tolerance
    if truth + silence <= highest:
        assert critical.broken is not None
        assert critical.broken <= truth + reach
    if truth - reach > 0:
        assert critical.proved >= min(truth - reach, highest) or critical.proved == highest


def test_it_is_shown_in_levels() -> None:
    text = repr(CriticalRadius(Fraction(2, 255), None, 3))
    assert text == "<CriticalRadius: proved up to 2/255, not broken; 3 questions>"
    assert "broken at 4/255" in repr(CriticalRadius(Fraction(0), Fraction(4, 255), 3))
    assert "4/255" in CriticalRadius(Fraction(0), Fraction(4, 255), 3)._repr_html_()


@pytest.mark.slow
def test_the_radius_of_a_line_is_known() -> None:
    """The margin of two linear outputs falls by the sum of the weights' differences, times the radius."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        net[1].get_parameter("weight").copy_(torch.tensor([[1.0, 1, 1, 1], [-1, -1, -1, -1]]))
        net[1].get_parameter("bias").zero_()
        net[1].get_parameter("bias")[1] = 3.2
    # margin at 0.5: 2 + 2 - 3.2 = 0.8; it falls by 8 eps.
    critical = prunecert.critical_radius(net, torch.full((1, 2, 2), 0.5), highest=0.4, tolerance=0.005)
    assert critical.broken is not None
    assert float(critical.proved) < 0.1 <= float(critical.broken)
    assert float(critical.broken - critical.proved) <= 0.006
    assert critical.witness_verdict is not None
    assert critical.witness_verdict.witness is not None
    with pytest.raises(UserError, match="no radius keeps it"):
        prunecert.critical_radius(net, torch.full((1, 2, 2), 0.5), label=1)
