"""The search's answers against exact ones, its limits, and what earlier proofs may and may not do to it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from tests.soundness.networks import Affine, fully_connected
from tests.soundness.networks import Network as Drawn
from tests.soundness.oracle import exact_margin
from tests.verifiers.sparse.searching import Prepared, draw, search
from verifiers import VERIFIERS
from verifiers.base import Instance, OutputSpec, Status, Verdict, Verifier
from verifiers.sparse.network import Network, read_network
from verifiers.sparse.reuse import Proof, RefusedProofError, Store, key, names_of
from verifiers.sparse.tighten import tighten

KINDS = ("fc", "conv", "skip", "conv-skip")


def edge(network: Network, center: Any, spec: OutputSpec, largest: float = 0.6) -> float:
    """Returns about the radius at which the property ceases to hold, by the search itself."""
    low, high = 0.0, largest
    while high - low > 0.002:
        middle = (low + high) / 2
        holds = search(network, center - middle, center + middle, spec)[1].status is Status.UNSAT
        low, high = (middle, high) if holds else (low, middle)
    return low


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_exact(kind: str, tmp_path: Path) -> None:
    drawn, network = draw(kind, 12, tmp_path)
    rng = np.random.default_rng(12)
    seen = set()
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
        seen.add(str(out.status) + ("" if not out.rounds else " by splits"))
    # Half the weights of the last are zero, and CROWN is nearly exact.
    assert {"sat", "unsat" if kind == "conv-skip" else "unsat by splits"} <= seen


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


def ask(
    path: Path, net: Drawn, center: Any, radius: float, timeout: float = 30.0, label: int | None = None
) -> Instance:
    lower, upper = ((center + side * radius).astype(np.float32) for side in (-1, 1))
    label = int(net.evaluate(center)[0].argmax()) if label is None else label
    spec = OutputSpec.robustness(label, net.classes)
    return Instance(path, sha256_file(path), lower, upper, spec, timeout, "test", label, net.classes)


def bab(path: Path, **settings: Any) -> Verifier:
    verifier = VERIFIERS.get("sparse-bab")(settings)
    verifier.start()
    verifier.load(path)
    return verifier


def test_the_limit_holds_and_the_bound_so_far_is_told(tmp_path: Path) -> None:
    net, path = large(tmp_path)
    question = ask(path, net, np.full(net.inputs, 0.5), 0.1, timeout=0.6)
    verifier = bab(path, attack_steps=0)
    start = time.monotonic()
    verdict = verifier.solve([question])[0]
    assert time.monotonic() - start < 0.6 + 0.5
    assert verdict.status is Status.TIMEOUT
    assert "global lower bound -" in verdict.detail
    assert verdict.domains is not None
    assert verdict.domains > 2
    assert verdict.bounds is not None
    assert min(verdict.bounds) < 0


def test_open_subdomains_may_not_fill_memory(tmp_path: Path) -> None:
    net, path = large(tmp_path)
    verdict = bab(path, attack_steps=0, memory_mb=1).solve([ask(path, net, np.full(net.inputs, 0.5), 0.1, 60)])[0]
    assert verdict.status is Status.UNKNOWN
    assert "fill 1 MiB" in verdict.detail


def test_networks_that_stay_too_large_are_left_open(tmp_path: Path) -> None:
    drawn, network = draw("fc", 3, tmp_path)
    spec = OutputSpec.robustness(0, drawn.classes)
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
    made = Prepared(network, center - 0.3, center + 0.3, OutputSpec.robustness(0, drawn.classes))
    widths = [high - low for low, high in zip(made.bounds.lower, made.bounds.upper, strict=True)]
    old = [width.copy() for width in widths]
    tighten(made.checker, made.bounds, 15, time.monotonic() + 60)
    new = [high - low for low, high in zip(made.bounds.lower, made.bounds.upper, strict=True)]
    assert max((a - b).max() for a, b in zip(old, new, strict=True)) > 1e-3
    points = made.net.point(np.sign(rng.uniform(-1, 1, (3000, len(made.net.pixels)))))
    for node, values in enumerate(network.forward(points)):
        assert np.all(made.bounds.lower[node] <= values.min(axis=0) + 1e-9)
        assert np.all(made.bounds.upper[node] >= values.max(axis=0) - 1e-9)


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


# Proofs of a network start the search on its pruned versions.


def chain(folder: Path) -> list[tuple[Drawn, Path]]:
    """A network, and versions of it with ever more of its smallest weights gone."""
    nets = []
    for number, share in enumerate((0.0, 0.2, 0.5)):
        rng = np.random.default_rng(5)
        net = fully_connected("net", rng, [6, 16, 16, 3])
        made = Drawn("net", net.shape)
        value = 0
        for index, node in enumerate(net.nodes):
            if isinstance(node, Affine):
                weight = node.matrix.copy()
                weight[np.abs(weight) < np.quantile(np.abs(weight), share)] = 0
                value = made.gemm(value, weight, node.shift)
                if index < len(net.nodes) - 1:
                    value = made.relu(value)
        nets.append((made, made.save(folder / f"net{number}.onnx")))
    return nets


#: Centre, radius, limit and label: just below and above the radius at which the first network's class changes.
ITEMS: list[tuple[Any, float, float, int]] = []


@pytest.fixture(autouse=True, scope="module")
def _items(tmp_path_factory: pytest.TempPathFactory) -> None:
    net, path = chain(tmp_path_factory.mktemp("items"))[0]
    network, rng = read_network(path), np.random.default_rng(0)
    for number in range(12):
        center = rng.random(net.inputs)
        label = int(net.evaluate(center)[0].argmax())
        radius = edge(network, center, OutputSpec.robustness(label, net.classes))
        ITEMS.append((center, radius * (0.9, 0.97, 1.05)[number % 3], 30.0, label))


def answers(nets: list[tuple[Drawn, Path]], proofs: str, **settings: Any) -> list[Verdict]:
    verdicts = []
    for net, path in nets:
        verifier = bab(path, proofs=proofs, **settings)
        verdicts += [verifier.solve([ask(path, net, *item)])[0] for item in ITEMS]
    return verdicts


def test_reuse_changes_no_answer(tmp_path: Path) -> None:
    nets = chain(tmp_path)
    plain, reused = answers(nets, ""), answers(nets, str(tmp_path / "proofs"))
    assert [verdict.status for verdict in plain] == [verdict.status for verdict in reused]
    assert {verdict.status for verdict in plain} == {Status.SAT, Status.UNSAT}
    assert any("leaves from the proof" in verdict.detail for verdict in reused)
    again = answers(nets[:1], str(tmp_path / "proofs"))
    assert [verdict.status for verdict in plain[: len(ITEMS)]] == [verdict.status for verdict in again]
    domains = [sum(verdict.domains or 0 for verdict in verdicts[: len(ITEMS)]) for verdicts in (plain, again)]
    assert domains[1] < domains[0]


def test_foreign_proofs_change_no_answer(tmp_path: Path) -> None:
    """Every file gets another one's content: other boxes, other labels, other networks of the same layers."""
    nets = chain(tmp_path)
    folder = tmp_path / "proofs"
    plain, contents = [], []
    for net in nets:
        plain += answers([net], str(folder))
        contents += [path.read_bytes() for path in sorted(folder.glob("*.proof"))]
    files = sorted(folder.glob("*.proof"))
    rng = np.random.default_rng(0)
    assert len(files) > 6
    assert len(set(contents)) > 12
    for _ in range(3):
        for net, expected in zip(nets, np.array_split(np.arange(len(plain)), len(nets)), strict=True):
            for path in files:
                path.write_bytes(contents[rng.integers(len(contents))])
            statuses = [verdict.status for verdict in answers([net], str(folder))]
            assert statuses == [plain[place].status for place in expected]


def stored(tmp_path: Path) -> tuple[Drawn, Path, Instance, Path]:
    """Returns a network, a question that takes splits, and the file of its proof."""
    net, path = chain(tmp_path)[0]
    for item in ITEMS:
        question = ask(path, net, *item)
        folder = tmp_path / f"proof-{key(question)[:6]}"
        verdict = bab(path, proofs=str(folder)).solve([question])[0]
        if verdict.status is Status.UNSAT and (verdict.domains or 0) > 8:
            (file,) = folder.glob("*.proof")
            return net, path, question, file
    raise AssertionError("no question takes splits")


def test_damaged_files_are_refused_and_said_so(tmp_path: Path) -> None:
    _, path, question, file = stored(tmp_path)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", whole[: len(whole) // 2], whole[:-3], whole[:20] + bytes(40), rng.bytes(500)]
    for _ in range(30):
        spoiled = bytearray(whole)
        for place in rng.integers(0, len(whole), 4):
            spoiled[place] = rng.integers(256)
        damaged.append(bytes(spoiled))
    verifier = bab(path, proofs=str(file.parent))
    refused = 0
    for content in damaged:
        file.write_bytes(content)
        verdict = verifier.solve([question])[0]
        assert verdict.status is Status.UNSAT
        refused += "was not used" in verdict.detail
    assert refused >= 20


@pytest.mark.parametrize("seed", range(3))
def test_altered_trees_are_refused_or_harmless(seed: int, tmp_path: Path) -> None:
    """Arrays of the right types with wrong contents: whatever passes the checks can't change the answer."""
    net, path, question, file = stored(tmp_path)
    good = Proof.load(file)
    unsafe = ask(path, net, (question.lower + question.upper) / 2, 0.6, label=question.label)
    assert bab(path).solve([unsafe])[0].status is Status.SAT
    other = file.with_name(file.name.replace(key(question), key(unsafe)))
    rng = np.random.default_rng(seed)
    verifier = bab(path, proofs=str(file.parent))
    names = sorted(name for name, value in vars(good).items() if isinstance(value, np.ndarray))
    used = 0
    for number in range(25):
        name = names[(number + seed) % len(names)]
        array = getattr(good, name).copy()
        if array.size:
            flat = array.reshape(-1)
            places = rng.integers(0, flat.size, 1 + number % 5)
            flat[places] = rng.integers(-3, 30, len(places)).astype(flat.dtype)
        bad = replace(good, **{name: array[:-1] if number % 4 == 0 else array})
        bad.save(file)
        verdict = verifier.solve([question])[0]
        assert verdict.status is Status.UNSAT
        used += "leaves from the proof" in verdict.detail
        # The same tree for a box that is not safe.
        bad.save(other)
        assert verifier.solve([unsafe])[0].status is Status.SAT
    assert used


def test_a_tree_that_leaves_something_out_is_refused(tmp_path: Path) -> None:
    *_, file = stored(tmp_path)
    good = Proof.load(file)
    last = len(good.parent) - 1
    for name, value in (("sign", -good.sign[last]), ("parent", 0), ("neuron", (good.neuron[last] + 1) % 3)):
        array = getattr(good, name).copy()
        array[last] = value
        replace(good, **{name: array}).save(file)
        with pytest.raises(RefusedProofError):
            Proof.load(file)


def test_other_layers_are_refused(tmp_path: Path) -> None:
    _, path, question, file = stored(tmp_path)
    rng = np.random.default_rng(5)
    other = fully_connected("net", rng, [6, 16, 17, 3])
    onnx = other.save(tmp_path / "other.onnx")
    stores = [Store(file.parent, names_of(read_network(net), net)) for net in (path, onnx)]
    assert stores[0].find(key(question))[0] is not None
    assert stores[1].find(key(question)) == (None, "")
    stores[1].path(key(question)).write_bytes(file.read_bytes())
    found, why = stores[1].find(key(question))
    assert found is None
    assert "other layers" in why
