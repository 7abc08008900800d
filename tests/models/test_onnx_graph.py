"""Graphs that are written compute what the network does in PyTorch, in plain operators and always the same bytes."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.networks.grafted import GraftedReLU
from prunecert.models.networks.normalised import ResidualBlock
from prunecert.models.networks.wideresnet import PreactivationBlock
from prunecert.models.onnx_graph import INPUT, NORM_PREFIX, OUTPUT, GraphWriter
from tests.models.conftest import Averaging, normalised

SHAPE = (3, 8, 8)
T = TypeVar("T", bound=nn.Module)


def restless(model: T) -> T:
    """Gives batch norm statistics and factors of its own, and evaluates with them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


def grafted(shape: tuple[int, ...], slopes: tuple[int, ...] | None = None) -> GraftedReLU:
    relu = GraftedReLU(shape, slopes)
    with torch.no_grad():
        relu.grafted.copy_(torch.rand(shape) < 0.5)
        relu.slope.uniform_(-1, 1)
        relu.offset.uniform_(-1, 1)
    return relu


def networks() -> dict[str, nn.Sequential]:
    """All layers that are written, those that are folded and those that stand alone."""
    torch.manual_seed(5)
    flat = 6 * 4 * 4
    return {
        "all": normalised(3),
        "strides": nn.Sequential(
            nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), bias=False),
            nn.ReLU(),
            nn.Conv2d(4, 6, 1, groups=2),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 5, bias=False),
        ),
        "norms": nn.Sequential(
            nn.BatchNorm2d(3),
            nn.Conv2d(3, 6, 2, stride=2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(flat, 4),
            nn.BatchNorm1d(4),
        ),
        "blocks": nn.Sequential(
            ResidualBlock(3, 3, 1),
            ResidualBlock(3, 6, 2),
            PreactivationBlock(6, 6, 1),
            PreactivationBlock(6, 6, 2),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(6, 4),
        ),
        "pools": nn.Sequential(
            nn.Conv2d(3, 6, (3, 4), padding="same", dilation=(1, 3)),
            nn.ReLU(),
            nn.AvgPool2d((3, 2), stride=(2, 1), padding=(1, 0)),
            nn.Conv2d(6, 5, 2, padding="valid"),
            nn.AdaptiveAvgPool2d((1, 3)),
            nn.Flatten(),
            nn.Linear(15, 4),
        ),
        "grafted": nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, stride=2),
            grafted((6, 4, 4), (6, 1, 1)),
            nn.Flatten(),
            nn.Linear(flat, 7),
            grafted((7,)),
            nn.Linear(7, 4),
        ),
    }


def written(model: nn.Module) -> onnx.ModelProto:
    return GraphWriter(SHAPE).write(model, {})


def run(model: onnx.ModelProto, x: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {INPUT: image[None].numpy()})[0] for image in x])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", ["strides", "norms", "blocks", "pools", "grafted"])
def test_what_is_written_computes_the_network(name: str) -> None:
    model = restless(networks()[name])
    network = written(model)
    onnx.checker.check_model(network, full_check=True)
    x = torch.rand(8, *SHAPE)
    x[::2] = x[::2].round()
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(run(network, x), expected, atol=2e-5 * max(1.0, np.abs(expected).max()))
    assert [item.name for item in network.graph.input] == [INPUT]
    assert [item.name for item in network.graph.output] == [OUTPUT]
    assert network.graph.output[0].type.tensor_type.shape.dim[1].dim_value == expected.shape[1]


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_grafted_neurons_are_stably_active_rectifiers_over_all_images(seed: int) -> None:
    torch.manual_seed(seed)
    model = networks()["grafted"].eval()
    network = written(model)
    # Every rectifier's input, over images with corners among them: no grafted neuron's changes its sign.
    names = [node.input[0] for node in network.graph.node if node.op_type == "Relu"]
    network.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    images = torch.rand(24, *SHAPE)
    images[:16] = images[:16].round()
    values = [np.stack(v) for v in zip(*(session.run(names, {INPUT: x[None].numpy()}) for x in images), strict=True)]
    layers = [module for module in model if isinstance(module, GraftedReLU)]
    lines = dict(zip(names, values, strict=True))
    for index, layer in zip((1, 4), layers, strict=True):
        mask = layer.grafted.numpy()
        own = [lines[name] for name in names if name.startswith(f"{index}_")]
        assert own
        assert all(bool((np.all(part > 0, 0) | np.all(part < 0, 0))[0][mask].all()) for part in own)
        assert any(bool((part > 0)[:, 0][:, mask].all()) for part in own)


def test_equal_networks_are_equal_bytes() -> None:
    model = restless(networks()["norms"])
    one, two = (GraphWriter(SHAPE).write(model, metadata) for metadata in ({"b": "1", "a": "2"}, {"a": "2", "b": "1"}))
    assert one.SerializeToString() == two.SerializeToString()
    assert [item.key for item in one.metadata_props] == ["a", "b"]


def test_weights_keep_their_names_zeros_have_no_sign_and_norms_are_no_weights() -> None:
    model = restless(networks()["norms"])
    with torch.no_grad():
        model[1].weight[0, 0, 0, 0] = -0.0  # type: ignore[operator]
        model[2].weight.abs_()  # type: ignore[operator]
        model[1].weight[1, 0, 0, 0] = -1e-60  # type: ignore[operator]
    constants = {item.name: numpy_helper.to_array(item) for item in written(model).graph.initializer}
    assert [name for name in constants if name.endswith("_weight")] == ["1_weight", "5_weight"]
    assert {name for name in constants if name.startswith(NORM_PREFIX)} == {"norm_0_scale", "norm_0_shift"}
    assert constants["1_weight"][0, 0, 0, 0] == 0
    assert not np.signbit(constants["1_weight"][:2, 0, 0, 0][constants["1_weight"][:2, 0, 0, 0] == 0]).any()
    # Without batch norm behind it, a weight is the network's to the bit.
    plain = networks()["strides"]
    weights = {item.name: numpy_helper.to_array(item) for item in written(plain).graph.initializer}
    np.testing.assert_array_equal(weights["2_weight"], plain[2].weight.detach().numpy())  # type: ignore[operator]


class Written(nn.Module):
    """Batch norm folded and alone, a sum, a ReLU that runs twice, a mean: what no sequence can say; 3x8x8 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding="same", bias=False), nn.BatchNorm2d(6))
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(6, 6, 3, padding="same")
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, 3, 8, 8] to [N, 4]."""
        x = self.relu(self.stem(x))
        return self.fc(self.relu(self.norm(self.conv(x) + x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["mean", "adaptive", "windows"])
def test_averages_are_written_as_poolings(how: str) -> None:
    network = written(Averaging(how).eval())
    (pool,) = [node for node in network.graph.node if node.op_type == "AveragePool"]
    assert [list(item.ints) for item in pool.attribute if item.name == "kernel_shape"] == [[8, 8]]


def test_a_network_that_is_no_sequence_is_written_by_its_nodes() -> None:
    torch.manual_seed(1)
    for model in (Written(), nn.Sequential(nn.Conv2d(3, 3, 1), Written()), Averaging("mean")):
        restless(model)
        network = written(model)
        onnx.checker.check_model(network, full_check=True)
        x = torch.rand(4, *SHAPE)
        with torch.no_grad():
            np.testing.assert_allclose(run(network, x), model(x).numpy(), atol=1e-5)
    names = {item.name for item in written(Written().eval()).graph.initializer}
    assert {name for name in names if name.endswith("_weight")} == {"stem_0_weight", "conv_weight", "fc_weight"}
    assert {name for name in names if name.startswith(NORM_PREFIX)} == {"norm_norm_scale", "norm_norm_shift"}


def test_what_has_no_translation_is_named() -> None:
    with pytest.raises(UserError, match=r"The layer '1' \(Tanh\) has no ONNX translation"):
        written(nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(192, 2)))

    class Other(Written):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.tanh(self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]

    class Twice(Written):
        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.conv(self.relu(self.conv(self.stem(x)))).mean((2, 3)))  # type: ignore[no-any-return]

    with pytest.raises(UserError, match=r"not Other\. Training cannot bound the layer 'tanh'"):
        written(Other())
    with pytest.raises(UserError, match=r"'conv' \(Conv2d\) runs several times.* a layer of its own"):
        written(Twice())
    uneven = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(18, 5))
    with pytest.raises(UserError, match=r"'1' .AdaptiveAvgPool2d. is refused: it makes 3x3 of 8x8 places"):
        written(uneven)
