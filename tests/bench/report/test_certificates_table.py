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


def test_eighty_columns_have_the_radii_and_the_mean() -> None:
    (cell,) = summarise([cell_of()], {}, {}, 0.95)
    shares = [{**item, "value": 0.5, "low": 0.4, "high": 0.6} for item in cell["certified"]]
    ((title, small),) = certificates_table.narrow({"certificates": [{**cell, "certified": shares, "acr": 0.25}]})
    assert title.endswith(f"σ = {cell['sigma']:g}, {cell['images']} images: % certified")
    assert list(small.rows[0][3:]) == ["50.0"] * len(shares) + ["0.250"]
    assert [heading for heading, _ in small.columns][3:-1] == [f"r = {item['radius']:g}" for item in shares]
