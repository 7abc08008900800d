"""A small zoo with a suite of its own: three untrained `cnn-small` cells, a made-up CIFAR-10, fake verifiers."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from prunecert.verifiers import VERIFIERS
from tests import inprocess
from tests.bench import fakes
from tests.bench.cardkit import UNTRAINED

if TYPE_CHECKING:
    from prunecert.bench.planning.exports import Export

SUITE = """\
name: tiny
description: Untrained networks for the harness's own tests
cells:
  - networks: [cnn-small]
    objectives: [ibp]
    eps: [2/255]
    pruners: [lwm]
    compression: [1, 10, 20]
verify:
  images: 40
  cascade: [fake-bound, fake-complete]
  cross_check: [fake-bound]
  timeouts: {fake-bound: 5, fake-complete: 5,fake-liar: 5,fake-finder: 5,fake-missing: 5,ibp: 30,pgd: 30,crown-ibp: 30}
profiles:
  half: {images: 20}
  board: {images: 60}
"""
CELLS = ("cnn-small_ibp_eps2_dense_x1_s0", "cnn-small_ibp_eps2_lwm_x10_s0")
#: The folders whose tests look at drawings.
DRAWING = ("report", "site")


@pytest.fixture(scope="session", autouse=True)
def registered() -> None:
    """Registers the fake verifiers for the session."""
    register()


def register() -> None:
    """Makes the fake verifiers known by their names."""
    fakes.trust_fakes()
    for adapter in (fakes.FakeBound, fakes.FakeComplete, fakes.FakeLiar, fakes.FakeFinder, fakes.FakeMissing):
        VERIFIERS.register(adapter.name, f"tests.bench.fakes:{adapter.__name__}")


@contextmanager
def without_drawing() -> Iterator[None]:
    """Has figures put together but not drawn: their files are empty pictures."""
    from matplotlib.figure import Figure

    def save(figure: Figure, place: Any, **_: object) -> None:
        picture = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'
        if isinstance(place, Path):
            place.write_text(picture)
        else:
            place.write(picture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture(autouse=True)
def figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Spares runs the drawing of their figures, nearly half of the time that they take here.

    That figures can be drawn and show what they should is for tests/bench/report; that runs draw them, for tests marked
    ``draws``.
    """
    if request.node.get_closest_marker("draws") or request.path.parent.name in DRAWING:
        yield
        return
    with without_drawing():
        yield


@pytest.fixture(autouse=True)
def asked_here(request: pytest.FixtureRequest) -> Iterator[None]:
    """Has verifiers asked in this process, where they start at once, but for tests marked ``processes``."""
    if request.node.get_closest_marker("processes"):
        yield
        return
    with inprocess.verifiers():
        yield


@dataclass(frozen=True)
class Zoo:
    """Folders of the made-up data and checkpoints, and the suite file."""

    checkpoints: Path
    data: Path
    suite: Path
    exports: Path

    def arguments(self, out: Path, *more: str) -> list[str]:
        """Returns the arguments of a run on it."""
        paths = {"--suite": self.suite, "--checkpoints": self.checkpoints, "--exports": self.exports}
        paths |= {"--data-root": self.data, "--out": out}
        return [word for key, value in paths.items() for word in (key, str(value))] + list(more)


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    """Returns a zoo in which two of the suite's three cells have checkpoints."""
    import torch

    from prunecert.models import NETWORKS, PRUNERS
    from prunecert.models.checkpoint import save
    from prunecert.models.masks import Masks

    folder = tmp_path_factory.mktemp("zoo")
    torch.manual_seed(0)
    model = NETWORKS.get("cnn-small")().eval()
    images = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), dtype=np.uint8)
    first = torch.from_numpy(images[:60].transpose(0, 3, 1, 2).astype(np.float32) / 255)
    with torch.no_grad():
        guesses = model(first).argmax(1).numpy()
    left = np.repeat(np.arange(10), 1000 - np.bincount(guesses, minlength=10))
    labels = np.concatenate([guesses, left]).tolist()
    (folder / "cifar-10-batches-py").mkdir()
    with (folder / "cifar-10-batches-py" / "test_batch").open("wb") as stream:
        pickle.dump({"data": images.transpose(0, 3, 1, 2).reshape(10_000, -1), "labels": labels}, stream)
    card: dict[str, Any] = {
        **UNTRAINED,
        "command": "python -m bench.train --suite tiny.yaml",
    }
    checkpoints = folder / "checkpoints"
    save(checkpoints, model, Masks.dense(model), name=CELLS[0], pruner="dense", compression=1.0, **card)
    masks = PRUNERS.get("lwm")(model, 10.0)
    masks.apply_(model)
    noted = {"rounds": [{"kept": 21476, "alone": [0.5]}]}
    save(checkpoints, model, masks, name=CELLS[1], pruner="lwm", compression=10.0, **card, notes=noted)
    suite = folder / "tiny.yaml"
    suite.write_text(SUITE)
    return Zoo(checkpoints, folder, suite, folder / "exports")


@pytest.fixture
def run(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Returns a function that runs `bench.run` in this process: run(out, *options) -> exit code."""
    import signal

    from prunecert.bench.run import main

    # The command takes SIGTERM for Ctrl-C; pytest must not keep that.
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def call(out: Path, *more: str) -> int:
        return main(zoo.arguments(out, "--workers", "1", *more))

    return call


@pytest.fixture(scope="session")
def finished_run(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a finished run of two cells on twelve images, which no test may change."""
    from prunecert.bench.run import main

    out = tmp_path_factory.mktemp("finished") / "run"
    with without_drawing(), inprocess.verifiers():
        assert main(zoo.arguments(out, "--images", "12", "--workers", "1")) == 0
    return out


@pytest.fixture(scope="session")
def proved_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a finished run with certificates, which no test may change; its suite lies beside it."""
    from tests.bench import proofkit

    folder = tmp_path_factory.mktemp("proved")
    suite = proofkit.write(folder)
    with without_drawing(), inprocess.verifiers():
        assert proofkit.run(suite, folder / "run", "--certificates").exit_code == 0
    return folder / "run"


@pytest.fixture(scope="session")
def masked(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Returns the tenfold pruned network of the zoo, some of whose units are made dead."""
    import onnx
    from onnx import numpy_helper

    from prunecert.bench.planning.exports import export_cell
    from prunecert.hashing import sha256_file

    folder = tmp_path_factory.mktemp("masked")
    whole = export_cell(zoo.checkpoints / f"{CELLS[1]}.safetensors", folder)
    model = onnx.load(whole.path)
    for item in model.graph.initializer:
        if item.name in ("0_weight", "0_bias", "5_weight"):
            values = numpy_helper.to_array(item).copy()
            values[:3] = -1 if item.name == "0_bias" else 0
            item.CopyFrom(numpy_helper.from_array(values, item.name))
    onnx.save(model, whole.path)
    return replace(whole, sha256=sha256_file(whole.path))
