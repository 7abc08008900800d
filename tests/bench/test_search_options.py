from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.running.search_request import plan_trials
from prunecert.bench.search_options import request_of, search_parser
from tests.bench.trainkit import command


def test_options_become_a_request(tmp_path: Path) -> None:
    options = [*command(tmp_path), "--verify", "5", "--verifiers", "ibp, crown", "--timeout", "3"]
    request = request_of(search_parser().parse_args(options))
    assert request.verification is not None
    assert request.verification.verifiers == ("ibp", "crown")
    assert (request.verification.images, request.verification.timeout) == (5, 3.0)
    assert search_parser().parse_args([*command(tmp_path), "--trials", "7"]).trials == 7


def test_an_ablation_has_a_trial_for_each_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = request_of(search_parser().parse_args([*command(tmp_path), "--one-by-one"]))
    changes = [rungs[0].changes for rungs in plan_trials(request)]
    assert changes == [{}, {"lr": 0.003}, {"lr": 1e-6}]
    with pytest.raises(SystemExit):
        search_parser().parse_args([*command(tmp_path), "--one-by-one", "--trials", "3"])
    assert "not allowed with" in capsys.readouterr().err
