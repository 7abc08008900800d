"""What the ascent of 16 subdomains side by side works on: tuples of arrays, which its kernel is compiled for."""

from __future__ import annotations

from typing import NamedTuple

from prunecert.verifiers.sparse.arrays import LANES32, BoolArray, Float32Array, Int8Array, Int32Array, Int64Array


class AscentProblem(NamedTuple):
    """A reduced network of U neurons, R rows and P pixels, never written; see `reduced_network.Reduced`.

    Args:
        mt_starts: Of the columns of M, one for each pixel, [P + 1].
        mt_rows: Where their entries are, those of column p from mt_starts[p] to mt_starts[p + 1].
        mt_values: The entries.
        m_starts: Of the rows of M, [U + R + 1].
        m_columns: Likewise.
        m_values: Likewise.
        nt_starts: Of the columns of N, [U + 1].
        nt_rows: Likewise.
        nt_values: Likewise.
        n_starts: Of the rows of N, [U + R + 1].
        n_columns: Likewise.
        n_values: Likewise.
        c: [U + R].
        lower: [U], below 0.
        slope: [U] u / (u - l).
    """

    mt_starts: Int64Array
    mt_rows: Int32Array
    mt_values: Float32Array
    m_starts: Int64Array
    m_columns: Int32Array
    m_values: Float32Array
    nt_starts: Int64Array
    nt_rows: Int32Array
    nt_values: Float32Array
    n_starts: Int64Array
    n_columns: Int32Array
    n_values: Float32Array
    c: Float32Array
    lower: Float32Array
    slope: Float32Array


class Subdomains(NamedTuple):
    """D subdomains; see `dual.DualBatch`. Dual variables and bounds are overwritten by the best.

    Args:
        sign: [D, U], read only.
        member: [D, R] which rows are the subdomain's, read only.
        alpha: [D, U].
        beta: [D, U].
        weights: [D, R].
        bound: [D], not read.
    """

    sign: Int8Array
    member: BoolArray
    alpha: Float32Array
    beta: Float32Array
    weights: Float32Array
    bound: Float32Array


class Sight(NamedTuple):
    """What the last walk writes for `dual.Look`; all empty where nobody looks.

    Args:
        lam: [D, U].
        z: [D, U].
        t: [D, P].
        rows: [D, R].
    """

    lam: Float32Array
    z: Float32Array
    t: Float32Array
    rows: Float32Array


class AscentSchedule(NamedTuple):
    """How far to ascend.

    Args:
        steps: Gradient steps; a group ends early when all its bounds exceed `target`.
        rate_alpha: First step size.
        rate_beta: Likewise, relative to the first coefficient.
        decay: Of both.
        target: See `steps`.
        several: Whether weights are optimised.
        look: Whether the last walk writes a `Sight`.
    """

    steps: int
    rate_alpha: float
    rate_beta: float
    decay: float
    target: float
    several: bool
    look: bool


class Workspace(NamedTuple):
    """What a thread needs for a group: flat slices of its room, 16 lanes for each neuron, row or pixel.

    Args:
        lam: Coefficients that reach the ReLUs, [16 U] as all up to `best_beta` but for `mu`.
        mu: Coefficients that leave them, and the rows' weights behind, [16 (U + R)].
        z: Inputs of the ReLUs.
        relu: Values of the lines below them.
        alpha: Dual variables of this step.
        beta: Likewise.
        sign: Phases.
        first: First moments of the gradient.
        second: Second moments.
        scale: Of each neuron's β.
        best_alpha: Dual variables of the best bound.
        best_beta: Likewise.
        weights: Of this step, [16 R].
        best_weights: Of the best bound.
        rows: Values of the rows.
        t: The minimiser, [16 P].
        sums: Scratch, [16] as what follows.
        total: The bounds of this step.
        top: The best bounds.
        won: 1 where this step's are the best, else 0.
    """

    lam: Float32Array
    mu: Float32Array
    z: Float32Array
    relu: Float32Array
    alpha: Float32Array
    beta: Float32Array
    sign: Float32Array
    first: Float32Array
    second: Float32Array
    scale: Float32Array
    best_alpha: Float32Array
    best_beta: Float32Array
    weights: Float32Array
    best_weights: Float32Array
    rows: Float32Array
    t: Float32Array
    sums: Float32Array
    total: Float32Array
    top: Float32Array
    won: Float32Array


def room(neurons: int, rows: int, pixels: int) -> int:
    """Returns how many float32 numbers a `Workspace` takes, a multiple of 16."""
    return LANES32 * (12 * neurons + 4 * rows + pixels + 4)
