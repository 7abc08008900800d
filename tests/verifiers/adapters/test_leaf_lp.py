"""A domain with all phases fixed is decided as sampling it says, and what can't be decided stays open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prunecert.verifiers.adapters import leaf_lp
from prunecert.verifiers.adapters.leaf_lp import OpenLeafError, decide

INPUTS, HIDDEN = 2, 4


class BoundRelu:
    """A rectifier, which is told by its class's name, as upstream's is."""

    def __init__(self, name: str, before: Any) -> None:
        self.name, self.inputs = name, [before]


class Graph:
    """Two hidden layers, the second of which is added to the first: what `decide` uses of upstream's graph.

    Args:
        seed: Of the weights.
    """

    input_name, output_name = ("x",), ("y",)

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        sizes = ((HIDDEN, INPUTS), (HIDDEN, HIDDEN), (3, HIDDEN))
        self.weights = [torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes]
        self.biases = [0.3 * torch.randn(size[0], generator=generator, dtype=torch.float64) for size in sizes]
        entry = SimpleNamespace(name="x", inputs=[])
        first = SimpleNamespace(name="z1", inputs=[entry], forward=lambda x: self.layer(0, x))
        active = BoundRelu("r1", first)
        second = SimpleNamespace(name="z2", inputs=[active], forward=lambda x: self.layer(1, x))
        total = SimpleNamespace(name="s", inputs=[BoundRelu("r2", second), active], forward=lambda a, b: a + b)
        self.nodes = {"y": SimpleNamespace(name="y", inputs=[total], forward=lambda x: self.layer(2, x))}

    def __getitem__(self, name: str) -> Any:
        return self.nodes[name]

    def layer(self, index: int, x: Tensor) -> Tensor:
        return x @ self.weights[index].T + self.biases[index]

    def pre(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pre-activations of points."""
        first = self.layer(0, x)
        return first, self.layer(1, first.relu())

    def outputs(self, x: Tensor) -> Tensor:
        first, second = self.pre(x)
        return self.layer(2, first.relu() + second.relu())


class Leaf:
    """The linear piece in which the centre of [-1, 1]^2 lies, as a verifier's domain has it."""

    def __init__(self, seed: int) -> None:
        self.graph = Graph(seed)
        self.box = -torch.ones(1, INPUTS, dtype=torch.float64), torch.ones(1, INPUTS, dtype=torch.float64)
        center = torch.zeros(1, INPUTS, dtype=torch.float64)
        self.lower: dict[str, Tensor] = {}
        self.upper: dict[str, Tensor] = {}
        self.splits: dict[str, Any] = {}
        for name, values in zip(("z1", "z2"), self.graph.pre(center), strict=True):
            self.lower[name] = torch.where(values >= 0, 0.0, -50.0)
            self.upper[name] = torch.where(values >= 0, 50.0, 0.0)
            phases = torch.where(values[0] >= 0, 1, -1)
            self.splits[name] = (torch.arange(HIDDEN), phases)
        axis = torch.linspace(-1, 1, 201, dtype=torch.float64)
        grid = torch.cartesian_prod(axis, axis)
        inside = torch.ones(len(grid), dtype=torch.bool)
        for name, values in zip(("z1", "z2"), self.graph.pre(grid), strict=True):
            inside &= ((values >= 0) == (self.lower[name] == 0)).all(1)
        self.points = grid[inside]

    def decide(self, rows: Tensor, limits: Tensor) -> Any:
        return decide(self.graph, self.lower, self.upper, self.splits, self.box, rows, limits)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2])
def test_it_is_decided_as_points_of_it_say(seed: int, count: int) -> None:
    leaf = Leaf(seed)
    assert len(leaf.points) > 20
    rows = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = (leaf.graph.outputs(leaf.points) @ rows.T).max(1).values
    least, spread = values.min(), values.max() - values.min()
    # The grid's least is near the piece's, but not below it.
    reached = leaf.decide(rows, torch.full((count,), float(least) + 1e-4, dtype=torch.float64))
    assert reached is not None
    assert reached.shape == (1, INPUTS)
    assert bool((rows @ leaf.graph.outputs(reached)[0] <= least + 1e-4).all())
    for name, part in zip(("z1", "z2"), leaf.graph.pre(reached), strict=True):
        assert bool((part >= leaf.lower[name] - 2e-5).all())
        assert bool((part <= leaf.upper[name] + 2e-5).all())
    assert leaf.decide(rows, torch.full((count,), float(least - 0.3 * spread) - 0.1, dtype=torch.float64)) is None


def test_phases_that_exclude_one_another_hold_nothing() -> None:
    leaf = Leaf(0)
    for name in ("z1", "z2"):
        # Every neuron of the other phase: no point of the box has all of them.
        leaf.lower[name], leaf.upper[name] = -leaf.upper[name], -leaf.lower[name]
        leaf.splits[name] = (leaf.splits[name][0], -leaf.splits[name][1])
    first, _ = leaf.graph.pre(torch.rand(5000, INPUTS, dtype=torch.float64) * 2 - 1)
    opposite = (first >= 0) == (leaf.lower["z1"] == 0)
    assert not opposite.all(1).any()
    assert leaf.decide(torch.ones(1, 3, dtype=torch.float64), torch.full((1,), 1e6, dtype=torch.float64)) is None


def test_a_neuron_that_is_not_fixed_leaves_it_open() -> None:
    leaf, rows = Leaf(0), torch.ones(1, 3, dtype=torch.float64)
    limits = torch.zeros(1, dtype=torch.float64)
    leaf.lower["z2"][0, 1], leaf.upper["z2"][0, 1] = -1.0, 1.0
    with pytest.raises(OpenLeafError, match="a ReLU after z2 is not fixed"):
        leaf.decide(rows, limits)
    del leaf.lower["z2"]
    with pytest.raises(OpenLeafError, match="the bounds of z2 are missing"):
        leaf.decide(rows, limits)


@pytest.mark.parametrize("status", [1, 3, 4])
def test_a_programme_without_an_answer_proves_nothing(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    solution = SimpleNamespace(status=status, fun=1.0, message="no time", x=np.zeros(INPUTS + 1))
    monkeypatch.setattr(leaf_lp, "linprog", lambda *_, **__: solution)
    with pytest.raises(OpenLeafError, match=f"ended with status {status}"):
        Leaf(0).decide(torch.ones(1, 3, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("optimum", [0.5e-5, -1.0])
def test_an_optimum_that_the_network_does_not_confirm_is_open(optimum: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither within the slack of the threshold, nor far beyond it: the network has the last word on a point."""
    solution = SimpleNamespace(status=0, fun=optimum, message="", x=np.zeros(INPUTS + 1))
    monkeypatch.setattr(leaf_lp, "linprog", lambda *_, **__: solution)
    leaf, rows = Leaf(0), torch.ones(1, 3, dtype=torch.float64)
    output = leaf.graph.outputs(torch.zeros(1, INPUTS, dtype=torch.float64)).sum()
    with pytest.raises(OpenLeafError, match="lies within"):
        leaf.decide(rows, output.reshape(1) - 1e-6)
    assert leaf.decide(rows, output.reshape(1) + 1e-6) is not None
    solution.fun = 2 * leaf_lp.SLACK
    assert leaf.decide(rows, output.reshape(1) + 1e-6) is None
