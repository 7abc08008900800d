"""Which outputs of a network are unsafe."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from prunecert.hashing import digest


@dataclass(frozen=True, eq=False)
class OutputSpec:
    """The unsafe outputs, in disjunctive normal form: OR over k of (A_k y <= b_k).

    Args:
        disjuncts: Pairs (A, b) of float64 arrays of shapes [m, classes] and [m]; y is unsafe if, for some
            pair, every row of A y <= b holds. This is what a VNN-LIB file asserts: the negated property.
        limits: For each disjunct the right-hand sides that a counterexample must keep, of shape [m], at or below b;
            empty: b itself. They are below b where the file's inequality is strict, or b is rounded up. A proof is
            about A y <= b, which covers both.
    """

    disjuncts: tuple[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]], ...]
    limits: tuple[npt.NDArray[np.float64], ...] = ()

    @classmethod
    def robustness(cls, label: int, classes: int) -> OutputSpec:
        """Unsafe if another class's logit reaches the label's: OR over j of (y_label - y_j <= 0).

        >>> spec = OutputSpec.robustness(label=0, classes=3)
        >>> spec.violated_by([2.0, 1.0, 0.5]), spec.violated_by([2.0, 1.0, 2.0])
        (False, True)
        >>> spec.label
        0
        """
        pairs = []
        for j in range(classes):
            if j != label:
                row = np.zeros((1, classes))
                row[0, label], row[0, j] = 1.0, -1.0
                pairs.append((row, np.zeros(1)))
        return cls(tuple(pairs))

    @functools.cached_property
    def label(self) -> int | None:
        """The class to keep, if an output is unsafe just where another class reaches it; None for other properties."""
        pairs: set[tuple[int, int]] = set()
        classes = len(self.disjuncts) + 1
        for a, b in self.disjuncts:
            if a.shape != (1, classes) or b[0] != 0.0 or np.count_nonzero(a) != 2:
                return None
            if a.max() != 1.0 or a.min() != -1.0:
                return None
            pairs.add((int(a.argmax()), int(a.argmin())))
        labels = {label for label, _ in pairs}
        return labels.pop() if len(labels) == 1 and len(pairs) == classes - 1 else None

    def violated_by(self, output: npt.ArrayLike) -> bool:
        """Whether the output vector is unsafe, with no tolerance; NaN is never unsafe."""
        y = np.asarray(output, dtype=np.float64).reshape(-1)
        limits = self.limits or tuple(b for _, b in self.disjuncts)
        return any(_all_below(a, y, limit) for (a, _), limit in zip(self.disjuncts, limits, strict=True))

    def digest(self) -> str:
        """Returns a hash of the unsafe set as written."""
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        # Images of one label share their property, and a sweep has a million of them.
        limits = [[limit.tolist() for limit in self.limits]] if self.limits else []
        return digest([[a.tolist(), b.tolist()] for a, b in self.disjuncts] + limits)


def _all_below(a: npt.NDArray[np.float64], y: npt.NDArray[np.float64], limit: npt.NDArray[np.float64]) -> bool:
    """Whether every row of A y <= limit holds, exactly; what is not a number never is below."""
    # 0 times an infinite output is NaN, and NumPy would warn of it.
    with np.errstate(invalid="ignore", over="ignore"):
        left = a @ y
        # Twice what the products and sums can be wrong by; the second term is for products that underflow.
        doubt = 4 * len(y) * (np.finfo(np.float64).eps * (np.abs(a) @ np.abs(y)) + np.finfo(np.float64).tiny)
        close = (np.abs(left - limit) <= doubt) & np.all(np.isfinite(y))
    if not np.all((left <= limit) | close):
        return False
    return all(
        sum(Fraction(c) * Fraction(v) for c, v in zip(row.tolist(), y.tolist(), strict=True) if c) <= Fraction(bound)
        for row, bound in zip(a[close], limit[close].tolist(), strict=True)
    )
