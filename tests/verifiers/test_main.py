"""``python -m verifiers`` says what is here and what is missing, and never fails for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper

from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.__main__ import main, survey
from prunecert.verifiers.formats.support import network_info
from prunecert.verifiers.process.inspection import check_supported


def test_every_verifier_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(VERIFIERS)
    for name in ("ibp", "crown", "pgd"):
        assert rows[name]["installed"]
        assert rows[name]["source"]
        assert rows[name]["norms"] == ["linf", "l2"]
    for row in rows.values():
        assert row["installed"] == (not row["hint"])


def test_a_broken_one_hides_no_other(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(VERIFIERS._targets, "broken", "prunecert.verifiers.no_such_module:Nothing")
    rows = {row["name"]: row for row in survey()}
    assert not rows["broken"]["installed"]
    assert "no_such_module" in rows["broken"]["hint"]
    assert rows["ibp"]["installed"]
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "no_such_module" in out
    assert "ibp" in out


def test_what_is_missing_can_be_copied_from_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(VERIFIERS._targets, "broken", "prunecert.verifiers.no_such_module:Nothing")
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(row["hint"] for row in survey() if row["name"] == "broken") in "\n".join(lines)
    assert max(len(line) for line in lines if "see below" in line) <= 80


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys; from verifiers.__main__ import main; main([]); "
        "heavy = {'torch', 'onnx', 'onnxruntime', 'foolbox'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.slow
def test_what_is_not_supported_is_said_before_the_work(tmp_path: Path) -> None:
    from tests.verifiers import onnxnets

    ibp = VERIFIERS.get("ibp")
    path = onnxnets.residual(tmp_path / "net.onnx")
    assert check_supported(ibp, path, "linf", "dnf") is None
    info = network_info(path)
    assert info.opset == 13
    assert info.input_shape == (1, 3, 6, 6)
    assert ("BatchNormalization", "number 5") in info.operators
    old = onnxnets.write(tmp_path / "old.onnx", [helper.make_node("Relu", ["input"], ["output"])], {}, (10,), opset=6)
    assert "opset is 6" in str(check_supported(ibp, old, "linf", "dnf"))
    neuralsat = VERIFIERS.get("neuralsat")
    # Not in the operators that it takes, but in those that the normal form is made of.
    assert check_supported(neuralsat, path, "linf", "dnf") is None
    plain = onnxnets.convolutional(tmp_path / "plain.onnx")
    assert "norm l2" in str(check_supported(neuralsat, plain, "l2", "dnf"))
