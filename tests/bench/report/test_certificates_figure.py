from __future__ import annotations

from prunecert.bench.report import certificates_figure
from prunecert.bench.results.certificates import summarise
from tests.bench.certificatekit import answer_of, cell_of


def test_the_curve_is_the_share_certified() -> None:
    answers = {i: answer_of(1, 1, count) for i, count in enumerate((1000, 900, 900, 700, 400))}
    (cell,) = summarise([cell_of()], {"k": answers}, {}, 0.95)
    x, y = certificates_figure.curve(cell)
    assert len(x) == len(y)
    for r in (0.0, 0.1, *cell["radii"], 0.3, 0.9, 2.0):
        share = 100 * sum(radius >= r for radius in cell["radii"]) / 5
        # With steps-pre the value at r is that of the first corner not before r.
        at = next((height for corner, height in zip(x, y, strict=True) if corner >= r), 0.0)
        assert at == share, r
