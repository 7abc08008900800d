"""Open held-out images of a network, as benchmarks of single parts of the search ask about them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from prunecert.bench.engine.complete import BenchmarkRequest, open_images
from prunecert.verifiers.base import Instance
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.warmup import warm_up


class HeldOut(NamedTuple):
    """A network, and the images that it classifies correctly and CROWN leaves open, by number."""

    engine: Engine
    checker: Checker
    questions: dict[int, Instance]


def held_out(onnx: Path, images: int, seconds: float) -> HeldOut:
    """Returns the open ones of the first held-out images, and what bounds them in one thread.

    Args:
        onnx: The network.
        images: How many are looked at.
        seconds: Limit of a question.
    """
    request = BenchmarkRequest(onnx=(onnx,), images=images, split="val", timeout=seconds, threads=1)
    request.check()
    network = read_network(onnx)
    # Where kernels are not there yet that takes a minute, which a file that is no network isn't worth.
    warm_up()
    return HeldOut(Engine(network, 1), Checker(network), dict(open_images(onnx, request)))
