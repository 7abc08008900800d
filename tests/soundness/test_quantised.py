"""Quantised networks whose exact answers are known: every input that a box's points are rounded to has been tried.

The sparse verifiers must not prove what one of these breaks, be it by rounding alone, nor break what holds. Each case
is asked about on either side of its exact least margin, at 30 %, 5 % and a millionth of the outputs' range: 180
questions a verifier by default, 480 with PRUNECERT_SOUNDNESS=full.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunecert.hashing import sha256_file
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Instance, OutputSpec, Status, Verifier
from prunecert.verifiers.process.worker import Worker
from prunecert.verifiers.sparse.quantised.question import quantised
from tests.verifiers.sparse.quantised.exact import Reference
from tests.verifiers.sparse.quantised.networks import KINDS, FloatArray, Kind, network, run

#: Inputs that vary, and by how many levels to either side.
_BOXES = ((4, 2.0), (3, 12.4))
#: How far thresholds are from the exact least margin, as a share of the outputs' range.
_SHARES = (0.3, 0.05, 1e-6)
#: Networks of each kind and grid.
_SEEDS = 8 if os.environ.get("PRUNECERT_SOUNDNESS") == "full" else 3


@dataclass(frozen=True, eq=False)
class Case:
    """A network over a box, and the least margin of its first class there, over every runtime and in exact arithmetic.

    Args:
        path: The file.
        lower: Corner of the box.
        upper: Likewise.
        label: The class of the centre.
        least: Exact least margin over another class, and the largest that is less by a runtime: both.
        scale: Of the outputs.
    """

    path: Path
    lower: FloatArray
    upper: FloatArray
    label: int
    least: tuple[float, float]
    scale: float

    def ask(self, threshold: float, timeout: float = 20.0) -> Instance:
        """Returns the question whether the label is ahead of both others by more than a threshold."""
        spec = OutputSpec(tuple((a, b + threshold) for a, b in OutputSpec.robustness(self.label, 3).disjuncts))
        return Instance(self.path, sha256_file(self.path), self.lower, self.upper, spec, timeout, "case", self.label, 3)


def case(kind: Kind, seed: int, folder: Path, coarse: bool) -> Case:
    """Draws a case."""
    model = network(kind, seed, coarse)
    path = folder / f"{kind}-{seed}-{coarse}.onnx"
    onnx.save(fixed(model), path)
    rng = np.random.default_rng(seed + 1000)
    net = quantised(model, "net")
    shape = net.intervals.steps[0].shape[1:]
    size = int(np.prod(shape))
    center = (np.round(rng.random(size) * 255) / 255).astype(np.float32)
    radius = np.zeros(size, dtype=np.float32)
    varying, levels = _BOXES[seed % 2]
    radius[rng.choice(size, varying, replace=False)] = levels / 255
    lower, upper = center - radius, center + radius
    # All numbers to which points of the box are rounded.
    entry = net.box(lower, upper).intervals[net.relaxed.entry]
    scale = float(np.float32(1 / 255))
    axes = [
        np.arange(round(low / scale), round(high / scale) + 1)
        for low, high in zip(entry.lower, entry.upper, strict=True)
    ]
    grid = np.array(list(itertools.product(*axes)), dtype=np.float64) * scale
    x = grid.astype(np.float32).reshape(-1, *shape)
    label = int(Reference(model).run(center.reshape(1, *shape))[0].argmax())
    margins = []
    values = [Reference(model).run(x), run(model, x).astype(np.float64), run(model, x, fused=True).astype(np.float64)]
    for outputs in values:
        others = np.delete(outputs, label, axis=1)
        margins.append(float((outputs[:, label] - others.max(axis=1)).min()))
    return Case(
        path,
        lower.reshape(shape),
        upper.reshape(shape),
        label,
        (min(margins), max(margins)),
        float(np.abs(values[0]).max()),
    )


def fixed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a network with a batch axis of 1."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return copy


def decide(verifier: Verifier, case: Case, answers: Counter[str]) -> None:
    """Asks about thresholds on either side of the exact margin, and judges the answers."""
    verifier.load(case.path)
    for share in _SHARES:
        step = share * case.scale
        (safe,) = verifier.solve([case.ask(case.least[0] - step)])
        assert safe.status is not Status.SAT, f"{case.path.name}: broken, though it holds by {step:.3g}"
        (unsafe,) = verifier.solve([case.ask(case.least[0] + step)])
        assert unsafe.status is not Status.UNSAT, f"{case.path.name}: proved, though it fails by {step:.3g}"
        answers[f"{safe.status} {share}"] += 1
        answers[f"{unsafe.status} below {share}"] += 1


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """All cases; each takes thousands of runs."""
    folder = tmp_path_factory.mktemp("quantised")
    return [
        case(kind, seed, folder, coarse)
        for kind, seed, coarse in itertools.product(KINDS, range(_SEEDS), (False, True))
    ]


@pytest.mark.parametrize("name", ["sparse-crown", "sparse-bab"])
def test_a_sample_of_exact_answers(name: str, tmp_path: Path) -> None:
    verifier = VERIFIERS.get(name)({})
    verifier.start()
    answers: Counter[str] = Counter()
    for coarse in (False, True):
        decide(verifier, case("dense", 0, tmp_path, coarse), answers)
    assert answers["unsat 0.3"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sparse-ibp", "sparse-crown-ibp", "sparse-crown", "sparse-alpha-crown", "sparse-bab"])
def test_exact_answers(name: str, cases: list[Case]) -> None:
    verifier = VERIFIERS.get(name)({})
    verifier.start()
    answers: Counter[str] = Counter()
    for drawn in cases:
        decide(verifier, drawn, answers)
    assert answers.total() == 2 * len(_SHARES) * len(cases)
    # Not all of them: the rounding of each neuron is free within its bounds, which costs something.
    assert answers["unsat 0.3"] >= 0.8 * len(cases)
    if name == "sparse-bab":
        assert answers["sat below 0.3"] >= 0.6 * len(cases)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker("sparse-bab", threads=1) as subject:
        yield subject


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_gives_the_same(kind: Kind, tmp_path: Path, worker: Worker) -> None:
    drawn = case(kind, 1, tmp_path, False)
    (safe,) = worker.verify([drawn.ask(drawn.least[0] - 0.3 * drawn.scale)])
    assert safe.status is Status.UNSAT, safe.detail
    assert safe.bounds is not None
    assert all(bound > 0 for bound in safe.bounds)
    (unsafe,) = worker.verify([drawn.ask(drawn.least[0] + 0.3 * drawn.scale)])
    assert unsafe.status in (Status.SAT, Status.UNKNOWN)
    if unsafe.status is Status.SAT:
        assert unsafe.witness_check is not None
        assert unsafe.witness_check["ok"]


@pytest.mark.slow
def test_what_cannot_be_bounded_is_unsupported_by_its_name(tmp_path: Path, worker: Worker) -> None:
    drawn = case("dense", 1, tmp_path, False)
    model = onnx.load(drawn.path)
    (scale,) = (item for item in model.graph.initializer if item.name == "input_s")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.array(0, np.float32), "input_s"))
    onnx.save(model, drawn.path)
    (verdict,) = worker.verify([drawn.ask(0.0)])
    assert verdict.status is Status.UNSUPPORTED
    assert "QuantizeLinear_0' (QuantizeLinear) isn't taken: its scale is 0" in verdict.detail
