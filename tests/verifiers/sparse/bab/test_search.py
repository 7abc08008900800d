"""The search's answers against exact ones, and its limits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.bab.intermediate_bounds import tighten
from prunecert.verifiers.sparse.crown import passes
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.crown.memory import walk_mb
from prunecert.verifiers.sparse.crown.rows.layout import lay_flat
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.threads import threads
from tests.soundness.networks import Network as Drawn
from tests.soundness.networks import fully_connected
from tests.soundness.oracle import exact_margin
from tests.verifiers.sparse.searching import Prepared, ask, bab, draw, edge, search

KINDS = ("fc", "conv", "skip", "conv-skip")


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_exact(kind: str, tmp_path: Path) -> None:
    drawn, network = draw(kind, 12, tmp_path)
    rng = np.random.default_rng(12)
    visited = set()
    for number in range(8):
        center = rng.random(drawn.inputs)
        y = network.evaluate(center[None])[0]
        if number % 4:
            spec = OutputSpec.robustness(int(y.argmax()), drawn.classes)
        else:
            a = rng.normal(size=(2, drawn.classes))
            spec = OutputSpec(((a, a @ y - 0.1),))
        radius = edge(network, center, spec) * (0.97, 1.1)[number % 2]
        low, high = (np.float32(center + side * radius).astype(float) for side in (-1, 1))
        margin = exact_margin(drawn, low, high, spec)
        run, out = search(network, low, high, spec)
        assert out.status in (Status.SAT, Status.UNSAT)
        assert (out.status is Status.UNSAT) == (margin.low > 0)
        if out.status is Status.UNSAT:
            assert out.bounds is not None
            assert 0 < min(out.bounds) <= margin.high + 1e-7
        else:
            assert out.witness is not None
            assert np.all((run.lower <= out.witness) & (out.witness <= run.upper))
            assert spec.violated_by(network.evaluate(out.witness[None])[0] - 1e-12)
        visited.add(str(out.status) + ("" if not out.rounds else " by splits"))
    # Half the weights of the last are zero, and CROWN is nearly exact.
    assert {"sat", "unsat" if kind == "conv-skip" else "unsat by splits"} <= visited


@pytest.mark.parametrize(
    "limits", [{"candidates": 1}, {"batch": 1}, {"attack_steps": 0}, {"steps": 1, "root_steps": 1}]
)
def test_answers_don_t_depend_on_settings(limits: dict[str, Any], tmp_path: Path) -> None:
    drawn, network = draw("fc", 21, tmp_path)
    rng = np.random.default_rng(2)
    for _ in range(6):
        center, radius = rng.random(drawn.inputs), rng.uniform(0.05, 0.15)
        spec = OutputSpec.robustness(int(network.evaluate(center[None])[0].argmax()), drawn.classes)
        first, second = (search(network, center - radius, center + radius, spec, **more)[1] for more in ({}, limits))
        assert first.status is second.status


def large(folder: Path) -> tuple[Drawn, Path]:
    """A network with too many unstable ReLUs over a large box to be decided soon."""
    rng = np.random.default_rng(3)
    net = fully_connected("large", rng, [20, 60, 60, 60, 3]).balance(rng)
    return net, net.save(folder / "large.onnx")


@pytest.mark.slow
def test_the_limit_holds_and_the_bound_so_far_is_told(tmp_path: Path) -> None:
    net, path = large(tmp_path)
    question = ask(path, net, np.full(net.inputs, 0.5), 0.1, timeout=0.6)
    verifier = bab(path, attack_steps=0, split="relu")
    # Of the processor: other programs on the machine don't count.
    start = time.process_time()
    verdict = verifier.solve([question])[0]
    assert time.process_time() - start < threads() * (0.6 + 0.5)
    assert verdict.status is Status.TIMEOUT
    assert "global lower bound -" in verdict.detail
    assert verdict.domains is not None
    assert verdict.domains > 2
    assert verdict.bounds is not None
    assert min(verdict.bounds) < 0


def test_open_subdomains_may_not_fill_memory(tmp_path: Path) -> None:
    net, path = large(tmp_path)
    verdict = bab(path, attack_steps=0, memory_mb=1, split="relu").solve(
        [ask(path, net, np.full(net.inputs, 0.5), 0.1, 60)]
    )[0]
    assert verdict.status is Status.UNKNOWN
    assert "fill 1 MiB" in verdict.detail


def test_walks_that_would_fill_memory_are_refused_before_anything_is_laid_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, network = draw("fc", 3, tmp_path)
    spec = OutputSpec.robustness(0, drawn.classes)
    box = np.zeros(drawn.inputs), np.ones(drawn.inputs)
    needed = walk_mb(network, 1, by_rows=True)
    layouts: list[object] = []

    def lay_out(network: Network) -> object:
        layouts.append(lay_flat(network))
        return layouts[-1]

    monkeypatch.setattr(passes, "lay_flat", lay_out)
    _, out = search(network, *box, spec, memory_mb=needed / 2, attack_steps=0)
    assert out.status is Status.UNKNOWN
    assert out.detail == (
        f"CROWN's walks over the network take {needed:.4g} MiB, more than the limit of {needed / 2:g} MiB; a larger "
        "memory_mb allows them"
    )
    _, out = search(network, *box, spec, memory_mb=needed / 2)
    assert out.status is Status.SAT, "attacks need no walk"
    assert not layouts
    _, out = search(network, *box, spec, memory_mb=2 * needed)
    assert "CROWN's walks" not in out.detail
    assert layouts


def test_networks_that_stay_too_large_are_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, network = draw("fc", 3, tmp_path)
    spec = OutputSpec.robustness(0, drawn.classes)
    monkeypatch.setattr(Engine, "fit", lambda self, memory_mb: True)
    _, out = search(network, np.zeros(drawn.inputs), np.ones(drawn.inputs), spec, memory_mb=1e-4)
    assert out.status is Status.UNKNOWN
    assert "unstable ReLUs leave a network of" in out.detail
    run, out = search(network, np.zeros(drawn.inputs), np.ones(drawn.inputs), spec, seconds=1e-6)
    assert out.status is Status.TIMEOUT
    assert not run.leaves


def test_better_hidden_bounds_hold(tmp_path: Path) -> None:
    """They contain all values, and are better somewhere."""
    drawn, network = draw("fc", 5, tmp_path)
    rng = np.random.default_rng(5)
    center = rng.random(drawn.inputs)
    prepared = Prepared(network, center - 0.3, center + 0.3, OutputSpec.robustness(0, drawn.classes))
    widths = [high - low for low, high in zip(prepared.bounds.lower, prepared.bounds.upper, strict=True)]
    old = [width.copy() for width in widths]
    tighten(prepared.checker, prepared.bounds, 15, time.monotonic() + 60)
    new = [high - low for low, high in zip(prepared.bounds.lower, prepared.bounds.upper, strict=True)]
    assert max((a - b).max() for a, b in zip(old, new, strict=True)) > 1e-3
    points = prepared.net.point(np.sign(rng.uniform(-1, 1, (3000, len(prepared.net.pixels)))))
    for node, values in enumerate(network.forward(points)):
        assert np.all(prepared.bounds.lower[node] <= values.min(axis=0) + 1e-9)
        assert np.all(prepared.bounds.upper[node] >= values.max(axis=0) - 1e-9)


@pytest.mark.slow
def test_alpha_crown_lies_between_crown_and_the_exact_margin(tmp_path: Path) -> None:
    drawn, _ = draw("fc", 3, tmp_path)
    path = tmp_path / "net.onnx"
    rng = np.random.default_rng(0)
    better = 0
    alpha = VERIFIERS.get("sparse-alpha-crown")({"iterations": 40})
    alpha.start()
    alpha.load(path)
    crown = VERIFIERS.get("sparse-crown")()
    crown.start()
    crown.load(path)
    for _ in range(10):
        question = ask(path, drawn, rng.random(drawn.inputs), rng.uniform(0.05, 0.3))
        above, below = alpha.solve([question])[0], crown.solve([question])[0]
        assert above.bounds is not None
        assert below.bounds is not None
        assert min(above.bounds) >= min(below.bounds) - 1e-6
        better += min(above.bounds) > min(below.bounds) + 1e-3
        box = question.lower.astype(float), question.upper.astype(float)
        assert min(above.bounds) <= exact_margin(drawn, *box, question.spec).high
    assert better >= 3


# torch warns of its own older ONNX tracer, which auto_LiRPA goes through to read the module.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_alpha_crown_is_about_as_tight_as_auto_lirpa(tmp_path: Path) -> None:
    drawn, _ = draw("conv", 9, tmp_path)
    path = tmp_path / "net.onnx"
    rng = np.random.default_rng(1)
    lows = {}
    questions = [ask(path, drawn, rng.random(drawn.inputs), 0.3) for _ in range(6)]
    for name in ("crown", "alpha-crown", "sparse-alpha-crown"):
        verifier = VERIFIERS.get(name)()
        verifier.start()
        verifier.load(path)
        verdicts = [verifier.solve([question])[0] for question in questions]
        lows[name] = np.array([min(verdict.bounds or ()) for verdict in verdicts])
    gain = lows["alpha-crown"] - lows["crown"]
    assert gain.max() > 0.05
    # The same relaxation over the same hidden bounds, but another optimiser.
    assert np.all(lows["sparse-alpha-crown"] >= lows["crown"] + 0.7 * gain - 1e-3)


def test_settings_are_checked() -> None:
    for settings in ({"iterations": 0}, {"candidates": 0}, {"batch": -1}, {"proofs": 3}, {"splits": 1}):
        with pytest.raises(UserError):
            VERIFIERS.get("sparse-bab")(settings)
    with pytest.raises(UserError):
        VERIFIERS.get("sparse-alpha-crown")({"iterations": 0})
