"""Claims from a folder of checkpoints and entries: each says what it lacks, or what it is judged by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.impact.claims import claims, record_of
from prunecert.bench.retention import main
from prunecert.models.checkpoint import ZOO, load_card
from prunecert.models.history import EpochRow, HeldOutAccuracy
from tests.bench.results.impact.networks import network, proved


def test_what_is_not_trained_yet_is_named(tmp_path: Path, entries: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(entries), "--about", "claims", "--checkpoints", str(tmp_path)])
    text = capsys.readouterr().out
    for family in ("ibp", "mtl-ibp", "pgd"):
        assert f"**cnn-small, {family}, 2/255: claims of the papers**" in text
    assert "| *_harp-uniform_x100_* | – | not trained yet: harp-uniform_x100 |" in text
    assert "holds: the 95 % interval" in text


def test_what_is_verified_is_judged_and_what_is_only_trained_waits_for_that(tmp_path: Path) -> None:
    parts = [
        network(proved(*range(30)), pruner="ard", network="cnn-small"),
        network(proved(*range(10)), pruner="lwm", network="cnn-small"),
    ]
    tables = {table.title: table.table.rows for table in claims(parts, ZOO)}
    rows = tables["cnn-small, ibp, 2/255: claims of the papers"]
    (hard, _) = [row for row in rows if row[0] == "ard"]
    assert hard[4] == "holds"
    assert hard[3].startswith("attacked +50.0 points (")
    # The zoo has both at 100x, and nobody has verified them here.
    (harp,) = [row for row in rows if row[1].startswith("beats HYDRA at 100x")]
    assert harp[4] == "not verified yet: harp_x100, hydra_x100"
    assert not [row for row in tables["cnn-small, pgd, 2/255: claims of the papers"] if row[0] == "fre"]


def test_what_may_not_be_published_counts_for_no_claim(tmp_path: Path) -> None:
    def number(folder: Path) -> str:
        parts = [network(proved(*range(30)), pruner="lwm", network="cnn-small")]
        rows = next(iter(claims(parts, folder))).table.rows
        return next(row[3] for row in rows if row[0] == "harp-uniform")

    for file in ZOO.glob("cnn-small_ibp_eps2_harp-uniform_x100_s0.json"):
        shutil.copy(file, tmp_path)
        assert number(tmp_path) != "–"
        card = json.loads(file.read_text()) | {"unfit": "trained on 100 images only (--subset)"}
        (tmp_path / file.name).write_text(json.dumps(card))
    assert number(tmp_path) == "–"


def test_a_record_has_the_history_s_attacked_accuracies_and_the_card_s_rates() -> None:
    card = load_card(ZOO / "cnn-small_ibp_eps2_lwm_x100_s0")
    whole: dict[str, Any] = {"key": "k", "epochs": 3, "loss": 1.0, "eps": 0.0, "lr": 0.1, "images_per_s": 1.0}
    whole["seconds"] = 5.0
    measured = HeldOutAccuracy(images=10, clean=0.5, pgd=0.4, seconds=3.0)
    rows = [
        EpochRow(stage="search", epoch=1, **whole),
        EpochRow(stage="ticket", epoch=1, held_out=measured, **whole),
        EpochRow(stage="ticket", epoch=2, **whole),
    ]
    record = record_of(card, rows)
    assert (record.robust, record.images) == ([("ticket", 1, 0.4)], 10)
    assert (record.epochs, record.seconds) == ({"search": 1, "ticket": 2}, {"search": 5.0, "ticket": 10.0})
    assert record.rates["7.weight"] == pytest.approx(1 - card.sparsity_by_layer["7.weight"])
