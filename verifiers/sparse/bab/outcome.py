"""How hard to search, the tree of splits, and what a search found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.arrays import Float32Array, Int64Array


@dataclass(frozen=True)
class Limits:
    """How hard to search.

    Args:
        root_steps: Gradient steps for the whole box.
        steps: For a pair of children, each of which has half of them.
        candidates: Splits whose children are bounded before one is chosen.
        batch: Subdomains a round; 0: by the size of the reduced network.
        attack_points: Random starts of the first attack.
        attack_steps: Gradient steps of an attack; 0: none at all.
        tighten_after: Subdomains after which the hidden bounds are improved and the search starts over; 0: never.
        tighten_steps: Gradient steps for each of them.
        splits: Whether to split; without, this is α-CROWN.
        memory_mb: Most that CROWN's walks, what is left of the network, or open subdomains may take, each; proved
            subdomains are not kept if they take more together with open ones.
        seed: Of the attack's random starts.
        split: What is split: `relu`, `input` (where sub-boxes can be bounded so), or `auto`: inputs where few vary and
            an estimate says that it will do, else ReLUs.
        share_from: Multiply-adds of a walk through all layers, for each pixel and unstable neuron, from which subtrees
            of a large tree share lines (`lines`).
        second_order: Whether the last hidden layer's second-order bounds are tried where a tree becomes large; what
            they prove is kept for certificates, and not for other networks.
        every: Whether alternatives that CROWN proves are taken for open, so that the search leaves a tree of each.
    """

    root_steps: int = 60
    steps: int = 12
    candidates: int = 6
    batch: int = 0
    attack_points: int = 24
    attack_steps: int = 20
    tighten_after: int = 64
    tighten_steps: int = 12
    splits: bool = True
    memory_mb: float = 3072.0
    seed: int = 0
    split: Literal["auto", "input", "relu"] = "relu"
    share_from: float = 100.0
    second_order: bool = False
    every: bool = False


@dataclass(eq=False)
class Tree:
    """Splits in the order in which they were made: entry i splits off `parent[i]`, whose children differ in `sign`.

    Args:
        parent: Entry of the parent; -1 for the whole box.
        neuron: Unstable neuron of the reduced network that tells it from its sibling; -1 for the whole box.
        sign: Its phase.
        disjunct: Of the property.
    """

    parent: list[int] = field(default_factory=list)
    neuron: list[int] = field(default_factory=list)
    sign: list[int] = field(default_factory=list)
    disjunct: list[int] = field(default_factory=list)

    def add(self, parents: Int64Array, neurons: Int64Array, signs: Int64Array, disjuncts: Int64Array) -> Int64Array:
        """Appends entries and returns their places."""
        start = len(self.parent)
        self.parent += parents.tolist()
        self.neuron += neurons.tolist()
        self.sign += signs.tolist()
        self.disjunct += disjuncts.tolist()
        return np.arange(start, len(self.parent), dtype=np.int64)

    def branch(
        self, numbers: Int64Array, disjunct: int, parents: Int64Array, neurons: Int64Array, signs: Int64Array
    ) -> Int64Array:
        """Appends entries of one disjunct, by its place among open ones of these numbers, and returns their places."""
        return self.add(parents, neurons, signs, np.full(len(parents), numbers[disjunct]))


@dataclass(eq=False)
class Outcome:
    """What a search found.

    Args:
        status: `unsat`, `sat`, `unknown` or `timeout`.
        detail: Why nothing was decided.
        witness: Flat float32 counterexample.
        bounds: Certified lower bound of each disjunct; None where there is none.
        lowest: Worst float32 bound among the open subdomains, 0 if none is open: the global lower bound so far.
        stage: `incomplete`, `attack` or `bab`.
        unstable: Unstable ReLUs over the box.
        domains: Subdomains bounded, children included.
        rounds: Rounds of splitting.
        bound_s: Seconds before the first split.
        search_s: Seconds after it.
        certify_s: Seconds of certification, within both.
        certified: Leaves certified.
        refused: Leaves whose certificate failed.
        reused: Leaves proved by an earlier proof's tree.
        inputs: Whether inputs alone were split.
        stuck: Subdomains or sub-boxes with nothing left to split whose bounds are not above 0; then it is `unknown`.
    """

    status: Status = Status.UNKNOWN
    detail: str = ""
    witness: Float32Array | None = None
    bounds: tuple[float, ...] | None = None
    lowest: float = 0.0
    stage: str | None = None
    unstable: int | None = None
    domains: int = 0
    rounds: int = 0
    bound_s: float = 0.0
    search_s: float = 0.0
    certify_s: float = 0.0
    certified: int = 0
    refused: int = 0
    reused: int = 0
    inputs: bool = False
    stuck: int = 0
