"""Verifiers that answer by arithmetic on the box alone: fast, deterministic, and honest about nothing but plumbing."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from prunecert.verifiers.base import Availability, Capabilities, Instance, Kind, Status, Verdict, Verifier
from prunecert.verifiers.rounding import guard
from prunecert.verifiers.settings import Setting

OPERATORS = frozenset({"Add", "Conv", "Flatten", "Gemm", "Relu"})


def chance(instance: Instance, salt: str) -> float:
    """A number in [0, 1) that only the box and the salt decide."""
    value = hashlib.sha256(instance.lower.tobytes() + salt.encode()).digest()
    return int.from_bytes(value[:8], "big") / 2**64


def trust_fakes() -> None:
    """Lets false proofs of verifiers whose name begins with ``fake`` pass the guard, which would catch most of them.

    What the harness makes of a contradiction can't be seen otherwise. The guard's own tests are in `tests/verifiers`.
    """
    usual = guard.guard
    if usual.__name__ == "trusting":
        return

    def trusting(verifier: type[Verifier], instance: Instance, verdict: Verdict) -> Verdict:
        return verdict if verifier.name.startswith("fake") else usual(verifier, instance, verdict)

    guard.guard = trusting


class _Fake(Verifier):
    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, "1.0", source="tests")

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(OPERATORS)

    def load(self, onnx: Path) -> None:
        assert onnx.is_file()


class FakeBound(_Fake):
    name = "fake-bound"
    kind = Kind.INCOMPLETE
    batch_size = 4
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "share": Setting(default=0.5, help="of the tests"),
        "delay": Setting(default=0.0, help="of the tests"),
    }

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        time.sleep(float(self.settings["delay"]))
        return [
            Verdict(Status.UNSAT, bounds=(1.0,) * 9, unstable=7)
            if chance(i, self.name) < self.settings["share"]
            else Verdict(Status.UNKNOWN, "too loose")
            for i in instances
        ]


class FakeComplete(_Fake):
    name = "fake-complete"
    kind = Kind.COMPLETE
    known_settings: ClassVar[Mapping[str, Setting]] = {"delay": Setting(default=0.0, help="of the tests")}

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        time.sleep(float(self.settings["delay"]))
        return [
            Verdict(Status.UNSAT, domains=3) if chance(i, self.name) < 0.5 else Verdict(Status.TIMEOUT, "no time left")
            for i in instances
        ]


class FakeLiar(_Fake):
    """Claims that everything is unsafe, with the box's lower corner as its witness."""

    name = "fake-liar"
    kind = Kind.ATTACK

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        return [Verdict(Status.SAT, witness=i.lower.copy()) for i in instances]


class FakeFinder(_Fake):
    """Claims the first of the starts that it is given, else a corner that depends on the network's name."""

    name = "fake-finder"
    kind = Kind.ATTACK
    batch_size = 4

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        corners = [i.upper if "lwm" in i.onnx.name else i.lower for i in instances]
        return [
            Verdict(Status.SAT, witness=next(iter(i.starts.values()), corner).copy())
            for i, corner in zip(instances, corners, strict=True)
        ]


class FakeMissing(_Fake):
    name = "fake-missing"
    kind = Kind.COMPLETE

    @classmethod
    def availability(cls) -> Availability:
        return Availability(False, hint="install fake-missing by hand.")
