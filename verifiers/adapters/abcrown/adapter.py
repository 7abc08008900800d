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
import yaml

from prunecert.errors import UserError
from prunecert.verifiers.adapters.abcrown import install
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

#: Every status that upstream's sources can give, with what it means here and the stage that decided. Each is
#: compared as a whole: `'safe' in 'unsafe-pgd'` is true.
STATUS: Mapping[str, tuple[Status, str | None]] = {
    "safe": (Status.UNSAT, "bab"),
    "safe-incomplete": (Status.UNSAT, "incomplete"),
    "safe-mip": (Status.UNSAT, "bab"),
    "unsafe": (Status.SAT, "bab"),
    "unsafe-pgd": (Status.SAT, "attack"),
    "unsafe-bab": (Status.SAT, "bab"),
    "unsafe-mip": (Status.SAT, "bab"),
    "unknown": (Status.UNKNOWN, None),
    "unknown-mip": (Status.UNKNOWN, None),
    "timeout": (Status.TIMEOUT, None),
}

DEFAULTS: Mapping[str, Any] = yaml.safe_load((Path(__file__).parent / "default.yaml").read_text())
#: Flat settings and where they belong in upstream's configuration.
FLAT: Mapping[str, tuple[str, ...]] = {
    "alpha_iterations": ("solver", "alpha-crown", "iteration"),
    "alpha_lr": ("solver", "alpha-crown", "lr_alpha"),
    "beta_iterations": ("solver", "beta-crown", "iteration"),
    "beta_lr": ("solver", "beta-crown", "lr_beta"),
    "branching": ("bab", "branching", "method"),
    "branching_candidates": ("bab", "branching", "candidates"),
    "pgd_order": ("attack", "pgd_order"),
    "pgd_restarts": ("attack", "pgd_restarts"),
    "pgd_steps": ("attack", "pgd_steps"),
    "seed": ("general", "seed"),
}
#: Inputs up to this size are split themselves, as upstream does.
INPUT_SPLIT_UP_TO = 20
#: Smooth activations have no normal form; upstream bounds them itself, beside these.
NATIVE = OPERATORS | {"Constant", "Identity", "MatMul", "Mul", "Sigmoid", "Sub", "Tanh", "Transpose"}


def _flat(name: str, meaning: str, **limits: Any) -> Setting:
    """Declares a setting whose default is that of the configuration."""
    value: Any = DEFAULTS
    for key in FLAT[name]:
        value = value[key]
    return Setting(default=value, help=meaning, **limits)


def parse_status(word: object, seconds: float, limit: float) -> tuple[Status, str | None, str]:
    """Translates upstream's word.

    Args:
        word: What upstream ended with.
        seconds: How long it took: upstream says `unknown` for a search that ran out of time, too.
        limit: How long it was given.

    Returns:
        Status, deciding stage, detail. A word that is not known as a whole is `error`.
    """
    if not isinstance(word, str) or word not in STATUS:
        return Status.ERROR, None, f"alpha-beta-CROWN ended with {word!r}, which is none of its known words"
    status, stage = STATUS[word]
    if status is Status.UNKNOWN and seconds >= limit:
        return Status.TIMEOUT, None, f"alpha-beta-CROWN ended with {word!r} after its limit"
    if status is Status.UNKNOWN:
        return status, None, f"alpha-beta-CROWN ended with {word!r} after {seconds:.1f} of {limit:g} s"
    return status, stage, ""


class AbCrown(Verifier):
    """Attack, alpha-CROWN, then beta-CROWN with branch and bound."""

    name = "abcrown"
    kind = Kind.COMPLETE
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "alpha_iterations": _flat("alpha_iterations", "steps on alpha-CROWN's slopes before the search", at_least=0),
        "alpha_lr": _flat("alpha_lr", "learning rate of these steps"),
        "beta_iterations": _flat("beta_iterations", "steps on each bound in the search", at_least=0),
        "beta_lr": _flat("beta_lr", "learning rate of these steps"),
        "branching": _flat(
            "branching",
            "which ReLU to split",
            choices=("kfsb", "babsr", "fsb", "kfsb-intercept-only"),
        ),
        "branching_candidates": _flat("branching_candidates", "the k of kfsb", at_least=1),
        "pgd_order": _flat(
            "pgd_order",
            "attack before or after alpha-CROWN, or not at all",
            choices=("before", "after", "skip"),
        ),
        "pgd_restarts": _flat("pgd_restarts", "restarts of the attack", at_least=1),
        "pgd_steps": _flat("pgd_steps", "gradient steps of a restart", at_least=0),
        "seed": _flat("seed", "of everything random"),
        "batch_size": Setting(
            default=0,
            at_least=0,
            help="most domains bounded together; 0: by free memory and the number of ReLUs, at most 1,024",
        ),
        "extra": Setting(default={}, help="any further settings, nested as in upstream's files"),
        "split": Setting(
            default="auto",
            choices=("auto", "hidden", "input"),
            help="auto: inputs up to 20 numbers are split themselves, else ReLUs",
        ),
    }
    recycle_after = 200
    tightens = True

    @classmethod
    def availability(cls) -> Availability:
        """Looks for ABCROWN_HOME or the package `abcrown`, and for all that it imports."""
        found = install.find()
        if isinstance(found, str):
            return Availability(False, hint=found)
        return Availability(True, found.version, devices=visible_devices(), source=f"alpha-beta-CROWN {found.version}")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """ReLU networks and some smooth ones; boxes and l2 balls; any linear property in disjunctive normal form."""
        return Capabilities(operators=OPERATORS, norms=("linf", "l2"), specs="dnf", native=NATIVE)

    def start(self) -> None:
        """Imports alpha-beta-CROWN; a missing CUDA device is an error, not the CPU."""
        self._label = describe(self.device)
        found = install.find()
        if isinstance(found, str):
            raise UserError(found)
        from prunecert.verifiers.adapters.abcrown.engine import Engine

        flat: dict[str, Any] = {}
        for name, path in FLAT.items():
            group = flat
            for key in path[:-1]:
                group = group.setdefault(key, {})
            group[path[-1]] = self.settings[name]
        self._device = use_device(self.device)
        self._engine = Engine(found, self._device, [DEFAULTS, flat, self.settings["extra"]])

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
        found = self._engine.solve(instance, self._network, self._shape, batch=self._batch, split=on_input)
        self._batch = found.batch
        status, stage, detail = parse_status(found.word, found.seconds, instance.timeout)
        if status is Status.UNKNOWN and found.exhausted:
            detail = found.open_leaf or "every ReLU of a domain is split and its bound does not exclude the unsafe set"
        witness = None
        if status is Status.SAT:
            if found.witness is None:
                return Verdict(Status.ERROR, f"alpha-beta-CROWN ended with {found.word!r} but gave no counterexample")
            witness = np.asarray(found.witness, dtype=np.float32).reshape(instance.lower.shape)
        return Verdict(
            status,
            detail,
            witness=witness,
            times=Times(bound_s=max(0.0, found.seconds - found.bab_seconds), search_s=found.bab_seconds),
            stage=stage,
            unstable=found.unstable,
            domains=found.domains,
            iterations=found.iterations,
            device=self._label,
        )
