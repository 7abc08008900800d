"""What post-training quantisation writes: int8 weights with every zero kept, static scales, real outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from prunecert.errors import UserError
from prunecert.models.export import export_model
from prunecert.models.masks import Masks
from prunecert.models.quantise import QuantisedInfo, quantise, spread


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, QuantisedInfo]:
    folder = tmp_path_factory.mktemp("int8")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 8), nn.ReLU(),
        nn.Linear(8, 3),
    ).eval()  # fmt: skip
    masks = Masks({name: torch.rand_like(item) < 0.4 for name, item in model.state_dict().items()
                   if name.endswith("weight") and item.ndim > 1})  # fmt: skip
    masks.apply_(model)
    plain = export_model(model, masks, {"network": "tiny"}, folder / "net.onnx", (1, 6, 6)).path
    images = np.random.default_rng(0).random((20, 1, 6, 6), dtype=np.float32)
    return plain, quantise(plain, folder / "net.int8.onnx", images)


def test_weights_are_int8_by_channel_and_activations_uint8(written: tuple[Path, QuantisedInfo]) -> None:
    _, info = written
    model = onnx.load(info.path)
    tensors = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    weights = [name for name in tensors if name.endswith("weight_quantized")]
    assert len(weights) == 3
    for name in weights:
        assert tensors[name].dtype == np.int8
        assert tensors[name.replace("_quantized", "_scale")].shape == tensors[name].shape[:1]
        assert not tensors[name.replace("_quantized", "_zero_point")].any()
    zeros = [node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {tensors[name].dtype for name in zeros} == {np.dtype(np.uint8)}
    assert model.graph.node[-1].op_type == "Gemm"
    assert {item.key for item in model.metadata_props} == {"network"}


def test_zeros_stay_zeros_and_bits_are_counted(written: tuple[Path, QuantisedInfo]) -> None:
    plain, info = written
    floats = {item.name: numpy_helper.to_array(item) for item in onnx.load(plain).graph.initializer}
    kept = sum(int(np.count_nonzero(array)) for name, array in floats.items() if name.endswith("_weight"))
    assert info.weights == 36 + 4 * 16 * 8 + 24
    assert 0 < info.kept <= kept
    assert info.compression == pytest.approx(4 * info.weights / info.kept)
    assert info.kilobytes == info.kept / 1000
    assert info.agreement > 0.8
    assert f"{info.kept} of {info.weights} weights kept" in info.describe()


def test_images_of_another_shape_are_refused_and_nothing_is_written(
    written: tuple[Path, QuantisedInfo], tmp_path: Path
) -> None:
    for shape in ((0, 1, 6, 6), (3, 1, 6, 5)):
        with pytest.raises(UserError, match="Calibration images of shape"):
            quantise(written[0], tmp_path / "x.onnx", np.zeros(shape, dtype=np.float32))
    assert not list(tmp_path.iterdir())


def test_calibration_images_are_spread_over_all() -> None:
    images = np.arange(1000, dtype=np.float32).reshape(1000, 1, 1, 1)
    assert spread(images, 3).reshape(-1).tolist() == [0.0, 499.0, 999.0]
    assert len(spread(images[:2], 5)) == 2
