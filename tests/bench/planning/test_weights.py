from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from prunecert.bench.planning.weights import count_layers, totals
from prunecert.errors import UserError
from tests.bench.cardkit import CARD, network
from tests.bench.conftest import CELLS, Zoo


def test_masks_that_the_graph_multiplies_in_are_counted(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(CARD)
    model = onnx.load(network(tmp_path / "theirs.onnx", zeros=0))
    mask = np.ones((128, 10), dtype=np.float32)
    mask[:64] = 0
    model.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    model.graph.node.insert(0, helper.make_node("Mul", ["linear", "mask"], ["masked"]))
    model.graph.node[-1].input[1] = "masked"
    onnx.save(model, tmp_path / "theirs.onnx")
    assert totals(count_layers(tmp_path / "theirs.onnx")) == (96 + 1280, 96 + 640)


def test_weights_computed_from_constants_are_counted_and_others_refused(tmp_path: Path) -> None:
    network_ = onnx.load(network(tmp_path / "a.onnx"))
    graph = network_.graph
    graph.node.insert(0, helper.make_node("Relu", ["linear"], ["hidden"]))
    graph.node[-1].input[1] = "hidden"
    onnx.save(network_, tmp_path / "b.onnx")
    layer = count_layers(tmp_path / "b.onnx")[-1]
    assert 0 < layer.zeros < layer.weights
    graph.node[-1].input[1] = graph.node[1].output[0]
    onnx.save(network_, tmp_path / "b.onnx")
    with pytest.raises(UserError, match=r"weights of 'last' \(Gemm\) are not stored as a constant"):
        count_layers(tmp_path / "b.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_our_own_exports_are_counted_as_the_export_counts_them(zoo: Zoo, tmp_path: Path) -> None:
    from prunecert.models import NETWORKS
    from prunecert.models.export import count_zeros, export_model, export_onnx
    from prunecert.models.masks import Masks

    export = export_onnx(zoo.checkpoints / f"{CELLS[1]}.safetensors", tmp_path / "pruned.onnx")
    total, kept = totals(count_layers(export.path))
    assert (total - kept, total) == count_zeros(export.path)
    model = NETWORKS.get("wrn-28-4")()
    export_model(model, Masks.dense(model), {}, tmp_path / "wide.onnx")
    total, kept = totals(count_layers(tmp_path / "wide.onnx"))
    assert (total - kept, total) == count_zeros(tmp_path / "wide.onnx")
