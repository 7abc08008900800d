from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.running.plainly import without_verifier
from prunecert.verifiers.base import Status, Verdict
from prunecert.verifiers.formats import vnnlib
from tests.bench.propertykit import BOX, HOLDS, identity, spec


def answered(folder: Path, text: str) -> Verdict | None:
    path = folder / "p.vnnlib"
    path.write_text(text)
    parsed = vnnlib.parse_property(text, str(path), path)
    network = identity().save(folder / "net.onnx")
    return without_verifier(parsed, parsed.instances(network, "a" * 64, (2,), 5.0, "name"))


def test_a_property_that_asks_something_is_for_a_verifier(tmp_path: Path) -> None:
    assert answered(tmp_path, HOLDS) is None


@pytest.mark.parametrize(
    "text",
    [
        spec("(>= X_0 1)", "(<= X_0 0)", *BOX[2:], "(>= Y_0 0)"),
        spec(*BOX, "(>= Y_0 1)", "(<= 2 1)"),
    ],
)
def test_what_nothing_can_meet_holds_and_that_is_odd(tmp_path: Path, text: str) -> None:
    verdict = answered(tmp_path, text)
    assert verdict is not None
    assert verdict.status is Status.UNSAT
    assert verdict.detail.startswith("warning: ")
    assert verdict.detail.endswith("so the property holds for any network")


def test_without_a_word_on_outputs_any_input_is_a_counterexample_and_is_replayed(tmp_path: Path) -> None:
    verdict = answered(tmp_path, spec(*BOX))
    assert verdict is not None
    assert verdict.status is Status.SAT
    assert verdict.witness is not None
    assert verdict.witness.tolist() == [0.25, 0.625], "the box's middle"
    assert verdict.witness_check is not None
    assert verdict.witness_check["ok"] is True


def test_a_network_that_may_not_be_run_here_is_for_a_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        refusal = "it has a Loop."

    monkeypatch.setattr("prunecert.bench.running.plainly.inspect_network", lambda *_, **__: Refused())
    monkeypatch.setattr("prunecert.bench.running.plainly.replay", lambda *_, **__: pytest.fail("it was run"))
    assert answered(tmp_path, spec(*BOX)) is None
