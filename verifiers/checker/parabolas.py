"""Leaves by parabolas: ReLUs of one node, all at once, as functions of numbers in [-1, 1].

**Forms.** With x = c + r t, and each ReLU before `site`, a node that feeds ReLUs, on one line,

    max(z, 0) = a z + h (1 + e),        t and e in [-1, 1],

whatever the sign of its coefficient, all rows are affine functions of one vector w of such numbers, but for the ReLUs
of `site` itself. For a in [0, 1] max(z, 0) - a z is convex and 0 or more, so at most what it is at the ends of z's
bounds; 2 h is no less than that, so that there is such an e for each z, the same in all rows. Of neurons that a file
has no slots for, h e is an error of at most h.

**Leaf.** Let f = g · w + C + sum of c_j max(z_j, 0) be a combination of an unsafe set's rows; z_j = R_j · w + k_j are
the neurons of `site`, and those before it whose signs are split, with c_j = 0. For any m_j and p_j >= 0 there is a d_j
with c_j max(z, 0) >= m_j z - p_j z² + d_j wherever bounds and sign allow z to be: see `_shifts`. For any ζ_j

    -p z² = p ζ² - 2 p ζ z - p (z - ζ)².

If the sum of p_j R_jᵀ R_j is at most a diagonal D, as symmetric matrices are ordered, and ζ_j = R_j · v + k_j for some
v, the sum of p_j (z_j - ζ_j)² is at most that of D_i (w_i - v_i)². So f is at least the sum of C, of d_j + p_j ζ_j² +
s_j k_j with s_j = m_j - 2 p_j ζ_j, and for each i of the least of G_i w - D_i (w - v_i)² on [-1, 1], where G is g plus
the sum of s_j R_j: that is concave, so least at an end.
"""

from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from .bounds import HUGE, TINY, UNIT, Bounds, gamma
from .files import RefusedError, need

#: Most numbers in all rows, and neurons with p > 0; the least D, and how far v may be from 0.
LARGEST_ROWS, LARGEST_CURVED, _LEAST, _FARTHEST = 2**25, 2**11, 1e-13, 8.0


class CurvedChoice(NamedTuple):
    """What a file chooses: m and p, [n]; D and v, [W]. Any numbers will do."""

    m: Any
    p: Any
    D: Any
    v: Any


class Forms:
    """A combination of the last node's rows over a part of a region, as a function of W numbers in [-1, 1].

    W are the inputs and the neurons before `site` that have slots; n the neurons of `site` that have, and the splits.

    Args:
        bounds: Over the region.
        site: A node that feeds ReLUs.
        slopes: For it and all nodes before it that feed ReLUs: a, [size], each in [0, 1].
        splits: (node, neuron, sign) of neurons before `site`, those of a node together; the part lies within them.
        row: The combination, [1, size].
        box: Corners of a box round the part.
        batch: Rows to walk from at once.
    """

    def __init__(
        self, bounds: Bounds, site: int, slopes: dict[int, Any], splits: Any, row: Any, box: Any, batch: int
    ) -> None:
        self._bounds, self._site, self._slopes, self._box = bounds, site, slopes, box
        self._signs = {at: np.zeros(len(slope)) for at, slope in slopes.items()}
        for at, neuron, sign in splits:
            self._signs[at][neuron] = sign
        self._slots = {at: bounds.slots[at][1] for at in slopes}
        own = [(site, self._slots[site])]
        own += [(at, np.array([neuron for _, neuron, _ in some])) for at, some in groupby(splits, lambda part: part[0])]
        width = len(box[0]) + sum(len(index) for at, index in self._slots.items() if at < site)
        self.size = (1 + sum(len(index) for _, index in own)) * width
        need(self.size <= LARGEST_ROWS, "the rows of parabolas are too large")
        places = [(at, some) for at, index in own for some in np.split(index, range(batch, len(index), batch))]
        parts = [self._walked(at, _units(index, len(bounds.lower[at]))) for at, index in places]
        self._rows, self._constants, self._errors, _ = (np.concatenate(part) for part in zip(*parts, strict=True))
        ends = zip(*((bounds.lower[at][index], bounds.upper[at][index]) for at, index in own), strict=True)
        self._low, self._high = (np.concatenate(part) for part in ends)
        #: Of the combination: g, C, its error, and c of `site`'s neurons.
        self.row = [part[0] for part in self._walked(len(bounds.lower) - 1, row)]

    def _walked(self, start: int, rows: Any) -> tuple[Any, Any, Any, Any]:
        """Returns rows [B, size] of a node's value as functions of w, constants, errors, and the c of `site`'s neurons.

        λ max(z, 0) is λ z where z >= 0, 0 where z <= 0, else λ a z + λ h + λ h e; of `site`'s neurons with slots c is
        λ. Each product is off by a unit, the first one, in which a is at most 1, times |z|. Of all that is added up,
        constants, coefficients of e and of `site`'s ReLUs, `every` times the magnitudes is charged. Neurons after
        `site` have a max(z, 0) of 0 at least and of their bound at most.
        """
        bounds, places = self._bounds, {at: np.full(len(slope), -1) for at, slope in self._slopes.items()}
        for at, index in self._slots.items():
            places[at][index] = np.arange(len(index))
        errors = {at: np.zeros((len(index), len(rows))) for at, index in self._slots.items()}

        def lines(at: int, mu: Any, live: Any) -> tuple[Any, Any, Any, Any]:
            live, mu = (part[bounds.upper[at][live] > 0] for part in (live, mu))
            sign = self._signs[at][live] if at < self._site else np.zeros(len(live))
            free = (bounds.lower[at][live] < 0) & (sign == 0)
            if at == self._site:
                # As the file has them, also where it knows no better than that they may be of either sign.
                free |= places[at][live] >= 0
            index, lam, through = live[free], mu[free], np.where((sign < 0)[:, None], 0.0, mu)
            low, high = bounds.lower[at][index], bounds.upper[at][index]
            if at > self._site:
                through[free] = 0.0
                return through, live, 0.0, high @ abs(lam)
            slope, place = self._slopes[at][index], places[at][index]
            half = 0.5 * (1 + 8 * UNIT) * np.maximum(-slope * low, (1 - slope) * high) + TINY
            above, charge = half[:, None] * lam, (2 * UNIT * np.maximum(-low, high) + 2 * bounds.every * half)
            through[free] = slope[:, None] * lam
            known = place >= 0
            if at == self._site:
                errors[at][place[known]] += lam[known]
                through[np.flatnonzero(free)[known]], above[known], half[known] = 0.0, 0.0, bounds.every * high[known]
            else:
                errors[at][place[known]] += above[known]
                half[known] *= 4 * UNIT
            return through, live, above.sum(axis=0), (charge + half) @ abs(lam)

        coefficients, constants, off = bounds.forms(start, rows, lines, *self._box)
        behind = [errors[at].T for at in self._slopes if at < self._site]
        return np.concatenate([coefficients, *behind], axis=1), constants, off, errors[self._site].T

    def least(self, signs: Any, choice: CurvedChoice) -> float:
        """Returns a lower bound of the combination over the part.

        A neuron's z is y + δ with y = R · w + k, |y| <= reach and |δ| <= error: so m z >= m y - |m| error, and
        -p z² >= -p y² - p (2 reach error + error²). With y - ζ = R · (w - v) + δ', where |δ'| <= off is the rounding of
        ζ and |R · (w - v)| <= (1 + far) reach, the square is off by 2 (1 + far) reach off + off². s and G are what is
        computed, off by units of their terms, and what is added up at last is a sum of so many terms.

        Args:
            signs: [n] 1 for z >= 0, -1 for z <= 0, 0 for neither.
            choice: What the file says.
        """
        rows, k, error = self._rows, self._constants, self._errors
        (n, width), (base, constant, wrong, c) = rows.shape, self.row
        c = np.append(c, np.zeros(n - len(c)))
        m, p, v = choice.m, np.maximum(choice.p, 0.0), np.clip(choice.v, -_FARTHEST, _FARTHEST)
        # Numbers that no parabola reads need no D, whatever the file has for them.
        D = np.maximum(np.where((rows[p > 0] != 0).any(axis=0), choice.D, 0.0), _LEAST)
        D, far = D * (1 + _excess(rows, p, D)) * (1 + 4 * UNIT), np.maximum(abs(v).max(initial=0.0), 1.0)
        d, reach = _shifts(c, self._low, self._high, signs, m, p), 1.001 * (abs(rows).sum(axis=1) + abs(k)) + TINY
        zeta, off = rows @ v + k, gamma(width + 1) * reach * far
        s = m - 2 * p * zeta
        G, kinds = base + s @ rows, abs(m) + 2 * p * abs(zeta)
        ends = np.minimum(G - D * (1 - v) ** 2, -G - D * (1 + v) ** 2)
        terms = np.concatenate([ends, d, p * zeta**2, s * k, [constant]])
        sizes = [abs(G) + (1 + far) ** 2 * D, abs(d), p * zeta**2, abs(s * k), [abs(constant)]]
        size = np.concatenate(sizes).sum()
        charge = abs(m) @ error + p @ (2 * reach * error + error**2 + 2 * (1 + far) * reach * off + off**2)
        charge += 4 * UNIT * kinds @ reach + gamma(n + 1) * (abs(base).sum() + abs(s) @ reach) + wrong
        slack = 1.01 * (gamma(len(terms) + 16) * size + charge) + TINY
        largest = max(
            size, *(part.max(initial=0.0) for part in (D, kinds, p, reach, abs(c), abs(self._low), self._high))
        )
        bound = terms.sum() - slack
        return float(bound - 4 * UNIT * abs(bound)) if largest < HUGE and np.isfinite(bound) else -np.inf


def _units(index: Any, size: int) -> Any:
    rows = np.zeros((len(index), size))
    rows[np.arange(len(index)), index] = 1.0
    return rows


def _shifts(c: Any, low: Any, high: Any, signs: Any, m: Any, p: Any) -> Any:
    """Returns d [n] with c max(z, 0) - m z + p z² >= d for low <= z <= high of the sign.

    That is s z + p z² with s = -m where z <= 0, s = c - m where z >= 0, and p z² >= 2 p b z - p b² for any b. What is
    left is linear, so least at 0 or at the end; b is the parabola's lowest point as far as that is within. Rounding is
    some units of the terms.
    """
    least, size = np.zeros((2, len(c)))
    for s, end, out in ((-m, np.minimum(low, 0.0), signs > 0), (c - m, np.maximum(high, 0.0), signs < 0)):
        with np.errstate(all="ignore"):
            b = np.clip(np.nan_to_num(-s / (2 * p)), np.minimum(end, 0.0), np.maximum(end, 0.0))
        here = np.minimum((s + 2 * p * b) * end, 0.0) - p * b**2
        least = np.minimum(least, np.where(out, 0.0, here))
        size += (abs(c) + abs(m) + 2 * p * abs(b)) * abs(end) + p * b**2
    return least - 16 * UNIT * size - TINY


def _excess(rows: Any, p: Any, D: Any) -> float:
    """Returns τ >= 0 with the sum of p_j R_jᵀ R_j at most (1 + τ) diag(D), as symmetric matrices are ordered.

    That is so if A = B Bᵀ <= 1 + τ for B = p^½ R D^-½, or for anything larger in the place of p^½ and D^-½. Entries of
    the computed A are off by γ times the lengths of two rows of B, which is at most γ trace(A) in that order. For any
    L, 1 - A = L Lᵀ + rest; the rest is at least minus its norm, as computed, but for γ times the terms of its sums.
    """
    mine = np.flatnonzero(p > 0)
    need(len(mine) <= LARGEST_CURVED, "too many neurons have parabolas")
    B = rows[mine] * (np.sqrt(p[mine]) * (1 + 4 * UNIT))[:, None] * (1 / np.sqrt(D) * (1 + 8 * UNIT))
    A, one = B @ B.T, np.eye(len(mine))
    A, trace = 0.5 * (A + A.T), 1.001 * np.trace(A)
    try:
        factor = np.linalg.cholesky(one - A)
    except np.linalg.LinAlgError as error:
        raise RefusedError("parabolas are not outweighed by D") from error
    rest, terms = one - A - factor @ factor.T, (factor**2).sum() + len(mine) + trace
    off = 2 * gamma(rows.shape[1] + 16) * trace + gamma(len(mine) + 8) * terms
    return float(1.01 * (np.sqrt((rest**2).sum()) * 1.001 + off) + TINY)
