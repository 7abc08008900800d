"""From a request to an exit code: what can't be asked ends before a row is written, a run says what it ran."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from prunecert.bench.running.properties_request import PropertiesRequest
from prunecert.bench.running.verification import run_properties
from prunecert.errors import EXIT_OK, UserError
from tests.bench.propertykit import HOLDS, identity, log, spec


def request(folder: Path, text: str, certificate: Path | None = None) -> PropertiesRequest:
    """Returns a request about y = x and this property, by interval bounds."""
    identity().save(folder / "net.onnx")
    (folder / "p.vnnlib").write_text(text)
    return PropertiesRequest(
        verifiers={"sparse-ibp": {}}, onnx=folder / "net.onnx", vnnlib=folder / "p.vnnlib", timeout=60.0,
        out=folder / "out", certificate=certificate, argv=("--onnx", "net.onnx"),
    )  # fmt: skip


def test_a_pair_that_does_not_fit_is_refused_before_a_row_is_written(tmp_path: Path) -> None:
    three = spec(
        "(>= X_0 0)", "(<= X_0 1)", "(>= X_1 0)", "(<= X_1 1)", "(>= X_2 0)", "(<= X_2 1)", "(>= Y_0 9)", inputs=3
    )
    with pytest.raises(UserError, match="3"):
        run_properties(request(tmp_path, three))
    assert not list((tmp_path / "out").glob("instances*"))


def test_a_certificate_that_there_cannot_be_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    question = request(tmp_path, HOLDS, tmp_path / "proof.cert")
    text = """<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
        <float s = {0.5}, uint8 z = {0}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    with pytest.raises(UserError, match=r"quantised .* certificates are about networks in float32"):
        run_properties(question)
    assert not list((tmp_path / "out").glob("instances*"))


def test_a_run_begins_with_the_command_and_its_verifiers_and_certifies_what_it_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = tmp_path / "proof.cert"
    assert run_properties(request(tmp_path, HOLDS, proof)) == EXIT_OK
    session, answer = (row for row in log(tmp_path / "out") if row["type"] in {"session", "property"})
    assert session["command"] == ["python", "-m", "bench.verify", "--onnx", "net.onnx"]
    assert (session["type"], answer["status"], proof.exists()) == ("session", "unsat", True)
    assert str(proof) in capsys.readouterr().out


def test_all_verifiers_that_cannot_be_asked_are_named(tmp_path: Path) -> None:
    question = replace(request(tmp_path, HOLDS), verifiers={"sparse-ibp": {}, "sparse-bab": {}}, device="nowhere")
    with pytest.raises(UserError) as caught:
        run_properties(question)
    assert [detail.partition(";")[0] for detail in caught.value.details] == [
        f"Device 'nowhere' is refused for verifier '{name}'" for name in question.verifiers
    ]
