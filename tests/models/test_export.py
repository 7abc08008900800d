"""Exports are what the contract says: plain operators, exact zeros, the same logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.models import NETWORKS, PRUNERS
from prunecert.models.checkpoint import save
from prunecert.models.export import OPERATORS, count_zeros, export_model, export_onnx
from prunecert.models.masks import Masks
from prunecert.models.networks.wideresnet import PreactivationBlock
from tests.models.test_checkpoint import card


def restless(model: nn.Module) -> nn.Module:
    """Gives batch norm other statistics than 0 and 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("network", list(NETWORKS))
def test_every_network_exports(network: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = restless(NETWORKS.get(network)())
    masks = PRUNERS.get("lwm")(model, 10)
    masks.apply_(model)
    info = export_model(model, masks, {"mask_sha256": masks.sha256()}, tmp_path / "a.onnx")
    network = onnx.load(info.path)
    assert {node.op_type for node in network.graph.node} <= OPERATORS
    assert network.ir_version <= 8
    assert 13 <= network.opset_import[0].version <= 17
    assert {p.key: p.value for p in network.metadata_props} == {"mask_sha256": masks.sha256()}
    assert info.sparsity == pytest.approx(masks.sparsity)
    assert info.sha256 == sha256_file(info.path)
    assert all(numpy_helper.to_array(t).dtype == np.float32 for t in network.graph.initializer)


@pytest.mark.slow
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), ratio=st.floats(1, 50), stride=st.sampled_from([1, 2]))
def test_import_of_an_export_is_the_network(seed: int, ratio: float, stride: int, tmp_path: Path) -> None:
    torch.manual_seed(seed)
    model = restless(
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False),
            PreactivationBlock(4, 6 if stride == 2 else 4, stride),
            nn.BatchNorm2d(6 if stride == 2 else 4),
            nn.ReLU(),
            nn.AvgPool2d(4),
            nn.Flatten(),
            nn.Linear((6 if stride == 2 else 4) * (32 // stride // 4) ** 2, 10),
        )
    )
    masks = PRUNERS.get("lwm")(model, ratio)
    masks.apply_(model)
    info = export_model(model, masks, {}, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(str(info.path), providers=["CPUExecutionProvider"])
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert np.allclose(session.run(None, {"input": x.numpy()})[0], model(x).numpy(), atol=1e-4)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(info.path).graph.initializer}
    # The first convolution has no norm behind it, so its weights are bit for bit the network's.
    assert np.array_equal(weights["0_weight"], model.get_parameter("0.weight").detach().numpy())


def test_export_is_deterministic(tmp_path: Path) -> None:
    model = NETWORKS.get("cnn-small")()
    first, second = (
        export_model(model, Masks.dense(model), {"b": "1", "a": "2"}, tmp_path / name) for name in ("a.onnx", "b.onnx")
    )
    assert first.sha256 == second.sha256


def test_checkpoints_export_with_their_provenance(tmp_path: Path) -> None:
    model = NETWORKS.get("cnn-small")()
    masks = PRUNERS.get("lwm")(model, 20)
    masks.apply_(model)
    written = save(tmp_path, model, masks, **card(compression=20.0))
    info = export_onnx(tmp_path / "cell.safetensors", tmp_path / "sub" / "cell.onnx")
    metadata = {p.key: p.value for p in onnx.load(info.path).metadata_props}
    assert metadata["checkpoint_sha256"] == written.sha256
    assert metadata["mask_sha256"] == masks.sha256()
    assert metadata["objective"] == "ibp"
    assert float(metadata["sparsity"]) == pytest.approx(info.sparsity)
    zeros, total = count_zeros(info.path)
    assert (zeros, total) == (masks.total - masks.kept, masks.total)


def test_a_network_that_breaks_its_masks_is_refused(tmp_path: Path) -> None:
    model = NETWORKS.get("cnn-small")()
    with pytest.raises(UserError, match="pruned weight is not zero"):
        export_model(model, PRUNERS.get("lwm")(model, 10), {}, tmp_path / "a.onnx")


def test_unknown_layers_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10), nn.Sigmoid())
    with pytest.raises(UserError, match=r"'2' \(Sigmoid\) has no ONNX translation"):
        export_model(model, Masks.dense(model), {}, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_wrong_logits_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = NETWORKS.get("cnn-small")()
    from prunecert.models import onnx_graph

    plain = onnx_graph.GraphWriter._weight

    def off(self: onnx_graph.GraphWriter, name: str, values: npt.NDArray[np.float64]) -> str:
        return plain(self, name, values + 0.1 if name == "7_bias" else values)

    monkeypatch.setattr(onnx_graph.GraphWriter, "_weight", off)
    with pytest.raises(ValueError, match="logits differ"):
        export_model(model, Masks.dense(model), {}, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
