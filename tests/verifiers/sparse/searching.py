"""Small questions for the tests of the search, and how it is asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.hashing import sha256_file
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec, Status, Verifier
from prunecert.verifiers.sparse.arrays import Float64Array
from prunecert.verifiers.sparse.bab.dual import Batch, Dual
from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
from prunecert.verifiers.sparse.bab.reduced_network import Reduced, reduce
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certify import Checker, adopt
from prunecert.verifiers.sparse.crown.engine import Engine, Question
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.node_bounds import CheckedBounds
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.warmup import warm_up
from tests.soundness.networks import Network as Drawn
from tests.soundness.networks import convolutional, fully_connected, residual, residual_conv


def draw(kind: str, seed: int, folder: Path) -> tuple[Drawn, Network]:
    """Returns a random network in the form of the soundness suite, and as the engine reads it."""
    rng = np.random.default_rng(seed)
    makers: dict[str, Any] = {
        "fc": lambda: fully_connected("net", rng, [4, 10, 10, 3]),
        "conv": lambda: convolutional("net", rng),
        "skip": lambda: residual("net", rng),
        "conv-skip": lambda: residual_conv("net", rng, sparsity=0.5),
    }
    net = makers[kind]().balance(rng)
    return net, read_network(net.save(folder / "net.onnx"))


class Prepared:
    """A network over a box, as the search has it after the root.

    Args:
        network: The network.
        lower: Flat float32 corner.
        upper: Likewise.
        spec: The unsafe set.
    """

    def __init__(
        self,
        network: Network,
        lower: npt.NDArray[np.floating],
        upper: npt.NDArray[np.floating],
        spec: OutputSpec,
    ) -> None:
        self.lower, self.upper = lower.astype(np.float32), upper.astype(np.float32)
        self.engine, self.checker = Engine(network, 1), Checker(network)
        self.rows = np.concatenate([a for a, _ in spec.disjuncts])
        self.offsets = np.concatenate([b for _, b in spec.disjuncts])
        self.root = self.engine.bound(Question(self.lower, self.upper, self.rows, self.offsets))
        hidden = {node: (self.root.lower[node], self.root.upper[node]) for node in self.root.lower}
        self.bounds: CheckedBounds = adopt(self.checker, self.lower.astype(float), self.upper.astype(float), hidden)
        self.net: Reduced = reduce(self.checker, self.bounds, self.rows, self.offsets)
        ends = np.cumsum([len(b) for _, b in spec.disjuncts])
        spans = [(int(end - len(b)), int(end)) for end, (_, b) in zip(ends, spec.disjuncts, strict=True)]
        self.dual = Dual(self.net, spans)

    def random(self, rng: np.random.Generator, count: int) -> Batch:
        """Returns subdomains with random splits and dual variables."""
        batch = self.dual.start(rng.integers(0, len(self.dual.disjuncts), count))
        split = rng.random(batch.sign.shape) < 0.3
        batch.sign[split] = rng.choice(np.array([-1, 1], dtype=np.int8), int(split.sum()))
        batch.alpha[:] = rng.random(batch.alpha.shape)
        batch.beta[split] = rng.exponential(0.2, int(split.sum()))
        weights = np.where(self.dual.member(batch), rng.random(batch.weights.shape) + 0.01, 0)
        batch.weights[:] = weights / weights.sum(axis=1, keepdims=True)
        return batch


def search(
    network: Network, lower: Float64Array, upper: Float64Array, spec: OutputSpec, seconds: float = 20.0, **limits: Any
) -> tuple[Search, Outcome]:
    """Runs a search; compiling is no part of its time."""
    warm_up()
    run = Search(
        Engine(network, 1),
        Checker(network),
        lower.astype(np.float32),
        upper.astype(np.float32),
        spec,
        Limits(**limits),
        time.monotonic() + seconds,
    )
    return run, run.run()


def edge(network: Network, center: Any, spec: OutputSpec, largest: float = 0.6) -> float:
    """Returns about the radius at which the property ceases to hold, by the search itself."""
    low, high = 0.0, largest
    while high - low > 0.002:
        middle = (low + high) / 2
        holds = search(network, center - middle, center + middle, spec)[1].status is Status.UNSAT
        low, high = (middle, high) if holds else (low, middle)
    return low


def ask(
    path: Path, net: Drawn, center: Any, radius: float, timeout: float = 30.0, label: int | None = None
) -> Instance:
    """Returns the question whether a network's class, or a given one, stays the same around a point."""
    lower, upper = ((center + side * radius).astype(np.float32) for side in (-1, 1))
    label = int(net.evaluate(center)[0].argmax()) if label is None else label
    spec = OutputSpec.robustness(label, net.classes)
    return Instance(path, sha256_file(path), lower, upper, spec, timeout, "test", label, net.classes)


def bab(path: Path, **settings: Any) -> Verifier:
    """Returns the complete verifier with a network loaded."""
    verifier = VERIFIERS.get("sparse-bab")(settings)
    verifier.start()
    verifier.load(path)
    return verifier
