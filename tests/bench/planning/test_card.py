from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.count import count_layers, totals
from tests.bench.cardkit import CARD, Run, network
from tests.bench.conftest import CELLS, Zoo


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CARD + "compression: 10\n", "compression: the card says 10, the file has"),
        (CARD.replace("their-pruner", "dense"), "the card says 'dense', but the file's compression is"),
        (CARD + "dense_weights: 100\n", "dense_weights 100 is below the file's 1,376"),
        (CARD.replace("my-method", "My Method!"), "line 1, name: 'My Method!' is refused"),
        (CARD.replace("theirs.onnx", "gone.onnx"), "line 2, onnx: there is no file"),
        (CARD.replace("2/255", "300/255"), "line 6, eps: Radius '300/255' is refused"),
        (CARD.replace("https://", "javascript:"), "line 8, url"),
        (CARD.replace("objective: sabr", "objective: ' '"), "line 4, objective"),
        (CARD.replace("pruner:", "prunner:"), "the key 'pruner' is missing"),
        (CARD + "colour: red\n", "Unknown key 'colour'"),
        (CARD + "schema_version: 9\n", "9 is refused"),
    ],
)
def test_a_card_that_is_wrong_is_refused_by_line_and_key(run: Run, tmp_path: Path, text: str, message: str) -> None:
    network(tmp_path / "theirs.onnx", zeros=1000)
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"))
    assert message in str(caught.value)


@pytest.mark.slow
def test_a_network_of_another_shape_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(CARD)
    network(tmp_path / "theirs.onnx", size=28)
    with pytest.raises(UserError, match=r"its input has shape \[1, 3, 28, 28\]"):
        run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"))
    network(tmp_path / "theirs.onnx", classes=7)
    with pytest.raises(UserError, match="it has 7 outputs; allowed are 10"):
        run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"))


def test_channels_last_are_refused_with_the_way_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(CARD)
    model = onnx.load(network(tmp_path / "theirs.onnx"))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 32, 32, 3]))
    model.graph.node.insert(0, helper.make_node("Transpose", ["input"], ["first"], perm=[0, 3, 1, 2]))
    model.graph.node[1].input[0] = "first"
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(UserError, match=r"channels last; .* `python -m prunecert\.onnx normalise"):
        run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"))


def test_two_cards_of_one_name_are_refused(run: Run, tmp_path: Path) -> None:
    network(tmp_path / "theirs.onnx")
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(CARD)
    with pytest.raises(UserError, match="another card's name already"):
        run(tmp_path / "run", "--card", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))


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
