from __future__ import annotations

import json

from tests.bench.gatekit import (
    result,
)


def test_the_result_is_plain_data() -> None:
    data = json.loads(json.dumps(result().to_json(), allow_nan=False))
    assert (data["kind"], data["outcome"], data["exit_code"]) == ("gate", "failed", 1)
    cell = data["cells"][0]
    assert cell["metrics"]["verified"]["lost"] == 3
    assert [(change["image"], change["loss"]) for change in cell["lost"]] == [
        (0, "broken"),
        (1, "undecided"),
        (2, "near-limit"),
    ]
    assert data["baseline"]["history"][0]["reason"] == "first"
