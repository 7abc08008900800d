from __future__ import annotations

from prunecert.models.history import HeldOutAccuracy
from prunecert.models.reports import EpochReport


def test_an_epoch_has_a_row_with_all_that_is_told_of_it() -> None:
    accuracy = HeldOutAccuracy(images=5, clean=0.2, seconds=0.1)
    report = EpochReport("scores", 2, 5, 1.25, 1234.56, 7.89012, 0.01, 1e-3, accuracy, number=9)
    row = report.row("abc")
    assert (row.key, row.stage, row.epoch, row.epochs, row.loss) == ("abc", "scores", 2, 5, 1.25)
    assert (row.eps, row.lr, row.images_per_s, row.seconds, row.held_out) == (0.01, 1e-3, 1234.6, 7.89, accuracy)
