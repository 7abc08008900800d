from __future__ import annotations

import pytest

from prunecert.bench.report.rates_table import LayerRates, rates_table


def test_layers_are_shown_with_what_they_begin_and_end_with() -> None:
    ends = {"0.weight": [0.4, 0.2], "2.weight": [0.05, 0.1]}
    line = LayerRates("net", "ibp", "2/255", "heracles", 10, {"0.weight": 0.1, "2.weight": 0.1}, ends)
    assert line.spreads == pytest.approx([8.0, 2.0])
    assert rates_table([line]).rows == [
        ["net, ibp, 2/255", "heracles†", "10", "2", "0", "10.00", "30.00 (20.00 to 40.00)", "3.00", "5.0"],
        ["", "", "", "", "2", "10.00", "7.50 (5.00 to 10.00)", "0.75", ""],
    ]
    alone = LayerRates("net", "ibp", "2/255", "harp", 10, {"0.weight": 0.1}, {"0.weight": [0.1]})
    assert rates_table([alone]).rows[0][6] == "10.00"
