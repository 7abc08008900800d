"""What a search grew is gone when it has answered: nothing of it is in a circle that only the garbage collector frees.

A search's arrays are few and large, so that the collector sees no reason to run, and trees of many images would lie in
memory until another image's search is blamed for them.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from prunecert.hashing import sha256_file
from prunecert.onnx.merge import merge
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec, Status, Verifier
from prunecert.verifiers.sparse.bab.quadratic.attempt import SecondOrder
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.threads import together
from tests.soundness.networks import fully_connected
from tests.soundness.pairs import questions as pair_questions
from tests.soundness.test_quantised import fixed
from tests.verifiers import onnxnets
from tests.verifiers.sparse.quantised.networks import network
from tests.verifiers.sparse.searching import ask, draw, edge, search
from tests.verifiers.sparse.smooth import smoothnets


@contextmanager
def circles() -> Iterator[list[str]]:
    """Yields the classes of this package of which the block leaves circles, known when it has ended."""
    leftovers: list[str] = []
    gc.collect()
    gc.disable()
    try:
        yield leftovers
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        leftovers += {type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("prunecert")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@functools.cache
def radius_of_the_edge(kind: str, seed: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        net, read = draw(kind, seed, Path(folder))
        center = np.full(net.inputs, 0.5)
        return edge(read, center, OutputSpec.robustness(int(net.evaluate(center)[0].argmax()), net.classes))


def of_relus(folder: Path, factor: float = 0.97) -> tuple[Path, Instance]:
    net, _ = draw("conv", 0, folder)
    path = folder / "net.onnx"
    return path, ask(path, net, np.full(net.inputs, 0.5), factor * radius_of_the_edge("conv", 0))


def of_what_is_broken(folder: Path) -> tuple[Path, Instance]:
    return of_relus(folder, 1.05)


def of_rounded_values(folder: Path) -> tuple[Path, Instance]:
    path = folder / "int8.onnx"
    onnx.save(fixed(network("dense", 3)), path)
    lower = np.full((1, 4), 0.25, dtype=np.float32)
    return path, Instance(path, sha256_file(path), lower, lower + 0.5, OutputSpec.robustness(0, 3), 9.0, "q", 0, 3)


def of_smooth_functions(folder: Path) -> tuple[Path, Instance]:
    path, center = smoothnets.small(folder, 0), np.full(2, 0.2, np.float32)
    box = center - np.float32(0.3), center + np.float32(0.3)
    return path, Instance(path, sha256_file(path), *box, smoothnets.above(0, 0.0), 2.0, "smooth", None, 3)


def of_balls(folder: Path) -> tuple[Path, Instance]:
    path = onnxnets.convolutional(folder / "ball.onnx", seed=1)
    return path, replace(onnxnets.instance(path, 0.5, 1, norm="l2"), timeout=2.0)


def of_pairs(folder: Path) -> tuple[Path, Instance]:
    case = next(iter(pair_questions(1, ("fc",))))
    path = folder / "pair.onnx"
    onnx.save(merge(*case.files(folder)), path)
    return path, Instance(path, sha256_file(path), case.lower, case.upper, case.spec, 5.0, case.name, classes=6)


@pytest.mark.parametrize(
    ("name", "settings", "question"),
    [
        ("sparse-crown", {}, of_relus),
        ("sparse-alpha-crown", {}, of_relus),
        ("sparse-bab", {"split": "relu"}, of_relus),
        ("sparse-bab", {"split": "input"}, of_relus),
        ("sparse-bab", {}, of_what_is_broken),
        ("sparse-bab", {}, of_rounded_values),
        ("sparse-bab", {}, of_smooth_functions),
        ("sparse-bab", {}, of_balls),
        ("sparse-pair", {}, of_pairs),
    ],
)
def test_no_search_leaves_a_circle(
    name: str, settings: dict[str, Any], question: Callable[[Path], tuple[Path, Instance]], tmp_path: Path
) -> None:
    path, instance = question(tmp_path)
    subject: Verifier = VERIFIERS.get(name)(settings)
    subject.start()
    subject.load(path)
    subject.solve([instance])
    # What the first question made ready for all is there now, and what it proved for a certificate is let go.
    with circles() as leftovers:
        subject.solve([replace(instance, vnnlib=None)])
        subject.solve([replace(instance, vnnlib=None)])
    assert leftovers == []


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.2, 20.0])
@pytest.mark.parametrize("limits", [{}, {"second_order": True}, {"share_from": 1}])
@pytest.mark.parametrize(("kind", "seed"), [("conv", 0), ("skip", 2), ("conv-skip", 1)])
def test_no_tree_leaves_a_circle(kind: str, seed: int, limits: dict[str, Any], seconds: float, tmp_path: Path) -> None:
    net, read = draw(kind, seed, tmp_path)
    center = np.full(net.inputs, 0.5)
    low, high = (center + side * 0.99 * radius_of_the_edge(kind, seed) for side in (-1, 1))
    spec = OutputSpec.robustness(int(net.evaluate(center)[0].argmax()), net.classes)
    with circles() as leftovers:
        run, out = search(read, low, high, spec, seconds, split="relu", tighten_after=2, **limits)
        if seconds > 1:
            assert out.status is Status.UNSAT
            assert out.domains > 8
        del run, out
    assert leftovers == []


@pytest.mark.slow
def test_a_tree_that_waits_for_its_turn_when_the_time_is_over_leaves_no_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Second-order trees are largest where a search isn't over at its limit."""
    rng = np.random.default_rng(1)
    net = fully_connected("net", rng, [20, 60, 60, 3]).balance(rng)
    read = read_network(net.save(tmp_path / "net.onnx"))
    low, high = np.full(net.inputs, 0.3), np.full(net.inputs, 0.7)
    values = read.evaluate(np.float32(rng.uniform(low, high, (4000, net.inputs))))
    row = rng.normal(size=(1, 3))
    scores = values @ row.T
    # As far below all that was scores as that is wide, and above what bounds tell in a second.
    spec = OutputSpec(((row, np.array([2 * scores.min() - scores.max()])),))
    waiting: list[int] = []
    clear = SecondOrder.clear

    def note(self: SecondOrder) -> None:
        waiting.append(len(self._trees or ()))
        clear(self)

    monkeypatch.setattr(SecondOrder, "clear", note)
    # On a busy machine a tree is planted later, and after some seconds it has ended.
    for seconds in (0.4, 0.6, 0.9, 1.4, 2.0, 3.0):
        with circles() as leftovers:
            run, out = search(read, low, high, spec, seconds, split="relu", tighten_after=8, second_order=True)
            assert run.branched is None or not run.branched.second_order._trees
            del run, out
        assert leftovers == []
        if any(waiting):
            return
    pytest.fail("no tree was waiting at the end of any search")


def test_what_a_thread_raises_leaves_no_circle() -> None:
    class Large:
        """Held by the frame that the exception holds."""

    Large.__module__ = "prunecert.some"

    def fail() -> None:
        raise MemoryError

    def work() -> None:
        large = Large()
        together(2, [fail, lambda: None])
        del large

    with circles() as leftovers, contextlib.suppress(MemoryError):
        work()
    assert leftovers == []


def test_a_circle_would_be_found() -> None:
    class Part:
        whole: Part

    Part.__module__ = "prunecert.some"
    with circles() as leftovers:
        part = Part()
        part.whole = part
        del part
    assert leftovers == [Part.__qualname__]
