"""alpha-beta-CROWN, a complete verifier on CPU and CUDA, through its Python API in one persistent process.

Tested with its release of December 2025 (commit 8250d5fbd530) and auto_LiRPA 0.7.1 (commit a050a3d61f4c), with
KaidiXu's fork of onnx2pytorch (commit 8447c42c3192) and torch 2.13, although upstream declares torch < 2.9.

A proof rests on float32 bounds without outward rounding: a disjunct counts as excluded once its lower bound exceeds
the threshold strictly, so it is given a property that leaves room for rounding (`verifiers.rounding.guard`). A ball
(l2) is bounded as the whole ball, the part outside the box included, and never attacked: it gives `unsat` or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from prunecert.errors import UserError
from prunecert.verifiers.adapters.abcrown import install
from prunecert.verifiers.adapters.abcrown.configuration import DEFAULTS, SETTINGS, nested
from prunecert.verifiers.adapters.abcrown.words import parse_status
from prunecert.verifiers.adapters.hardware import describe, domains_that_fit, use_device, visible_devices
from prunecert.verifiers.adapters.torch_adapter import run_module
from prunecert.verifiers.base import (
    Availability,
    Capabilities,
    FloatArray,
    Instance,
    Kind,
    Status,
    Times,
    Verdict,
    Verifier,
)
from prunecert.verifiers.formats.support import OPERATORS
from prunecert.verifiers.rounding import guard
from prunecert.verifiers.settings import Setting

#: Inputs up to this size are split themselves, as upstream does.
INPUT_SPLIT_UP_TO = 20
#: Smooth activations have no normal form; upstream bounds them itself, beside these.
NATIVE = OPERATORS | {"Constant", "Identity", "MatMul", "Mul", "Sigmoid", "Sub", "Tanh", "Transpose"}


class AbCrown(Verifier):
    """Attack, alpha-CROWN, then beta-CROWN with branch and bound."""

    name = "abcrown"
    kind = Kind.COMPLETE
    known_settings: ClassVar[Mapping[str, Setting]] = SETTINGS
    recycle_after = 200
    tightens = True

    @classmethod
    def availability(cls) -> Availability:
        """Looks for ABCROWN_HOME or the package `abcrown`, and for all that it imports."""
        place = install.find()
        if isinstance(place, str):
            return Availability(False, hint=place)
        return Availability(True, place.version, devices=visible_devices(), source=f"alpha-beta-CROWN {place.version}")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """ReLU networks and some smooth ones; boxes and l2 balls; any linear property in disjunctive normal form."""
        return Capabilities(operators=OPERATORS, norms=("linf", "l2"), specs="dnf", native=NATIVE)

    def start(self) -> None:
        """Imports alpha-beta-CROWN; a missing CUDA device is an error, not the CPU."""
        self._label = describe(self.device)
        place = install.find()
        if isinstance(place, str):
            raise UserError(place)
        from prunecert.verifiers.adapters.abcrown.engine import Engine

        self._device = use_device(self.device)
        self._engine = Engine(place, self._device, [DEFAULTS, nested(self.settings), self.settings["extra"]])

    def load(self, onnx: Path) -> None:
        """Converts the network and moves it to the device."""
        self._network, self._shape = self._engine.read_network(onnx)
        relus = self._engine.count_relus(self._network, self._shape, self._device)
        self._batch = self.settings["batch_size"] or domains_that_fit(relus, self.device, most=1024)

    def evaluate(self, points: FloatArray) -> npt.NDArray[Any] | None:
        """Runs the converted network."""
        return run_module(self._network, points, tuple(self._shape), self._device)

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Runs one search an instance, two where the first ends within rounding of the threshold."""
        return [guard.search(instance, self._solve) for instance in instances]

    def _solve(self, instance: Instance) -> Verdict:
        split = self.settings["split"]
        on_input = split == "input" or (split == "auto" and instance.lower.size <= INPUT_SPLIT_UP_TO)
        if instance.norm == "l2":
            # Halving a box is no way to part a ball.
            on_input = False
        outcome = self._engine.solve(instance, self._network, self._shape, batch=self._batch, split=on_input)
        self._batch = outcome.batch
        status, stage, detail = parse_status(outcome.word, outcome.seconds, instance.timeout)
        if status is Status.UNKNOWN and outcome.exhausted:
            detail = (
                outcome.open_leaf or "every ReLU of a domain is split and its bound does not exclude the unsafe set"
            )
        witness = None
        if status is Status.SAT:
            if outcome.witness is None:
                return Verdict(Status.ERROR, f"alpha-beta-CROWN ended with {outcome.word!r} but gave no counterexample")
            witness = np.asarray(outcome.witness, dtype=np.float32).reshape(instance.lower.shape)
        return Verdict(
            status,
            detail,
            witness=witness,
            times=Times(bound_s=max(0.0, outcome.seconds - outcome.bab_seconds), search_s=outcome.bab_seconds),
            stage=stage,
            unstable=outcome.unstable,
            domains=outcome.domains,
            iterations=outcome.iterations,
            device=self._label,
        )
