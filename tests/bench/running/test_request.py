from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from prunecert.bench.report.conclude import Conclusion
from prunecert.bench.running.request import Cluster, RunRequest, RunResult
from prunecert.bench.running.slurm import Resources
from prunecert.bench.schema.suite import available_suites, load_suite


@pytest.mark.parametrize("name", available_suites())
def test_a_request_travels_and_does_not_change(name: str) -> None:
    request = RunRequest(suite=load_suite(name), cluster=Cluster("submitit", Resources(extra={"account": "a"})))
    assert pickle.loads(pickle.dumps(request)) == request
    with pytest.raises(FrozenInstanceError):
        request.images = 4  # type: ignore[misc]
    assert request.suite_name == name


def test_what_was_not_concluded_has_nothing_wrong() -> None:
    assert RunResult(Path("run"), (), {}).exit_code == 0
    broken = Conclusion({"contradictions": [], "broken_verifiers": ["ibp"]})
    assert RunResult(Path("run"), (), {}, conclusion=broken).exit_code == 2
