"""The critical radius of an input: up to where a network is proved to keep its class, and from where it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from prunecert.bench.results.critical_radii import shown_radius
from prunecert.pages import definitions
from prunecert.verifiers.base import Status, Verdict


@dataclass(frozen=True)
class CriticalRadius:
    """Where a network stops to keep its class; the critical radius lies between the two.

    Args:
        proved: Largest radius at which it is proved to keep it; 0 where none was.
        broken: Smallest radius at which a counterexample was found; None where none was up to the highest one.
        questions: How many radii were asked about.
        witness_verdict: The verdict at `broken`, with its counterexample.
    """

    proved: Fraction
    broken: Fraction | None
    questions: int
    witness_verdict: Verdict | None = None

    def __repr__(self) -> str:
        broken = "not broken" if self.broken is None else f"broken at {shown_radius(self.broken)}"
        return f"<CriticalRadius: proved up to {shown_radius(self.proved)}, {broken}; {self.questions} questions>"

    def _repr_html_(self) -> str:
        broken = "–" if self.broken is None else shown_radius(self.broken)
        return definitions({"proved up to": shown_radius(self.proved), "broken at": broken})


def bisect(verdict_at: Callable[[Fraction], Verdict], highest: Fraction, tolerance: Fraction) -> CriticalRadius:
    """Closes in on the critical radius.

    Args:
        verdict_at: Asks about a radius.
        highest: The largest one.
        tolerance: How far apart the ends may stay, where both are known.
    """
    proved, broken = Fraction(0), None
    # Between these nobody could say anything.
    gap: tuple[Fraction, Fraction] | None = None
    witness: Verdict | None = None
    questions = 0
    waiting = [highest]
    while waiting:
        eps = waiting.pop()
        verdict = verdict_at(eps)
        questions += 1
        if verdict.status is Status.UNSAT:
            proved = max(proved, eps)
        elif verdict.status is Status.SAT:
            if broken is None or eps < broken:
                broken, witness = eps, verdict
        else:
            gap = (eps, eps) if gap is None else (min(gap[0], eps), max(gap[1], eps))
        if proved == highest:
            break
        below = gap[0] if gap is not None else broken
        if below is not None and below - proved > tolerance:
            waiting.append((proved + below) / 2)
        elif gap is not None and broken is not None and broken - gap[1] > tolerance:
            waiting.append((gap[1] + broken) / 2)
    return CriticalRadius(proved, broken, questions, witness)
