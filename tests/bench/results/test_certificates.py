from __future__ import annotations

import numpy as np
import pytest

from prunecert.bench.results.certificates import CertificateAnswer, broken, summarise
from tests.bench import rowkit
from tests.bench.certificatekit import answer_of, cell_of


def test_the_numbers_are_what_they_say() -> None:
    answers = {0: answer_of(1, 1, 1000), 1: answer_of(1, 1, 900), 2: answer_of(2, 1, 1000), 3: answer_of(1, 1, 500)}
    answers[4] = CertificateAnswer("timeout", 1, None, 9.0)
    correct = {"i": {0: True, 1: True, 2: False, 3: True, 4: False}}
    (cell,) = summarise([cell_of(), rowkit.cell(name="none")], {"k": answers}, correct, 0.95)
    large, small = answers[0].radius, answers[1].radius
    assert large is not None
    assert small is not None
    assert cell["acr"] == pytest.approx((large + small) / 5)
    values = [large, small, 0, 0, 0]
    assert cell["acr_error"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(5))
    assert (cell["abstained"], cell["wrong"], cell["failed"]) == (1, 1, {"timeout": 1})
    assert cell["clean"]["k"] == 3
    by_radius = {item["radius"]: item["k"] for item in cell["certified"]}
    assert by_radius == {r: sum(value >= r and value > 0 for value in values) for r in by_radius}
    assert by_radius[0.0] == 2
    assert by_radius[1.0] == 1
    # What 1,000 samples can't show is no column.
    assert max(by_radius) < cell["largest_radius"] == pytest.approx(large)
    assert cell["time"]["samples_per_s"] == pytest.approx(2200)
    assert cell["finished"]
    (part,) = summarise([cell_of(images=6)], {"k": answers}, correct, 0.95)
    assert not part["finished"]
    assert part["certified"][0]["n"] == 5


def test_a_verifier_that_only_fails_is_broken() -> None:
    answers = {i: CertificateAnswer("error", 1, None, 0.0) for i in range(5)}
    assert broken(summarise([cell_of()], {"k": answers}, {}, 0.95)) == ["smoothing"]
    answers[0] = answer_of(1, 1, 900)
    assert broken(summarise([cell_of()], {"k": answers}, {}, 0.95)) == []
