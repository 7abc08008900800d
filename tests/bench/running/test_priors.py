from __future__ import annotations

import json

from prunecert.bench.running.priors import LEAST, MOST, PRIORS, SHIPPED
from prunecert.models import NETWORKS
from prunecert.verifiers import VERIFIERS
from tests import house


def test_they_are_what_the_recorded_run_took() -> None:
    summary = json.loads((house.ROOT / "results" / "zoo" / "cifar10-4nets-1000.json").read_text())
    totals: dict[str, list[float]] = {}
    for cell in summary["cells"]:
        for name, counts in cell["by_verifier"].items():
            own = totals.setdefault(name, [0.0, 0.0])
            own[0] += counts["total_s"]
            own[1] += counts["asked"]
    assert totals
    for name, (seconds, questions) in totals.items():
        assert 0.8 < PRIORS[name].seconds / (seconds / questions) < 1.25, name
    assert {cell["network"] for cell in summary["cells"]} == SHIPPED


def test_they_name_what_there_is() -> None:
    assert set(PRIORS) <= set(VERIFIERS)
    assert set(NETWORKS) >= SHIPPED
    assert all(prior.seconds > 0 and 0 <= prior.undecided <= 1 for prior in PRIORS.values())
    assert LEAST < 1 < MOST
