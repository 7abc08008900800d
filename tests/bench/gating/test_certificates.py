from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prunecert.bench import baseline, gate
from prunecert.bench.gating import run as gating_run
from prunecert.bench.results.proofs import certificate_path
from prunecert.errors import UserError
from tests.bench import proofkit
from tests.bench.rowkit import documents

pytestmark = pytest.mark.slow


def gated(run: Path, folder: Path, suite: Path, *more: str) -> int:
    """Gates a run against its own baseline; the run is complete, so that nothing is run again."""
    options = ["--run", str(run), "--out", str(folder / "b.json"), "--reason", "first"]
    if not (folder / "b.json").is_file():
        assert baseline.main(options) == 0
    words = ["--baseline", str(folder / "b.json"), "--suite", str(suite), "--out", str(run), "--workers", "1"]
    sources = ["--exports", str(suite.parent / "exports"), "--data-root", str(suite.parent)]
    return gate.main([*words, *sources, *more], {})


@pytest.fixture
def suite(proved_run: Path) -> Path:
    """Returns the run's suite, whose exports are where its networks are."""
    exports = proved_run.parent / "exports"
    exports.mkdir(exist_ok=True)
    if not (exports / "tiny.onnx").is_file():
        shutil.copy(proved_run.parent / "tiny.onnx", exports / "tiny.onnx")
    return proved_run.parent / "proved.yaml"


def test_it_passes_if_each_verified_image_has_a_proof_that_holds(
    proved_run: Path, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(proved_run, tmp_path / "run"))
    # It is finished: to run it again would take its time and change nothing.
    monkeypatch.setattr(gating_run, "_run", lambda *_: None)
    assert gated(out, tmp_path, suite, "--require", "certificates") == 0
    count = proofkit.PROVED
    assert (
        f"{count} certificates checked and accepted"
        in (out / "gate" / "junit.xml").read_text() + (out / "gate" / "gate.json").read_text()
    )
    # A proof of one image doesn't serve another, whatever the run says.
    first, second, *_ = (row for row in documents(out, "proof") if row["status"] == "unsat")
    log = out / "instances.main.jsonl"
    log.write_text(log.read_text().replace(first["sha256"], second["sha256"]))
    capsys.readouterr()
    assert gated(out, tmp_path, suite, "--require", "certificates") == 1
    printed = capsys.readouterr().out
    assert f"{proofkit.CELL}, certificates: 1 of {count} verified images without a certificate that holds" in printed
    assert f"image {first['image']}: refused: the certificate is for another property" in printed
    assert gated(out, tmp_path, suite) == 0


def test_rules_may_ask_for_it_and_a_run_without_gets_them(proved_run: Path, suite: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("gate: {require: certificates}\n")
    out = Path(shutil.copytree(proved_run, tmp_path / "run"))
    row = next(row for row in documents(out, "proof") if row["status"] == "unsat")
    certificate_path(out, row["sha256"]).unlink()
    # The run goes on, and writes what is missing.
    assert gated(out, tmp_path, suite, "--rules", str(rules)) == 0
    assert certificate_path(out, row["sha256"]).is_file()


def test_a_certificate_that_is_missing_fails_a_finished_run(
    proved_run: Path, suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(proved_run, tmp_path / "run"))
    row = next(row for row in documents(out, "proof") if row["status"] == "unsat")
    log = out / "instances.main.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if row["sha256"] not in line))
    monkeypatch.setattr(gating_run, "_run", lambda *_: None)
    assert gated(out, tmp_path, suite, "--require", "certificates") == 1
    assert f"image {row['image']} has no certificate: prunecert run --certificates" in capsys.readouterr().out
    with pytest.raises(UserError, match="Suite 'proved' doesn't ship"):
        gate.main(["--baseline", str(tmp_path / "b.json"), "--run", str(out), "--require", "certificates"], {})
