"""Linear bounds over sub-boxes hold in real arithmetic, and are worth something."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.box_bounds import bound_boxes, frame
from prunecert.verifiers.sparse.bab.box_clipping import KEPT, clip_boxes
from prunecert.verifiers.sparse.bab.box_program import BoxProgram, columns, lay_out, scratch
from prunecert.verifiers.sparse.bab.row_combination import combine
from prunecert.verifiers.sparse.network import Network, Node, Term
from prunecert.verifiers.sparse.onnx.layers import dense
from tests.verifiers.sparse.bab import segments
from tests.verifiers.sparse.searching import Prepared, draw

Bounds = tuple[Float64Array, Float64Array, Float64Array]


def bound(
    program: BoxProgram, matrix: Float64Array, offsets: Float64Array, low: Float64Array, high: Float64Array
) -> Bounds:
    """Returns lines, bounds and scores of all rows over sub-boxes."""
    count, inputs = low.shape
    spans = np.tile([0, len(offsets)], (count, 1))
    lines, bounds = np.zeros((count, len(offsets), inputs + 2)), np.zeros(count)
    scores = np.zeros((count, 2, inputs))
    bound_boxes(program, scratch(program), matrix, offsets, spans, low, high, 0, count, lines, bounds, scores)
    return lines, bounds, scores


def exactly(network: Network, x: Float64Array) -> list[Fraction]:
    """Evaluates a network whose weights are exact in rational arithmetic."""
    return segments.evaluate(network, [Fraction(value) for value in x.tolist()])[-1]


def line_at(line: Float64Array, low: Float64Array, high: Float64Array, x: Float64Array) -> Fraction:
    """Returns what a line says at a point, in rational arithmetic."""
    return exact_line_at(line, low, high, *map(Fraction, x.tolist()))


def exact_line_at(line: Float64Array, low: Float64Array, high: Float64Array, *x: Fraction) -> Fraction:
    total = Fraction(line[0]) - Fraction(line[-1])
    for slope, one, other, at in zip(line[1:-1], low, high, x, strict=True):
        center, radius = frame(one, other)
        if radius > 0:
            total += Fraction(slope) * (at - Fraction(center)) / Fraction(radius)
    return total


def sub_boxes(rng: np.random.Generator, question: Prepared, count: int) -> tuple[Float64Array, Float64Array]:
    """Draws sub-boxes of all sizes, some of them flat in some inputs."""
    lower, upper = question.lower.astype(float), question.upper.astype(float)
    ends = np.sort(rng.uniform(lower, upper, (2, count, len(lower))), axis=0)
    shrink = 10.0 ** rng.uniform(-6, 0, (count, 1))
    low, high = ends[0], ends[0] + shrink * (ends[1] - ends[0])
    flat = rng.random(low.shape) < 0.1
    high[flat] = low[flat]
    return low, np.clip(high, low, upper)


@pytest.mark.parametrize("kind", ["fc", "skip", "conv-skip"])
def test_lines_are_below_the_network_in_rational_arithmetic(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(len(kind))
    drawn, network = draw(kind, 7, tmp_path)
    center = rng.random(drawn.inputs)
    question = Prepared(network, center - 0.3, center + 0.3, OutputSpec.robustness(0, drawn.classes))
    program = lay_out(network, question.bounds)
    offsets = rng.normal(size=len(question.rows))
    low, high = sub_boxes(rng, question, 25)
    lines, bounds, scores = bound(program, question.rows, offsets, low, high)
    near = 0
    for box in range(len(low)):
        points = rng.uniform(low[box], high[box], (6, drawn.inputs))
        points[::2] = np.where(rng.random(points[::2].shape) < 0.5, low[box], high[box])
        for x in np.clip(points, low[box], high[box]):
            y = exactly(network, x)
            for row, offset, line in zip(question.rows, offsets, lines[box], strict=True):
                value = sum(Fraction(a) * b for a, b in zip(row.tolist(), y, strict=True)) - Fraction(offset)
                below = line_at(line, low[box], high[box], x)
                assert below <= value
                near += value - below < 1e-9
        sways = lines[box, :, 0] - lines[box, :, -1] - np.abs(lines[box, :, 1:-1]).sum(axis=1)
        assert bounds[box] == pytest.approx(sways.max(), abs=1e-9)
    # Over small sub-boxes without an unstable ReLU a line is the network itself.
    assert near > 20
    assert np.all(scores >= 0)
    assert scores.max() > 0


def test_bounds_are_those_of_crown_with_one_slope(tmp_path: Path) -> None:
    """The certificate's walk back with slopes u / (u - l) over the same hidden bounds gives the same numbers."""
    from prunecert.verifiers.sparse.certify import Checker, Planes, grouped
    from prunecert.verifiers.sparse.node_bounds import CheckedBounds

    drawn, network = draw("fc", 3, tmp_path)
    rng = np.random.default_rng(3)
    center = rng.random(drawn.inputs)
    question = Prepared(network, center - 0.2, center + 0.2, OutputSpec.robustness(0, drawn.classes))
    program = lay_out(network, question.bounds)
    corners = question.lower.astype(float)[None], question.upper.astype(float)[None]
    _, ours, _ = bound(program, question.rows[:1], question.offsets[:1], *corners)
    checker = Checker(network)
    bounds: CheckedBounds = question.bounds
    planes = {}
    for node in checker.activated:
        free = bounds.unstable(node)
        low, high = bounds.lower[node][free], bounds.upper[node][free]
        alpha = (high / (high - low))[None]
        planes[node] = Planes(
            grouped(np.zeros(alpha.shape, dtype=np.int8)), grouped(alpha), grouped(np.zeros_like(alpha))
        )
    back = checker.lower(checker.last, question.rows[:1], bounds, planes)[0]
    # Hidden bounds may be better than the root's here, never worse.
    assert ours[0] >= back - 1e-6
    assert ours[0] <= float((network.evaluate(rng.uniform(*corners, (500, 4))) @ question.rows[0]).min())


def plain(weights: list[Float64Array], exact: bool = True) -> Network:
    """Returns a network of linear layers with ReLUs between and no biases."""

    def node(name: str, size: int, terms: tuple[Term, ...]) -> Node:
        zeros = np.zeros(size, dtype=np.float32)
        return Node(name, size, (size,), terms, zeros, zeros)

    nodes = [node("input", weights[0].shape[1], ())]
    for number, weight in enumerate(weights):
        terms = (Term(number, number > 0, dense(weight.astype(np.float32)), exact),)
        nodes.append(node(f"layer {number}", len(weight), terms))
    return Network("plain", (weights[0].shape[1],), tuple(nodes))


def test_inexact_weights_are_charged() -> None:
    """Whatever the real weights are within half a unit in the last place, the bound holds."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32).astype(float) for shape in ((6, 3), (6, 6), (1, 6))]
    network = plain(weights, exact=False)
    question = Prepared(network, np.full(3, 0.5), np.full(3, 0.6), OutputSpec(((np.ones((1, 1)), np.zeros(1)),)))
    program = lay_out(network, question.bounds)
    x = question.lower.astype(float)[None]
    _, bounds, _ = bound(program, question.rows, question.offsets, x, x.copy())
    least = np.inf
    for _ in range(200):
        moved = [weight * (1 + 2.0**-24 * rng.choice([-1, 1], weight.shape)) for weight in weights]
        value = x[0]
        for number, weight in enumerate(moved):
            value = weight @ (np.maximum(value, 0) if number else value)
        least = min(least, float(value[0]))
    exact = float(network.evaluate(x)[0, 0])
    assert bounds[0] <= least < exact
    assert bounds[0] >= exact - 1e-4


@pytest.mark.parametrize("size", [1e37, 1e200, np.inf])
def test_what_overflows_proves_nothing(size: float) -> None:
    weights = [np.full((3, 2), 3e38), np.full((3, 3), 3e38), np.full((1, 3), -1.0)]
    network = plain(weights)
    spec = OutputSpec(((np.ones((1, 1)), np.zeros(1)),))
    low, high = np.full((1, 2), -1.0), np.full((1, 2), 1.0)
    with np.errstate(all="ignore"):
        question = Prepared(network, np.full(2, -1.0), np.full(2, 1.0), spec)
        program = lay_out(network, question.bounds)
        _, bounds, _ = bound(program, np.full((1, 1), size), question.offsets, low, high)
    assert not bounds[0] > 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_hidden_bounds_that_are_no_numbers_prove_nothing(value: float) -> None:
    """Nor do they write beyond the table: such neurons have symbols, too."""
    rng = np.random.default_rng(0)
    network = plain([rng.normal(size=(6, 2)), rng.normal(size=(6, 6)), np.ones((1, 6))])
    spec = OutputSpec(((np.ones((1, 1)), np.array([-1.0])),))
    question = Prepared(network, np.full(2, -1.0), np.full(2, 1.0), spec)
    low, high = np.full((1, 2), -1.0), np.full((1, 2), 1.0)
    assert np.isfinite(bound(lay_out(network, question.bounds), question.rows, question.offsets, low, high)[1][0])
    question.bounds.lower[1][:], question.bounds.upper[1][:] = -value, value
    program = lay_out(network, question.bounds)
    assert columns(program) >= 1 + 2 + 6
    offsets = np.array([1e-9 + float(network.evaluate(np.random.default_rng(1).uniform(-1, 1, (500, 2))).min())])
    assert not bound(program, question.rows, offsets, low, high)[1][0] > 0
    network.nodes[1].bias[:] = value
    with np.errstate(all="ignore"):
        _, bounds, _ = bound(lay_out(network, question.bounds), question.rows, question.offsets, low, high)
    assert not bounds[0] > 0


def check_segments(seeds: range) -> tuple[int, int]:
    """Compares lines, bounds and clipping with networks of one input, exactly; returns how many bounds and cuts."""
    bounded = cut = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        net, first, last = segments.draw(rng)
        with np.errstate(all="ignore"):
            spec, _ = segments.tie(rng, net, first, last)
            ((matrix, offsets), *_) = spec.disjuncts
            one = OutputSpec(((matrix, offsets),))
            question = Prepared(net, np.array([first]), np.array([last]), one)
            ends = np.sort(rng.uniform(first, last, (5, 2)), axis=1)
            ends[0] = first, last
            ends[1, 1] = min(ends[1, 1], ends[1, 0] + abs(ends[1, 0]) * 10.0 ** rng.uniform(-17, -3))
            low, high = ends[:, :1].copy(), ends[:, 1:].copy()
            most = 2 + int(rng.integers(0, 5)) * int(rng.integers(0, 5))
            lines, bounds, _ = bound(lay_out(net, question.bounds, most), matrix, offsets, low, high)
            counts = np.full(len(low), len(offsets))
            left, right, empty = low.copy(), high.copy(), np.zeros(len(low), dtype=np.bool_)
            clip_boxes(combine(lines, counts), counts + 1, left, right, 0, len(low), empty)
        for box in range(len(low)):
            at, outputs = segments.outputs(net, low[box, 0], high[box, 0])
            (points,) = segments.rows(one, outputs)
            for line, row in zip(lines[box], zip(*points, strict=True), strict=True):
                if np.isfinite(line).all():
                    assert all(exact_line_at(line, low[box], high[box], x) <= y for x, y in zip(at, row, strict=True))
            if np.isfinite(bounds[box]):
                assert Fraction(bounds[box]) <= max(min(row) for row in zip(*points, strict=True))
                bounded += 1
            ends_cut = [(low, left), (right, high)] if not empty[box] else [(low, high)]
            for begin, end in ends_cut:
                if begin[box, 0] < end[box, 0] or empty[box]:
                    assert segments.margin(net, begin[box, 0], end[box, 0], one) >= Fraction(KEPT), seed
                    cut += 1
    return bounded, cut


def test_lines_bounds_and_cuts_of_one_input_are_right_at_every_place() -> None:
    bounded, cut = check_segments(range(20))
    assert bounded > 50
    assert cut > 15


@pytest.mark.slow
def test_lines_bounds_and_cuts_of_many_networks_of_one_input_are_right_at_every_place() -> None:
    check_segments(range(1000, 1400))


def test_relus_without_room_for_a_symbol_are_bounded_by_intervals(tmp_path: Path) -> None:
    """Bounds hold with any number of columns, and are the better the more there are."""
    rng = np.random.default_rng(6)
    drawn, network = draw("fc", 6, tmp_path)
    center = rng.random(drawn.inputs)
    question = Prepared(network, center - 0.3, center + 0.3, OutputSpec.robustness(0, drawn.classes))
    low, high = sub_boxes(rng, question, 20)
    low[0], high[0] = question.lower, question.upper
    needed = columns(lay_out(network, question.bounds))
    least = 1 + drawn.inputs
    assert needed > least + 4
    means = []
    for most in (0, least + 2, needed, needed + 9):
        program = lay_out(network, question.bounds, most)
        assert columns(program) == min(max(most, least), needed)
        lines, bounds, _ = bound(program, question.rows, question.offsets, low, high)
        for box in range(len(low)):
            for x in np.where(rng.random((4, drawn.inputs)) < 0.5, low[box], high[box]):
                y = exactly(network, x)
                for row, offset, line in zip(question.rows, question.offsets, lines[box], strict=True):
                    value = sum(Fraction(a) * b for a, b in zip(row.tolist(), y, strict=True)) - Fraction(offset)
                    assert line_at(line, low[box], high[box], x) <= value
        means.append(float(bounds[0]))
    assert means[0] < means[1] < means[2] == means[3]
