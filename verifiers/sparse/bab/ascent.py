"""Bounds and gradient steps of 16 subdomains side by side, all steps in one call.

A group of 16 subdomains keeps its dual variables, coefficients and values neuron by neuron with the lanes innermost, in
a work space that stays in the cache, and walks through the rows of the reduced network's sparse matrices: backwards by
columns, so that the coefficient of a neuron is a sum in registers, and forwards by rows.

    rows ──backward──> lam, mu of every neuron, last to first ──> t, the minimiser in the box, and the bound
      ^                                                                           │
    weights, alpha, beta <──step── z of every neuron, first to last <──forward────┘

What is not compiled apart but into the loop over groups, by Numba's own inlining, is one function a step of that way.
"""

from __future__ import annotations

import numba
import numpy as np

from prunecert.verifiers.sparse.arrays import LANES32, Float32Array
from prunecert.verifiers.sparse.bab.ascent_state import AscentProblem, AscentSchedule, Sight, Subdomains, Workspace
from prunecert.verifiers.sparse.llvm.row_gather import gather

#: Sums may be taken in any order; infinities and what is not a number stay what they are.
_FAST = {"nsz", "contract", "reassoc", "arcp"}


@numba.njit(inline="always")
def _workspace(work: Float32Array, begin: int, neurons: int, rows: int, pixels: int) -> Workspace:
    """Cuts a workspace out of what all threads have, from `begin` on."""
    u, r, p = neurons * LANES32, rows * LANES32, pixels * LANES32
    after_mu = begin + 2 * u + r
    weights = after_mu + 10 * u
    t = weights + 3 * r
    sums = t + p
    return Workspace(
        lam=work[begin : begin + u],
        mu=work[begin + u : after_mu],
        z=work[after_mu : after_mu + u],
        relu=work[after_mu + u : after_mu + 2 * u],
        alpha=work[after_mu + 2 * u : after_mu + 3 * u],
        beta=work[after_mu + 3 * u : after_mu + 4 * u],
        sign=work[after_mu + 4 * u : after_mu + 5 * u],
        first=work[after_mu + 5 * u : after_mu + 6 * u],
        second=work[after_mu + 6 * u : after_mu + 7 * u],
        scale=work[after_mu + 7 * u : after_mu + 8 * u],
        best_alpha=work[after_mu + 8 * u : after_mu + 9 * u],
        best_beta=work[after_mu + 9 * u : after_mu + 10 * u],
        weights=work[weights : weights + r],
        best_weights=work[weights + r : weights + 2 * r],
        rows=work[weights + 2 * r : weights + 3 * r],
        t=work[t:sums],
        sums=work[sums : sums + LANES32],
        total=work[sums + LANES32 : sums + 2 * LANES32],
        top=work[sums + 2 * LANES32 : sums + 3 * LANES32],
        won=work[sums + 3 * LANES32 : sums + 4 * LANES32],
    )


@numba.njit(inline="always")
def _enter(subdomains: Subdomains, work: Workspace, group: int, neurons: int, rows: int) -> None:
    """Copies a group's dual variables into the workspace; lanes without a subdomain repeat the last one."""
    for lane in range(LANES32):
        d = min(group * LANES32 + lane, len(subdomains.sign) - 1)
        for i in range(neurons):
            at = i * LANES32 + lane
            work.alpha[at] = subdomains.alpha[d, i]
            work.beta[at] = subdomains.beta[d, i]
            work.best_alpha[at] = subdomains.alpha[d, i]
            work.best_beta[at] = subdomains.beta[d, i]
            work.sign[at] = subdomains.sign[d, i]
        for r in range(rows):
            work.weights[r * LANES32 + lane] = subdomains.weights[d, r]
            work.best_weights[r * LANES32 + lane] = subdomains.weights[d, r]
        work.top[lane] = -np.inf
    for at in range(neurons * LANES32):
        work.first[at] = 0.0
        work.second[at] = 0.0


@numba.njit(inline="always")
def _backward(problem: AscentProblem, work: Workspace, neurons: int, rows: int, pixels: int) -> None:
    """Walks from the weighted rows to the pixels: coefficients, minimisers and bounds of the step's dual variables."""
    for lane in range(LANES32):
        work.total[lane] = 0.0
    for r in range(rows):
        for lane in range(LANES32):
            work.mu[(neurons + r) * LANES32 + lane] = work.weights[r * LANES32 + lane]
            work.total[lane] += work.weights[r * LANES32 + lane] * problem.c[neurons + r]
    for i in range(neurons - 1, -1, -1):
        begin, end = problem.nt_starts[i], problem.nt_starts[i + 1]
        gather(work.mu, 0, problem.nt_rows, problem.nt_values, begin, end, work.lam, i * LANES32)
        slope, low, bias = problem.slope[i], problem.lower[i], problem.c[i]
        for lane in range(LANES32):
            at = i * LANES32 + lane
            lam, phase = work.lam[at], work.sign[at]
            below = slope * lam
            free = below if lam < 0 else work.alpha[at] * lam
            shift = -below * low if lam < 0 else np.float32(0.0)
            split = lam - work.beta[at] if phase > 0 else work.beta[at]
            mu = free if phase == 0 else split
            work.mu[at] = mu
            work.total[lane] += mu * bias + (shift if phase == 0 else np.float32(0.0))
    for p in range(pixels):
        begin, end = problem.mt_starts[p], problem.mt_starts[p + 1]
        gather(work.mu, 0, problem.mt_rows, problem.mt_values, begin, end, work.sums, 0)
        for lane in range(LANES32):
            value = work.sums[lane]
            work.total[lane] -= abs(value)
            work.t[p * LANES32 + lane] = np.float32(-1.0) if value > 0 else np.float32(1.0)


@numba.njit(inline="always")
def _keep(work: Workspace, neurons: int, rows: int, target: float) -> bool:
    """Keeps the dual variables of the lanes whose bounds are the best so far; returns whether all exceed the target."""
    any_won = False
    above = True
    for lane in range(LANES32):
        better = work.total[lane] > work.top[lane]
        work.won[lane] = np.float32(1.0) if better else np.float32(0.0)
        if better:
            work.top[lane] = work.total[lane]
            any_won = True
        if not work.top[lane] > target:
            above = False
    if any_won:
        for i in range(neurons):
            for lane in range(LANES32):
                at = i * LANES32 + lane
                better = work.won[lane] > 0
                work.best_alpha[at] = work.alpha[at] if better else work.best_alpha[at]
                work.best_beta[at] = work.beta[at] if better else work.best_beta[at]
        for r in range(rows):
            for lane in range(LANES32):
                at = r * LANES32 + lane
                work.best_weights[at] = work.weights[at] if work.won[lane] > 0 else work.best_weights[at]
    return above


@numba.njit(inline="always")
def _measure(work: Workspace, neurons: int) -> None:
    """Sets the scales of β by the coefficients of the first walk."""
    for lane in range(LANES32):
        work.sums[lane] = 0.0
    for i in range(neurons):
        for lane in range(LANES32):
            work.sums[lane] += abs(work.lam[i * LANES32 + lane])
    for i in range(neurons):
        for lane in range(LANES32):
            at = i * LANES32 + lane
            work.scale[at] = max(abs(work.lam[at]), np.float32(0.1) * work.sums[lane] / neurons)


@numba.njit(inline="always")
def _forward(
    problem: AscentProblem,
    work: Workspace,
    neurons: int,
    ascend: bool,
    step: int,
    rate_alpha: np.float32,
    rate_beta: np.float32,
) -> None:
    """Follows the chosen lines from the minimiser through the neurons; with `ascend`, each takes its step there."""
    c1 = np.float32(1.0 / (1.0 - 0.9 ** (step + 1)))
    c2 = np.float32(1.0 / (1.0 - 0.99 ** (step + 1)))
    for i in range(neurons):
        begin, end = problem.m_starts[i], problem.m_starts[i + 1]
        gather(work.t, 0, problem.m_columns, problem.m_values, begin, end, work.z, i * LANES32)
        begin, end = problem.n_starts[i], problem.n_starts[i + 1]
        gather(work.relu, 0, problem.n_columns, problem.n_values, begin, end, work.sums, 0)
        slope, low, bias = problem.slope[i], problem.lower[i], problem.c[i]
        for lane in range(LANES32):
            at = i * LANES32 + lane
            z, phase, lam = work.z[at] + work.sums[lane] + bias, work.sign[at], work.lam[at]
            work.z[at] = z
            free = slope * (z - low) if lam < 0 else work.alpha[at] * z
            split = z if phase > 0 else np.float32(0.0)
            work.relu[at] = free if phase == 0 else split
            if ascend:
                _step(work, at, z, phase, lam, c1, c2, rate_alpha, rate_beta)


@numba.njit(inline="always")
def _step(
    work: Workspace,
    at: int,
    z: np.float32,
    phase: np.float32,
    lam: np.float32,
    c1: np.float32,
    c2: np.float32,
    rate_alpha: np.float32,
    rate_beta: np.float32,
) -> None:
    """Moves a neuron's α, or β where it is split, in one lane: Adam with projection.

    Args:
        work: The workspace.
        at: Place of neuron and lane.
        z: The ReLU's input.
        phase: 1 or -1 where it is split, else 0.
        lam: Its coefficient.
        c1: Corrects the first moment's bias.
        c2: Likewise, the second one's.
        rate_alpha: Step size.
        rate_beta: Likewise, times the neuron's scale.
    """
    rising = lam * z if lam > 0 else np.float32(0.0)
    gradient = rising if phase == 0 else -phase * z * work.scale[at]
    first = np.float32(0.9) * work.first[at] + np.float32(0.1) * gradient
    second = np.float32(0.99) * work.second[at] + np.float32(0.01) * gradient * gradient
    work.first[at] = first
    work.second[at] = second
    move = c1 * first / (np.sqrt(c2 * second) + np.float32(1e-12))
    alpha = min(max(work.alpha[at] + rate_alpha * move, np.float32(0.0)), np.float32(1.0))
    beta = max(work.beta[at] + rate_beta * work.scale[at] * move, np.float32(0.0))
    work.alpha[at] = alpha if phase == 0 else work.alpha[at]
    work.beta[at] = work.beta[at] if phase == 0 else beta


@numba.njit(inline="always")
def _evaluate(problem: AscentProblem, work: Workspace, neurons: int, rows: int) -> None:
    """Follows the lines from the neurons to the rows."""
    for r in range(rows):
        i = neurons + r
        begin, end = problem.m_starts[i], problem.m_starts[i + 1]
        gather(work.t, 0, problem.m_columns, problem.m_values, begin, end, work.rows, r * LANES32)
        begin, end = problem.n_starts[i], problem.n_starts[i + 1]
        gather(work.relu, 0, problem.n_columns, problem.n_values, begin, end, work.sums, 0)
        for lane in range(LANES32):
            work.rows[r * LANES32 + lane] += work.sums[lane] + problem.c[i]


@numba.njit(inline="always")
def _weigh(
    subdomains: Subdomains, work: Float32Array, weights: int, values: int, group: int, rows: int, rate: np.float32
) -> None:
    """Exponentiated-gradient ascent on the weights of a disjunct's rows.

    Over the whole of the work space and not its slices: how LLVM takes the quotients, by divisions or by one reciprocal
    for several, depends on what it knows of the places, and with it the last bit.

    Args:
        subdomains: For the members.
        work: The work space.
        weights: Where the group's weights begin there.
        values: Where the rows' values begin.
        group: The group.
        rows: R.
        rate: Step size.
    """
    for lane in range(LANES32):
        d = min(group * LANES32 + lane, len(subdomains.sign) - 1)
        high, least = np.float32(-np.inf), np.float32(np.inf)
        for r in range(rows):
            if subdomains.member[d, r]:
                high = max(high, work[values + r * LANES32 + lane])
                least = min(least, work[values + r * LANES32 + lane])
        whole = np.float32(0.0)
        for r in range(rows):
            at = weights + r * LANES32 + lane
            if subdomains.member[d, r]:
                push = (work[values + r * LANES32 + lane] - high) / (high - least + np.float32(1e-12))
                work[at] = max(work[at], np.float32(1e-4)) * np.exp(np.float32(2.0) * rate * push)
                whole += work[at]
        for r in range(rows):
            work[weights + r * LANES32 + lane] /= whole


@numba.njit(inline="always")
def _show(sight: Sight, work: Workspace, group: int, neurons: int, rows: int, pixels: int) -> None:
    """Writes what a group's last walk saw."""
    for lane in range(min(LANES32, len(sight.lam) - group * LANES32)):
        d = group * LANES32 + lane
        for i in range(neurons):
            sight.lam[d, i] = work.lam[i * LANES32 + lane]
            sight.z[d, i] = work.z[i * LANES32 + lane]
        for p in range(pixels):
            sight.t[d, p] = work.t[p * LANES32 + lane]
        for r in range(rows):
            sight.rows[d, r] = work.rows[r * LANES32 + lane]


@numba.njit(inline="always")
def _leave(subdomains: Subdomains, work: Workspace, group: int, neurons: int, rows: int) -> None:
    """Writes a group's best bounds and their dual variables."""
    for lane in range(min(LANES32, len(subdomains.sign) - group * LANES32)):
        d = group * LANES32 + lane
        subdomains.bound[d] = work.top[lane]
        for i in range(neurons):
            subdomains.alpha[d, i] = work.best_alpha[i * LANES32 + lane]
            subdomains.beta[d, i] = work.best_beta[i * LANES32 + lane]
        for r in range(rows):
            subdomains.weights[d, r] = work.best_weights[r * LANES32 + lane]


@numba.njit(cache=True, fastmath=_FAST)
def _ascend(
    problem: AscentProblem,
    subdomains: Subdomains,
    sight: Sight,
    schedule: AscentSchedule,
    work: Float32Array,
    begin: int,
    group: int,
) -> None:
    """Ascends with a group of 16, in the work space from `begin` on."""
    neurons, rows, pixels = len(problem.lower), subdomains.weights.shape[1], len(problem.mt_starts) - 1
    space = _workspace(work, begin, neurons, rows, pixels)
    _enter(subdomains, space, group, neurons, rows)
    rate_alpha, rate_beta = np.float32(schedule.rate_alpha), np.float32(schedule.rate_beta)
    for step in range(schedule.steps + 1):
        _backward(problem, space, neurons, rows, pixels)
        above = _keep(space, neurons, rows, schedule.target)
        last = step == schedule.steps or above
        if last and not schedule.look:
            break
        if step == 0:
            _measure(space, neurons)
        _forward(problem, space, neurons, not last, step, rate_alpha, rate_beta)
        if schedule.several or last:
            _evaluate(problem, space, neurons, rows)
        if last:
            _show(sight, space, group, neurons, rows, pixels)
            break
        if schedule.several:
            weights, values = begin + (12 * neurons + rows) * LANES32, begin + (12 * neurons + 3 * rows) * LANES32
            _weigh(subdomains, work, weights, values, group, rows, rate_alpha)
        rate_alpha, rate_beta = np.float32(rate_alpha * schedule.decay), np.float32(rate_beta * schedule.decay)
    _leave(subdomains, space, group, neurons, rows)


@numba.njit(cache=True, parallel=True, fastmath=_FAST)
def walk(
    problem: AscentProblem,
    subdomains: Subdomains,
    sight: Sight,
    schedule: AscentSchedule,
    work: Float32Array,
    size: int,
) -> None:
    """Ascends from dual variables and writes the best ones back.

    Args:
        problem: The network.
        subdomains: Where to start; overwritten.
        sight: Written if the schedule says so.
        schedule: How far to go.
        work: Work space, `size` for each thread.
        size: Of `room`.
    """
    # The body is one call: what a parallel loop writes into a tuple's arrays is taken for dead by Numba, and left out.
    for group in numba.prange((len(subdomains.sign) + LANES32 - 1) // LANES32):
        # The loop's index is unsigned once the loop is a function of its own; all would be compiled for both.
        _ascend(problem, subdomains, sight, schedule, work, numba.get_thread_id() * size, np.int64(group))
