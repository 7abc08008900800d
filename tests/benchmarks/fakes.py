"""A verifier that answers at once, in batches: what is left is the harness."""

from __future__ import annotations

from collections.abc import Sequence

from prunecert.verifiers.base import Instance, Status, Verdict
from tests.bench.fakes import FakeBound


class Instant(FakeBound):
    name = "instant"
    batch_size = 100

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        return [Verdict(Status.UNSAT, bounds=(1.0,) * 9, unstable=7) for _ in instances]
