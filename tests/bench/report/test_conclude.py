from __future__ import annotations

from typing import Any

import pytest

from prunecert.bench.report.conclude import Conclusion

CLASH = {"cell": "a", "image": 1, "unsat_by": "ibp", "sat_by": "pgd", "question": "q"}


@pytest.mark.parametrize(
    ("clashes", "broken", "code"), [([], [], 0), ([CLASH], [], 1), ([], ["ibp"], 2), ([CLASH], ["ibp"], 1)]
)
def test_a_contradiction_weighs_more_than_a_verifier_that_never_worked(
    clashes: list[dict[str, Any]], broken: list[str], code: int
) -> None:
    conclusion = Conclusion({"contradictions": clashes, "broken_verifiers": broken})
    assert (conclusion.contradictions, conclusion.broken_verifiers) == (clashes, broken)
    assert conclusion.exit_code == code
