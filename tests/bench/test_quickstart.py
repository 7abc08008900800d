"""The tutorial's suite, from nothing to a report: real images, another shape than CIFAR-10's, nothing downloaded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from prunecert.bench import export, run, train
from prunecert.bench.schema.suite import SUITES

_EPOCHS = {"pretrain_epochs": 3, "ramp_epochs": 1, "prune_epochs": 1, "finetune_epochs": 1}


@pytest.mark.slow
def test_it_trains_prunes_exports_and_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    text = (SUITES / "digits-quickstart.yaml").read_text().replace("[1, 4, 16, 64]", "[1, 4]")
    for key, epochs in _EPOCHS.items():
        text, count = re.subn(rf"{key}: \d+", f"{key}: {epochs}", text)
        assert count == 1
    suite = tmp_path / "quick.yaml"
    suite.write_text(text)
    arguments = ["--suite", str(suite), "--checkpoints", "nets"]
    assert train.main(["--suite", str(suite), "--out", "nets", "--threads", "1"]) == 0
    card = json.loads((tmp_path / "nets" / "cnn-small_ibp_eps16_lwm_x4_s0.json").read_text())
    assert card["data"] == {"name": "digits", "shape": [1, 8, 8], "classes": 10}
    assert run.main([*arguments, "--images", "24", "--workers", "1", "--out", "run"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["finished"]
    assert summary["publishable"]
    assert summary["data"][0]["source"] == "the digits of scikit-learn"
    assert [cell["images"] for cell in summary["cells"]] == [24, 24]
    assert sum(cell["verified"]["k"] for cell in summary["cells"]) > 0
    assert not summary["contradictions"]
    assert export.main([*arguments, "--images", "24", "--out", "exports"]) == 0
    assert "cnn-small_ibp_eps16_lwm_x4_s0" in (tmp_path / "exports" / "instances.csv").read_text()
