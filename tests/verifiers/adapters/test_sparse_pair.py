"""The adapter that compares two networks, asked through a worker about one merged file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunecert.hashing import sha256_file
from prunecert.onnx.merge import merge
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.adapters.sparse_pair import SparsePair
from prunecert.verifiers.base import Instance, Kind, OutputSpec, Status
from prunecert.verifiers.process.worker import Worker
from prunecert.verifiers.sparse.pairs import reading
from prunecert.verifiers.sparse.pairs.specification import difference
from tests.soundness.pairs import questions
from tests.soundness.test_rounded_pairs import case as rounded_case


@pytest.mark.slow
def test_it_answers_through_a_worker(tmp_path: Path) -> None:
    cases = list(questions(4, ("fc",)))
    onnx.save(merge(*cases[0].files(tmp_path)), tmp_path / "pair.onnx")
    instances = [
        Instance(
            onnx=tmp_path / "pair.onnx", onnx_sha256=sha256_file(tmp_path / "pair.onnx"), lower=question.lower,
            upper=question.upper, spec=question.spec, timeout=30.0, name=question.name, classes=6,
        )
        for question in cases
    ]  # fmt: skip
    single = cases[0].first.save(tmp_path / "single.onnx")
    alone = replace(
        instances[0], onnx=single, onnx_sha256=sha256_file(single), spec=OutputSpec.robustness(0, 3), classes=3
    )
    ball = replace(instances[0], norm="l2", eps=0.1, center=instances[0].lower)
    with Worker("sparse-pair", threads=1) as worker:
        verdicts = worker.verify(instances)
        refused = worker.verify([alone, ball])
    assert [verdict.status for verdict in verdicts] == [question.truth for question in cases]
    for verdict in verdicts:
        if verdict.status is Status.SAT:
            assert verdict.witness_check is not None
            assert verdict.witness_check["ok"]
    assert [verdict.status for verdict in refused] == [Status.UNSUPPORTED] * 2
    assert "single.onnx has 3 outputs; a pair of networks has an even number" in refused[0].detail
    assert "boxes" in refused[1].detail or "norm" in refused[1].detail


def test_networks_that_round_are_compared_with_onnxruntime_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = rounded_case("signed", 1, tmp_path, coarse=False)
    question = drawn.ask(difference(1e6, 3))
    verifier = SparsePair({})
    verifier.start()
    verifier.load(drawn.path)
    assert verifier.evaluate(drawn.lower[None]) is None
    (verdict,) = verifier.solve([question])
    assert (verdict.status, verdict.stage) == (Status.UNSAT, "incomplete")
    verifier.load(drawn.path)
    nothing = np.zeros(6)
    monkeypatch.setattr(reading, "enclose", lambda *_: (nothing, nothing))
    with pytest.raises(RuntimeError, match="onnxruntime's outputs are outside of their bounds"):
        verifier.solve([question])


def test_its_settings_are_checked() -> None:
    verifier = VERIFIERS.get("sparse-pair")
    assert verifier.kind is Kind.COMPLETE
    assert verifier.resolve({"entries": 0})["entries"] == 0
    assert np.all([key in verifier.__doc__ for key in ("entries", "seed")] if verifier.__doc__ else [False])
