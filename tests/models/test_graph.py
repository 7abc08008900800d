"""Tracing gives the nodes of a network, and names what it cannot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunecert.errors import UserError
from prunecert.models import NETWORKS
from prunecert.models.graph import PoolWindows, graph_of, has_norms, padding_of, refuse_uneven, windows_of
from tests.models.conftest import Averaging


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
        (
            nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"),
            r"'1' \(Conv2d\), whose padding_mode is 'circular' and not 'zeros'",
        ),
        (
            nn.Conv2d(3, 3, 3, padding="same", padding_mode="reflect"),
            r"'1' \(Conv2d\), whose padding_mode is 'reflect' and not 'zeros'",
        ),
        (
            nn.AvgPool2d(2, ceil_mode=True),
            r"'1' \(AvgPool2d\), whose windows are not all averages alike \(ceil_mode.*\)",
        ),
        (nn.AvgPool2d(2, padding=1, count_include_pad=False), r"'1' \(AvgPool2d\), whose windows.*\)"),
        (nn.BatchNorm2d(3, affine=False), r"'1' \(BatchNorm2d\), which has no running statistics or no factors"),
        (nn.BatchNorm2d(3, track_running_stats=False), r"'1' \(BatchNorm2d\), which has no running statistics.*"),
        (nn.Flatten(2), r"'1' \(Flatten\), which does not flatten all axes but the first"),
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


@pytest.mark.parametrize("how", [how for how in Averaging.HOWS if how != "layer"])
def test_averages_over_all_places_are_a_pooling_and_a_flattening(how: str) -> None:
    nodes = graph_of(Averaging(how)).nodes
    assert [node.kind for node in nodes] == ["input", "affine", "relu", "pool", "flatten", "affine"]
    assert [node.inputs for node in nodes[1:]] == [(index,) for index in range(5)]


@pytest.mark.parametrize(
    ("what", "layer"),
    [
        (lambda x: x.mean(1), "mean"),
        (lambda x: x.mean((1, 2)), "mean"),
        (lambda x: x.mean(), "mean"),
        (lambda x: torch.mean(x, (2, 3), dtype=torch.float64), "mean"),
        (lambda x: x.sum((2, 3)), "sum"),
    ],
)
def test_other_means_are_refused(what: Callable[[Tensor], Tensor], layer: str) -> None:
    class Other(Functional):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(what(self.conv(x)))  # type: ignore[no-any-return]

    with pytest.raises(UserError, match=rf"cannot bound the layer '{layer}\w*' \({layer}\)"):
        graph_of(Other())


def test_windows_and_padding_by_hand() -> None:
    assert windows_of(nn.AdaptiveAvgPool2d(1), (8, 6)) == PoolWindows((8, 6), (8, 6))
    assert windows_of(nn.AdaptiveAvgPool2d((2, 3)), (8, 6)) == PoolWindows((4, 2), (4, 2))
    assert windows_of(nn.AvgPool2d(3, (2, 1), (1, 0)), (8, 6)) == PoolWindows((3, 3), (2, 1), (1, 0))
    assert padding_of(nn.Conv2d(1, 1, 4, padding="same", dilation=3)) == ((4, 4), (5, 5))
    assert padding_of(nn.Conv2d(1, 1, 4, padding="valid")) == ((0, 0), (0, 0))
    assert padding_of(nn.Conv2d(1, 1, 4, padding=(1, 2))) == ((1, 2), (1, 2))


def test_windows_of_different_sizes_are_refused_by_the_images_shape() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2)
    ).train()
    refuse_uneven(model, (3, 8, 8))
    with pytest.raises(UserError, match=r"'3' \(AdaptiveAvgPool2d\) is refused: it makes 3x3 of 5x6 places.* e\.g\. 1"):
        refuse_uneven(model, (3, 7, 8))
    assert model.get_buffer("1.num_batches_tracked").item() == 0
