from __future__ import annotations

from prunecert.bench.results.impact.paper_claims import CLAIMS, UNASKED
from prunecert.models import PRUNERS


def test_claims_are_about_cells_that_the_suite_has() -> None:
    from prunecert.bench.schema.suite import load_suite

    cells = {(cell.pruner, cell.compression) for cell, _ in load_suite("cifar10-methods").cells}
    # Grafting removes no weight at 1x, where others would be the dense control.
    cells.add(("grafting", 1.0))
    for claim in CLAIMS:
        assert set(claim.needs) <= cells, claim.text
        assert claim.needs[0][0] == claim.method
    assert set(UNASKED) <= set(PRUNERS)
