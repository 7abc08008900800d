"""Tracing gives the nodes of a network, and names what it cannot."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.graph import graph_of, has_norms


class Functional(nn.Module):
    """A residual network written with functions in place of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, 3, 8, 8] to [N, 10]."""
        return self.fc(torch.flatten(F.relu(torch.add(self.conv(x), x)), 1))  # type: ignore[no-any-return]


class Branching(nn.Module):
    """What it computes depends on the values that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, 3] to [N, 2]."""
        return self.fc(x if x.sum() > 0 else -x)  # type: ignore[no-any-return]


def test_a_sequential_network_is_a_chain() -> None:
    nodes = graph_of(NETWORKS.get("cnn-small")()).nodes
    kinds = ["input", "affine", "relu", "affine", "relu", "flatten", "affine", "relu", "affine"]
    assert [node.kind for node in nodes] == kinds
    assert [node.inputs for node in nodes[1:]] == [(index,) for index in range(len(nodes) - 1)]
    assert [node.name for node in nodes[1:]] == [str(index) for index in range(8)]


def test_functions_and_layers_are_the_same_nodes() -> None:
    graph = graph_of(Functional())
    assert [node.kind for node in graph.nodes] == ["input", "affine", "add", "relu", "flatten", "affine"]
    assert graph.nodes[2].inputs == (1, 0)
    assert graph.readers == (2, 1, 1, 1, 1, 0)


@pytest.mark.parametrize("name", ["cnn5", "resnet-2b", "vgg-8"])
def test_every_batch_norm_of_our_networks_folds(name: str) -> None:
    model = NETWORKS.get(name)()
    graph = graph_of(model)
    assert has_norms(model)
    assert len(graph.folds) == sum(node.kind == "norm" for node in graph.nodes) > 0
    assert all(graph.nodes[index].kind == "affine" for index in graph.folded)


def test_a_graph_is_made_once_and_anew_when_layers_change() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2))
    assert graph_of(model) is graph_of(model)
    first = graph_of(model)
    model[2] = nn.Identity()
    assert [node.kind for node in graph_of(model).nodes] == ["input", "flatten", "affine", "affine"]
    assert graph_of(model) is not first


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Tanh(), r"'1' \(Tanh\)"),
        (nn.MaxPool2d(2), r"'1' \(MaxPool2d\)"),
        (nn.Dropout(), r"'1' \(Dropout\)"),
        (nn.Conv2d(3, 3, 3, padding="same"), r"'1' \(Conv2d\)"),
        (nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), r"'1' \(Conv2d\)"),
        (nn.AvgPool2d(2, ceil_mode=True), r"'1' \(AvgPool2d\)"),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), r"'1' \(AvgPool2d\)"),
        (nn.BatchNorm2d(3, affine=False), r"'1' \(BatchNorm2d\)"),
        (nn.BatchNorm2d(3, track_running_stats=False), r"'1' \(BatchNorm2d\)"),
        (nn.Flatten(2), r"'1' \(Flatten\)"),
    ],
)
def test_what_has_no_bounds_is_named(layer: nn.Module, name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), layer, nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(UserError, match=f"cannot bound the layer {name}; bounds take Conv2d.*train with natural"):
        graph_of(model)


def test_a_computation_that_depends_on_values_is_refused() -> None:
    with pytest.raises(UserError, match=r"The network Branching cannot be bounded: its computation depends"):
        graph_of(Branching())


def test_an_operation_is_named_too() -> None:
    class Product(Functional):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.flatten(self.conv(x) * x, 1))  # type: ignore[no-any-return]

    with pytest.raises(UserError, match=r"cannot bound the layer 'mul' \(mul\)"):
        graph_of(Product())


def test_a_constant_added_is_no_sum_of_branches() -> None:
    class Shifted(Functional):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.flatten(self.conv(x) + 1, 1))  # type: ignore[no-any-return]

    with pytest.raises(UserError, match=r"cannot bound the layer 'add'"):
        graph_of(Shifted())
