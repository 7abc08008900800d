"""Where a search for counterexamples starts, on the whole network and on what is left of it over a box."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.arrays import LANES32, Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.bab import point_batch
from prunecert.verifiers.sparse.bab.attack import Attack, Forward, Replay, confirm, margins, unsafe
from prunecert.verifiers.sparse.bab.dual import Batch, Dual
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.node_bounds import CheckedBounds

#: Gradient steps on the whole network, before anything is composed: nearly all that fall at all fall in one.
_QUICK = 2
#: Margin in the attack's own arithmetic below which a point is tried on the original network, and how many are.
_NEAR, _TRIED = 1e-5, 4


@dataclass(frozen=True, eq=False)
class Attackable:
    """The disjuncts of a property one after the other, as `Hunt.quick` takes them.

    Args:
        rows: Of all disjuncts, [rows, outputs].
        offsets: [rows].
        starts: First row of each disjunct, and their number.
    """

    rows: Float64Array
    offsets: Float64Array
    starts: Int64Array


class Hunt:
    """Looks for a counterexample in one box.

    Args:
        checker: Of the original network.
        spec: The unsafe set.
        lower: Lower corner, flat float32.
        upper: Upper corner.
        limits: How hard.
        witness: A counterexample of another network, or None.
        allowance: For each disjunct, how far float32 rounding may move its rows; empty: nothing is known.
        replay: The float32 network by which a counterexample near the threshold is judged; None: the engine's own.
        forward: As for `attack.margins`.
    """

    def __init__(
        self,
        checker: Checker,
        spec: OutputSpec,
        lower: Float32Array,
        upper: Float32Array,
        limits: Limits,
        witness: Float32Array | None,
        allowance: tuple[float, ...] = (),
        replay: Replay | None = None,
        forward: Forward | None = None,
    ) -> None:
        self._checker, self._network, self._spec = checker, checker.network, spec
        self._lower, self._upper = lower, upper
        self.limits, self._threads = limits, checker.threads
        # As it is tried, so that nothing overflows on the way there.
        fits = witness is not None and len(witness) == len(lower)
        self._witness = np.clip(witness, lower, upper) if witness is not None and fits else None
        self._near = np.arange(len(spec.disjuncts))
        self._allowance, self._replay, self._forward = allowance, replay, forward

    def confirm(self, points: Float64Array) -> Float32Array | None:
        """Returns the first of [n, inputs] that is a counterexample."""
        return confirm(
            self._network, self._spec, self._lower, self._upper, points, self._threads, self._allowance, self._replay,
            self._forward,
        )  # fmt: skip

    def replay(self) -> Float32Array | None:
        """Tries the known counterexample as it is."""
        if self._witness is None:
            return None
        values, scale = margins(self._network, self._spec, self._witness, self._threads, self._forward)
        # Disjuncts that the point is nearest to come first.
        self._near = np.argsort(values, kind="stable")
        witness, judged = self._witness, (self._allowance, self._replay)
        return witness if unsafe(self._network, self._spec, witness, values, scale, *judged) else None

    def quick(
        self, open_: Int64Array, everything: Attackable, bounds: CheckedBounds | None = None
    ) -> Float32Array | None:
        """Descends on the network, from the centre towards each disjunct, and from the known point.

        Args:
            open_: Disjuncts that are not excluded yet.
            everything: All disjuncts.
            bounds: Of all nodes over the box; what they say to be inactive costs nothing then.
        """
        if not self.limits.attack_steps or not self.limits.splits:
            return None
        center = 0.5 * self._lower + 0.5 * self._upper
        radius = np.maximum(self._upper - center, center - self._lower)
        rows, offsets = everything.rows, everything.offsets
        if bounds is None:
            net = point_batch.of_network(self._network, rows, offsets, self._threads)
        else:
            net = point_batch.of_live(self._checker, bounds, rows, offsets)
        attack = Attack(net, [(int(a), int(b)) for a, b in itertools.pairwise(everything.starts)], (center, radius))
        target = open_
        t = np.zeros((len(open_), len(center)), dtype=np.float32)
        if self._witness is not None:
            # No more than fills the lanes: towards other disjuncts the centre will do.
            near = self._near[np.isin(self._near, open_)][: max(LANES32 - len(open_), 1)]
            point = np.divide(self._witness - center, radius, out=np.zeros_like(center), where=radius > 0)
            t = np.concatenate([np.tile(np.clip(point, -1, 1), (len(near), 1)), t])
            target = np.concatenate([near, open_])
        points, reached = attack.descend(t, target, min(_QUICK, self.limits.attack_steps), first=1.0)
        return self.confirm(center + radius * points[nearest(reached)].astype(np.float64))


class ReducedHunt:
    """Goes on with what is left of the network over the box.

    Args:
        hunt: Confirms what is reached, on the whole network.
        dual: Of what is left; its offsets are the property's and what is to be proved beyond.
        shift: The latter, for each of its rows.
    """

    def __init__(self, hunt: Hunt, dual: Dual, shift: Float64Array) -> None:
        self._hunt, self._dual = hunt, dual
        self._attack = Attack(point_batch.of_reduced(dual), dual.disjuncts, shift=shift)

    def root(self, batch: Batch) -> Float32Array | None:
        """Descends from the bounds' minimisers, the centre and random points."""
        limits = self._hunt.limits
        if not limits.attack_steps:
            return None
        rng = np.random.default_rng(limits.seed)
        pixels, count = len(self._dual.net.pixels), limits.attack_points
        random = rng.uniform(-1, 1, (count, pixels)).astype(np.float32)
        random[::2] = np.sign(random[::2])
        starts = [self._dual.look(batch).t, np.zeros((len(batch), pixels), dtype=np.float32), random]
        target = np.concatenate([batch.disjunct, batch.disjunct, batch.disjunct[np.arange(count) % len(batch)]])
        return self.descend(np.concatenate(starts), target, limits.attack_steps)

    def descend(self, t: Float32Array, target: Int64Array, steps: int) -> Float32Array | None:
        """Descends from points [n, pixels] of what is left, each towards a disjunct."""
        points, reached = self._attack.descend(t, target, steps)
        return self._hunt.confirm(self._dual.net.point(points[nearest(reached)]))


def nearest(reached: Float32Array | Float64Array) -> Int64Array:
    """Returns the points whose margins, [n], are small enough to be tried on the original network, best first."""
    best: Int64Array = np.argsort(reached)[:_TRIED]
    return best[reached[best] < _NEAR]
