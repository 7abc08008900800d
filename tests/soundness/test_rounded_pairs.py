"""A float32 network and its quantised form: no answer about the two is wrong, as far as points of the box can tell.

A quantised network is constant where its inputs are rounded to one lattice point; so over a small box the largest
difference of an output, and how sure the first network is at most of a class that the second leaves, are known exactly
(`tests.soundness.rounded_pairs`). Nobody may prove less, nor break more, and what is well above is to be proved.
Thresholds are 0.1 % below, and 1.01, 1.05, 2 and 4 times as much. Points of each cell are run in onnxruntime, too: none
differs by more, and some by nearly as much.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunecert.hashing import sha256_file
from prunecert.onnx.merge import merge
from prunecert.verifiers.adapters.sparse_pair import SparsePair
from prunecert.verifiers.base import Instance, OutputSpec, Status
from prunecert.verifiers.process.worker import Worker
from prunecert.verifiers.sparse.pairs.specification import difference, same_class
from tests.soundness.networks import Array
from tests.soundness.rounded_pairs import cells, drawn, largest_difference, surest_change
from tests.soundness.test_quantised import fixed
from tests.verifiers.sparse.quantised.exact import Reference
from tests.verifiers.sparse.quantised.networks import KINDS, FloatArray, Kind, network, run, unrounded

#: Inputs that vary, and by how many levels to either side.
_VARYING, _LEVELS = 2, 1.3
#: Thresholds, as multiples of the exact one.
FACTORS = (0.999, 1.01, 1.05, 2.0, 4.0)
#: What differs by less is equal.
_EQUAL = 1e-4
SEEDS = 8 if os.environ.get("PRUNECERT_SOUNDNESS") == "full" else 1


@dataclass(frozen=True, eq=False)
class Case:
    """Two networks in one file over a box.

    Args:
        path: The file.
        lower: Corner of the box.
        upper: Likewise.
        largest: Exact largest difference of an output.
        sure: Exactly how sure the first network is at most of a class where the second prefers another; 0: of none.
        met: The largest difference at points of the box.
    """

    path: Path
    lower: FloatArray
    upper: FloatArray
    largest: float
    sure: float
    met: float

    def ask(self, spec: OutputSpec, timeout: float = 20.0) -> Instance:
        """Returns a question."""
        sha256 = sha256_file(self.path)
        return Instance(self.path, sha256, self.lower, self.upper, spec, timeout, self.path.stem, classes=6)


def case(kind: Kind, seed: int, folder: Path, coarse: bool, turned: bool = False) -> Case:
    """Draws a case; `turned`: the network that rounds is the first."""
    model = fixed(network(kind, seed, coarse))
    plain = unrounded(model)
    paths = [folder / f"{word}-{kind}-{seed}-{coarse}.onnx" for word in ("plain", "rounded", "both")]
    onnx.save(plain, paths[0])
    onnx.save(model, paths[1])
    order = (paths[1], paths[0]) if turned else (paths[0], paths[1])
    onnx.save(merge(*order), paths[2])
    rng = np.random.default_rng(seed + 2000)
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    size = int(np.prod(shape))
    places = rng.choice(size, _VARYING, replace=False)
    center = (np.round((0.1 + 0.8 * rng.random(size)) * 255) / 255).astype(np.float32)
    radius = np.zeros(size, dtype=np.float32)
    radius[places] = _LEVELS / 255
    lower, upper = center - radius, center + radius
    steps = np.array(sorted({s for level in (-1, 0, 1) for s in (level - 0.499, level, level + 0.499)} | {-1.3, 1.3}))
    points = np.tile(center, (len(steps) ** _VARYING, 1))
    points[:, places] += np.array(list(itertools.product(steps / 255, repeat=_VARYING)), dtype=np.float32)
    points = np.clip(points, lower, upper).reshape(-1, *shape)
    outputs = [np.concatenate([run(net, point[None]) for point in points]) for net in (plain, model)]
    reference = Reference(model)

    def rounding(point: Array) -> Array:
        image = point.astype(np.float32).reshape(1, *shape)
        runtimes = (run(model, image), run(model, image, fused=True))
        return np.concatenate([reference.run(image), *(values.astype(np.float64) for values in runtimes)])

    parts = list(
        cells(drawn(plain), lower.astype(np.float64), upper.astype(np.float64), float(np.float32(1 / 255)), rounding)
    )
    return Case(
        paths[2],
        lower.reshape(shape),
        upper.reshape(shape),
        largest_difference(parts),
        surest_change(parts, turned),
        float(np.abs(outputs[1].astype(np.float64) - outputs[0]).max()),
    )


def decide(verifier: SparsePair, question: Case, answers: Counter[str]) -> None:
    """Asks about thresholds on either side of the largest difference, and of how sure classes are that change."""
    if question.largest < _EQUAL:
        # Nothing but float32's own rounding tells the two apart.
        assert question.met <= _EQUAL + 1e-5
        answers["equal"] += 1
        return
    # The oracle and points that are run don't contradict one another.
    assert 0.9 * question.largest <= question.met <= question.largest * (1 + 1e-5) + 1e-5, question.path.name
    verifier.load(question.path)
    for factor in FACTORS:
        specs = [difference(factor * question.largest, 3)]
        if question.sure > 1e-2:
            specs.append(same_class(3, factor * question.sure))
        for spec in specs:
            (verdict,) = verifier.solve([question.ask(spec)])
            answers[f"{verdict.status} {factor}"] += 1
            wrong = Status.SAT if factor > 1 else Status.UNSAT
            assert verdict.status is not wrong, (
                f"{question.path.name}: {verdict.status} at {factor} of the exact threshold"
            )
            if verdict.status is Status.SAT:
                assert verdict.witness is not None
                assert spec.violated_by(verifier._replay(question.ask(spec), verdict.witness).reshape(-1))


@pytest.fixture(scope="module", name="verifier")
def _verifier() -> SparsePair:
    verifier = SparsePair({})
    verifier.start()
    return verifier


@pytest.mark.parametrize("turned", [False, True])
def test_a_sample(turned: bool, verifier: SparsePair, tmp_path: Path) -> None:
    answers: Counter[str] = Counter()
    decide(verifier, case("dense", 0, tmp_path, coarse=False, turned=turned), answers)
    assert answers["unsat 4.0"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_answer_is_wrong(verifier: SparsePair, tmp_path: Path) -> None:
    answers: Counter[str] = Counter()
    for kind, seed, coarse, turned in itertools.product(KINDS, range(SEEDS), (False, True), (False, True)):
        decide(verifier, case(kind, seed, tmp_path, coarse, turned), answers)
    print(answers)
    cases, equal = 4 * len(KINDS) * SEEDS, answers["equal"]
    assert equal <= 0.1 * cases
    assert answers.total() - equal >= len(FACTORS) * (cases - equal)
    # The rounding of each neuron is free within its bounds, so that the last half of a proof may be missing.
    assert answers["unsat 4.0"] >= 0.7 * (answers["unsat 4.0"] + answers["unknown 4.0"] + answers["timeout 4.0"])


@pytest.mark.slow
def test_a_worker_confirms_it_on_both(tmp_path: Path) -> None:
    question = case("conv", 0, tmp_path, coarse=False)
    with Worker("sparse-pair", threads=1) as worker:
        safe, unsafe = worker.verify([question.ask(difference(factor * question.largest, 3)) for factor in (8.0, 0.5)])
    assert safe.status is Status.UNSAT, safe.detail
    assert unsafe.status is Status.SAT, unsafe.detail
    assert unsafe.witness_check is not None
    assert unsafe.witness_check["ok"]
