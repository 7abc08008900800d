"""A quantised network as a ReLU network whose biases are intervals: rounding as a bounded error of each neuron.

Rounding to a grid of scale s between two ends, [c, d], is a clamp of z + e, where e is what rounding adds, at most s/2
in size and a little more (`quantised.layers`: what a runtime's float32 arithmetic may move z by before it is rounded,
near a tie by a whole step). A clamp is two ReLUs:

    A = z + e - c,      B = A - (d - c),      value = c + relu(A) - relu(B)

A's error e is `Node.bias_error`, which every bound of the engine charges: what is proved holds for all e in the
interval, so for those that rounding brings about. B reads A itself, so that both have the same e; over most boxes its
ReLUs are inactive, and cost nothing. Rounding a ReLU, max(z, 0), is clamping z + e at 0 and d, because rounding is
monotone and leaves 0 as it is: so a layer with a ReLU has one unstable kink as before, and splits mean the same.

The input isn't relaxed: the network begins after the first rounding, whose results over a box are a box, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse

from prunecert.onnx.quantised import Grid, Step
from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.arrays import Float64Array, Int64Array
from prunecert.verifiers.sparse.network import Network, Term
from prunecert.verifiers.sparse.onnx.folding import Draft, finish, fold
from prunecert.verifiers.sparse.quantised.intervals import Intervals
from prunecert.verifiers.sparse.quantised.layers import TINY, UNIT, Linear

#: Values beyond which float32 may overflow in a runtime.
_LARGEST = 2.0**100


@dataclass(frozen=True, eq=False)
class _Value:
    """A step's value as a sum of ReLUs and values of drafts.

    Args:
        terms: Float64 matrices.
        bias: [size].
        size: Bound on what a runtime's number may be, [size].
        drift: How far it may be from this value, but for the rounding of a number that is read from a whole one.
        grid: Where it lies on one.
        plain: Whether rows of all matrices choose one number each, so that a product with them sums nothing.
        rectified: Whether its ReLU is meant.
    """

    terms: tuple[Term, ...]
    bias: Float64Array
    size: Float64Array
    drift: Float64Array
    grid: Grid | None = None
    plain: bool = True
    rectified: bool = False


@dataclass(frozen=True, eq=False)
class Rounding:
    """Where a rounding is in the network.

    Args:
        step: Its number.
        node: Node of A.
        floor: c: A + c is a multiple of the scale.
        grid: Where it rounds to.
        beyond: Node of B; None where the upper end is out of reach.
        rectified: Whether a ReLU comes before it, so that A may be below 0 where what is rounded is not.
    """

    step: int
    node: int
    floor: float
    grid: Grid
    beyond: int | None
    rectified: bool


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The ReLU network of a quantised one.

    Args:
        network: Its inputs are those after the first rounding.
        roundings: All others.
        entry: Number of the step that is the first, whose values are the network's inputs.
    """

    network: Network
    roundings: tuple[Rounding, ...]
    entry: int


def relax(intervals: Intervals, name: str) -> Relaxed:
    """Returns the ReLU network of a quantised one.

    Args:
        intervals: Of its steps.
        name: What to call it.

    Raises:
        UnsupportedError: Its numbers are beyond what float32 holds.
    """
    return _Builder(intervals).build(name)


class _Builder:
    """Drafts of affine nodes, one step after the other."""

    def __init__(self, intervals: Intervals) -> None:
        self._intervals = intervals
        shape = intervals.steps[0].shape[1:]
        zeros = np.zeros(math.prod(shape))
        self._drafts = [Draft(intervals.steps[0].name, shape, (), zeros, zeros)]
        self._roundings: list[tuple[int, str, float, Grid, str | None, bool]] = []
        self._entry: int | None = None

    def build(self, name: str) -> Relaxed:
        """Returns the network."""
        values: list[_Value] = []
        for number, step in enumerate(self._intervals.steps):
            value = self._value(number, step, [values[k] for k in step.inputs])
            if not value.size.max(initial=0.0) < _LARGEST:
                raise UnsupportedError(f"{name}: values of the node {step.name!r} may be beyond what float32 holds")
            values.append(value)
        last = values[-1]
        # A number that is read from a whole one is rounded once.
        loose = last.drift + 2 * UNIT * last.size + TINY
        shape = self._intervals.steps[-1].shape[1:]
        if last.rectified:
            inner = self._stored(last, "output")
            last = replace(last, terms=(Term(inner, True, _identity(len(last.bias)), True),), bias=0 * last.bias)
        self._drafts.append(Draft("output", shape, last.terms, last.bias, loose))
        drafts = fold(self._drafts, len(self._drafts) - 1)
        nodes = finish(drafts)
        place = {node.name: number for number, node in enumerate(nodes)}
        roundings = tuple(
            Rounding(number, place[inner], floor, grid, None if beyond is None else place[beyond], rectified)
            for number, inner, floor, grid, beyond, rectified in self._roundings
        )
        assert self._entry is not None
        network = Network(name, self._drafts[0].shape, nodes, tuple(item.node for item in roundings))
        return Relaxed(network, roundings, self._entry)

    def _value(self, number: int, step: Step, sources: Sequence[_Value]) -> _Value:
        match step.operator:
            case "Input":
                zeros = np.zeros(len(self._drafts[0].bias))
                return _Value((Term(0, False, _identity(len(zeros)), True),), zeros, zeros, zeros)
            case "Round":
                assert step.grid is not None
                return self._rounded(number, step, step.grid, sources[0])
            case "Reshape":
                return sources[0]
            case "Relu":
                value = sources[0]
                # What is on a grid without negative numbers is its own ReLU.
                positive = value.grid is not None and value.grid.floor == 0
                return value if positive or value.rectified else replace(value, rectified=True)
            case "MaxPool":
                return self._largest(step, self._settled(sources[0], step), self._intervals.windows[number])
            case "Add":
                return _sum([self._settled(value, step) for value in sources])
            case "Shift":
                value = self._settled(sources[0], step)
                assert step.bias is not None
                assert step.bias_error is not None
                size = value.size + np.abs(step.bias)
                drift = value.drift + step.bias_error + 16 * UNIT * (_reach(value) + np.abs(step.bias)) + TINY
                return replace(value, bias=value.bias + step.bias, size=size, drift=drift, grid=None)
            case _:
                return self._linear(step, self._settled(sources[0], step), self._intervals.linear[number])

    def _settled(self, value: _Value, step: Step) -> _Value:
        """Returns a value that is the ReLU it means."""
        if not value.rectified:
            return value
        node = self._stored(value, f"{step.name}: before the ReLU")
        unit = _identity(len(value.bias))
        return replace(value, terms=(Term(node, True, unit, True),), bias=0 * value.bias, plain=True, rectified=False)

    def _stored(
        self, value: _Value, name: str, bias: Float64Array | None = None, error: Float64Array | None = None
    ) -> int:
        """Appends a draft of a value, plus a constant, and returns its number."""
        total = value.bias if bias is None else value.bias + bias
        size = np.zeros(len(total)) if error is None else error
        self._drafts.append(Draft(f"{len(self._drafts)}: {name}", (len(total),), value.terms, total, size))
        return len(self._drafts) - 1

    def _rounded(self, number: int, step: Step, grid: Grid, value: _Value) -> _Value:
        size = np.full(len(value.bias), max(-grid.floor, grid.ceiling))
        if self._entry is None:
            self._entry = number
            return replace(value, size=size, grid=grid)
        if value.grid == grid:
            # It is rounded to itself: the quotient is off by far less than a half.
            return value
        floor = 0.0 if value.rectified else grid.floor
        # The quotient is rounded, too, maybe after the zero point was added; the float64 sums here are covered by the
        # last term.
        error = 0.5 * grid.scale + value.drift + 4 * UNIT * (value.size + grid.width) + TINY
        error = error * (1 + 2.0**-40) + 2.0**-40 * grid.scale
        shape = step.shape[1:]
        inner = self._stored(value, step.name, np.full(len(size), -floor), error)
        self._drafts[inner] = replace(self._drafts[inner], shape=shape)
        unit = _identity(len(size))
        terms = [Term(inner, True, unit, True)]
        beyond = None
        if (value.size + error >= grid.ceiling).any():
            over = np.full(len(size), -(grid.ceiling - floor))
            beyond = f"{len(self._drafts)}: {step.name}: beyond"
            self._drafts.append(Draft(beyond, shape, (Term(inner, False, unit, True),), over, np.zeros(len(size))))
            terms.append(Term(len(self._drafts) - 1, True, -unit, True))
        self._roundings.append((number, self._drafts[inner].name, floor, grid, beyond, value.rectified))
        return _Value(tuple(terms), np.full(len(size), floor), size, np.zeros(len(size)), grid)

    def _linear(self, step: Step, value: _Value, layer: Linear) -> _Value:
        if not value.plain:
            node = self._stored(value, f"{step.name}: its input")
            value = replace(value, terms=(Term(node, False, _identity(len(value.bias)), True),), bias=0 * value.bias)
        bias = layer.matrix @ value.bias + layer.bias
        # The first float64 sum loses less than the last term; `drift` allows for more than runtimes lose.
        drift = layer.magnitude @ value.drift * (1 + 2.0**-20) + layer.drift(_reach(value) + value.drift)
        terms = []
        for term in value.terms:
            matrix = (layer.matrix @ term.matrix).tocsr()
            matrix.sort_indices()
            exact = bool(np.array_equal(matrix.data, matrix.data.astype(np.float32)))
            terms.append(Term(term.source, term.activated, matrix, exact))
        result = _Value(tuple(terms), bias, layer.magnitude @ value.size + np.abs(layer.bias), drift, plain=False)
        name = step.name
        node = self._stored(result, name)
        self._drafts[node] = replace(self._drafts[node], shape=step.shape[1:])
        return replace(result, terms=(Term(node, False, _identity(len(bias)), True),), bias=0 * bias, plain=True)

    def _largest(self, step: Step, value: _Value, places: Int64Array) -> _Value:
        """Writes the largest of each window as m + relu(v - m), place after place."""
        chosen = [_chosen(value, places[:, k]) for k in range(places.shape[1])]
        most = chosen[0]
        for number, item in enumerate(chosen[1:]):
            difference = _sum([item, _negated(most)])
            node = self._stored(difference, f"{step.name}: window {number}")
            unit = _identity(len(item.bias))
            terms = (*most.terms, Term(node, True, unit, True))
            most = replace(most, terms=terms, plain=False)
        size, drift = (array[places].max(axis=1) for array in (value.size, value.drift))
        if len(chosen) == 1:
            return replace(most, size=size, drift=drift, grid=value.grid)
        node = self._stored(most, step.name)
        self._drafts[node] = replace(self._drafts[node], shape=step.shape[1:])
        unit = _identity(len(size))
        return _Value((Term(node, False, unit, True),), np.zeros(len(size)), size, drift, value.grid)


def _reach(value: _Value) -> Float64Array:
    """Returns how large terms of a sum may be on the way: kernels may add whole numbers before their zero point."""
    if value.grid is None or value.grid.positive:
        return value.size
    return np.maximum(value.size, value.grid.width)


def _chosen(value: _Value, places: Int64Array) -> _Value:
    """Returns some numbers of a value."""
    terms = tuple(replace(term, matrix=term.matrix[places]) for term in value.terms)
    return replace(value, terms=terms, bias=value.bias[places], size=value.size[places], drift=value.drift[places])


def _negated(value: _Value) -> _Value:
    return replace(value, terms=tuple(replace(term, matrix=-term.matrix) for term in value.terms), bias=-value.bias)


def _sum(values: Sequence[_Value]) -> _Value:
    """Returns a sum of two values; runtimes round it, and may add whole numbers before their zero points."""
    terms: dict[tuple[int, bool], Term] = {}
    for value in values:
        for term in value.terms:
            key = (term.source, term.activated)
            if key in terms:
                # Entries are 1 or -1, whose sums are exact.
                both = (terms[key].matrix + term.matrix).tocsr()
                both.eliminate_zeros()
                both.sort_indices()
                terms[key] = replace(term, matrix=both, exact=terms[key].exact and term.exact)
            else:
                terms[key] = term
    bias = values[0].bias + values[1].bias
    drift = values[0].drift + values[1].drift + 16 * UNIT * (_reach(values[0]) + _reach(values[1])) + TINY
    return _Value(tuple(terms.values()), bias, values[0].size + values[1].size, drift, plain=False)


def _identity(size: int) -> scipy.sparse.csr_array:
    unit = scipy.sparse.eye_array(size, dtype=np.float64, format="csr")
    return scipy.sparse.csr_array((unit.data, unit.indices.astype(np.int32), unit.indptr.astype(np.int32)), unit.shape)
