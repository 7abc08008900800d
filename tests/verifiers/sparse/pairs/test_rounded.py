"""A float32 network beside its quantised form: bounds hold of what onnxruntime computes at points of a box."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import numpy_helper

from prunecert.onnx.quantised import Grid
from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.bab.reduced_network import reduce
from prunecert.verifiers.sparse.certify import adopt
from prunecert.verifiers.sparse.network import Network, Node
from prunecert.verifiers.sparse.onnx.reader import read_model
from prunecert.verifiers.sparse.pairs.bounds import CHOICES, PairBounds, bound_rows
from prunecert.verifiers.sparse.pairs.ranges import CHANGE, FIRST, SECOND
from prunecert.verifiers.sparse.pairs.rounded import RoundedPair, entry_of
from prunecert.verifiers.sparse.pairs.search import PairSearch, RoundedPairNetworks
from prunecert.verifiers.sparse.pairs.specification import difference, of_rows
from prunecert.verifiers.sparse.quantised.question import Quantised, quantised
from prunecert.verifiers.sparse.quantised.relaxed import Relaxed
from tests.soundness.test_quantised import fixed
from tests.verifiers.sparse.quantised.networks import FloatArray, Kind, network, run, unrounded

SEEDS = (0, 1, 2, 3)
NEVER = time.monotonic() + 1e6


@dataclass(frozen=True, eq=False)
class Case:
    """Networks over a box, and their outputs at points of it."""

    plain: Network
    rounding: Quantised
    lower: FloatArray
    upper: FloatArray
    outputs: tuple[FloatArray, FloatArray]
    at_lattice: FloatArray

    def pair(self, turned: bool = False) -> RoundedPair:
        first, second = (self.rounding, self.plain) if turned else (self.plain, self.rounding)
        return RoundedPair(first, second, 1)


def case(seed: int, kind: Kind = "signed", levels: float | None = None, below: int = 0) -> Case:
    """Draws one; boxes are small and large in turns, so that values meet the ends of their grids, too.

    Args:
        seed: Of all of it.
        kind: Of the network.
        levels: By which the box reaches to either side.
        below: How many numbers below 0 the first rounding rounds to, around which the box is.
    """
    levels = levels or (2.0, 60.0)[seed % 2]
    model = fixed(network(kind, seed))
    if below:
        place = next(number for number, item in enumerate(model.graph.initializer) if item.name == "input_z")
        zero = numpy_helper.to_array(model.graph.initializer[place])
        model.graph.initializer[place].CopyFrom(numpy_helper.from_array(zero + zero.dtype.type(below), "input_z"))
    plain = unrounded(model)
    rng = np.random.default_rng(seed)
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    center = (np.round((0.1 + 0.8 * rng.random(shape)) * 255 - below) / 255).astype(np.float32)
    lower, upper = (center + np.float32(sign * levels / 255) for sign in (-1, 1))
    points = (lower + rng.random((60, *shape), dtype=np.float32) * (upper - lower)).clip(lower, upper)
    points[::2] = np.where(rng.random(points[::2].shape) < 0.5, lower, upper)
    both = tuple(np.concatenate([run(net, point[None]) for point in points]) for net in (plain, model))
    lattice = (np.clip(np.round(points * 255), -below, 255 - below) / 255).astype(np.float32)
    at_lattice = np.concatenate([run(plain, point[None]) for point in lattice])
    return Case(read_model(plain, "plain"), quantised(model, "rounding"), lower, upper, (both[0], both[1]), at_lattice)


def _hold(bounds: PairBounds, first: FloatArray, second: FloatArray) -> None:
    """Checks ranges and walks of the outputs; onnxruntime's float32 has a little room."""
    values = np.stack([first, second, second - first]).astype(np.float64)
    for place in (FIRST, SECOND, CHANGE):
        assert (values[place] >= bounds.ranges[-1].lower[place].T - 1e-5).all()
        assert (values[place] <= bounds.ranges[-1].upper[place].T + 1e-5).all()
    outputs = first.shape[1]
    rows = np.vstack(
        [np.hstack([-np.eye(outputs), np.eye(outputs)]), np.random.default_rng(0).normal(size=(6, 2 * outputs))]
    )
    least = (np.hstack([first, second]) @ rows.T).min(axis=0)
    for choice in CHOICES:
        candidates = of_rows(rows, np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64))
        lower, _ = bound_rows(bounds, candidates, choices=(choice,))
        assert np.isfinite(lower).all()
        assert (lower <= least + 1e-5).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_values_and_differences_are_within_their_bounds(seed: int) -> None:
    drawn = case(seed)
    for turned in (False, True):
        pair = drawn.pair(turned)
        assert pair.pair is not None, pair.why
        bounds = pair.bound(drawn.lower, drawn.upper)
        assert bounds is not None
        _hold(bounds, *(drawn.outputs[::-1] if turned else drawn.outputs))
        assert (bounds.ranges[0].upper[CHANGE] > 0).all()
    shared = drawn.pair().bound(drawn.lower, drawn.upper, shared=True)
    assert shared is not None
    assert not shared.ranges[0].upper[CHANGE].any()
    _hold(shared, drawn.at_lattice, drawn.outputs[1])


def test_upper_ends_are_met_in_these_cases() -> None:
    """Else what is said of values beyond them is not tried."""
    met = 0
    for seed in SEEDS:
        drawn = case(seed)
        over = drawn.pair().sides[1].over(drawn.lower, drawn.upper)
        met += sum(int((most > 0).sum()) for most in over.beyond.values())
    assert met > 5


@pytest.mark.parametrize("seed", [0, 3])
def test_together_differences_are_known_better_than_apart(seed: int) -> None:
    drawn = case(seed, levels=60.0)
    bounds = drawn.pair().bound(drawn.lower, drawn.upper, shared=True)
    assert bounds is not None
    apart = bounds.ranges[-1].upper[SECOND] - bounds.ranges[-1].lower[FIRST]
    outputs = len(apart)
    rows = np.hstack([np.eye(outputs), -np.eye(outputs)])
    lower, _ = bound_rows(bounds, of_rows(rows, np.zeros(outputs), np.zeros(outputs, dtype=np.int64)))
    assert (-lower < 0.5 * apart[:, 0]).all()


@pytest.mark.parametrize(
    ("low", "high", "least", "most"), [(0.1, 0.9, -0.25, 0.25), (0.2, 4.0, -2.5, 0.25), (-3.0, 1.0, -0.25, 3.0)]
)
def test_beyond_the_ends_of_the_grid_inputs_move_further(low: float, high: float, least: float, most: float) -> None:
    grid = Grid(0.5, 0, 0, 3)
    rounded = np.clip(np.round(np.array([low, high]) / 0.5), 0, 3) * 0.5
    corners = np.array([low], dtype=np.float32), np.array([high], dtype=np.float32)
    entry = entry_of(grid, corners, (rounded[:1], rounded[1:]))
    assert least - 1e-5 < entry.least[0] <= least
    assert most <= entry.most[0] < most + 1e-5
    points = np.linspace(low, high, 200)
    moved = np.clip(np.round(points / 0.5), 0, 3) * 0.5 - points
    assert (entry.least[0] <= moved).all()
    assert (moved <= entry.most[0]).all()


def test_the_search_answers_where_there_is_no_common_form() -> None:
    drawn = case(0, kind="dense")
    networks = RoundedPairNetworks(drawn.plain, drawn.rounding, 1)
    assert networks.rounded.pair is None
    assert "layers" in networks.rounded.why
    largest = float(np.abs(drawn.outputs[1] - drawn.outputs[0]).max())
    outcome = PairSearch(networks, drawn.lower, drawn.upper, difference(6 * largest, 3), NEVER).run()
    assert outcome.status is Status.UNSAT
    wide = drawn.lower - 1, drawn.upper + 1
    beyond = PairSearch(networks, *wide, difference(6 * largest, 3), NEVER).run()
    assert beyond.status is Status.UNKNOWN
    assert "beyond an end" in beyond.detail


def test_the_search_takes_inputs_of_both_signs() -> None:
    """No ReLU follows their rounding then, of which CROWN has no bounds."""
    drawn = case(0, kind="dense", below=200)
    networks = RoundedPairNetworks(drawn.plain, drawn.rounding, 1)
    assert networks.merged.roundings[0] not in networks.checker.activated
    largest = float(np.abs(drawn.outputs[1] - drawn.outputs[0]).max())
    for factor, statuses in ((0.99, (Status.UNKNOWN, Status.TIMEOUT)), (8.0, (Status.UNSAT,))):
        spec = difference(factor * largest, 3)
        outcome = PairSearch(networks, drawn.lower, drawn.upper, spec, time.monotonic() + 20).run()
        assert outcome.status in statuses


def test_what_rounding_adds_to_inputs_below_0_is_composed() -> None:
    """An input and what its rounding adds to it have the same weights."""
    drawn = case(0, kind="dense", below=40)
    networks = RoundedPairNetworks(drawn.plain, drawn.rounding, 1)
    checker, entry = networks.checker, networks.merged.roundings[0]
    lower, upper = (corner.astype(np.float64).reshape(-1) for corner in (drawn.lower, drawn.upper))
    bounds = adopt(checker, lower, upper, {})
    net = reduce(checker, bounds, np.eye(6)[3:], np.zeros(3))
    inputs = drawn.lower.size
    own, added = net.M[:, :inputs] / net.radius, net.M[:, inputs : 2 * inputs] / checker.network.nodes[entry].bias_error
    assert own[:, bounds.upper[entry] < 0].any()
    np.testing.assert_allclose(added, own, rtol=1e-4)


def test_what_is_not_clamped_has_no_common_form() -> None:
    drawn = case(0)
    network_ = drawn.rounding.network
    clamped = next(item for item in drawn.rounding.relaxed.roundings if item.beyond is not None)
    nodes = []
    for node in network_.nodes:
        # A user of the value that leaves out what is beyond its end.
        kept = [term for term in node.terms if term.source != clamped.beyond]
        nodes.append(Node(node.name, node.size, node.shape, tuple(kept), node.bias, node.bias_error))
    changed = Network("changed", network_.input_shape, tuple(nodes), network_.roundings)
    relaxed = drawn.rounding.relaxed
    odd = Quantised(drawn.rounding.intervals, Relaxed(changed, relaxed.roundings, relaxed.entry))
    pair = RoundedPair(drawn.plain, odd, 1)
    assert pair.pair is None
    assert "before its rounding's end" in pair.why


def test_two_networks_that_round() -> None:
    """Equal ones differ by nothing but what runtimes may do; that is not known here, and both are bounded apart."""
    drawn = case(1)
    pair = RoundedPair(drawn.rounding, drawn.rounding, 1)
    bounds = pair.bound(drawn.lower, drawn.upper)
    assert bounds is not None
    _hold(bounds, drawn.outputs[1], drawn.outputs[1])
    assert len(pair.joined.roundings) == 2 * (len(drawn.rounding.relaxed.roundings) + 1)
