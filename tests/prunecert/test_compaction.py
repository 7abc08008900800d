"""Records of what compaction removed survive being written, and damaged ones are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prunecert.compaction import Compaction, LayerChange, Mode
from prunecert.errors import UserError

PIXELS = (0.0, 1.0)

RECORD = Compaction(
    "a" * 64,
    PIXELS,
    False,
    (LayerChange("Conv_0", "Conv", (9, 3, 4, 4), (2, 3, 4, 4)),),
    {"x": np.arange(9) % 4 == 1, "y": np.arange(9) % 4 == 1, "z": np.ones(3, dtype=bool)},
    (90, 20),
    1,
    2,
)


def test_records_survive_being_written_and_map_indices() -> None:
    read = Compaction.load(RECORD.dump())
    assert read.to_json() == RECORD.to_json()
    assert read.indices("x").tolist() == [1, 5]  # type: ignore[union-attr]
    assert read.indices("x", 3).tolist() == [3, 4, 5, 15, 16, 17]  # type: ignore[union-attr]
    assert read.indices("w") is None
    assert read.weights == (432, 96)
    assert "kept" not in read.summary()
    assert len(read.to_json()["kept"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 9}, "schema version 9"),
        ({"kept": [{"channels": 3, "bits": "!", "tensors": ["x"]}]}, "damaged"),
        ({"layers": None}, "damaged"),
        ({"relus": [1]}, "damaged"),
        ({"domain": 3}, "damaged"),
    ],
)
def test_damaged_records_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Compaction.from_json({**RECORD.to_json(), **change})
    with pytest.raises(UserError, match="damaged"):
        Compaction.load("{")
    with pytest.raises(UserError, match="damaged"):
        Compaction.load("[]")
    with pytest.raises(UserError, match="damaged"):
        Compaction.load("[" * 100_000)


def test_modes_say_for_which_inputs_networks_agree() -> None:
    assert {str(mode): mode.domain for mode in Mode} == {
        "off": None,
        "pixels": PIXELS,
        "all-inputs": None,
        "exact": PIXELS,
    }
