from __future__ import annotations

import pytest

from prunecert.bench.leaderboard.entry import seal
from prunecert.bench.site.matrix import matrix
from prunecert.bench.site.view import families, make_rows
from tests.bench import boards


def test_an_open_question_counts_as_twice_its_limit() -> None:
    entry, other = boards.make(), boards.make("hydra")
    for one, limit in ((entry, 30.0), (other, 10.0)):
        stage, count = one["protocol"]["stages"][0], boards.IMAGES - 1
        stage["timeout"] = limit
        one["verdicts"]["ibp"]["status"] = ["unsat"] * 20 + ["timeout"] * (count - 20)
        one["verdicts"]["pgd"]["status"] = ["unknown"] * count
        one["verdicts"]["ibp"]["seconds"] = [1.0] * count
        boards.rekey(one)
        seal(one)
    fields = matrix(dict(families(make_rows([entry, other]))))
    assert list(fields) == ["ibp", "pgd"]
    (field,) = fields["ibp"].values()
    left = boards.IMAGES - 21
    assert (field.questions, field.solved, field.undecided) == (2 * (20 + left), 40, 2 * left)
    assert field.par2 == pytest.approx((40 * 1.0 + left * 60.0 + left * 20.0) / field.questions)
    assert field.everyone


def test_who_was_asked_about_what_was_left_says_so() -> None:
    entry = boards.make(verifiers=("ibp", "pgd"))
    entry["protocol"]["stages"][1]["everyone"] = False
    fields = matrix(dict(families(make_rows([entry, boards.make("lwm", 2.0)]))))
    assert {name: next(iter(by.values())).everyone for name, by in fields.items()} == {"ibp": True, "pgd": False}
