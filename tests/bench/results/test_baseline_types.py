from __future__ import annotations

from typing import Any

import msgspec
import pytest

from prunecert.bench.gating import baseline_file
from prunecert.bench.results.baseline_types import Baseline, InstanceAnswer, InstanceHead
from prunecert.bench.results.decode import plain
from tests.bench import gatekit as kit

DATA = baseline_file.to_json(kit.snapshot(kit.cell(kit.PROVED, kit.MISCLASSIFIED, kit.ERROR)))


def test_a_baseline_is_of_this_type_and_written_as_it_is_read() -> None:
    assert plain(msgspec.convert(DATA, Baseline)) == DATA


@pytest.mark.parametrize("field", sorted(key for key in DATA if key not in ("unpublishable",)))
def test_no_field_may_be_left_out(field: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{field}`"):
        msgspec.convert({key: value for key, value in DATA.items() if key != field}, Baseline)


def test_there_is_at_least_one_cell_and_one_image_in_each() -> None:
    changes: tuple[dict[str, Any], ...] = ({"cells": []}, {"cells": [{**DATA["cells"][0], "instances": []}]})
    for change in changes:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**DATA, **change}, Baseline)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            InstanceHead,
            ([0, 9, 1, "q"], [0, 9, 0, None]),
            ([0, 9, 2, "q"], [0, 9, 1], [-1, 9, 1, None], [0, 9, 1, "\n"]),
        ),
        (InstanceAnswer, (None, ["unsat", 0.5]), (["proved", 0.5], ["unsat"], ["unsat", "soon"], ["sat", 1e99])),
    ],
)
def test_images_and_answers_have_places_for_all(kind: Any, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    for value in good:
        msgspec.convert(value, kind)
    for value in bad:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, kind)
