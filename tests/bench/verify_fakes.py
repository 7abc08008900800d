"""Verifiers for the tests of `bench.verify`: sure of themselves, whatever the question."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from prunecert.verifiers.base import Availability, Capabilities, Instance, Kind, OutputSpec, Status, Verdict, Verifier
from prunecert.verifiers.settings import Setting


class _Fake(Verifier):
    kind = Kind.COMPLETE

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, "1.0", source="tests")

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(frozenset({"Gemm", "Relu", "Flatten"}), specs="dnf")

    def load(self, onnx: Path) -> None:
        assert onnx.is_file()


class Prover(_Fake):
    """Proves everything."""

    name = "fake-prover"

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        return [Verdict(Status.UNSAT, domains=1) for _ in instances]


class Breaker(_Fake):
    """Runs the network at both corners; `sat` if one is unsafe, else `unsat`: right for the tests' monotone network.

    It dies where its setting says so, or PRUNECERT_TEST_DIE_AT in the environment, which is no part of the question.
    """

    name = "fake-breaker"
    known_settings: ClassVar[Mapping[str, Setting]] = {"die_at": Setting(default="", help="of the tests")}

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        from prunecert.verifiers.formats.counterexample import outputs

        answers = []
        for instance in instances:
            places = (str(self.settings["die_at"]), os.environ.get("PRUNECERT_TEST_DIE_AT", ""))
            if any(place and place in instance.name for place in places):
                os.kill(os.getpid(), signal.SIGKILL)
            verdict = Verdict(Status.UNSAT, domains=1)
            for corner in (instance.lower, instance.upper):
                if instance.spec.violated_by(outputs(instance.onnx, corner[None])[0]):
                    verdict = Verdict(Status.SAT, witness=corner.copy(), domains=1, stage="attack")
            answers.append(verdict)
        return answers


class Careless(Breaker):
    """Takes strict inequalities for weak ones."""

    name = "fake-careless"

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        return super().solve([replace(item, spec=OutputSpec(item.spec.disjuncts)) for item in instances])


class Robust(Prover):
    """Takes only a label against all others."""

    name = "fake-robust"

    @classmethod
    def capabilities(cls) -> Capabilities:
        return Capabilities(frozenset({"Gemm", "Relu"}))


def register() -> None:
    """Makes them known by their names."""
    from prunecert.verifiers import VERIFIERS
    from tests.bench.fakes import trust_fakes

    trust_fakes()
    for adapter in (Prover, Breaker, Careless, Robust):
        VERIFIERS.register(adapter.name, f"tests.bench.verify_fakes:{adapter.__name__}")


if __name__ == "__main__":
    from prunecert.bench.verify import main
    from prunecert.errors import run_main

    register()
    run_main(main)
