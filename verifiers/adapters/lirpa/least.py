"""The least value of c relu(z) + d z over a ball and a box, for many rows at once, in torch's float64.

What a ReLU's relaxation loses over an l2 ball, in SDP-CROWN's form (Chiu et al., ICML 2025, theorem 4.1): not the sum
of each neuron's worst, but what all neurons can lose together, whose values lie in a ball round ẑ of radius ρ. For any
multiplier λ >= 0 the least value over |z - ẑ| <= ρ, l <= z <= h is at least

    sum_j min_{l_j <= z_j <= h_j} [c_j relu(z_j) + d_j z_j + λ/2 (z_j - ẑ_j)²]  -  λ/2 ρ².

With λ = 0 that is CROWN's sum; without the corners l and h, and with ẑ = 0, its best λ gives SDP-CROWN's norm,
-ρ |min(c + d, -d, 0)|. So it is never below the better of the two. It is concave in λ. `verifiers.sparse.balls.minimum`
solves the same problem, row by row in compiled code; no line is shared, and each is a check of the other.

Rounding, with u = 2**-53: corners, ẑ, c, d and λ are exact. A summand's computed place z differs from the exact one,
z*, by 8 u (|ẑ| + |l| + |h|) at most where it is no corner, and by convexity on a side of 0 its value is above the least
by no more than |f'(z)| |z - z*|, f' <= |c| + |d| + λ max(h - ẑ, ẑ - l). Whichever side of 0 seems to be lower, the
other is not below it by more than that. Sums are charged by their magnitudes (Higham 2002, section 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch

_UNIT = 2.0**-53
#: Multipliers tried in a bracket, and how near to the best value they come, of the magnitudes that are summed.
_TRIES, _CLOSE = 48, 1e-13
#: Share of the columns that a row may have coefficients in for it to be looked at by itself.
_SHARE = 0.5
#: No multiplier is larger, so that nothing overflows that matters.
_STEEPEST = 1e90


def least(
    c: torch.Tensor | None,
    d: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    center: torch.Tensor,
    radius: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds c relu(z) + d z from below over |z - center| <= radius and low <= z <= high.

    Args:
        c: Coefficients of the ReLUs, [rows, n], float64; None: all are 0.
        d: Coefficients of the values, [rows, n].
        low: Lower corner, [n], finite.
        high: Upper corner, at or above it.
        center: Of the ball, between the corners.
        radius: At least 0; infinite: there is no ball.

    Returns:
        Lower bounds, [rows], less all rounding, with gradients to c and d; and the magnitudes that were summed, [rows].
        What is no number, or infinite, is left to the caller.
    """
    room = radius + 4 * _UNIT * (center.abs() + radius)
    low, high = torch.maximum(low, center - room), torch.minimum(high, center + room)
    c, d, low, high, center = _gathered(c, d, low, high, center)
    with torch.no_grad():
        rows = _Rows(None if c is None else c.detach(), d.detach(), low, high, center)
        multipliers = _multipliers(rows, radius)
        places, _ = rows.places(multipliers)
        reach = torch.maximum(low.abs(), high.abs())
        spread = torch.maximum(high - center, center - low)
        factor = rows.d.abs() if rows.c is None else rows.d.abs() + rows.c.abs()
        lam = multipliers.unsqueeze(1)
        ball = multipliers * radius * radius if math.isfinite(radius) else torch.zeros_like(multipliers)
        sizes = (factor * reach + lam * spread * spread).sum(1) + ball
        moved = ((factor + lam * spread) * (center.abs() + reach + spread)).sum(1)
        margin = 1.01 * _UNIT * ((2 * d.shape[1] + 64) * sizes + 64 * moved) + 1e-200
        away = places - center
    values = (d * places).sum(1)
    if c is not None:
        values = values + (c * places.clamp(min=0)).sum(1)
    return values + 0.5 * (multipliers * (away * away).sum(1) - ball) - margin, sizes


def _gathered(
    c: torch.Tensor | None, d: torch.Tensor, low: torch.Tensor, high: torch.Tensor, center: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the problem with each row's own columns, [rows, fewer], if most coefficients are 0.

    A neuron whose coefficients are 0 stays at the centre, and adds nothing.
    """
    used = d.detach() != 0
    if c is not None:
        used |= c.detach() != 0
    counts = used.sum(1)
    most = int(counts.max()) if len(counts) else 0
    if most > _SHARE * d.shape[1]:
        return c, d, low, high, center
    row, column = used.nonzero(as_tuple=True)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(row), device=d.device) - starts[row]

    def moved(values: torch.Tensor) -> torch.Tensor:
        empty = torch.zeros((len(d), most), dtype=torch.float64, device=d.device)
        return empty.index_put((row, place), values)

    ends = [moved(end[column]) for end in (low, high, center)]
    return None if c is None else moved(c[row, column]), moved(d[row, column]), ends[0], ends[1], ends[2]


@dataclass(frozen=True, eq=False)
class _Rows:
    """The problem's data; see `least`. Corners and centre are [n], or each row's own, [rows, n]."""

    c: torch.Tensor | None
    d: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    center: torch.Tensor

    def pick(self, keep: torch.Tensor) -> _Rows:
        c = None if self.c is None else self.c[keep]
        ends = [end if end.dim() == 1 else end[keep] for end in (self.low, self.high, self.center)]
        return _Rows(c, self.d[keep], *ends)

    def places(self, multipliers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the minimisers at each row's multiplier, [rows, n], and which of them are at no corner."""
        lam = multipliers.unsqueeze(1)
        if self.c is None:
            return self._side(self.d, self.low, self.high, lam)
        slope = self.c + self.d
        above, loose_above = self._side(slope, self.low.clamp(min=0), self.high, lam)
        below, loose_below = self._side(self.d, self.low, self.high.clamp(max=0), lam)
        at_above = slope * above + 0.5 * lam * (above - self.center) ** 2
        at_below = self.d * below + 0.5 * lam * (below - self.center) ** 2
        lower = ((at_below < at_above) & (self.low < 0)) | (self.high <= 0)
        return torch.where(lower, below, above), torch.where(lower, loose_below, loose_above)

    def _side(
        self, slope: torch.Tensor, low: torch.Tensor, high: torch.Tensor, lam: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns where slope z + lam/2 (z - center)² is least between two corners."""
        # Without a multiplier: a corner, and where there is no slope, anywhere.
        apex = self.center - torch.where(slope == 0, slope, slope / lam)
        place = torch.minimum(torch.maximum(apex, low), high)
        return place, place == apex

    def at(self, multipliers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns, [rows] each: sums of least values, their magnitudes, squared distances, and what moves of these."""
        places, loose = self.places(multipliers)
        square = (places - self.center) ** 2
        values = self.d * places + 0.5 * multipliers.unsqueeze(1) * square
        if self.c is not None:
            values = values + self.c * places.clamp(min=0)
        return values.sum(1), values.abs().sum(1), square.sum(1), (square * loose).sum(1)


@dataclass(eq=False)
class _Brackets:
    """Of each row that is not at its end, [rows]: the bracket's ends, the best multiplier, and the last one tried.

    Args:
        row: Its number.
        left: A multiplier that is too small, with value and slope there.
        right: One that is not, likewise.
        best: The largest value, at `lam`, of terms of such a size.
        last: Multiplier that was tried last, with the squared distance there, and what moves of it.
    """

    row: torch.Tensor
    left: torch.Tensor
    left_value: torch.Tensor
    left_slope: torch.Tensor
    right: torch.Tensor
    right_value: torch.Tensor
    right_slope: torch.Tensor
    best: torch.Tensor
    lam: torch.Tensor
    size: torch.Tensor
    last: torch.Tensor
    distance: torch.Tensor
    moving: torch.Tensor

    def pick(self, keep: torch.Tensor) -> _Brackets:
        return _Brackets(*(getattr(self, item.name)[keep] for item in fields(self)))


def _multipliers(rows: _Rows, radius: float) -> torch.Tensor:
    """Returns the best multiplier that was tried for each row; 0 is."""
    result = torch.zeros(len(rows.d), dtype=torch.float64, device=rows.d.device)
    if not math.isfinite(radius) or not rows.d.numel():
        return result
    square = radius * radius
    value, size, distance, _ = rows.at(result)
    steep = rows.d.abs() if rows.c is None else torch.maximum(rows.d.abs(), (rows.c + rows.d).abs())
    # There, even without corners, nothing is farther from the centre than the radius.
    right = steep.pow(2).sum(1).sqrt() / max(radius, 1e-290) * (1 + 1e-9)
    row = torch.nonzero((distance > square) & (right > 0) & (right < _STEEPEST)).squeeze(1)
    if not len(row):
        return result
    rows, right = rows.pick(row), right[row]
    at_right, size_right, distance_right, moving_right = rows.at(right)
    at_right = at_right - 0.5 * right * square
    higher = at_right > value[row]
    state = _Brackets(
        row,
        result[row],
        value[row],
        0.5 * (distance[row] - square),
        right,
        at_right,
        0.5 * (distance_right - square),
        torch.where(higher, at_right, value[row]),
        torch.where(higher, right, result[row]),
        torch.where(higher, size_right, size[row]),
        right,
        distance_right,
        moving_right,
    )
    for step in range(_TRIES):
        result[state.row] = state.lam
        trial, keep = _trials(state, square, step)
        if not bool(keep.any()):
            break
        if not bool(keep.all()):
            state, rows, trial = state.pick(keep), rows.pick(keep), trial[keep]
        _try(state, rows, trial, square)
    result[state.row] = state.lam
    return result


def _trials(state: _Brackets, square: float, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the multipliers to be tried next, and which rows are not at their end."""
    width = state.right - state.left
    # The tangents at the ends meet above the best there is; at a kink, they meet in it (Kelley 1960).
    rise = (state.right_value - state.left_value - state.right_slope * width) / (state.left_slope - state.right_slope)
    room = state.left_value + state.left_slope * rise - state.best
    meet = state.left + rise
    # As long as those at corners stay there, the distance is the radius here.
    root = state.last * (state.moving / (square - (state.distance - state.moving))).sqrt()
    first, second = (root, meet) if step % 2 == 0 else (meet, root)
    trial = 0.5 * (state.left + state.right)
    for choice in (second, first):
        trial = torch.where((choice > state.left) & (choice < state.right), choice, trial)
    keep = (room > _CLOSE * (state.size + 0.5 * state.lam * square)) & (trial > state.left) & (trial < state.right)
    return trial, keep & (state.right_slope <= 0)


def _try(state: _Brackets, rows: _Rows, trial: torch.Tensor, square: float) -> None:
    """Evaluates the bounds at a multiplier of each row, and narrows the brackets in place."""
    value, size, distance, moving = rows.at(trial)
    value = value - 0.5 * trial * square
    slope = 0.5 * (distance - square)
    higher, far = value > state.best, slope > 0
    state.best = torch.where(higher, value, state.best)
    state.lam = torch.where(higher, trial, state.lam)
    state.size = torch.where(higher, size, state.size)
    state.left = torch.where(far, trial, state.left)
    state.left_value = torch.where(far, value, state.left_value)
    state.left_slope = torch.where(far, slope, state.left_slope)
    state.right = torch.where(far, state.right, trial)
    state.right_value = torch.where(far, state.right_value, value)
    state.right_slope = torch.where(far, state.right_slope, slope)
    state.last, state.distance, state.moving = trial, distance, moving
