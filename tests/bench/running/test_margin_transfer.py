"""Margins that are carried over hold of the smaller network itself; what is no number carries nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunecert.bench.running.margin_transfer import Transfer, carries
from prunecert.hashing import sha256_file
from prunecert.verifiers.base import Instance, OutputSpec
from prunecert.verifiers.sparse.onnx.reader import read_network
from tests.soundness.networks import Network
from tests.soundness.pairs import twin
from tests.soundness.questions import FAMILIES

EPS = 0.02


@pytest.fixture(scope="module", name="pair")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Network]:
    """Returns the files of a network and of a lightly pruned one, and this."""
    folder, rng = tmp_path_factory.mktemp("transfer"), np.random.default_rng(5)
    dense = FAMILIES["conv"]("dense", rng).balance(rng)
    light = twin(dense, rng, 0.1, 0.01)
    return dense.save(folder / "dense.onnx"), light.save(folder / "light.onnx"), light


def question(path: Path, image: np.ndarray, label: int, above: float = 0.0) -> Instance:
    """Returns whether the label stays ahead over a box round an image; its upper end may be moved."""
    lower = np.clip(image - EPS, 0, 1).astype(np.float32)
    upper = (np.clip(image + EPS, 0, 1) + above).astype(np.float32)
    spec = OutputSpec.robustness(label, 4)
    return Instance(path, sha256_file(path), lower, upper, spec, 1.0, label=label, classes=4)


def test_bounds_of_margins_hold(pair: tuple[Path, Path, Network]) -> None:
    """Against the pruned network itself, at points of the box; boxes are not mixed up."""
    dense, light, net = pair
    transfer, rng = Transfer(read_network(dense)), np.random.default_rng(1)
    transfer.add("light", read_network(light))
    images = rng.random((2, 1, 1, 4, 4)).astype(np.float32)
    for number in (0, 1, 0):
        image = images[number]
        label = int(net.evaluate(image.reshape(1, -1))[0].argmax())
        local = question(light, image, label)
        bounds = transfer.bounds("light", local)
        points = rng.uniform(local.lower.reshape(-1), local.upper.reshape(-1), (500, 16))
        margins = [net.evaluate(points) @ matrix[0] for matrix, _ in local.spec.disjuncts]
        assert all(bound <= margin.min() for bound, margin in zip(bounds, margins, strict=True))
        assert min(transfer.bounds("light", question(light, image, label, above=0.1))) < min(bounds)


@pytest.mark.parametrize(
    ("bounds", "proved"), [((1e9, 1e9, 1e9), True), ((1e9, np.nan, 1e9), False), ((1e9, 0.0, 1e9), False)]
)
def test_all_bounds_must_be_above_0(bounds: tuple[float, ...], proved: bool, pair: tuple[Path, Path, Network]) -> None:
    image = np.full((1, 1, 4, 4), 0.5, dtype=np.float32)
    label = int(pair[2].evaluate(image.reshape(1, -1))[0].argmax())
    assert carries(bounds, question(pair[1], image, label)) == proved
