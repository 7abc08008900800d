"""Bounds and gradient steps of 16 subdomains side by side, all steps in one call.

A group of 16 subdomains keeps its dual variables, coefficients and values neuron by neuron with the lanes innermost, in
a work space that stays in the cache, and walks through the rows of the reduced network's sparse matrices: backwards by
columns, so that the coefficient of a neuron is a sum in registers, and forwards by rows.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from prunecert.verifiers.sparse.llvm.row_gather import LANES, gather

Single = npt.NDArray[np.float32]
Signs = npt.NDArray[np.int8]
Places = npt.NDArray[np.int64]
Columns = npt.NDArray[np.int32]

#: Of `walk`: how many vectors of 16 a group needs for each neuron, specification row and pixel.
PER_NEURON, PER_ROW, PER_PIXEL = 12, 4, 1
SPARE = 4


@numba.njit(cache=True, parallel=True, fastmath={"nsz", "contract", "reassoc", "arcp"})
def walk(
    mt: tuple[Places, Columns, Single],
    m: tuple[Places, Columns, Single],
    nt: tuple[Places, Columns, Single],
    n: tuple[Places, Columns, Single],
    c: Single,
    low: Single,
    slope: Single,
    sign: Signs,
    alpha: Single,
    beta: Single,
    weights: Single,
    member: npt.NDArray[np.bool_],
    best: Single,
    look: int,
    lam_out: Single,
    z_out: Single,
    t_out: Single,
    rows_out: Single,
    steps: int,
    rate_alpha: float,
    rate_beta: float,
    decay: float,
    target: float,
    several: bool,
    work: Single,
    size: int,
) -> None:
    """Ascends from dual variables and writes the best ones back.

    Args:
        mt: Columns of M: (starts, row indices, values), a column for each pixel.
        m: Rows of M, likewise.
        nt: Columns of N.
        n: Rows of N.
        c: [U + R].
        low: [U].
        slope: [U] u / (u - l).
        sign: [D, U].
        alpha: [D, U]; overwritten by the best seen.
        beta: Likewise.
        weights: [D, R], likewise.
        member: [D, R] which rows are the subdomain's.
        best: [D]; overwritten by the best bound.
        look: 1: the last walk writes the four arrays that follow, which may be empty otherwise.
        lam_out: [D, U].
        z_out: [D, U].
        t_out: [D, P].
        rows_out: [D, R].
        steps: Gradient steps; a group ends early when all its bounds exceed `target`.
        rate_alpha: First step size.
        rate_beta: Likewise, relative to the first coefficient.
        decay: Of both.
        target: See `steps`.
        several: Whether weights are optimised.
        work: Work space, `size` for each thread.
        size: See `work`; a multiple of 16.
    """
    # Numba takes no tuple into a parallel loop.
    mt_at, mt_index, mt_value = mt
    m_at, m_index, m_value = m
    nt_at, nt_index, nt_value = nt
    n_at, n_index, n_value = n
    count, width = sign.shape
    rows = weights.shape[1]
    pixels = len(mt_at) - 1
    for group in numba.prange((count + LANES - 1) // LANES):
        start = numba.get_thread_id() * size
        lam = start
        mu = lam + width * LANES
        z = mu + (width + rows) * LANES
        a = z + width * LANES
        al = a + width * LANES
        be = al + width * LANES
        sg = be + width * LANES
        fi = sg + width * LANES
        se = fi + width * LANES
        sc = se + width * LANES
        ba = sc + width * LANES
        bb = ba + width * LANES
        we = bb + width * LANES
        bw = we + rows * LANES
        va = bw + rows * LANES
        t = va + rows * LANES
        tmp = t + pixels * LANES
        total = tmp + LANES
        top = total + LANES
        won = top + LANES
        for lane in range(LANES):
            d = min(group * LANES + lane, count - 1)
            for i in range(width):
                at = i * LANES + lane
                work[al + at] = alpha[d, i]
                work[be + at] = beta[d, i]
                work[ba + at] = alpha[d, i]
                work[bb + at] = beta[d, i]
                work[sg + at] = sign[d, i]
            for r in range(rows):
                work[we + r * LANES + lane] = weights[d, r]
                work[bw + r * LANES + lane] = weights[d, r]
            work[top + lane] = -np.inf
        for at in range(width * LANES):
            work[fi + at] = 0.0
            work[se + at] = 0.0
        ra, rb = np.float32(rate_alpha), np.float32(rate_beta)
        for step in range(steps + 1):
            # Backwards.
            for lane in range(LANES):
                work[total + lane] = 0.0
            for r in range(rows):
                for lane in range(LANES):
                    work[mu + (width + r) * LANES + lane] = work[we + r * LANES + lane]
                    work[total + lane] += work[we + r * LANES + lane] * c[width + r]
            for i in range(width - 1, -1, -1):
                gather(work, mu, nt_index, nt_value, nt_at[i], nt_at[i + 1], work, lam + i * LANES)
                s, l, b = slope[i], low[i], c[i]  # noqa: E741 (the field's letter)
                for lane in range(LANES):
                    at = i * LANES + lane
                    value, phase = work[lam + at], work[sg + at]
                    below = s * value
                    free = below if value < 0 else work[al + at] * value
                    shift = -below * l if value < 0 else np.float32(0.0)
                    split = value - work[be + at] if phase > 0 else work[be + at]
                    coefficient = free if phase == 0 else split
                    work[mu + at] = coefficient
                    work[total + lane] += coefficient * b + (shift if phase == 0 else np.float32(0.0))
            for p in range(pixels):
                gather(work, mu, mt_index, mt_value, mt_at[p], mt_at[p + 1], work, tmp)
                for lane in range(LANES):
                    value = work[tmp + lane]
                    work[total + lane] -= abs(value)
                    work[t + p * LANES + lane] = np.float32(-1.0) if value > 0 else np.float32(1.0)
            # Keep the best.
            any_won = False
            done = True
            for lane in range(LANES):
                better = work[total + lane] > work[top + lane]
                work[won + lane] = np.float32(1.0) if better else np.float32(0.0)
                if better:
                    work[top + lane] = work[total + lane]
                    any_won = True
                if not work[top + lane] > target:
                    done = False
            if any_won:
                for i in range(width):
                    for lane in range(LANES):
                        at = i * LANES + lane
                        better = work[won + lane] > 0
                        work[ba + at] = work[al + at] if better else work[ba + at]
                        work[bb + at] = work[be + at] if better else work[bb + at]
                for r in range(rows):
                    for lane in range(LANES):
                        at = r * LANES + lane
                        work[bw + at] = work[we + at] if work[won + lane] > 0 else work[bw + at]
            last = step == steps or done
            if last and look == 0:
                break
            # Forwards, with the step.
            c1 = np.float32(1.0 / (1.0 - 0.9 ** (step + 1)))
            c2 = np.float32(1.0 / (1.0 - 0.99 ** (step + 1)))
            if step == 0:
                for lane in range(LANES):
                    work[tmp + lane] = 0.0
                for i in range(width):
                    for lane in range(LANES):
                        work[tmp + lane] += abs(work[lam + i * LANES + lane])
                for i in range(width):
                    for lane in range(LANES):
                        at = i * LANES + lane
                        work[sc + at] = max(abs(work[lam + at]), np.float32(0.1) * work[tmp + lane] / width)
            for i in range(width):
                gather(work, t, m_index, m_value, m_at[i], m_at[i + 1], work, z + i * LANES)
                gather(work, a, n_index, n_value, n_at[i], n_at[i + 1], work, tmp)
                s, l, b = slope[i], low[i], c[i]  # noqa: E741
                for lane in range(LANES):
                    at = i * LANES + lane
                    value, phase, coefficient = work[z + at] + work[tmp + lane] + b, work[sg + at], work[lam + at]
                    work[z + at] = value
                    free = s * (value - l) if coefficient < 0 else work[al + at] * value
                    split = value if phase > 0 else np.float32(0.0)
                    work[a + at] = free if phase == 0 else split
                    if not last:
                        rising = coefficient * value if coefficient > 0 else np.float32(0.0)
                        g = rising if phase == 0 else -phase * value * work[sc + at]
                        first = np.float32(0.9) * work[fi + at] + np.float32(0.1) * g
                        second = np.float32(0.99) * work[se + at] + np.float32(0.01) * g * g
                        work[fi + at] = first
                        work[se + at] = second
                        move = c1 * first / (np.sqrt(c2 * second) + np.float32(1e-12))
                        new_alpha = min(max(work[al + at] + ra * move, np.float32(0.0)), np.float32(1.0))
                        new_beta = max(work[be + at] + rb * work[sc + at] * move, np.float32(0.0))
                        work[al + at] = new_alpha if phase == 0 else work[al + at]
                        work[be + at] = work[be + at] if phase == 0 else new_beta
            if several or (last and look == 1):
                for r in range(rows):
                    i = width + r
                    gather(work, t, m_index, m_value, m_at[i], m_at[i + 1], work, va + r * LANES)
                    gather(work, a, n_index, n_value, n_at[i], n_at[i + 1], work, tmp)
                    for lane in range(LANES):
                        work[va + r * LANES + lane] += work[tmp + lane] + c[i]
            if last:
                for lane in range(min(LANES, count - group * LANES)):
                    d = group * LANES + lane
                    for i in range(width):
                        lam_out[d, i] = work[lam + i * LANES + lane]
                        z_out[d, i] = work[z + i * LANES + lane]
                    for p in range(pixels):
                        t_out[d, p] = work[t + p * LANES + lane]
                    for r in range(rows):
                        rows_out[d, r] = work[va + r * LANES + lane]
                break
            if several:
                # Exponentiated-gradient ascent on the weights of a disjunct's rows.
                for lane in range(LANES):
                    d = min(group * LANES + lane, count - 1)
                    high, least = np.float32(-np.inf), np.float32(np.inf)
                    for r in range(rows):
                        if member[d, r]:
                            high = max(high, work[va + r * LANES + lane])
                            least = min(least, work[va + r * LANES + lane])
                    whole = np.float32(0.0)
                    for r in range(rows):
                        at = we + r * LANES + lane
                        if member[d, r]:
                            push = (work[va + r * LANES + lane] - high) / (high - least + np.float32(1e-12))
                            work[at] = max(work[at], np.float32(1e-4)) * np.exp(np.float32(2.0) * ra * push)
                            whole += work[at]
                    for r in range(rows):
                        work[we + r * LANES + lane] /= whole
            ra, rb = np.float32(ra * decay), np.float32(rb * decay)
        for lane in range(min(LANES, count - group * LANES)):
            d = group * LANES + lane
            best[d] = work[top + lane]
            for i in range(width):
                alpha[d, i] = work[ba + i * LANES + lane]
                beta[d, i] = work[bb + i * LANES + lane]
            for r in range(rows):
                weights[d, r] = work[bw + r * LANES + lane]
