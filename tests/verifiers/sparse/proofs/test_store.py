"""What earlier proofs may and may not do to the search on a network's pruned versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from prunecert.verifiers.base import Instance, OutputSpec, Status, Verdict, Verifier
from prunecert.verifiers.sparse.bab.branch_and_bound import BranchAndBound
from prunecert.verifiers.sparse.bab.counterexamples import Hunt
from prunecert.verifiers.sparse.crown.engine import Engine
from prunecert.verifiers.sparse.onnx.neuron_names import names_of
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.proofs.file import Proof, RefusedProofError, glance
from prunecert.verifiers.sparse.proofs.store import Earlier, Store, key
from tests.soundness.networks import Affine, fully_connected
from tests.soundness.networks import Network as Drawn
from tests.verifiers.sparse.searching import ask, bab, edge


def chain(folder: Path) -> list[tuple[Drawn, Path]]:
    """A network, and versions of it with ever more of its smallest weights gone."""
    nets = []
    for number, share in enumerate((0.0, 0.2, 0.5)):
        rng = np.random.default_rng(5)
        net = fully_connected("net", rng, [6, 16, 16, 3])
        prepared = Drawn("net", net.shape)
        value = 0
        for index, node in enumerate(net.nodes):
            if isinstance(node, Affine):
                weight = node.matrix.copy()
                weight[np.abs(weight) < np.quantile(np.abs(weight), share)] = 0
                value = prepared.gemm(value, weight, node.shift)
                if index < len(net.nodes) - 1:
                    value = prepared.relu(value)
        nets.append((prepared, prepared.save(folder / f"net{number}.onnx")))
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
        contents += [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir())]
    files = sorted(folder.iterdir())
    rng = np.random.default_rng(0)
    assert len(files) > 6
    assert {suffix for suffix, _ in contents} == {".tree", ".witness"}
    assert len(set(contents)) > 12
    for _ in range(3):
        for net, expected in zip(nets, np.array_split(np.arange(len(plain)), len(nets)), strict=True):
            for path in files:
                same = [content for suffix, content in contents if suffix == path.suffix]
                path.write_bytes(same[rng.integers(len(same))])
            statuses = [verdict.status for verdict in answers([net], str(folder))]
            assert statuses == [plain[place].status for place in expected]


def stored(tmp_path: Path) -> tuple[Drawn, Path, Instance, Path]:
    """Returns a network, a question that takes splits, and the file of its tree."""
    net, path = chain(tmp_path)[0]
    for item in ITEMS:
        question = ask(path, net, *item)
        folder = tmp_path / f"proof-{key(question)[:6]}"
        verdict = bab(path, proofs=str(folder)).solve([question])[0]
        if verdict.status is Status.UNSAT and (verdict.domains or 0) > 8:
            (file,) = folder.iterdir()
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


@pytest.mark.slow
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


def broken(tmp_path: Path) -> tuple[Drawn, Path, Instance, Path]:
    """Returns a network, a question that is answered by a counterexample, and its file."""
    net, path = chain(tmp_path)[0]
    question = ask(path, net, ITEMS[0][0], 0.6)
    folder = tmp_path / "broken"
    assert bab(path, proofs=str(folder)).solve([question])[0].status is Status.SAT
    (file,) = folder.iterdir()
    assert file.suffix == ".witness"
    return net, path, question, file


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records each reading of a tree or of its header."""
    read: list[str] = []

    def watched(name: str, call: Callable[[Path], Any]) -> Callable[[Path], Any]:
        def wrapper(path: Path) -> Any:
            read.append(name)
            return call(path)

        return wrapper

    monkeypatch.setattr("prunecert.verifiers.sparse.proofs.store.glance", watched("header", glance))
    monkeypatch.setattr(Proof, "load", watched("tree", Proof.load))
    return read


def test_a_counterexample_is_stored_without_the_tree_and_replayed_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, path, question, tree = stored(tmp_path)
    unsafe = ask(path, net, (question.lower + question.upper) / 2, 0.6, label=question.label)
    other = tree.with_name(tree.name.replace(key(question), key(unsafe)))
    tree.rename(other)
    before, since = other.read_bytes(), other.stat().st_mtime_ns
    read = watch(monkeypatch)
    verifier = bab(path, proofs=str(other.parent))
    first = verifier.solve([unsafe])[0]
    assert first.status is Status.SAT
    assert read
    assert {file.suffix for file in other.parent.iterdir()} == {".tree", ".witness"}
    witness = other.with_suffix(".witness")
    written = witness.stat().st_mtime_ns
    read.clear()
    second = verifier.solve([unsafe])[0]
    assert second.status is Status.SAT
    assert np.array_equal(first.witness, second.witness)  # type: ignore[arg-type]
    assert not read
    assert (other.read_bytes(), other.stat().st_mtime_ns) == (before, since)
    assert witness.stat().st_mtime_ns == written


@pytest.mark.parametrize("later", ["nothing", "a tree"])
def test_where_a_counterexample_came_last_an_attack_goes_before_the_bounds(
    later: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, path, question, tree = stored(tmp_path)
    # The tree is of a smaller box; here there are counterexamples, and the box's centre is none.
    unsafe = ask(path, net, (question.lower + question.upper) / 2, 0.6, label=question.label)
    store = Store(tree.parent, names_of(read_network(path), path))
    store.keep_witness(key(unsafe), ((unsafe.lower + unsafe.upper) / 2).astype(np.float32))
    if later == "a tree":
        tree.rename(store.paths(key(unsafe))[1])
        monkeypatch.setattr(Earlier, "mark", property(lambda earlier: earlier.summary.witness))
    steps: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            steps.append(name)
            return function(*args)

        return wrapper

    monkeypatch.setattr(Engine, "bound", watched("bounds", Engine.bound))
    monkeypatch.setattr(Hunt, "quick", watched("attack", Hunt.quick))
    verifier = bab(path, proofs=str(tree.parent))
    steps.clear()
    verdict = verifier.solve([unsafe])[0]
    assert verdict.status is Status.SAT
    assert unsafe.spec.violated_by(net.evaluate(verdict.witness)[0])  # type: ignore[arg-type]
    assert steps[0] == ("attack" if later == "nothing" else "bounds")


def test_a_damaged_tree_is_not_missed_where_the_counterexample_replays(tmp_path: Path) -> None:
    _, path, question, file = broken(tmp_path)
    file.with_suffix(".tree").write_bytes(b"sparse-proof\nnothing")
    verdict = bab(path, proofs=str(file.parent)).solve([question])[0]
    assert (verdict.status, verdict.detail) == (Status.SAT, "")


@pytest.mark.parametrize("where", ["start", "header", "body", "end"])
def test_a_tree_that_would_be_used_is_refused_with_the_reason(where: str, tmp_path: Path) -> None:
    _, path, question, file = stored(tmp_path)
    content = bytearray(file.read_bytes())
    place = {"start": 3, "header": 60, "body": len(content) - 20, "end": len(content) - 1}[where]
    content[place] ^= 8
    file.write_bytes(content)
    verdict = bab(path, proofs=str(file.parent)).solve([question])[0]
    assert verdict.status is Status.UNSAT
    assert f"a stored proof was not used: {file.name}: it" in verdict.detail
    assert "leaves from the proof" not in verdict.detail
    # It was written anew.
    assert "leaves from the proof" in bab(path, proofs=str(file.parent)).solve([question])[0].detail


def spoiled(content: bytes, how: str) -> bytes:
    """Returns a stored counterexample's content with something wrong."""
    if how == "short":
        return content[:30]
    if how == "cut":
        return content[:-4]
    if how == "other":
        return b"x" + content[1:]
    changed = bytearray(content)
    changed[{"schema": 13, "layout": 20, "point": len(content) - 2}[how]] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("short", "no counterexample"),
        ("other", "no counterexample"),
        ("cut", "checksum"),
        ("point", "checksum"),
        ("schema", "schema"),
        ("layout", "other layers"),
    ],
)
def test_a_counterexample_that_is_not_whole_is_refused_with_the_reason(how: str, why: str, tmp_path: Path) -> None:
    _, path, question, file = broken(tmp_path)
    file.write_bytes(spoiled(file.read_bytes(), how))
    verdict = bab(path, proofs=str(file.parent)).solve([question])[0]
    assert verdict.status is Status.SAT
    assert file.name in verdict.detail
    assert why in verdict.detail


def test_counterexamples_that_are_no_numbers_or_of_another_box_change_nothing(tmp_path: Path) -> None:
    net, path, question, file = broken(tmp_path)
    store = Store(file.parent, names_of(read_network(path), path))
    verifier = bab(path, proofs=str(file.parent))
    store.keep_witness(key(question), np.full(net.inputs, np.nan, dtype=np.float32))
    assert "not finite" in verifier.solve([question])[0].detail
    store.keep_witness(key(question), np.zeros(net.inputs + 1, dtype=np.float32))
    assert verifier.solve([question])[0].status is Status.SAT
    *_, safe, tree = stored(tmp_path)
    far = Store(tree.parent, names_of(read_network(path), path))
    # Outside of the box it is a counterexample, perhaps; what is tried lies within.
    far.keep_witness(key(safe), question.upper.reshape(-1) + 5)
    assert bab(path, proofs=str(tree.parent)).solve([safe])[0].status is Status.UNSAT


def test_other_layers_are_refused(tmp_path: Path) -> None:
    _, path, question, tree = stored(tmp_path)
    *_, unsafe, witness = broken(tmp_path)
    rng = np.random.default_rng(5)
    other = fully_connected("net", rng, [6, 16, 17, 3])
    onnx = other.save(tmp_path / "other.onnx")
    for file, query, which in ((witness, unsafe, 0), (tree, question, 1)):
        mine, foreign = (Store(file.parent, names_of(read_network(net), net)) for net in (path, onnx))

        def result(store: Store, query: Instance = query, which: int = which) -> tuple[bool, list[str]]:
            earlier = store.find(key(query))
            return (earlier.tree if which else earlier.witness) is not None, earlier.refused

        assert result(mine) == (True, [])
        assert result(foreign) == (False, [])
        foreign.paths(key(query))[which].write_bytes(file.read_bytes())
        used, why = result(foreign)
        assert not used
        assert "other layers" in why[0]


def test_a_proof_goes_before_an_attack_only_if_bounds_promise_it(tmp_path: Path) -> None:
    _, path, question, file = stored(tmp_path)
    summary = Proof.load(file).summary
    store = Store(file.parent, names_of(read_network(path), path))
    crown: npt.NDArray[np.float64] = np.array(summary.crown)
    proved = np.array(summary.proved)
    open_ = np.flatnonzero(crown <= 0)
    assert len(open_)
    assert (proved > 0).all()

    def promised(bounds: npt.NDArray[np.float64], most: int = 1000) -> bool:
        return store.find(key(question)).promises(bounds, open_, most)

    assert promised(crown)
    assert promised(crown - 0.9 * proved)
    assert not promised(crown - 1.1 * proved)
    assert not promised(crown[:-1])
    assert not promised(crown, summary.leaves - 1)
    store.keep_witness(key(question), question.lower.reshape(-1))
    assert not promised(crown)
    replace(Proof.load(file), summary=replace(summary, witness=store.find(key(question)).mark)).save(file)
    assert promised(crown)


def test_large_trees_without_an_answer_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, path = chain(tmp_path)[0]
    query = [ask(path, net, *item) for item in ITEMS]
    hard = next(q for q in query if (bab(path, split="relu").solve([q])[0].domains or 0) > 8)
    verifier: Verifier = bab(path, proofs=str(tmp_path / "open"), root_iterations=1, iterations=1, candidates=1)
    branch = BranchAndBound.branch

    def ended(search: BranchAndBound) -> None:
        branch(search)
        search._outcome.status = Status.TIMEOUT

    monkeypatch.setattr(BranchAndBound, "branch", ended)
    monkeypatch.setattr("prunecert.verifiers.sparse.bab.transplant._MOST_OPEN", 3)
    assert verifier.solve([hard])[0].status is Status.TIMEOUT
    assert not list((tmp_path / "open").glob("*.tree"))
    monkeypatch.setattr("prunecert.verifiers.sparse.bab.transplant._MOST_OPEN", 100_000)
    assert verifier.solve([hard])[0].status is Status.TIMEOUT
    (file,) = (tmp_path / "open").glob("*.tree")
    assert Proof.load(file).summary.status == "timeout"
