"""Questions about l2 balls, by the sparse engine: what its adapters do in place of what they do with boxes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecert.verifiers.base import FloatArray, Instance

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
    from prunecert.verifiers.sparse.balls.walk import Ball
    from prunecert.verifiers.sparse.certify import Checker
    from prunecert.verifiers.sparse.network import Network


class Balls:
    """A network made ready for balls, when the first one is asked about.

    Args:
        network: The network.
        checker: Of the network, if there is one already.
    """

    def __init__(self, network: Network, checker: Checker | None = None) -> None:
        from prunecert.verifiers.sparse.certify import Checker

        self._checker = Checker(network) if checker is None else checker

    def bound(self, instance: Instance) -> tuple[tuple[float, ...], int] | None:
        """Returns SDP-CROWN's bound of each disjunct, minus infinity where it has no rows, and the unstable ReLUs.

        Returns None where the instance's time is over before.
        """
        from prunecert.verifiers.sparse.balls.ranges import bound_disjuncts
        from prunecert.verifiers.sparse.walks import LateError

        deadline = time.monotonic() + instance.timeout
        try:
            return bound_disjuncts(self._checker, _ball(instance), instance.spec, deadline=deadline)
        except LateError:
            return None

    def search(
        self,
        instance: Instance,
        limits: Limits,
        deadline: float,
        replay: Callable[[FloatArray], Any],
    ) -> Outcome:
        """Searches until a deadline.

        Args:
            instance: The question.
            limits: How hard to search.
            deadline: `time.monotonic` at which to end.
            replay: The float32 network, flat x to outputs.
        """
        from prunecert.verifiers.sparse.balls.search import BallSearch

        def contains(point: FloatArray) -> bool:
            return instance.contains(point.reshape(instance.lower.shape))

        search = BallSearch(
            self._checker, _ball(instance), instance.spec, contains, limits, deadline, instance.allowance, replay
        )
        return search.run()


def _ball(instance: Instance) -> Ball:
    from prunecert.verifiers.sparse.balls.ranges import ball_of

    assert instance.center is not None, "an l2 instance has one"
    assert instance.eps is not None, "likewise"
    low, high = (corner.reshape(-1).astype(np.float64) for corner in (instance.lower, instance.upper))
    return ball_of(instance.center.reshape(-1).astype(np.float64), float(instance.eps), low, high)
