"""Multiplies affine nodes into one another where that adds nothing up, and rounds what comes of it to float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse

from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.network import Node, Term


@dataclass(frozen=True, eq=False)
class Draft:
    """A node under construction: matrices may be float64 products, the bias is float64 with its error.

    `curve` is what terms that are `activated` take of it, ``Relu``, ``Sigmoid`` or ``Tanh``; empty: none does.
    """

    name: str
    shape: tuple[int, ...]
    terms: tuple[Term, ...]
    bias: Float64Array
    error: Float64Array
    curve: str = ""


def wide(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Returns a copy in float64."""
    return matrix.astype(np.float64)


def fold(drafts: Sequence[Draft], output: int) -> list[Draft]:
    """Multiplies nodes into their only users where no two products add up, and drops what the output doesn't need."""
    drafts = list(drafts)
    users = np.zeros(len(drafts), dtype=int)
    for draft in drafts:
        for term in draft.terms:
            users[term.source] += 1
    for index, draft in enumerate(drafts):
        drafts[index] = _absorb(draft, drafts, users)
    needed = {output}
    for index in range(output, -1, -1):
        if index in needed:
            needed.update(term.source for term in drafts[index].terms)
    order = sorted(needed | {0})
    place = {old: new for new, old in enumerate(order)}
    return [
        replace(
            drafts[old],
            terms=tuple(replace(term, source=place[term.source]) for term in drafts[old].terms),
        )
        for old in order
    ]


def _absorb(draft: Draft, drafts: Sequence[Draft], users: npt.NDArray[np.int_]) -> Draft:
    terms: list[Term] = []
    bias, error = draft.bias, draft.error
    for term in draft.terms:
        inner = drafts[term.source]
        mergeable = not term.activated and term.source != 0 and users[term.source] == 1
        if not mergeable or not (_sums_nothing(term, inner.terms) and _rounds_once(term, inner)):
            terms.append(term)
            continue
        outer = wide(term.matrix)
        size = abs(outer)
        shift, unit = outer @ inner.bias, _unit(term.matrix)
        summands = int(np.diff(outer.indptr).max(initial=0))
        # γ_n with room to spare, but for ±1 times a number, and sums with 0; weights that are not exact add their own
        # error to the shift.
        loose = (0.0 if unit and summands <= 1 else 2.0**-52 * (summands + 1)) + (0.0 if term.exact else 2.0**-50)
        summed = np.where((bias != 0) & (shift != 0), 2.0**-52 * (np.abs(bias) + np.abs(shift)), 0.0)
        error = error + size @ (inner.error * (1 + 2.0**-40) + loose * np.abs(inner.bias)) + summed
        bias = bias + shift
        for item in inner.terms:
            exact = term.exact and item.exact and (unit or _unit(item.matrix))
            product = (outer @ wide(item.matrix)).tocsr()
            # A number that has been rounded, times ±1, is not rounded again.
            rounded = _rounded(term) or _rounded(item)
            terms.append(Term(item.source, item.activated, product.astype(np.float32) if rounded else product, exact))
    return draft if _cancel(terms) else replace(draft, terms=tuple(terms), bias=bias, error=error)


def _cancel(terms: Sequence[Term]) -> bool:
    """Whether sums of a value's weights lose digits to cancellation, and more than `network.WEIGHT_ERROR` allows.

    What was rounded to float32 before is not summed at all. Products are rounded to float64, and so are sums of more
    than two; the sum of two exact weights is rounded once.
    """
    groups: dict[tuple[int, bool], list[Term]] = {}
    for term in terms:
        groups.setdefault((term.source, term.activated), []).append(term)
    for group in groups.values():
        if len(group) == 1 or (len(group) == 2 and all(term.exact for term in group)):
            continue
        matrices = [wide(term.matrix) for term in group]
        total, size = matrices[0], abs(matrices[0])
        for matrix in matrices[1:]:
            total, size = total + matrix, size + abs(matrix)
        if any(_rounded(term) for term in group) and size.nnz < sum(matrix.nnz for matrix in matrices):
            return True
        if (size * 2.0**-5 - abs(total)).max() > 0:
            return True
    return False


def _rounded(term: Term) -> bool:
    """Whether the weights stand for numbers that were rounded to float32 before, so that no other rounding is left."""
    return not term.exact and term.matrix.dtype == np.float32


def _rounds_once(outer: Term, inner: Draft) -> bool:
    """Whether the product's weights are rounded at most once to float32, as `network.WEIGHT_ERROR` says.

    What was rounded may be multiplied by ±1 only, and a bias not with what was rounded.
    """
    if _rounded(outer):
        return not inner.bias.any() and not inner.error.any() and all(i.exact and _unit(i.matrix) for i in inner.terms)
    return not any(_rounded(item) for item in inner.terms) or (outer.exact and _unit(outer.matrix))


def _sums_nothing(outer: Term, inner: Sequence[Term]) -> bool:
    """Whether a product adds no numbers up, and has no more of them: a factor scales, or both choose."""
    if _scales(outer.matrix) or all(_scales(item.matrix) for item in inner):
        return True
    return all(int(np.diff(item.matrix.indptr).max(initial=0)) <= 1 for item in (outer, *inner))


def _scales(matrix: scipy.sparse.csr_array) -> bool:
    """Whether no row and no column has two entries: a product with it sums nothing up and repeats nothing."""
    columns = np.bincount(matrix.indices, minlength=1)
    return int(np.diff(matrix.indptr).max(initial=0)) <= 1 and int(columns.max(initial=0)) <= 1


def _unit(matrix: scipy.sparse.csr_array) -> bool:
    return bool(np.all(np.abs(matrix.data) == 1.0))


def finish(drafts: Sequence[Draft]) -> tuple[Node, ...]:
    """Rounds to float32, and keeps account of what that changes."""
    nodes = []
    for draft in drafts:
        bias = draft.bias.astype(np.float32)
        error = np.abs(bias.astype(np.float64) - draft.bias) + draft.error
        terms = tuple(replace(term, matrix=_round(term.matrix)) for term in _combine(draft.terms))
        nodes.append(Node(draft.name, len(bias), draft.shape, terms, bias, _up(error)))
    return tuple(nodes)


def _combine(terms: Sequence[Term]) -> list[Term]:
    """Adds terms of the same value, so that a node has one for each."""
    terms_by_source: dict[tuple[int, bool], Term] = {}
    for term in terms:
        key = (term.source, term.activated)
        if key in terms_by_source:
            first = terms_by_source[key]
            both = (wide(first.matrix) + wide(term.matrix)).tocsr()
            # Without a common position nothing was added.
            apart = both.nnz == first.matrix.nnz + term.matrix.nnz
            both.eliminate_zeros()
            terms_by_source[key] = Term(*key, both, exact=apart and first.exact and term.exact)
        else:
            terms_by_source[key] = term
    return list(terms_by_source.values())


def _round(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """Rounds a matrix to float32; what underflows to zero stays as the smallest number, so that it is accounted for."""
    if matrix.dtype == np.float32 and matrix.has_sorted_indices and matrix.indices.dtype == np.int32:
        return matrix
    matrix.sort_indices()
    data = matrix.data.astype(np.float32)
    lost = (data == 0) & (matrix.data != 0)
    data[lost] = np.copysign(np.finfo(np.float32).smallest_subnormal, matrix.data[lost])
    pointers, indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    return scipy.sparse.csr_array((data, indices, pointers), shape=matrix.shape)


def _up(values: Float64Array) -> Float32Array:
    """Rounds to float32 upwards."""
    nearest = values.astype(np.float32)
    return np.where(nearest < values, np.nextafter(nearest, np.float32(np.inf)), nearest)
