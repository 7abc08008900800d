"""A verifier that tells where it runs."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from prunecert.verifiers.base import Availability, Instance, Status, Verdict
from tests.bench.fakes import FakeComplete


class FakeWhere(FakeComplete):
    """Decides nothing; its detail names its processors."""

    name = "fake-where"

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, "1.0", source="tests", devices=("cpu", "cuda"))

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        # Long enough for the other worker to get its share.
        time.sleep(0.05)
        cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
        return [Verdict(Status.UNKNOWN, f"cores {cores}", device=self.device) for _ in instances]
