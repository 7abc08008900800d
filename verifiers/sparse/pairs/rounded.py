"""Pairs of which one network, or both, round their activations: does the int8 file decide like the float32 one?

Over a box a quantised network has the form of its float32 network with other constants, if both have the same layers.
Its ReLU network (`quantised.relaxed`) writes a rounding between 0 and d as relu(A) - relu(A - d), A = z + e, where e is
a bounded error. Both together are relu(A - t), t = relu(A - d) being between 0 and T = max(0, u - d) if A <= u over the
box: where A is below d, t is 0, and beyond, A - t is d. So with z' = A - t the pair is one of `pairs.network`, whose
second network has constants that are known within ±(e + T / 2), and all that is said there of values and differences
holds: intervals and walks charge these errors as they charge any.

What the first rounding makes of an input x is another x'. Either network has an input of its own then, between which
the difference is bounded: by half a step, and by both boxes.

Where the form is another one, both networks are joined on the input x, the first rounding being a node with a bounded
error; that is what the search splits in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse

from prunecert.errors import UserError
from prunecert.onnx.quantised import Grid
from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.bab.prover import adopt_crown, sharpened
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import CrownBounds, Engine, Question
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.pairs.bounds import Bounder, PairBounds
from prunecert.verifiers.sparse.pairs.network import Pair, joined, shift_of
from prunecert.verifiers.sparse.pairs.ranges import PairRanges, down, up
from prunecert.verifiers.sparse.quantised.intervals import QUOTIENT
from prunecert.verifiers.sparse.quantised.question import Boxed, Quantised
from prunecert.verifiers.sparse.walks import UNIT

#: Share of a step by which a box may be beyond an end of the first rounding's grid where both networks are searched.
_BEYOND = 2.0**-10

#: A network of a pair.
Member = Network | Quantised


@dataclass(frozen=True, eq=False)
class Entry:
    """What a network is given for an input x of a box, flat float64.

    Args:
        lower: Of it.
        upper: Likewise.
        least: Of it minus x.
        most: Likewise.
    """

    lower: Float64Array
    upper: Float64Array
    least: Float64Array
    most: Float64Array


@dataclass(frozen=True, eq=False)
class _OverBox:
    """A network over a box, in the form in which it is compared.

    Args:
        entry: What it is given.
        own: Bounds of its nodes.
        beyond: T of the nodes that may exceed their upper end.
    """

    entry: Entry
    own: CrownBounds
    beyond: Mapping[int, Float64Array] = field(default_factory=dict)


class _Plain:
    """A float32 network of a pair."""

    def __init__(self, network: Network, threads: int) -> None:
        self.network = self.form = network
        self.engine = Engine(network, threads)

    def over(self, lower: Float32Array, upper: Float32Array) -> _OverBox:
        """Bounds it over a box."""
        low, high = lower.astype(np.float64).reshape(-1), upper.astype(np.float64).reshape(-1)
        own = self.engine.bound(_question(low, high, self.network))
        return _OverBox(Entry(low, high, np.zeros_like(low), np.zeros_like(low)), own)


class _Rounding:
    """A quantised network of a pair.

    Args:
        quantised: The network.
        threads: For bounds.

    Attributes:
        form: What it is over a box, but for constants.
    """

    def __init__(self, quantised: Quantised, threads: int) -> None:
        self.quantised, self.network = quantised, quantised.network
        self._engine, self._checker = Engine(self.network, threads), Checker(self.network, threads)
        self._limits = {
            item.node: item.grid.ceiling - item.floor for item in quantised.relaxed.roundings if item.beyond is not None
        }
        beyond = {item.beyond: item.node for item in quantised.relaxed.roundings if item.beyond is not None}
        self._order = [node for node in range(len(self.network.nodes)) if node not in beyond]
        self.form = _without(self.network, self._order, beyond)

    def over(self, lower: Float32Array, upper: Float32Array) -> _OverBox:
        """Bounds it over a box."""
        boxed = self.quantised.box(lower, upper)
        low, high = boxed.lower.astype(np.float64), boxed.upper.astype(np.float64)
        crown = self._engine.bound(_question(low, high, self.network))
        bounds = adopt_crown(self._checker, low, high, crown)
        sharpened(self._checker, bounds, lambda *node: self.quantised.sharpen(boxed.intervals, *node))
        own: tuple[dict[int, Float64Array], dict[int, Float64Array]] = ({}, {})
        beyond = {}
        for place, node in enumerate(self._order[1:], start=1):
            least, most = bounds.lower[node], bounds.upper[node]
            if node in self._limits:
                limit = self._limits[node]
                # The end is known within a few roundings.
                end = limit * (1 - 4 * UNIT), limit * (1 + 4 * UNIT)
                over = up(most - end[0])
                if (over > 0).any():
                    beyond[place] = np.maximum(over, 0.0)
                    least, most = np.minimum(least, end[0]), np.minimum(most, end[1])
            own[0][place], own[1][place] = least, most
        entry = entry_of(_entry_grid(self.quantised), (lower, upper), (low, high))
        return _OverBox(entry, CrownBounds(crown.rows, *own, crown.unstable), beyond)


def _question(lower: Float64Array, upper: Float64Array, network: Network) -> Question:
    return Question(lower, upper, np.eye(1, network.nodes[-1].size), np.zeros(1))


def _without(network: Network, order: list[int], beyond: Mapping[int, int]) -> Network:
    """Returns a ReLU network of roundings without the nodes of what exceeds upper ends.

    Raises:
        UnsupportedError: A value is used in another way than clamped.
    """
    place = {old: new for new, old in enumerate(order)}
    clamped = set(beyond.values())
    nodes = []
    for old in order:
        node = network.nodes[old]
        used = {(term.source, term.activated): term for term in node.terms}
        kept = []
        for term in node.terms:
            if term.source in beyond:
                within = used.get((beyond[term.source], True))
                if not (term.activated and within is not None and _opposite(term, within)):
                    raise UnsupportedError(f"{network.name}: {node.name!r:.80} takes a value before its rounding's end")
                continue
            if term.source in clamped:
                other = next((used.get((b, True)) for b, inner in beyond.items() if inner == term.source), None)
                if not term.activated or other is None:
                    raise UnsupportedError(f"{network.name}: {node.name!r:.80} takes a value before its rounding's end")
            kept.append(Term(place[term.source], term.activated, term.matrix, term.exact))
        nodes.append(Node(node.name, node.size, node.shape, tuple(kept), node.bias, node.bias_error))
    return Network(network.name, network.input_shape, tuple(nodes))


def _opposite(term: Term, other: Term) -> bool:
    """Whether two terms multiply with the same numbers, but for their signs."""
    one, two = term.matrix, other.matrix
    return bool(
        np.array_equal(one.indptr, two.indptr)
        and np.array_equal(one.indices, two.indices)
        and np.array_equal(one.data, -two.data)
    )


def entry_of(grid: Grid, box: tuple[Float32Array, Float32Array], rounded: tuple[Float64Array, Float64Array]) -> Entry:
    """Returns what the first rounding makes of a box.

    Args:
        grid: Its grid.
        box: Corners of the box.
        rounded: Corners of the box that the rounded inputs are in.

    >>> entry = entry_of(Grid(0.5, 0, 0, 3), (np.array([0.1]), np.array([0.9])), (np.array([0.0]), np.array([1.0])))
    >>> entry.least.round(6).tolist(), entry.most.round(6).tolist()
    ([-0.250001], [0.250001])
    """
    low, high = (corner.astype(np.float64).reshape(-1) for corner in box)
    half = rounding_error(grid)
    # What lies beyond an end of the grid moves to that end, however far it is.
    least = np.minimum(-half, down(grid.ceiling * (1 - 4 * UNIT) - high))
    most = np.maximum(half, up(grid.floor * (1 - 4 * UNIT) - low))
    return Entry(*rounded, np.maximum(least, down(rounded[0] - high)), np.minimum(most, up(rounded[1] - low)))


def rounding_error(grid: Grid) -> float:
    """Returns how far a point within a grid is from what a runtime rounds it to."""
    return grid.scale * (0.5 + QUOTIENT * 2 * (grid.high - grid.low + 1) + 2.0**-30)


class RoundedPair:
    """Two networks on one input, of which one rounds, or both.

    Args:
        first: The network that is compared with.
        second: The other.
        threads: For bounds.

    Attributes:
        pair: Both in one form, if there is one.
        why: Why there is none.
    """

    def __init__(self, first: Member, second: Member, threads: int) -> None:
        self.pair: Pair | None = None
        self.why = ""
        self.joined, self._places = _joined(first, second)
        self._members = first, second
        self.sides: tuple[_Plain | _Rounding, ...] = ()
        try:
            self.sides = tuple(
                _Plain(item, threads) if isinstance(item, Network) else _Rounding(item, threads)
                for item in (first, second)
            )
            self.pair = Pair(self.sides[0].form, self.sides[1].form)
        except (UserError, UnsupportedError) as error:
            self.why = str(error)

    def bound(
        self, lower: Float32Array, upper: Float32Array, shared: bool = False, walks: bool = True
    ) -> PairBounds | None:
        """Bounds both networks and their differences over a box.

        Args:
            lower: Lower corner, float32.
            upper: Upper corner.
            shared: Whether the other network is given what the one that rounds has rounded its input to; only for a
                pair of which one rounds.
            walks: Whether differences of hidden neurons are bounded by walks, too.

        Returns:
            Bounds that hold for real inputs and exact arithmetic of a float32 network, and for every runtime of a
            quantised one; None where the two have no form in common.
        """
        if self.pair is None:
            return None
        if shared:
            rounded = self._rounded(lower, upper)
            over = [side.over(*((lower, upper) if isinstance(side, _Rounding) else rounded)) for side in self.sides]
            zeros = np.zeros(lower.size)
            moved = zeros, zeros
        else:
            over = [side.over(lower, upper) for side in self.sides]
            moved = down(over[1].entry.least - over[0].entry.most), up(over[1].entry.most - over[0].entry.least)
        entries = [item.entry for item in over]
        entry = PairRanges(
            np.stack([*(item.lower for item in entries), moved[0]])[:, :, None],
            np.stack([*(item.upper for item in entries), moved[1]])[:, :, None],
        ).narrowed()
        bounder = Bounder(self._shifted(over), walks=walks)
        return bounder.from_input(entry, over[0].own, over[1].own)

    def lattice(self, lower: Float32Array, upper: Float32Array) -> tuple[Float64Array, Float64Array]:
        """Returns the box of what a box's points are rounded to, flat, by the one network that rounds."""
        low, high = self._rounded(lower, upper)
        return low.astype(np.float64), high.astype(np.float64)

    def _rounded(self, lower: Float32Array, upper: Float32Array) -> tuple[Float32Array, Float32Array]:
        (rounding,) = [side for side in self.sides if isinstance(side, _Rounding)]
        boxed = rounding.quantised.box(lower, upper)
        return boxed.lower, boxed.upper

    def _shifted(self, over: list[_OverBox]) -> Pair:
        """Returns the pair with the constants of a box."""
        assert self.pair is not None
        if not any(item.beyond for item in over):
            return self.pair
        shifts = []
        for number, (*nodes, shift) in enumerate(
            zip(self.pair.first.nodes, self.pair.second.nodes, self.pair.shifts, strict=True)
        ):
            if any(number in item.beyond for item in over):
                shift = shift_of(
                    *(_clamped(node, item.beyond.get(number)) for node, item in zip(nodes, over, strict=True))
                )
            shifts.append(shift)
        return self.pair.shifted(shifts)

    def sharpener(self, lower: Float32Array, upper: Float32Array) -> Sharpener | None:
        """Returns what is known of the joined network's values over a box; None if it stands for others there."""
        boxes = []
        for member, places in zip(self._members, self._places, strict=True):
            if isinstance(member, Network):
                continue
            grid = _entry_grid(member)
            room = 0.5 * _BEYOND * grid.scale
            if lower.min() < grid.floor - room or upper.max() > grid.ceiling + room:
                return None
            boxes.append((member, places, member.box(lower, upper)))
        return Sharpener(boxes)


def _clamped(node: Node, beyond: Float64Array | None) -> tuple[Float64Array, Float64Array]:
    """Returns the constants of A - t with t in [0, T], and how far they may be off."""
    bias, error = node.bias.astype(np.float64), node.bias_error.astype(np.float64)
    if beyond is None:
        return bias, error
    half = 0.5 * beyond
    middle = bias - half
    return middle, (error + half) * (1 + 4 * UNIT) + UNIT * np.abs(middle)


def _entry_grid(quantised: Quantised) -> Grid:
    grid = quantised.intervals.steps[quantised.relaxed.entry].grid
    assert grid is not None
    return grid


class Sharpener:
    """Narrows bounds of the joined network's nodes to what quantised networks' intervals know."""

    def __init__(self, boxes: list[tuple[Quantised, dict[int, int], Boxed]]) -> None:
        self._boxes = boxes

    def __call__(self, node: int, lower: Float64Array, upper: Float64Array) -> None:
        """Narrows a node's bounds in place."""
        for quantised, places, boxed in self._boxes:
            inner = places.get(node)
            if inner == 0:
                np.maximum(lower, boxed.lower, out=lower)
                np.minimum(upper, boxed.upper, out=upper)
            elif inner is not None:
                quantised.sharpen(boxed.intervals, inner, lower, upper)


def _joined(first: Member, second: Member) -> tuple[Network, tuple[dict[int, int], dict[int, int]]]:
    """Returns both on the real input, and for either which of its nodes each node of the whole stands for."""
    entered = [item if isinstance(item, Network) else _entered(item) for item in (first, second)]
    whole = joined(*entered)
    ends = len(entered[0].nodes), len(whole.nodes) - 1
    spans = range(1, ends[0]), range(ends[0], ends[1])
    # The node after the input is what the first rounding makes of it, which is the quantised network's input.
    return whole, tuple({node: node - span.start for node in span} for span in spans)  # type: ignore[return-value]


def _entered(quantised: Quantised) -> Network:
    """Returns a quantised network's ReLU network behind a node for its first rounding."""
    network, grid = quantised.network, _entry_grid(quantised)
    size = network.nodes[0].size
    eye = scipy.sparse.eye_array(size, dtype=np.float32, format="csr")
    unit = scipy.sparse.csr_array((eye.data, eye.indices.astype(np.int32), eye.indptr.astype(np.int32)), eye.shape)
    most = np.float32(rounding_error(grid) + _BEYOND * grid.scale)
    error = np.full(size, np.nextafter(most, np.float32(np.inf)), dtype=np.float32)
    zeros = np.zeros(size, dtype=np.float32)
    entry = Node("the first rounding", size, network.nodes[0].shape, (Term(0, False, unit),), zeros, error)
    # What has no negative numbers is its own ReLU, and may be taken as one by which bounds are cut.
    positive = grid.floor >= 0
    nodes = [network.nodes[0], entry]
    for node in network.nodes[1:]:
        terms = tuple(
            Term(term.source + 1, term.activated or (positive and term.source == 0), term.matrix, term.exact)
            for term in node.terms
        )
        nodes.append(Node(node.name, node.size, node.shape, terms, node.bias, node.bias_error))
    roundings = (1, *(node + 1 for node in network.roundings))
    return Network(network.name, network.input_shape, tuple(nodes), roundings)
