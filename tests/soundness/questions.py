"""The questions of the soundness suite: networks, boxes and properties, each with its exact margin.

Everything is drawn from fixed seeds. For each centre the exact radius is computed, and the boxes have radii from 0.5 to
2 times that, as close as 0.1 % on either side. The margin that decides is then that of the float32 box itself.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec, Status
from tests.soundness.networks import (
    Array,
    Network,
    Rng,
    as32,
    convolutional,
    dead_units,
    fully_connected,
    residual,
    residual_conv,
    tied,
)
from tests.soundness.oracle import Margin, evaluated, exact_margin, exact_radius, rounding

FACTORS = (0.5, 0.9, 0.99, 0.999, 1.001, 1.01, 1.1, 2.0)
TIMEOUT_S = 30.0
#: Radii beyond this make all ReLUs unstable, and the oracle slow.
_LARGEST_RADIUS = 0.25

FAMILIES: dict[str, Callable[[str, Rng], Network]] = {
    "fc": lambda name, rng: fully_connected(name, rng, [3, 8, 8, 3]),
    "fc-wide": lambda name, rng: fully_connected(name, rng, [5, 24, 4]),
    "fc-deep": lambda name, rng: fully_connected(name, rng, [3, 6, 6, 6, 3]),
    "fc-pruned-80": lambda name, rng: fully_connected(name, rng, [6, 14, 14, 4], sparsity=0.8),
    "fc-pruned-90": lambda name, rng: fully_connected(name, rng, [8, 20, 20, 3], sparsity=0.9),
    "fc-negative-biases": lambda name, rng: fully_connected(name, rng, [4, 10, 10, 3], bias=-0.3),
    "fc-dead-units": dead_units,
    "conv": lambda name, rng: convolutional(name, rng, channels=1),
    "conv-pruned-70": lambda name, rng: convolutional(name, rng, sparsity=0.7),
    "skip": residual,
    "skip-pruned-70": lambda name, rng: residual(name, rng, sparsity=0.7),
    "conv-skip": residual_conv,
    "conv-skip-pruned-70": lambda name, rng: residual_conv(name, rng, sparsity=0.7),
}


@dataclass(frozen=True, eq=False)
class Question:
    """One instance with its exact answer.

    Args:
        name: Family, network, centre and radius.
        net: The network.
        lower: Float32 corner, flat.
        upper: Likewise.
        spec: The unsafe outputs.
        label: The class to keep, if the property is robustness.
        margin: The exact margin.
        tolerance: How far float32 arithmetic can move the margin.
        structural: Whether the margin is zero for any arithmetic, so that no tolerance applies (equal logits).
    """

    name: str
    net: Network
    lower: FloatArray
    upper: FloatArray
    spec: OutputSpec
    label: int | None
    margin: Margin
    tolerance: float
    structural: bool = False

    @property
    def truth(self) -> Status | None:
        """The exact answer; None where float32 arithmetic may tip it either way."""
        if self.structural or self.margin.high < -self.tolerance:
            return Status.SAT
        return Status.UNSAT if self.margin.low > self.tolerance else None

    def instance(self, onnx: Path, timeout: float = TIMEOUT_S) -> Instance:
        """Makes the verifiers' form of the question."""
        return Instance(
            onnx,
            sha256_file(onnx),
            self.lower.reshape(self.net.shape),
            self.upper.reshape(self.net.shape),
            self.spec,
            timeout,
            name=self.name,
            label=self.label,
            classes=self.net.classes,
        )


def ask(
    name: str, net: Network, lower: Array, upper: Array, spec: OutputSpec, label: int | None, structural: bool = False
) -> Question:
    """Makes a question of a box, rounding its corners to float32 and asking the oracle about those."""
    low, high = lower.astype(np.float32), upper.astype(np.float32)
    low64, high64 = low.astype(np.float64), high.astype(np.float64)
    margin = exact_margin(net, low64, high64, spec)
    return Question(name, net, low, high, spec, label, margin, rounding(net, low64, high64, spec), structural)


def seeded(name: str) -> Rng:
    return np.random.default_rng(zlib.crc32(name.encode()))


def _reachable(net: Network, rng: Rng, center: Array, spec: OutputSpec) -> float | None:
    """Returns a radius, not the least, at which the property is violated, found by sampling; None if none is."""
    if evaluated(net, spec, center)[0] <= 0:
        return None
    steps = rng.uniform(-1, 1, (3000, net.inputs))
    steps[1::2] = np.sign(steps[1::2])
    points = np.clip(center + _LARGEST_RADIUS * steps, 0, 1)
    unsafe = points[evaluated(net, spec, points) <= 0]
    if not len(unsafe):
        return None
    # From each, halfway towards the centre as often as it stays unsafe.
    shares = np.ones(len(unsafe))
    low = np.zeros(len(unsafe))
    for _ in range(20):
        middle = (low + shares) / 2
        inside = evaluated(net, spec, center + middle[:, None] * (unsafe - center)) <= 0
        shares, low = np.where(inside, middle, shares), np.where(inside, low, middle)
    return float(np.min(shares * np.max(np.abs(unsafe - center), axis=1)))


def around(
    net: Network,
    rng: Rng,
    name: str,
    centers: int,
    make: Callable[[Array], tuple[OutputSpec, int | None]],
    factors: Sequence[float] = FACTORS,
) -> Iterator[Question]:
    """Asks about boxes round some centres, below and above the exact radius of each.

    Args:
        net: The network.
        rng: For the centres.
        name: What the questions' names begin with.
        centers: How many.
        make: Returns a property that holds at a centre, and its label if it is robustness.
        factors: Radii, as multiples of the exact one.
    """
    count = 0
    for _ in range(60):
        center = as32(rng.random(net.inputs))
        # A third of the pixels at the ends of [0, 1], so that the boxes are clipped there.
        ends = rng.random(net.inputs) < 1 / 3
        center[ends] = np.round(center[ends])
        spec, label = make(center)
        reached = _reachable(net, rng, center, spec)
        if reached is None or reached < 0.01:
            continue
        radius = exact_radius(net, center, spec, reached * 1.001)
        count += 1
        for factor in factors:
            lower, upper = np.clip(center - factor * radius, 0, 1), np.clip(center + factor * radius, 0, 1)
            yield ask(f"{name} centre {count} x{factor:g}", net, lower, upper, spec, label)
        if count == centers:
            return
    # A network that is nearly constant has too few centres with another class near: it keeps those it has.


def robustness(net: Network) -> Callable[[Array], tuple[OutputSpec, int | None]]:
    def make(center: Array) -> tuple[OutputSpec, int | None]:
        label = int(net.evaluate(center)[0].argmax())
        return OutputSpec.robustness(label, net.classes), label

    return make


def disjunction(net: Network, rng: Rng, plain: bool) -> Callable[[Array], tuple[OutputSpec, int | None]]:
    """Draws two or three disjuncts of one to three rows that hold somewhere near the centre."""

    def make(center: Array) -> tuple[OutputSpec, int | None]:
        disjuncts = []
        for _ in range(int(rng.integers(2, 4))):
            near = np.clip(center + rng.uniform(-0.2, 0.2, net.inputs), 0, 1)
            y = net.evaluate(near)[0]
            a = np.zeros((int(rng.integers(1, 4)), net.classes))
            for row in a:
                if plain:
                    row[rng.integers(net.classes)] = rng.choice([-1.0, 1.0])
                else:
                    row[:] = np.round(rng.normal(size=net.classes), 2)
            disjuncts.append((a, as32(a @ y + 0.01)))
        return OutputSpec(tuple(disjuncts)), None

    return make


def robustness_questions() -> Iterator[Question]:
    """Two networks of each family, two or three centres each, eight radii."""
    for family, build in FAMILIES.items():
        for number in range(2):
            name = f"{family}-{number}"
            rng = seeded(name)
            net = build(name, rng).balance(rng)
            yield from around(net, rng, name, 3 - number % 2, robustness(net))


def disjunction_questions() -> Iterator[Question]:
    """Properties in disjunctive normal form: rows that VNN-COMP's readers know, and general ones."""
    for family in ("fc", "fc-pruned-80", "conv", "skip"):
        for plain in (True, False):
            name = f"{family}-dnf-{'plain' if plain else 'general'}"
            rng = seeded(name)
            net = FAMILIES[family](name, rng).balance(rng)
            yield from around(net, rng, name, 1, disjunction(net, rng, plain))


def degenerate_questions() -> Iterator[Question]:
    """Points, boxes that are flat in some coordinates, boxes outside [0, 1], wrong labels, equal logits."""
    for family in ("fc", "fc-pruned-90", "conv-skip"):
        name = f"{family}-degenerate"
        rng = seeded(name)
        net = FAMILIES[family](name, rng).balance(rng)
        center = as32(rng.random(net.inputs))
        order = np.argsort(net.evaluate(center)[0])[::-1]
        best, worst = int(order[0]), int(order[-1])
        spec = OutputSpec.robustness(best, net.classes)
        yield ask(f"{name} point", net, center, center, spec, best)
        yield ask(f"{name} point, wrong label", net, center, center, OutputSpec.robustness(worst, net.classes), worst)
        for radius in (0.02, 0.1, 0.25):
            step = np.where(np.arange(net.inputs) % 2 == 0, radius, 0.0)
            yield ask(f"{name} flat {radius:g}", net, center - step, center + step, spec, best)
        yield ask(f"{name} below 0", net, center - 1.05, center - 0.95, spec, best)
        yield ask(f"{name} above 1", net, center + 0.95, center + 1.05, spec, best)
    for number in range(3):
        name = f"tied-{number}"
        rng = seeded(name)
        net = tied(name, rng)
        center = as32(rng.random(net.inputs))
        for radius in (0.0, 0.01, 0.2):
            lower, upper = np.clip(center - radius, 0, 1), np.clip(center + radius, 0, 1)
            spec = OutputSpec.robustness(1, net.classes)
            yield ask(f"{name} radius {radius:g}", net, lower, upper, spec, 1, structural=True)


@functools.cache
def all_questions() -> tuple[Question, ...]:
    """Returns the whole suite, the same every time."""
    return (*robustness_questions(), *disjunction_questions(), *degenerate_questions())
