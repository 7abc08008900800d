from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunecert.bench.leaderboard.check import check_tree
from prunecert.bench.leaderboard.entry import load_entry
from prunecert.bench.planning.weights import count_layers, totals
from prunecert.errors import UserError
from tests.bench.conftest import CELLS, Zoo

Run = Callable[..., int]


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the made-up data for an official copy, so that a run on it counts as publishable."""
    import prunecert.bench.planning.select
    from prunecert.models.data import Dataset, load

    def publishable(*args: Any, **options: Any) -> Dataset:
        data = load(*args, **options)
        return Dataset(data.images, data.labels, data.indices, data.split, data.fingerprint, True, False, "CIFAR-10")

    monkeypatch.setattr(prunecert.bench.planning.select, "load", publishable)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_finished_run_is_submitted_and_valid(
    run: Run, zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: None
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path / "run", "--submit", "--by", "somebody") == 0
    good, problems = check_tree(tmp_path / "results")
    assert problems == []
    assert sorted(entry["cell"]["name"] for entry in good.values()) == sorted(CELLS)
    pruned = next(e for e in good.values() if e["cell"]["pruner"] == "lwm")
    assert pruned["by"] == "somebody"
    assert pruned["weights"]["compression"] == pytest.approx(10, rel=1e-3)
    assert [layer["kind"] for layer in pruned["weights"]["layers"]] == ["Conv", "Conv", "Gemm", "Gemm"]
    assert pruned["data"]["images"] == 40
    # No folder of this machine is published.
    text = (tmp_path / "results" / "leaderboard" / f"{pruned['name']}.json").read_text()
    assert str(tmp_path) not in text
    assert str(zoo.checkpoints.parent) not in text
    # Once more: the same run makes the same entries.
    before = {path.name for path in (tmp_path / "results" / "leaderboard").iterdir()}
    assert run(tmp_path / "run", "--submit", "--by", "somebody") == 0
    assert {path.name for path in (tmp_path / "results" / "leaderboard").iterdir()} == before


@pytest.mark.slow
def test_a_truncated_run_is_not_submitted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: None
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"nothing was written.*data\.images: 7 images; the suite asks for 40"):
        run(tmp_path / "run", "--images", "7", "--submit")
    assert not (tmp_path / "results" / "leaderboard").exists()


def network(path: Path, *, zeros: int = 5, classes: int = 10, size: int = 32) -> Path:
    """Writes a convolution, a scaling that is no layer, and a linear layer stored the other way round."""
    rng = np.random.default_rng(0)
    conv = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    scale = np.ones((2, 1, 1, 1), dtype=np.float32)
    flat = 2 * (size // 4) ** 2
    linear = rng.normal(size=(flat, classes)).astype(np.float32)
    linear.reshape(-1)[:zeros] = 0
    made = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["input", "conv"], ["a"], "first", kernel_shape=[4, 4], strides=[4, 4]),
                helper.make_node("Conv", ["a", "scale"], ["b"], "scaling", kernel_shape=[1, 1], group=2),
                helper.make_node("Relu", ["b"], ["c"]),
                helper.make_node("Flatten", ["c"], ["d"]),
                helper.make_node("Gemm", ["d", "linear"], ["logits"], "last"),
            ],
            "theirs",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, size, size])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes])],
            [numpy_helper.from_array(a, n) for a, n in ((conv, "conv"), (scale, "scale"), (linear, "linear"))],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
    )
    onnx.save(made, path)
    return path


CARD = """\
name: my-method
onnx: theirs.onnx
network: their-net
objective: sabr
pruner: their-pruner
eps: 2/255
title: A method <b>of mine</b>
url: https://example.org/paper
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_strangers_network_enters_by_its_file_and_a_card(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, official: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    network(tmp_path / "theirs.onnx", zeros=1000)
    (tmp_path / "card.yaml").write_text(CARD)
    assert run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"), "--submit", "--by", "a stranger") == 0
    (path,) = (tmp_path / "results" / "leaderboard").glob("*.json")
    assert path.name.startswith("my-method.")
    entry = load_entry(path)
    good, problems = check_tree(tmp_path / "results")
    assert problems == []
    assert len(good) == 1
    # 96 + 1,280 weights; the 1x1 depthwise convolution is a folded normalisation.
    assert (entry["weights"]["total"], entry["weights"]["nonzero"]) == (1376, 376)
    assert entry["cell"]["compression"] == float(f"{1376 / 376:.4g}")
    assert entry["cell"]["pruner"] == "their-pruner"
    assert entry["files"]["checkpoint_sha256"] is None
    assert entry["method"]["title"] == "A method <b>of mine</b>"
    assert [stage["verifier"] for stage in entry["protocol"]["stages"]] == ["fake-bound", "fake-complete"]


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


def test_a_network_of_another_shape_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(CARD)
    network(tmp_path / "theirs.onnx", size=28)
    with pytest.raises(UserError, match=r"its input has shape \[1, 3, 28, 28\]"):
        run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"))
    network(tmp_path / "theirs.onnx", classes=7)
    with pytest.raises(UserError, match="it has 7 outputs; allowed are 10"):
        run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"))


def test_masks_that_the_graph_multiplies_in_are_counted(tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(CARD)
    made = onnx.load(network(tmp_path / "theirs.onnx", zeros=0))
    mask = np.ones((128, 10), dtype=np.float32)
    mask[:64] = 0
    made.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    made.graph.node.insert(0, helper.make_node("Mul", ["linear", "mask"], ["masked"]))
    made.graph.node[-1].input[1] = "masked"
    onnx.save(made, tmp_path / "theirs.onnx")
    assert totals(count_layers(tmp_path / "theirs.onnx")) == (96 + 1280, 96 + 640)


def test_channels_last_are_refused_with_the_way_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(CARD)
    made = onnx.load(network(tmp_path / "theirs.onnx"))
    made.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 32, 32, 3]))
    made.graph.node.insert(0, helper.make_node("Transpose", ["input"], ["first"], perm=[0, 3, 1, 2]))
    made.graph.node[1].input[0] = "first"
    onnx.save(made, tmp_path / "theirs.onnx")
    with pytest.raises(UserError, match=r"channels last; .* `python -m prunecert\.onnx normalise"):
        run(tmp_path / "run", "--card", str(tmp_path / "card.yaml"))


def test_two_cards_of_one_name_are_refused(run: Run, tmp_path: Path) -> None:
    network(tmp_path / "theirs.onnx")
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(CARD)
    with pytest.raises(UserError, match="another card's name already"):
        run(tmp_path / "run", "--card", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))


def test_weights_computed_from_constants_are_counted_and_others_refused(tmp_path: Path) -> None:
    made = onnx.load(network(tmp_path / "a.onnx"))
    graph = made.graph
    graph.node.insert(0, helper.make_node("Relu", ["linear"], ["hidden"]))
    graph.node[-1].input[1] = "hidden"
    onnx.save(made, tmp_path / "b.onnx")
    layer = count_layers(tmp_path / "b.onnx")[-1]
    assert 0 < layer.zeros < layer.weights
    graph.node[-1].input[1] = graph.node[1].output[0]
    onnx.save(made, tmp_path / "b.onnx")
    with pytest.raises(UserError, match=r"weights of 'last' \(Gemm\) are not stored as a constant"):
        count_layers(tmp_path / "b.onnx")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_our_own_exports_are_counted_as_the_export_counts_them(zoo: Zoo, tmp_path: Path) -> None:
    from prunecert.models import NETWORKS
    from prunecert.models.export import count_zeros, export_model, export_onnx
    from prunecert.models.masks import Masks

    made = export_onnx(zoo.checkpoints / f"{CELLS[1]}.safetensors", tmp_path / "pruned.onnx")
    total, kept = totals(count_layers(made.path))
    assert (total - kept, total) == count_zeros(made.path)
    model = NETWORKS.get("wrn-28-4")()
    export_model(model, Masks.dense(model), {}, tmp_path / "wide.onnx")
    total, kept = totals(count_layers(tmp_path / "wide.onnx"))
    assert (total - kept, total) == count_zeros(tmp_path / "wide.onnx")
