from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from prunecert.bench.running import certifying
from prunecert.errors import UserError
from prunecert.verifiers.sparse.proofs.certificate import encode_sat
from tests.verifiers.checker import kit


def test_a_word_is_said_where_float32_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = kit.questions("conv-skip")[-1]
    proof = tmp_path / "proof"
    assert certifying.write_file(proof, files.onnx, files.vnnlib, 20.0) == 0
    safe = np.full((1, files.question.net.classes), -100.0, dtype=np.float32)
    safe[0, files.question.label or 0] = 100.0
    monkeypatch.setattr(certifying, "outputs", lambda *_: safe)
    assert certifying.check_file(proof, files.onnx, files.vnnlib) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("float32 (onnxruntime) differs: there it is safe")


def test_a_third_word_says_whether_float32_has_the_property(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, proof = kit.questions("conv-skip")[0], tmp_path / "proof"
    assert certifying.write_file(proof, files.onnx, files.vnnlib, 20.0) == 0
    assert certifying.check_file(proof, files.onnx, files.vnnlib) == 0
    assert "; in float32, sums in any order: holds (outputs err by at most " in capsys.readouterr().out
    monkeypatch.setattr(certifying, "output_error", lambda *_: np.inf)
    assert certifying.check_file(proof, files.onnx, files.vnnlib) == 0
    assert capsys.readouterr().out.endswith("sums in any order: not shown (outputs err by at most inf)\n")


def test_a_witness_that_is_safe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = kit.questions("conv-skip")[0]
    head = files.certificate(b"")
    proof = tmp_path / "proof"
    proof.write_bytes(encode_sat(head[11:43], head[43:75], files.question.lower))
    assert certifying.check_file(proof, files.onnx, files.vnnlib) == 1
    assert "isn't shown to be unsafe" in capsys.readouterr().out


def test_a_quantised_network_has_none(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
        <float s = {0.5}, uint8 z = {0}> { q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "net.onnx")
    with pytest.raises(UserError, match=r"net\.onnx is refused because it is quantised \(Deq"):
        certifying.write_file(tmp_path / "new" / "proof", tmp_path / "net.onnx", tmp_path / "p.vnnlib", 1.0)
    assert not (tmp_path / "new").exists()
