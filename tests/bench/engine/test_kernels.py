from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from prunecert.bench.engine import kernels
from prunecert.bench.engine.kernels import EPS, LAYERS, LirpaBounds, questions, random_network
from prunecert.errors import UserError
from prunecert.verifiers.sparse.onnx.reader import read_network


def weights(path: Path) -> dict[str, np.ndarray]:
    return {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_random_networks_have_the_named_layers_and_share_of_zeros(tmp_path: Path, sparsity: float) -> None:
    arrays = weights(random_network("cnn-small", sparsity, tmp_path / "net.onnx"))
    for number, layer in enumerate(LAYERS["cnn-small"]):
        weight = arrays[f"w{number}"]
        assert weight.shape == ((*layer[:2], layer[2], layer[2]) if len(layer) > 2 else layer)
        # Five standard deviations of a share.
        assert abs(np.mean(weight == 0) - sparsity) <= 5 * (sparsity * (1 - sparsity) / weight.size) ** 0.5
    onnx.checker.check_model(onnx.load(tmp_path / "net.onnx"))


def test_only_the_seed_decides_and_unscaled_biases_are_zero(tmp_path: Path) -> None:
    first, same, other = (
        weights(random_network("cnn-small", 0.5, tmp_path / f"{number}.onnx", seed, scaled=False))
        for number, seed in enumerate((0, 0, 1))
    )
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not np.array_equal(first["w0"], other["w0"])
    assert not np.any(first["b0"])


def test_questions_are_margins_of_the_predicted_class_over_clipped_boxes(tmp_path: Path) -> None:
    network = read_network(random_network("cnn-small", 0.9, tmp_path / "net.onnx"))
    drawn = questions(network, 2)
    assert len(drawn) == 2
    for question in drawn:
        assert question.matrix.shape == (9, 10)
        assert np.all(question.matrix.sum(axis=1) == 0)
        assert np.all((question.lower >= 0) & (question.upper <= 1))
        assert np.all(question.upper - question.lower <= 2 * EPS + 1e-6)
        middle = (question.lower + question.upper) / 2
        # Few pixels are within eps of 0 or 1, where the middle is no longer the image.
        assert np.mean(question.upper - question.lower > 2 * EPS - 1e-6) > 0.9
        assert np.all(question.matrix @ network.evaluate(middle[None])[0] > -1e-2)
    image = np.full((1, *network.input_shape), 0.5, np.float32)
    assert np.allclose(questions(network, 5, image)[0].lower, 0.5 - EPS)


def test_the_chunk_at_which_an_image_takes_least_time_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def bound(_: Any, batch: Sequence[int], method: str, chunk: int) -> None:
        # Ten seconds a call and one an image: the larger, the better.
        clock[0] += 10 + len(batch)

    monkeypatch.setattr(LirpaBounds, "bound", bound)
    library = LirpaBounds.__new__(LirpaBounds)
    batch: Any = list(range(30))
    assert library.best_chunk(batch, "crown", 1e9, lambda: clock[0]) == (25, 35 / 25)
    # Where there is no time for more than the first, it stays with that.
    assert library.best_chunk(batch, "crown", 1.0, lambda: clock[0]) == (1, 11.0)


def test_what_can_not_be_measured_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words, message in (
        (["--onnx", str(tmp_path / "none.onnx")], "none.onnx can't be read"),
        (["--networks", "cnn-smal"], "Did you mean 'cnn-small'"),
    ):
        monkeypatch.setattr("sys.argv", ["kernels", "bounds", *words])
        with pytest.raises(UserError, match=message):
            kernels.main()
