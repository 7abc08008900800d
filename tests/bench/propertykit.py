"""Small networks and properties for bench.verify, and runs of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.soundness.networks import Network


def identity(name: str = "net", inputs: int = 2) -> Network:
    """y = x."""
    net = Network(name, (inputs,))
    net.gemm(0, np.eye(inputs), np.zeros(inputs))
    return net


def spec(*assertions: str, inputs: int = 2, outputs: int = 2) -> str:
    """Returns a VNN-LIB file of these assertions."""
    declared = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    declared += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    return "\n".join([*declared, *(f"(assert {a})" for a in assertions)])


BOX = ("(>= X_0 0)", "(<= X_0 0.5)", "(>= X_1 0.25)", "(<= X_1 1)")


HOLDS = spec(*BOX, "(>= Y_0 0.75)")


BREAKS = spec(*BOX, "(>= Y_0 0.5)")


def log(out: Path) -> list[dict[str, object]]:
    """Returns the rows that a run has written."""
    return [json.loads(line) for line in (out / "instances.main.jsonl").read_text().splitlines()]


def half(name: str = "net") -> Network:
    """y = relu(x) + relu(x), by four hidden units of which two are dead, and a fifth that is constant."""
    net = Network(name, (2,))
    first = np.array([[1, 0], [0, 1], [-1, 0], [0, 0], [0, 0]])
    hidden = net.relu(net.gemm(0, first, np.array([0.0, 0.0, -1.0, -1.0, 0.1])))
    net.gemm(hidden, np.array([[1.0, 0, 1, 1, 1], [0, 1, 1, 1, 1]]), np.full(2, -0.1))
    return net
