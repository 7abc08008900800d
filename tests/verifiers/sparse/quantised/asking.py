"""Questions to small quantised networks, as the search has them at the root."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.bab.prover import Sharpen, sharpened
from prunecert.verifiers.sparse.quantised.question import quantised
from tests.verifiers.sparse.quantised.networks import FloatArray, Kind, network, run
from tests.verifiers.sparse.searching import Prepared


@dataclass(frozen=True, eq=False)
class Asked:
    """A question to a quantised network.

    Args:
        prepared: As the search has it, with narrowed bounds.
        sharpen: What narrows them.
        outputs: What onnxruntime computes at points of the box, in either way, [points, 3].
    """

    prepared: Prepared
    sharpen: Sharpen
    outputs: FloatArray


def ask(kind: Kind, seed: int, radius: float = 0.01) -> Asked:
    """Draws a question."""
    model = network(kind, seed)
    net, rng = quantised(model, "net"), np.random.default_rng(seed)
    shape = net.intervals.steps[0].shape[1:]
    center = rng.random(shape, dtype=np.float32)
    low, high = center - np.float32(radius), center + np.float32(radius)
    boxed = net.box(low, high)
    question = Prepared(net.network, boxed.lower, boxed.upper, OutputSpec.robustness(0, 3))
    sharpen = functools.partial(net.sharpen, boxed.intervals)
    sharpened(question.checker, question.bounds, sharpen)
    x = np.clip(low + rng.random((500, *shape), dtype=np.float32) * (high - low), low, high)
    x[::2] = np.where(rng.random(x[::2].shape) < 0.5, low, high)
    return Asked(question, sharpen, np.concatenate([run(model, x), run(model, x, fused=True)]))
