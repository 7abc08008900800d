"""Warms up, asks questions of all kinds, and prints which kernels only these have called for.

    python -m tests.verifiers.sparse.late_kernels FOLDER

Networks are written to the folder.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from prunecert.models.checkpoint import ZOO
from prunecert.models.export import export_onnx
from prunecert.verifiers import sparse
from prunecert.verifiers.base import OutputSpec
from prunecert.verifiers.sparse.balls.ranges import ball_of, bound_disjuncts
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import METHODS, Engine, Question
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.warmup import warm_up
from tests.verifiers.sparse.searching import search
from tests.verifiers.sparse.test_network import residual

CELLS = ("cnn-small_mtl-ibp_eps2_lwm_x10_s0", "cnn-small_ibp_eps2_dense_x1_s0")
LIMITS: tuple[dict[str, Any], ...] = (
    {"split": "relu"},
    {"split": "input"},
    {"split": "relu", "tighten_after": 1, "share_from": 0.0},
)


def signatures() -> dict[tuple[str, str], int]:
    """Returns for each kernel of the engine how many signatures of it this process has."""
    for module in pkgutil.walk_packages(sparse.__path__, f"{sparse.__name__}."):
        importlib.import_module(module.name)
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(sparse.__name__)]
    kernels = [value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)]
    return {(kernel.py_func.__module__, kernel.py_func.__name__): len(kernel.signatures) for kernel in kernels}


def networks(folder: Path) -> Iterator[Network]:
    """Yields a small residual network, and shipped ones, which have blocks."""
    yield residual(0)
    for name in CELLS:
        export_onnx(ZOO / f"{name}.safetensors", folder / f"{name}.onnx")
        yield read_network(folder / f"{name}.onnx")


def ask(network: Network, rng: np.random.Generator) -> int:
    """Asks about boxes and balls from a point to half of everything; returns how many searches branched."""
    engine, checker, size = Engine(network, 1), Checker(network), network.nodes[0].size
    center = np.full(size, 0.5) + 0.2 * rng.standard_normal(size)
    spec = OutputSpec.robustness(int(network.evaluate(center[None])[0].argmax()), network.nodes[-1].size)
    rows = np.concatenate([a for a, _ in spec.disjuncts])

    def question(radius: float) -> Question:
        low, high = (np.clip(center + sign * radius, 0, 1) for sign in (-1, 1))
        return Question(low, high, rows, np.zeros(len(rows)))

    radii = [0.0, 1e-4]
    while radii[-1] < 0.5 and engine.bound(question(radii[-1])).rows.min() > 0:
        radii.append(1.3 * radii[-1])
    branched = 0
    # The last one is the first that CROWN leaves open.
    for radius in (0.0, *radii[-2:], 1.1 * radii[-1], 1.3 * radii[-1], 0.5):
        box = question(radius)
        low, high = box.lower.astype(np.float64), box.upper.astype(np.float64)
        for method in METHODS:
            engine.bound(box, method)
        engine.evaluate(center[None])
        for limits in LIMITS:
            run, _ = search(network, low, high, spec, 2.0, **limits)
            branched += run.branched is not None
        bound_disjuncts(checker, ball_of(center, max(radius, 1e-3), low, high), spec)
    return branched


def main(folder: str) -> None:
    """Prints how many searches branched, and a line for each kernel that came late."""
    warm_up()
    before = signatures()
    rng = np.random.default_rng(0)
    print("branched", sum(ask(network, rng) for network in networks(Path(folder))))
    for kernel, count in signatures().items():
        if count != before[kernel]:
            print("late", *kernel)


if __name__ == "__main__":
    main(sys.argv[1])
