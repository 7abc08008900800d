from __future__ import annotations

from pathlib import Path

from prunecert.bench.report.training_figure import curves, stretches, write_history_figure
from prunecert.models.history import EpochRow, HeldOutAccuracy


def rows() -> list[EpochRow]:
    places = [("pretrain", 1), ("pretrain", 2), ("pretrain", 3), ("finetune", 1)]
    return [
        EpochRow(
            key="k",
            stage=stage,
            epoch=epoch,
            epochs=3,
            loss=2.0 / epoch,
            eps=0.002 * epoch,
            lr=1e-3,
            images_per_s=10.0,
            seconds=1.0,
            held_out=HeldOutAccuracy(images=20, clean=0.5, pgd=0.1 * epoch, seconds=0.1) if epoch != 2 else None,
        )
        for stage, epoch in places
    ]


def test_stages_and_curves_are_numbered_over_all_epochs() -> None:
    assert stretches(rows()) == [("pretrain", 1, 3), ("finetune", 4, 4)]
    lines = curves(rows())
    assert set(lines) == {"clean", "pgd"}
    assert lines["pgd"][0] == [1, 3, 4]
    assert [round(share) for share in lines["pgd"][1]] == [10, 30, 10]


def test_the_figure_says_what_it_shows(tmp_path: Path) -> None:
    path = write_history_figure(rows(), "net_x10_s0", tmp_path / "a.svg")
    assert path is not None
    text = path.read_text()
    for words in ("net_x10_s0", "loss, mean of an epoch", "% of 20 held-out images", "under attack (PGD)", "finetune"):
        assert words in text
    again = write_history_figure(rows(), "net_x10_s0", tmp_path / "b.svg")
    assert again is not None
    assert again.read_bytes() == path.read_bytes(), "the same history is the same file"
    assert write_history_figure([], "x", tmp_path / "none.svg") is None
    for row in (bare := rows()):
        row.held_out = None
    unmeasured = write_history_figure(bare, "x", tmp_path / "c.svg")
    assert unmeasured is not None
    assert "held-out" not in unmeasured.read_text()
