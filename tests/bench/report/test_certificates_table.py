from __future__ import annotations

from prunecert.bench.report import certificates_figure, certificates_table
from prunecert.bench.results.certificates import summarise
from tests.bench.certificatekit import cell_of


def test_nothing_done_yet_has_no_numbers() -> None:
    (cell,) = summarise([cell_of()], {}, {}, 0.95)
    assert cell["acr"] is None
    assert cell["certified"][0]["value"] is None
    shown = {"certificates": [cell], "confidence": 0.95}
    assert certificates_table.rows(shown)[0][-2] == "0 + 5 to do"
    assert certificates_figure.panels(shown) == {}
