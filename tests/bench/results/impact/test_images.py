from __future__ import annotations

import numpy as np

from prunecert.bench.results.impact.images import outcomes_of, outcomes_of_rows
from prunecert.bench.results.summary import Rows, summarise_cell
from tests.bench import summarykit
from tests.bench.results.impact.networks import network, proved
from tests.bench.rowkit import all_typed


def rows_of(images: int = 6) -> Rows:
    rows = Rows()
    rows.add(all_typed([summarykit.session(summarykit.cell(images=images)), *summarykit.everything()]))
    return rows


def test_images_count_as_the_summary_counts_them() -> None:
    rows = rows_of()
    (part,) = outcomes_of_rows(rows)
    summary = summarise_cell(part.cell, rows)
    for metric in part.metrics:
        assert int(part.flags(metric).sum()) == summary[metric]["k"]
    assert np.all(part.verified <= part.attacked)
    assert np.all(part.attacked <= part.clean)
    assert part.seconds.sum() == summary["time"]["total_s"]
    assert not part.seconds[~part.clean].any()


def test_what_is_not_finished_has_no_images() -> None:
    rows = rows_of(images=9)
    assert outcomes_of_rows(rows) == []
    (cell,) = rows.cells().values()
    assert outcomes_of(cell, rows) is None


def test_of_what_was_only_attacked_nothing_is_proved() -> None:
    assert network(proved(1)).metrics == ("clean", "attacked", "verified")
    assert network(proved(1), kind="attack").metrics == ("clean", "attacked")


def test_a_part_is_looked_up_by_number() -> None:
    part = network(proved(3, 8)).only(np.array([3, 5, 8]))
    assert part.verified.tolist() == [True, False, True]
    assert part.labels.tolist() == [3, 1, 0]
    assert part.unstable.tolist() == [13, 15, 18]
    assert len(part) == 3
