from __future__ import annotations

import json

from prunecert.bench.running.priors import LEAST, MOST, PRIORS, SHIPPED
from prunecert.models import NETWORKS
from prunecert.verifiers import VERIFIERS
from tests import house

#: Limit of the suite's default profile, for which guesses are made; its entries were made with more.
LIMIT_S = 20.0


def test_they_are_what_the_recorded_runs_took() -> None:
    entries = [json.loads(file.read_text()) for file in (house.ROOT / "results" / "leaderboard").glob("*.json")]
    suite = [entry for entry in entries if entry["protocol"]["suite"] == "cifar10-4nets"]
    entries = [entry for entry in suite if entry["cell"]["network"] in SHIPPED]
    times: dict[str, list[float]] = {}
    for entry in entries:
        for name, answers in entry["verdicts"].items():
            times.setdefault(name, []).extend(min(seconds, LIMIT_S) for seconds in answers["seconds"])
    assert times
    for name, seconds in times.items():
        assert 0.8 < PRIORS[name].seconds / (sum(seconds) / len(seconds)) < 1.25, name
    assert {entry["cell"]["network"] for entry in entries} == SHIPPED


def test_they_name_what_there_is() -> None:
    assert set(PRIORS) <= set(VERIFIERS)
    assert set(NETWORKS) >= SHIPPED
    assert all(prior.seconds > 0 and 0 <= prior.undecided <= 1 for prior in PRIORS.values())
    assert LEAST < 1 < MOST
