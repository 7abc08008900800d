"""Linear bounds over many sub-boxes of one box, for networks of which few inputs vary: CROWN, computed forwards.

Over a sub-box with centre c and radius r every value of the network is kept as an affine form

    z_j = m_j + Σ_i G_ji t_i + Σ_k E_jk ε_k ± e_j        x = c + r t, t in [-1, 1]^d, ε_k in [-1, 1]

with one symbol ε_k for each ReLU that is unstable over the sub-box, and what rounding may change, e_j, apart. Where
l < 0 < u, relu(z) = λ z + [0, h] with λ = u / (u - l) and h = max(-λ l, (1 - λ) u). This is CROWN with one slope for
both sides (Fast-Lin: Weng et al. 2018, theorem 3.5; as zonotopes: Singh et al. 2018), and the bound of a row is that of
the walk back. Forwards it costs weights times (1 + d + unstable ReLUs so far), skips what is inactive over the
sub-box, and the last row is its own linear bound, G t + m - Σ |E_k| - e, which clipping needs (`box_clipping`). Where
more ReLUs are unstable than there is room for, what the others may add goes into e_j: the first layers have symbols
then, and the smaller the sub-box, the more have.

Why the forms hold in real arithmetic: a column of a form is a sum of K products and errs by at most γ_K times the sum
of their magnitudes (Higham 2002, section 3.1), in any order and with or without fused multiply-add. All columns
together err by at most γ_K Σ_k |w_jk| S_k, where S_k = |m_k| + Σ |G_ki| + Σ |E_ki|, as all symbols are in [-1, 1]; this
goes into e_j. So do inexact weights and biases (`verifiers.sparse.network`), and relaxing, whose rounded λ is taken as
exact. Underflow errs by less than 1e-323 a product, which the constant 1e-200 covers. What is not a number is above
nothing, so that it proves nothing.
"""

from __future__ import annotations

import numba
import numpy as np

from prunecert.verifiers.sparse.bab.box_program import PIECE, BoxProgram, BoxScratch

_UNIT = 2.0**-53
_TINY = 1e-200


@numba.njit(cache=True, nogil=True)
def _filled(wide):  # type: ignore[no-untyped-def]
    """Returns the end of the piece in which so many columns end."""
    return (wide + PIECE - 1) // PIECE * PIECE


@numba.njit(cache=True, nogil=True, inline="always")
def frame(low, high):  # type: ignore[no-untyped-def]
    """Returns centre and radius of an interval: each of its points is c + r t for some t in [-1, 1]."""
    center = 0.5 * low + 0.5 * high
    return center, max(high - center, center - low) * (1.0 + 4.0 * _UNIT)


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def _gather(row, table, picked, factors, pieces, count):  # type: ignore[no-untyped-def]
    """Adds `count` multiples of rows of a table to a row, over its first `pieces` times `PIECE` columns."""
    for first in range(0, PIECE * pieces, PIECE):
        # Eight sums that stay in one register, or two.
        a, b, c, d = row[first], row[first + 1], row[first + 2], row[first + 3]
        e, f, g, h = row[first + 4], row[first + 5], row[first + 6], row[first + 7]
        for k in range(count):
            slot, factor = picked[k], factors[k]
            a += factor * table[slot, first]
            b += factor * table[slot, first + 1]
            c += factor * table[slot, first + 2]
            d += factor * table[slot, first + 3]
            e += factor * table[slot, first + 4]
            f += factor * table[slot, first + 5]
            g += factor * table[slot, first + 6]
            h += factor * table[slot, first + 7]
        row[first], row[first + 1], row[first + 2], row[first + 3] = a, b, c, d
        row[first + 4], row[first + 5], row[first + 6], row[first + 7] = e, f, g, h


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _magnitude(row, first, last):  # type: ignore[no-untyped-def]
    """Returns the sum of the magnitudes of some columns, rounded in any way."""
    total = 0.0
    for q in range(first, last):
        total += abs(row[q])
    return total


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def _charge(picked, factors, cost, count):  # type: ignore[no-untyped-def]
    """Returns the sum of |factor| times a slot's cost, rounded in any way."""
    total = 0.0
    for k in range(count):
        total += abs(factors[k]) * cost[picked[k]]
    return total


@numba.njit(cache=True, nogil=True)
def _pick(work: BoxScratch, at, end, slots, wide):  # type: ignore[no-untyped-def]
    """Lists what a row multiplies: returns how many slots, of them how many with symbols, and their shared columns."""
    count, marks, shared = 0, 0, wide
    for k in range(at, end):
        slot = slots[k]
        if work.live[slot]:
            work.picked[count], work.places[count] = slot, k - at
            shared = min(shared, work.columns[slot])
            work.marked[marks] = count
            marks += work.symbol[slot] >= 0
            count += 1
    return count, marks, shared


@numba.njit(cache=True, nogil=True)
def _affine(  # type: ignore[no-untyped-def]
    table, columns, size, error, symbol, radius, picked, places, marked, factors, row, weights, at, lists, gamma, loose
):
    """Adds weights times the picked slots to a form with zeros and a constant; returns what rounding may change."""
    count, marks, shared = lists
    for k in range(count):
        factors[k] = weights[at + places[k]]
    for m in range(marks):
        k = marked[m]
        row[symbol[picked[k]]] += factors[k] * radius[picked[k]]
    errors, sizes = _charge(picked, factors, error, count), _charge(picked, factors, size, count)
    charge = errors + gamma * sizes
    if loose > 0.0:
        charge += loose * (errors + sizes)
        for k in range(count):
            charge += 2.0**-148 * (size[picked[k]] + error[picked[k]])
    # Beyond a slot's own columns there are zeros up to the end of the piece.
    pieces = (shared + PIECE - 1) // PIECE
    _gather(row, table, picked, factors, pieces, count)
    for k in range(count):
        slot = picked[k]
        for q in range(PIECE * pieces, columns[slot]):
            row[q] += factors[k] * table[slot, q]
    return charge * (1.0 + 8.0 * _UNIT * (count + 8.0))


@numba.njit(cache=True, nogil=True)
def _relax(work: BoxScratch, slot, to, low, high, wide, most):  # type: ignore[no-untyped-def]
    """Writes the ReLU of a value that lies in [low, high]; returns how many columns there are then, `most` at most."""
    work.symbol[to] = -1
    work.live[to] = not high <= 0.0
    if high <= 0.0:
        return wide
    used = _filled(work.columns[slot])
    work.columns[to], work.size[to], work.error[to] = work.columns[slot], work.size[slot], work.error[slot]
    if low >= 0.0:
        for q in range(used):
            work.table[to, q] = work.table[slot, q]
        return wide
    slope = min(max(high / (high - low), 0.0), 1.0)
    half = 0.5 * max(-slope * low, (1.0 - slope) * high) * (1.0 + 8.0 * _UNIT) + _TINY
    for q in range(used):
        work.table[to, q] = slope * work.table[slot, q]
    work.table[to, 0] += half
    size = slope * work.size[slot]
    if wide >= most:
        work.size[to] = (size + half) * (1.0 + 8.0 * _UNIT) + _TINY
        added = half + 4.0 * _UNIT * (size + half)
        work.error[to] = (slope * work.error[slot] + added) * (1.0 + 8.0 * _UNIT) + _TINY
        return wide
    work.symbol[to], work.radius[to], work.neuron[wide] = wide, half, slot
    work.size[to] = (size + 2.0 * half) * (1.0 + 8.0 * _UNIT) + _TINY
    work.error[to] = (slope * work.error[slot] + 4.0 * _UNIT * (size + half)) * (1.0 + 8.0 * _UNIT) + _TINY
    return wide + 1


@numba.njit(cache=True, nogil=True)
def _walk(program: BoxProgram, work: BoxScratch, low, high):  # type: ignore[no-untyped-def]
    """Writes the forms of all values over one sub-box, corners [d]; returns how many columns they have."""
    values, wide = len(program.bias), 1 + len(low)
    # Taking an array out of a tuple counts a reference, which is not cheap beside what is done with a row.
    table, columns, size, error, symbol, radius, live = (
        work.table, work.columns, work.size, work.error, work.symbol, work.radius, work.live,
    )  # fmt: skip
    picked, places, marked, factors = work.picked, work.places, work.marked, work.factors
    weights, biases, pointers, slots = program.weights, program.bias, program.pointers, program.slots
    for v in range(program.starts[1]):
        work.live[v], work.symbol[v], work.error[v], work.columns[v] = True, -1, 0.0, wide
        work.table[v, : _filled(wide)] = 0.0
        work.table[v, 0] = program.lower[v]
        work.size[v] = abs(program.lower[v])
    for i in range(len(low)):
        v = program.varying[i]
        center, half = frame(low[i], high[i])
        table[v, 0], table[v, 1 + i] = center, half
        size[v] = (abs(center) + half) * (1.0 + 2.0 * _UNIT)
    for node in range(1, len(program.activated)):
        width, lists = wide, (0, 0, wide)
        for v in range(program.starts[node], program.starts[node + 1]):
            row, bias = table[v], biases[v]
            for q in range(_filled(width)):
                row[q] = 0.0
            row[0] = bias
            begin, rate = pointers[v], program.gamma[v]
            if not program.alike[v]:
                lists = _pick(work, begin, pointers[v + 1], slots, width)
            charge = _affine(
                table, columns, size, error, symbol, radius, picked, places, marked, factors,
                row, weights, begin, lists, rate, program.loose[v],
            )  # fmt: skip
            charge = (charge + rate * abs(bias) + program.constant[v]) * (1.0 + 8.0 * _UNIT) + _TINY
            grow = 1.0 + 4.0 * _UNIT * (width + 8.0)
            reach = _magnitude(row, 1, width) * grow
            live[v], symbol[v], columns[v], error[v] = True, -1, width, charge
            size[v] = (abs(row[0]) + reach) * (1.0 + 4.0 * _UNIT)
            if not program.activated[node]:
                continue
            spread = (reach + charge) * (1.0 + 4.0 * _UNIT)
            slack = 4.0 * _UNIT * (abs(row[0]) + spread)
            lower, upper = row[0] - spread - slack, row[0] + spread + slack
            # What holds over the whole box holds here; what is not a number is replaced, too.
            if not lower >= program.lower[v]:
                lower = program.lower[v]
            if not upper <= program.upper[v]:
                upper = program.upper[v]
            wide = _relax(work, v, values + v, lower, upper, wide, program.most)
    return wide


@numba.njit(cache=True, nogil=True)
def bound_boxes(  # type: ignore[no-untyped-def]
    program: BoxProgram, work: BoxScratch, matrix, offsets, spans, low, high, begin, end, lines, bounds, scores
):
    """Bounds the rows matrix @ y - offsets from below over sub-boxes begin, …, end - 1.

    Args:
        program: The network.
        work: Room for it.
        matrix: Rows, [R, outputs].
        offsets: [R].
        spans: First and last row + 1 for each sub-box, [B, 2].
        low: Lower corners of the inputs that vary, [B, d].
        high: Upper corners.
        begin: First sub-box.
        end: Last, and one.
        lines: Set for each sub-box and each of its rows to (m, G_1, …, G_d, ρ), [B, most rows, d + 2]: the row is at
            least m + G t - ρ in real arithmetic.
        bounds: Set to the best of its rows' lower bounds, [B]; -inf where there is none.
        scores: Set to how much each input does to the best row's line, and to what was relaxed on the way there: each
            ρ's share of a symbol is divided among the inputs as they move the value that was relaxed, [B, 2, d].
    """
    inputs, source = low.shape[1], program.starts[len(program.activated) - 1]
    outputs = matrix.shape[1]
    row = np.zeros(work.table.shape[1])
    slots = np.arange(source, source + outputs)
    rate = 4.0 * (outputs + 8.0) * _UNIT
    for box in range(begin, end):
        wide = _walk(program, work, low[box], high[box])
        grow = 1.0 + 4.0 * _UNIT * (wide + 8.0)
        bounds[box] = -np.inf
        scores[box] = 0.0
        lists = _pick(work, 0, outputs, slots, wide)
        for number in range(spans[box, 1] - spans[box, 0]):
            which = spans[box, 0] + number
            row[: _filled(wide)] = 0.0
            row[0] = -offsets[which]
            charge = _affine(
                work.table, work.columns, work.size, work.error, work.symbol, work.radius, work.picked, work.places,
                work.marked, work.factors, row, matrix[which], 0, lists, rate, 0.0,
            )  # fmt: skip
            charge = (charge + rate * abs(offsets[which])) * (1.0 + 8.0 * _UNIT) + _TINY
            rest = (_magnitude(row, 1 + inputs, wide) * grow + charge) * (1.0 + 4.0 * _UNIT)
            line = lines[box, number]
            line[: inputs + 1] = row[: inputs + 1]
            line[inputs + 1] = rest
            sway = _magnitude(row, 1, 1 + inputs) * (1.0 + 4.0 * _UNIT * (inputs + 8.0))
            bound = row[0] - rest - sway
            bound -= 4.0 * _UNIT * (abs(row[0]) + rest + sway)
            if bound > bounds[box]:
                bounds[box] = bound
                for i in range(inputs):
                    scores[box, 0, i], scores[box, 1, i] = abs(row[1 + i]), 0.0
                for q in range(1 + inputs, wide):
                    form = work.table[work.neuron[q]]
                    total = _magnitude(form, 1, 1 + inputs)
                    if total > 0.0:
                        for i in range(inputs):
                            scores[box, 1, i] += abs(row[q]) * abs(form[1 + i]) / total
