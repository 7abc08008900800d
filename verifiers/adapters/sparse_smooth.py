"""Questions to networks with Sigmoids or Tanhs, by the sparse engine: what `sparse-bab` does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prunecert.verifiers.base import FloatArray, Instance, Status, Verdict

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
    from prunecert.verifiers.sparse.smooth.network import SmoothNetwork

#: Why there is no certificate of such a network.
NO_CERTIFICATE = "certificates speak of networks of ReLUs, and this one has a Sigmoid or Tanh"


class Smooth:
    """A smooth network made ready for questions.

    Args:
        network: The network.
    """

    def __init__(self, network: SmoothNetwork) -> None:
        from prunecert.verifiers.sparse.smooth.walk import SmoothChecker

        self._checker = SmoothChecker(network)

    def search(
        self, instance: Instance, limits: Limits, deadline: float, replay: Callable[[FloatArray], Any]
    ) -> Outcome:
        """Searches until a deadline.

        Args:
            instance: The question, about a box.
            limits: How hard to search.
            deadline: `time.monotonic` at which to end.
            replay: The float32 network, flat x to outputs.
        """
        from prunecert.verifiers.sparse.smooth.search import SmoothSearch

        search = SmoothSearch(
            self._checker, instance.lower, instance.upper, instance.spec, limits, deadline, replay, instance.allowance
        )
        return search.run()


def no_balls(name: str, instance: Instance) -> Verdict:
    """Returns the verdict on a ball."""
    detail = f"{name} takes networks with Sigmoid or Tanh over boxes (linf) alone, not over {instance.norm} balls"
    return Verdict(Status.UNSUPPORTED, detail)
