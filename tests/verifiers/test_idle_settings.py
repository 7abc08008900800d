"""Every setting of every verifier of this package does something for each kind of question, or the answer says not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

from prunecert.hashing import sha256_file
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.adapters.sparse_search import SparseBab
from prunecert.verifiers.base import Instance, Norm, OutputSpec, Status, Verifier
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.settings import WITHOUT
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.pairs.specification import difference
from tests.soundness.test_quantised import fixed
from tests.soundness.test_rounded_pairs import case as rounded_case
from tests.verifiers import onnxnets
from tests.verifiers.sparse.quantised.networks import network
from tests.verifiers.sparse.searching import ask, draw
from tests.verifiers.sparse.smooth import smoothnets

#: By setting of the search, what it is called in `Limits`, if otherwise.
FIELDS = {"root_iterations": "root_steps", "iterations": "steps"}
#: A value of each setting of the search, not its default, at which it still splits.
OTHER: dict[str, Any] = {
    "root_iterations": 3,
    "iterations": 4,
    "candidates": 2,
    "batch": 4,
    "attack_steps": 2,
    "memory_mb": 500,
    "seed": 3,
    "second_order": False,
}


class ReadLimits(Limits):
    """Limits that write down which of them a search looks at."""

    looked: ClassVar[set[str]] = set()

    def __getattribute__(self, name: str) -> Any:
        ReadLimits.looked.add(name)
        return super().__getattribute__(name)


class ReadSettings(dict[str, Any]):
    """Settings that write down which of them an adapter looks at."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.looked: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.looked.add(name)
        return super().__getitem__(name)


@dataclass(frozen=True)
class Case:
    """A question that neither bounds nor an attack decide.

    Args:
        kinds: What it is, of `WITHOUT`.
        instance: The question.
        split: The setting with which it is of these kinds.
    """

    kinds: tuple[str, ...]
    instance: Instance
    split: str = "auto"


def _relus(folder: Path) -> Instance:
    net, _ = draw("fc", 0, folder)
    return ask(folder / "net.onnx", net, np.random.default_rng(0).random(4), 0.27)


def _curves(folder: Path) -> Instance:
    path = smoothnets.small(folder, 0)
    low = np.full(2, -0.5, np.float32)
    question = Instance(path, sha256_file(path), low, low + 1, smoothnets.above(0, 0.0), 2.0, "curves", None, 3)
    return _near(question, 0.1)


def _near(question: Instance, room: float) -> Instance:
    """Moves the threshold of a question to below what sampled points reach, by so much."""
    a, _ = question.spec.disjuncts[0]
    values = outputs(question.onnx, onnxnets.samples(question, 2000)).astype(np.float64) @ a.T
    return replace(question, spec=OutputSpec(((a, values[values.max(axis=1).argmin()] - room),)))


def _balls(folder: Path) -> Instance:
    path = onnxnets.normal_form(onnxnets.residual(folder / "balls.onnx", seed=2, sparsity=0.2))
    return replace(_near(onnxnets.instance(path, 0.3, 1, norm="l2"), 0.3), timeout=2.0)


def _rounds(folder: Path) -> Instance:
    path = folder / "int8.onnx"
    onnx.save(fixed(network("dense", 1)), path)
    low = np.full((1, 4), -0.25, dtype=np.float32)
    question = Instance(path, sha256_file(path), low, low + 1, OutputSpec.robustness(0, 3), 1.0, "rounds", 0, 3)
    return _near(question, 0.003)


@pytest.fixture(scope="module", name="make")
def _make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    folder = tmp_path_factory.mktemp("idle")

    @functools.cache
    def make(name: str) -> Case:
        return {
            "relus": lambda: Case((), _relus(folder), "relu"),
            "inputs": lambda: Case(("inputs",), _relus(folder), "input"),
            "curves": lambda: Case(("curves",), _curves(folder), "relu"),
            "inputs of curves": lambda: Case(("curves", "inputs"), _curves(folder)),
            "balls": lambda: Case(("l2",), _balls(folder), "relu"),
            "rounds": lambda: Case(("int8",), _rounds(folder), "relu"),
        }[name]()

    return make


NAMES = ("relus", "inputs", "curves", "inputs of curves", "balls", "rounds")


def idle(kinds: tuple[str, ...], adapter: type[Verifier] = SparseBab) -> set[str]:
    return {name for name, own in adapter.known_settings.items() if set(kinds) & set(own.idle)}


@pytest.mark.parametrize("name", NAMES)
def test_the_search_looks_at_what_it_doesnt_name(name: str, make: Callable[[str], Case], tmp_path: Path) -> None:
    case, proofs = make(name), tmp_path / "proofs"
    subject = SparseBab({**OTHER, "split": case.split, "proofs": str(proofs)})
    subject.start()
    subject._make_limits = ReadLimits
    subject.load(case.instance.onnx)
    ReadLimits.looked.clear()
    (verdict,) = subject.solve([case.instance])
    assert verdict.domains, (verdict.status, verdict.detail)
    names = {own.name for own in fields(Limits)}
    looked = {key for key in OTHER if FIELDS.get(key, key) in ReadLimits.looked & names}
    assert looked == set(OTHER) - idle(case.kinds)
    # Where proofs are kept it is asked under which key.
    assert hasattr(subject, "_key") == ("proofs" not in idle(case.kinds))
    assert ("split" in ReadLimits.looked) == ("split" not in idle(case.kinds))
    silent = {"split"} if case.split == "auto" else set()
    for kind in case.kinds:
        unheard = idle((kind,)) - silent
        names_of_kind = [key for key in subject.known_settings if key in unheard]
        assert f"no effect {WITHOUT[kind]}: {', '.join(names_of_kind)}" in verdict.detail
        silent |= unheard
    assert ("no effect" in verdict.detail) == bool(case.kinds)
    # Of what has its default nothing is said.
    plain = SparseBab({} if "split" in idle(case.kinds) else {"split": case.split})
    plain._make_limits, plain._make_search = subject._make_limits, subject._make_search
    plain.load(case.instance.onnx)
    (verdict,) = plain.solve([replace(case.instance, timeout=0.2)])
    assert "no effect" not in verdict.detail


def looked_at(name: str, question: Instance, **values: Any) -> tuple[set[str], str]:
    """Returns which settings a verifier looks at until it has answered, and what it says."""
    subject = VERIFIERS.get(name)(values)
    subject.settings = ReadSettings(subject.settings)
    subject.start()
    subject.load(question.onnx)
    (verdict,) = subject.solve([question])
    assert verdict.status in (Status.UNSAT, Status.UNKNOWN, Status.SAT, Status.TIMEOUT), verdict.detail
    return subject.settings.looked, verdict.detail


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["crown", "alpha-crown", "pgd", "smoothing", "sparse-alpha-crown"])
def test_others_look_at_all_for_each_norm(name: str, norm: Norm, tmp_path: Path) -> None:
    adapter = VERIFIERS.get(name)
    availability = adapter.availability()
    if not availability.installed:
        pytest.skip(availability.hint)
    if norm not in adapter.capabilities().norms:
        pytest.skip(f"{name} takes no {norm} balls, and says so")
    path = onnxnets.normal_form(onnxnets.convolutional(tmp_path / "net.onnx", seed=1))
    question = onnxnets.instance(path, 0.002, 1, norm=norm, timeout=20.0)
    looked, detail = looked_at(name, question)
    assert looked == set(adapter.known_settings)
    assert "no effect" not in detail
    assert not any(setting.idle for setting in adapter.known_settings.values())


def test_a_pair_that_rounds_has_no_programmes(tmp_path: Path) -> None:
    drawn = rounded_case("signed", 1, tmp_path, coarse=False)
    question = replace(drawn.ask(difference(1e-3, 3)), timeout=1.0)
    _, detail = looked_at("sparse-pair", question, entries=7)
    assert detail.endswith("no effect on quantised networks: entries")
    assert "no effect" not in looked_at("sparse-pair", question, seed=7)[1]


def test_every_setting_is_asked_about_here() -> None:
    """A new setting, or verifier of this package, comes with a word in one of these tests."""
    assert set(SparseBab.known_settings) == {*OTHER, "split", "proofs"}
    foreign = {"abcrown", "marabou", "neuralsat", "vibecheck", "autoattack"}
    own = {name for name in VERIFIERS if VERIFIERS.get(name).__module__.startswith("prunecert.")} - foreign
    with_settings = {name for name in own if VERIFIERS.get(name).known_settings}
    same = {"ibp", "crown-ibp"}
    assert all(VERIFIERS.get(name).known_settings == VERIFIERS.get("crown").known_settings for name in same)
    others = {"crown", "alpha-crown", "pgd", "smoothing", "sparse-alpha-crown", "sparse-pair", "sparse-bab"}
    assert with_settings == others | same
