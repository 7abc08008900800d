"""What is left of a network over one box, and what works on it: bounds of its subdomains, and attacks."""

from __future__ import annotations

from dataclasses import dataclass

from prunecert.verifiers.sparse.bab.counterexamples import ReducedHunt
from prunecert.verifiers.sparse.bab.dual import Dual
from prunecert.verifiers.sparse.bab.reduced_network import Composition, Reduced, reduce
from prunecert.verifiers.sparse.bab.root import Root, Task


@dataclass(frozen=True, eq=False)
class Composed:
    """What is left of the network over the box.

    Args:
        net: The reduced network.
        dual: Bounds its subdomains.
        hunt: Looks for counterexamples in it.
    """

    net: Reduced
    dual: Dual
    hunt: ReducedHunt

    @property
    def megabytes(self) -> float:
        """What it takes."""
        return self.net.megabytes + self.dual.megabytes


def compose(task: Task, root: Root, composition: Composition | None = None) -> Composed:
    """Composes what is stable away.

    Args:
        task: The question.
        root: The box.
        composition: What is composed already.

    Raises:
        TimeoutError: The deadline passed.
    """
    net = reduce(task.checker, root.bounds, root.rows, root.offsets, task.deadline, composition)
    dual = Dual(net, root.disjuncts, task.checker.threads)
    return Composed(net, dual, ReducedHunt(task.hunt, dual, root.shift))
