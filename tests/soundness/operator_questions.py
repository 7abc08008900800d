"""Questions with exact answers about networks of all operators that are read.

Each network is asked about over a box as wide as the oracle can do quickly, and over a point, a line, or a box that is
flat in most coordinates or outside of [0, 1]; about one row or a disjunction of several. The exact margin there is
computed once, and the property is moved so that it holds, or is broken, by 3 % of the outputs' range, and by a hair:
about twice what float32 can move it. Every third network of few inputs is asked whether a class is kept, in boxes a
little smaller and larger than the exact radius, and so are those that end in Softmax and the like, of whose outputs
only the order is known.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from prunecert.verifiers.base import OutputSpec
from tests.soundness.networks import Array, Network, Rng, as32
from tests.soundness.operator_families import FAMILIES
from tests.soundness.operators import OperatorNetwork
from tests.soundness.oracle import Margin, Programme, evaluated, exact_margin, rounding
from tests.soundness.questions import Question, around, disjunction, robustness, seeded

Box = Literal["wide", "point", "line", "flat", "outside"]

#: Radii of boxes, as multiples of the exact one.
FACTORS = (0.9, 0.999, 1.001, 1.1)
#: How far properties are moved from the exact margin, as a share of the outputs' range.
FAR = 0.03
#: A hair is at least this share of it, and so many times what float32 can move the margin.
_HAIR, _TIMES = 1e-4, 2.0
#: How close the oracle encloses a margin.
_SOLVER = 2e-6
#: Radii of wide boxes.
_RADII = (0.5, 0.35, 0.2, 0.12, 0.07, 0.04, 0.02, 0.01)
#: Most binaries of the oracle's programme for one, with few inputs, which verifiers split, and with many.
_BINARIES = (24, 16)
#: Most inputs that are few; of such networks exact radii are asked for.
_INPUTS = 12
#: Distance of two numbers at which float32 certainly tells their exponentials apart, of numbers of unit size.
_EXPONENTIAL = 2.0**-20


def _box(net: Network, rng: Rng, kind: Box) -> tuple[Array, Array]:
    """Draws a box, of float32 numbers."""
    center = rng.uniform(0.2, 0.8, net.inputs) if kind != "outside" else rng.uniform(-2.0, -1.5, net.inputs)
    if kind == "point":
        return as32(center), as32(center)
    shares = np.ones(net.inputs)
    if kind == "line":
        shares[:] = np.arange(net.inputs) == rng.integers(net.inputs)
    elif kind == "flat":
        shares[:] = rng.permutation(net.inputs) < 3
    for radius in _RADII:
        lower, upper = as32(center - radius * shares), as32(center + radius * shares)
        programme = Programme(net, lower, upper)
        if programme.objective - programme.binaries <= _BINARIES[net.inputs > _INPUTS]:
            break
    return lower, upper


def _one_row(net: OperatorNetwork, rng: Rng) -> OutputSpec:
    """Draws one row: one output, or all of them."""
    row = np.zeros((1, net.classes))
    if net.last:
        # Only differences are the same before and after.
        first, second = rng.permutation(net.classes)[:2]
        row[0, first], row[0, second] = 1.0, -1.0
    elif rng.random() < 0.5:
        row[0, rng.integers(net.classes)] = rng.choice([-1.0, 1.0])
    else:
        row[0] = np.round(rng.normal(size=net.classes), 2)
    return OutputSpec(((row, np.zeros(1)),))


def _several(net: OperatorNetwork, rng: Rng) -> OutputSpec:
    """Draws a disjunction of several rows each."""
    if net.last:
        return OutputSpec(tuple(_one_row(net, rng).disjuncts[0] for _ in range(2)))
    return disjunction(net, rng, plain=bool(rng.random() < 0.5))(rng.uniform(0.2, 0.8, net.inputs))[0]


def _moved(net: OperatorNetwork, rng: Rng, name: str, box: tuple[Array, Array], spec: OutputSpec) -> Iterator[Question]:
    """Asks about a property that is moved to either side of its exact margin."""
    margin, tolerance = exact_margin(net, *box, spec), rounding(net, *box, spec) + _exponential(net, *box)
    points = box[0] + rng.random((200, net.inputs)) * (box[1] - box[0])
    scale = max(float(evaluated(net, spec, points).max()) - margin.high, 0.1)
    hair = max(_HAIR * scale, _TIMES * tolerance + _SOLVER)
    for word, share in (("far below", -FAR * scale), ("below", -hair), ("above", hair), ("far above", FAR * scale)):
        step = margin.high + share
        shifted = OutputSpec(tuple((a, b + step) for a, b in spec.disjuncts))
        high = float(evaluated(net, shifted, margin.point)[0])
        exact = Margin(min(margin.low - step, high), high, margin.point)
        low32, high32 = (corner.astype(np.float32) for corner in box)
        yield Question(f"{name}, {word}", net, low32, high32, shifted, None, exact, tolerance)


def _exponential(net: OperatorNetwork, lower: Array, upper: Array) -> float:
    """Returns how far apart two inputs of the last operator must be so that its float32 outputs certainly differ."""
    if not net.last:
        return 0.0
    outputs = net.evaluate(np.linspace(lower, upper, 9))
    if net.last in ("Sigmoid", "Tanh"):
        return _EXPONENTIAL * 4 * float(np.cosh(2 * np.abs(outputs).max()))
    return _EXPONENTIAL * (16 + 2 * float(np.ptp(outputs)))


def _order(net: OperatorNetwork) -> Callable[[Array], tuple[OutputSpec, int | None]]:
    """Asks that the best class stays before the second, or before the third while that is before the last."""

    def make(center: Array) -> tuple[OutputSpec, int | None]:
        order = np.argsort(net.evaluate(center)[0])[::-1]
        unit = np.eye(net.classes)
        one = (unit[order[0]] - unit[order[1]])[None]
        two = np.stack([unit[order[0]] - unit[order[2]], unit[order[-1]] - unit[order[2]]])
        return OutputSpec(((one, np.zeros(1)), (two, np.zeros(2)))), None

    return make


def family_questions(family: str) -> Iterator[Question]:
    """Returns the questions about one network."""
    rng, number = seeded(family), list(FAMILIES).index(family)
    net = FAMILIES[family](family, rng)
    if net.last in ("", "LogSoftmax"):
        others: tuple[Box, ...] = ("line", "point", "flat", "outside")
        boxes: dict[Box, bool] = {"wide": number % 2 == 1, others[number % 4]: number // 4 % 2 == 0}
        for box, several in boxes.items():
            name = f"{family} {box} {'several' if several else 'row'}"
            yield from _moved(net, rng, name, _box(net, rng, box), (_several if several else _one_row)(net, rng))
    kinds = {"class": robustness(net)} if (number % 3 == 0 and net.inputs <= _INPUTS) or net.last else {}
    if net.last:
        kinds["order"] = _order(net)
    for kind, make in kinds.items():
        for question in around(net, rng, f"{family} {kind}", 1, make, FACTORS):
            lower, upper = question.lower.astype(np.float64), question.upper.astype(np.float64)
            yield replace(question, tolerance=question.tolerance + _exponential(net, lower, upper))


@functools.cache
def operator_questions(stride: int = 1) -> tuple[Question, ...]:
    """Returns the questions about every so many-th network, the same every time."""
    return tuple(question for family in list(FAMILIES)[::stride] for question in family_questions(family))
