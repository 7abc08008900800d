"""Networks with Sigmoid and Tanh against what many points show: nothing that a point breaks may be proved.

There is no exact solver for them. The least margin that is seen, on a grid that is refined where it is lowest, is an
upper bound of the exact one, near to it; a proof of more is wrong. A counterexample is confirmed by onnxruntime.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Status
from prunecert.verifiers.formats import counterexample
from tests.verifiers.adapters.test_sparse_smooth import ask
from tests.verifiers.sparse.smooth import smoothnets

#: How far thresholds are from the least margin, as a share of the outputs' range.
_SHARES = (0.2, 0.02, 1e-5)


def least(path: Path, lower: Any, upper: Any) -> tuple[float, float]:
    """Returns the least margin of class 0 that is seen, in exact arithmetic, and the outputs' range."""
    checker = smoothnets.load(path)
    low, high = lower.astype(np.float64), upper.astype(np.float64)
    begin, end = low, high
    for _ in range(6):
        axes = [np.linspace(a, b, 41) for a, b in zip(begin, end, strict=True)]
        points = np.stack(np.meshgrid(*axes), -1).reshape(-1, len(low))
        outputs = checker.smooth.evaluate(points)
        margins = (outputs[:, [0]] - outputs[:, 1:]).min(axis=1)
        best, step = points[margins.argmin()], (end - begin) / 20
        begin, end = np.maximum(best - step, low), np.minimum(best + step, high)
    exact = smoothnets.exact(checker.smooth, best)[-1]
    return float(min(exact[0] - other for other in exact[1:]) + Decimal("1e-15")), float(np.ptp(outputs)) + 1.0


@pytest.mark.slow
@pytest.mark.parametrize("split", ["input", "relu"])
def test_nothing_is_proved_that_a_point_breaks(split: str, tmp_path: Path) -> None:
    verifier = VERIFIERS.get("sparse-bab")({"split": split})
    verifier.start()
    answers: Counter[str] = Counter()
    for seed, eps in ((0, 0.05), (1, 0.3), (2, 0.1), (3, 0.3), (4, 0.02), (5, 0.3)):
        path = smoothnets.small(tmp_path, seed)
        verifier.load(path)
        margin, scale = least(path, ask(path, eps, 0.0).lower, ask(path, eps, 0.0).upper)
        for share in _SHARES:
            for sign in (-1, 1):
                question = ask(path, eps, margin + sign * share * scale, seconds=4.0)
                (verdict,) = verifier.solve([question])
                if sign > 0:
                    assert verdict.status is not Status.UNSAT, f"{path.name}: proved, though a point breaks it"
                if verdict.status is Status.SAT:
                    assert verdict.witness is not None
                    assert counterexample.replay(question, verdict.witness)[0].ok
                if verdict.bounds is not None:
                    assert min(verdict.bounds) <= -sign * share * scale
                answers[f"{verdict.status} {sign * share}"] += 1
    assert answers["unsat -0.2"] >= 5
    assert answers["sat 0.2"] == 6
