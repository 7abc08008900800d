"""Both passes over networks: what they bound holds, and threads that share the work change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.sparse.crown import passes
from prunecert.verifiers.sparse.crown.passes import Pass, RowPass, UnitPass
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.threads import together
from tests.verifiers import onnxnets

Kind = type[RowPass] | type[UnitPass]
PASSES: list[Kind] = [RowPass, UnitPass]
MAKERS: dict[str, Callable[[Path], Path]] = {
    "connected": onnxnets.connected,
    "residual": onnxnets.residual,
    "convolutional": onnxnets.convolutional,
}


def driver(kind: Kind, network: Network, threads: int) -> Pass:
    def each(work: Callable[[int], None]) -> None:
        together(threads, [lambda slot=slot: work(slot) for slot in range(threads)])  # type: ignore[misc]

    return kind(network, threads, each)


def question(network: Network, eps: float) -> passes.QuestionArrays:
    rng = np.random.default_rng(0)
    image, outputs = rng.random(network.nodes[0].size), network.nodes[-1].size
    low, high = np.clip(image - eps, 0, 1), np.clip(image + eps, 0, 1)
    return low, high, rng.standard_normal((4, outputs)), rng.standard_normal(4)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", PASSES)
def test_rows_and_hidden_values_are_within_their_bounds(kind: Kind, name: str, tmp_path: Path) -> None:
    network = read_network(MAKERS[name](tmp_path / "net.onnx"))
    low, high, matrix, offsets = question(network, 0.05)
    run = driver(kind, network, 1)
    rows, count = run.bound(0, (low, high, matrix, offsets), True, True, True, False)
    share = np.random.default_rng(1).random((300, len(low)))
    share[::2] = np.round(share[::2])
    values = network.forward(low + share * (high - low))
    assert np.all((values[-1] @ matrix.T - offsets).min(axis=0) >= rows)
    free = 0
    for node in network.activated():
        lower, upper = run.hidden(0, node)
        assert np.all(values[node] >= lower - 1e-12)
        assert np.all(values[node] <= upper + 1e-12)
        free += int(((lower < 0) & (upper > 0)).sum())
    assert count == free > 0
    assert run.multiplications() > 0


@pytest.mark.parametrize("name", MAKERS)
def test_both_give_the_same_bounds_but_for_rounding(name: str, tmp_path: Path) -> None:
    network = read_network(MAKERS[name](tmp_path / "net.onnx"))
    query = question(network, 0.05)
    rows, units = (driver(kind, network, 1).bound(0, query, True, True, True, False)[0] for kind in PASSES)
    np.testing.assert_allclose(rows, units, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("kind", PASSES)
def test_threads_that_share_an_image_bound_it_alike(
    kind: Kind, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "_MOST_COLUMNS", 0)
    monkeypatch.setattr(passes, "_MOST_PRODUCTS", 0)
    network = read_network(MAKERS[name](tmp_path / "net.onnx"))
    query = question(network, 0.2)
    alone = driver(kind, network, 1)
    rows, count = alone.bound(0, query, True, True, True, False)
    shared = driver(kind, network, 3)
    again, same = shared.bound(0, query, True, True, True, True)
    np.testing.assert_array_equal(rows, again)
    assert count == same
    for node in network.activated():
        for one, other in zip(alone.hidden(0, node), shared.hidden(0, node), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", PASSES)
def test_threads_that_help_have_no_image_of_their_own(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And get one where they are asked for images of their own afterwards."""
    monkeypatch.setattr(passes, "_MOST_COLUMNS", 0)
    monkeypatch.setattr(passes, "_MOST_PRODUCTS", 0)
    network = read_network(MAKERS["residual"](tmp_path / "net.onnx"))
    images: list[object] = []
    for name in ("make_image", "make_state"):
        make = getattr(passes, name)

        def count(*arguments: object, make: Callable[..., object] = make) -> object:
            images.append(make(*arguments))
            return images[-1]

        monkeypatch.setattr(passes, name, count)
    query = question(network, 0.2)
    shared = driver(kind, network, 3)
    rows, _ = shared.bound(0, query, True, True, True, True)
    assert len(images) == 1
    shared.reserve(3)
    assert len(images) == 3
    for slot in (2, 1, 0):
        np.testing.assert_array_equal(shared.bound(slot, query, True, True, True, False)[0], rows)
    assert len(images) == 3
