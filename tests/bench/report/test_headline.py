from __future__ import annotations

from typing import Any

import pytest

from prunecert.bench.report.headline import compared, lines, of_images
from prunecert.bench.results.ratios import unpaired_ratio
from tests.bench.report.test_screen import cell


def other(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**entry, **changes}


def test_a_line_follows_the_pruner_that_keeps_most_over_its_seeds() -> None:
    cells = [cell("dense", 1, 50), cell("dense", 1, 40, seed=1)]
    cells += [cell("lwm", 10, 50), cell("lwm", 10, 32, seed=1), cell("hydra", 10, 46)]
    cells += [cell("lwm", 100, 20), other(cell("lwm", 100, 9), network="without-a-control")]
    ((name, points),) = lines({"cells": cells}).items()
    assert name == "cnn-small, crown-ibp"
    assert [(point.compression, point.pruner, point.seeds) for point in points] == [(10, "hydra", 1), (100, "lwm", 1)]
    assert (points[0].kept, points[0].low, points[0].high) == unpaired_ratio(46, 50, 100)
    # With the second seed's loss smaller, the mean of both is ahead.
    cells[3] = cell("lwm", 10, 39, seed=1)
    best = lines({"cells": cells})[name][0]
    assert (best.pruner, best.seeds) == ("lwm", 2)
    assert best.kept == pytest.approx(44 / 45)


def test_networks_and_objectives_have_lines_of_their_own_and_radii_where_they_differ() -> None:
    cells = [cell("dense", 1, 50), cell("lwm", 10, 40)]
    more = [other(one, objective="ibp", eps="8/255") for one in cells]
    assert list(lines({"cells": cells + more})) == ["cnn-small, crown-ibp, ε = 2/255", "cnn-small, ibp, ε = 8/255"]


def test_what_was_only_attacked_keeps_nothing_that_is_known() -> None:
    cells = [cell("dense", 1, 0), cell("lwm", 10, 0)]
    assert compared({"cells": cells}) == []
    assert lines({"cells": cells}) == {}


def test_few_images_are_warned_of() -> None:
    assert of_images([]) == ""
    assert of_images([cell("dense", 1, 5, images=1000), cell("lwm", 2, 5)]) == "n = 100 or 1,000 images"
    assert "mind the intervals" in of_images([cell("dense", 1, 5, images=49)])
