"""NeuralSAT (PyPI `neuralsat`), a complete verifier on CPU and CUDA; adapter tested with 0.2.17 and torch 2.13.

A proof rests on float32 bounds without outward rounding: a disjunct counts as excluded once its lower bound exceeds the
threshold strictly. So it is given a property that leaves room for rounding (`verifiers.rounding.guard.search`). What is
changed against upstream, and why, is in `verifiers.adapters.neuralsat.engine`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.adapters.hardware import describe, domains_that_fit, packaged, use_device
from prunecert.verifiers.adapters.neuralsat.words import parse_status
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
from prunecert.verifiers.formats.support import NORMAL_OPERATORS
from prunecert.verifiers.rounding import guard
from prunecert.verifiers.settings import Setting


class NeuralSat(Verifier):
    """NeuralSAT driven through its Python classes, one search object an instance."""

    name = "neuralsat"
    kind = Kind.COMPLETE
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "batch": Setting(
            default=0,
            at_least=0,
            help="most domains bounded together; 0: by free memory and the number of ReLUs, at most 1,000",
        ),
        "attack_seconds": Setting(
            default=1.0,
            at_least=0,
            help="limit of the random and PGD attack, after the first bounds and before the search; 0: no attack, "
            "during the search neither",
        ),
        "restart": Setting(
            default=True, help="restarts with learned clauses; upstream does so only above 30 s of time limit"
        ),
        "split": Setting(
            default="auto",
            choices=("auto", "input", "hidden"),
            help="auto: on inputs up to 200 perturbed pixels, else on ReLUs",
        ),
        "seed": Setting(default=0, help="of the attacks"),
    }
    recycle_after = 200
    tightens = True

    @classmethod
    def availability(cls) -> Availability:
        """Looks for the distribution, and for the package that its licence check needs."""
        return packaged("neuralsat", "gurobipy", "torchvision", whose="NeuralSAT")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """Feed-forward ReLU networks; boxes; any linear output property in disjunctive normal form."""
        return Capabilities(operators=NORMAL_OPERATORS, specs="dnf")

    def start(self) -> None:
        """Imports NeuralSAT and takes the device; a missing CUDA device is an error, not the CPU."""
        self._label = describe(self.device)
        from prunecert.verifiers.adapters.neuralsat import engine

        self._engine = engine
        # Upstream knows only the current CUDA device.
        self._device = use_device(self.device)

    def load(self, onnx: Path) -> None:
        """Converts the network and moves it to the device."""
        network, self._shape = self._engine.read_network(onnx)
        self._relus = self._engine.count_relus(network, self._shape)
        self._batch = self.settings["batch"] or domains_that_fit(self._relus, self.device)
        self._network = network.to(self._device)

    def evaluate(self, points: FloatArray) -> npt.NDArray[Any] | None:
        """Runs the converted network."""
        return run_module(self._network, points, tuple(self._shape[1:]), self._device)

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Runs one search an instance, two where the first ends within rounding of the threshold."""
        return [guard.search(instance, self._solve) for instance in instances]

    def _solve(self, instance: Instance) -> Verdict:
        if instance.norm != "linf":
            return Verdict(Status.UNSUPPORTED, f"NeuralSAT takes boxes (linf), not {instance.norm} balls")
        engine, settings = self._engine, self.settings
        started = time.perf_counter()
        engine.configure(attack=settings["attack_seconds"] > 0, restart=settings["restart"], seed=settings["seed"])
        search = engine.Engine(
            self._network,
            self._shape,
            self._batch,
            self._device,
            relus=self._relus,
            attack_seconds=settings["attack_seconds"],
        )
        try:
            word = search.verify(
                engine.read_instance(instance, self._shape),
                timeout=float(instance.timeout),
                force_split=None if settings["split"] == "auto" else settings["split"],
            )
        except Exception as error:
            # Upstream turns whatever is raised inside its search into another exception.
            if not (search.open_leaf or search.overflows):
                raise RuntimeError(f"{error!r} {search.failure}".strip()) from error
            # A network that it can't bound at all is none for it; a leaf that stays open is a question for others.
            status, detail = Status.UNSUPPORTED if search.overflows else Status.UNKNOWN, search.failure
        else:
            status, detail = parse_status(word)
        witness = None
        if status is Status.SAT:
            witness = search.adv.detach().cpu().numpy().astype(np.float32).reshape(instance.lower.shape)
        total = time.perf_counter() - started
        return Verdict(
            status,
            detail,
            witness=witness,
            times=Times(bound_s=search.bound_s, search_s=max(0.0, total - search.bound_s)),
            stage=self._stage(status, search),
            unstable=search.unstable,
            domains=int(search.visited),
            iterations=int(search.iteration),
            device=self._label,
        )

    @staticmethod
    def _stage(status: Status, search: Any) -> str | None:
        if status is Status.SAT:
            return "attack" if search.attacked else "bab"
        if status is Status.UNSAT:
            return "bab" if search.iteration else "incomplete"
        return None
