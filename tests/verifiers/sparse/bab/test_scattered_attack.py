"""What scattered points find: small unsafe regions to which no gradient leads, and nothing that isn't unsafe."""

from __future__ import annotations

import time

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.root import Root
from prunecert.verifiers.sparse.bab.scattered_attack import ScatteredAttack
from prunecert.verifiers.sparse.bab.search import Search
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.network import Network
from tests.verifiers.sparse.bab import segments
from tests.verifiers.sparse.searching import search

_LOW, _HIGH = np.array([-1.0, -1.0, 0.25]), np.array([1.0, 1.0, 0.25])


def crater(at: tuple[float, float], width: float) -> Network:
    """Returns min(width, |x - at|) of the first two of three inputs, in the 1-norm: flat but for a small place."""
    first = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=float)
    second = -np.ones((1, 4))
    biases = [np.array([-at[0], at[0], -at[1], at[1]]), np.array([width]), np.array([width])]
    return segments.network([first, second, -np.ones((1, 1))], biases)


def below(level: float) -> OutputSpec:
    return OutputSpec(((np.ones((1, 1)), np.array([level])),))


def attack(network: Network, spec: OutputSpec, low: Float64Array = _LOW, high: Float64Array = _HIGH) -> ScatteredAttack:
    """Returns the attack as a search begins it, which stops here once the box is bounded."""
    corners = (low.astype(np.float32), high.astype(np.float32))
    begun = Search(Engine(network, 1), Checker(network), *corners, spec, Limits(), time.monotonic() + 60)
    root = begun._bound()
    assert isinstance(root, Root)
    return ScatteredAttack(begun._task, root)


def holds(network: Network, spec: OutputSpec, witness: Float32Array | None) -> None:
    """A witness is in the box and unsafe."""
    assert witness is not None
    assert np.all((np.float32(_LOW) <= witness) & (witness <= np.float32(_HIGH)))
    assert spec.violated_by(network.evaluate(witness[None].astype(float))[0])


@pytest.mark.parametrize("at", [(0.6, -0.7), (-0.9, 0.1), (0.35, 0.85)])
def test_a_crater_that_no_gradient_leads_to_is_found(at: tuple[float, float]) -> None:
    network, spec = crater(at, 0.25), below(0.004)
    holds(network, spec, attack(network, spec).quick())


def test_a_search_ends_with_what_was_scattered() -> None:
    _, out = search(crater((0.6, -0.7), 0.25), _LOW, _HIGH, below(0.004), split="input")
    assert (out.status, out.stage, out.domains) == (Status.SAT, "attack", 0)


def test_nothing_is_found_where_nothing_is() -> None:
    # At most 0.1 and at least 0.1001: no row alone is excluded, and no point is within float32's reach of both.
    network = crater((0.6, -0.7), 0.25)
    attacking = attack(network, OutputSpec(((np.array([[1.0], [-1.0]]), np.array([0.1, -0.1001])),)))
    assert attacking.quick() is None
    assert attacking.thorough(np.tile([0.55, -0.6, 0.25], (40, 1))) is None


def test_centres_of_sub_boxes_lead_into_what_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    network, spec = crater((0.6, -0.7), 0.25), below(0.004)
    attacking = attack(network, spec)
    monkeypatch.setattr(attacking, "_scattered", lambda count: np.zeros((count, 3), dtype=np.float32))
    assert attacking.quick() is None
    assert attacking.thorough(np.tile([-0.5, 0.5, 0.25], (40, 1))) is None
    holds(network, spec, attacking.thorough(np.array([[-0.5, 0.5, 0.25], [0.52, -0.64, 0.25]])))


def test_a_conjunction_is_reached_though_its_rows_pull_apart() -> None:
    # Each row alone falls along the other's rise; both are below 0 in a sliver of the box.
    rows = np.array([[1.0, 4.0, 0.0], [-1.0, -3.9, 0.0], [1.0, -1.0, 0.0], [-1.0, 0.9, 0.0]])
    network = segments.network([np.eye(3)], [np.zeros(3)])
    offsets = rows @ np.array([0.83, -0.41, 0.25]) + 2e-3
    spec = OutputSpec(((rows, offsets),))
    holds(network, spec, attack(network, spec).quick())


def test_without_attacks_nothing_is_scattered() -> None:
    _, out = search(crater((0.6, -0.7), 0.25), _LOW, _HIGH, below(0.004), split="input", attack_steps=0)
    assert out.stage != "attack"
