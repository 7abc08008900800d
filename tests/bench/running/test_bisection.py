from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.running.bisection import CriticalRadius, bisect
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
