"""One search of the sparse engine an instance: limits in, verdict out."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecert.verifiers.adapters.sparse_adapter import SparseVerifier, boxes_only
from prunecert.verifiers.base import FloatArray, Instance, Status, Times, Verdict
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.sparse.threads import threads

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.bab.search import Search
    from prunecert.verifiers.sparse.certificates import Certifier
    from prunecert.verifiers.sparse.onnx.neuron_names import Names
    from prunecert.verifiers.sparse.proofs.store import Earlier

#: Seconds kept back from an instance's limit: for the end of the step that is under way.
_RESERVE_S = 0.05
#: Leaves of the searches that are kept for the certificate of one property, one search for each box. Of what has more,
#: the latest search is kept alone.
_KEPT = 50_000


class SparseSearch(SparseVerifier):
    """What the adapters to the search share."""

    tightens = True
    #: The searches that have proved boxes of the latest property, by question, for its certificate; and that property.
    _proving: dict[str, Search]
    _property: Path | None = None

    def start(self) -> None:
        """Imports the engine and has its kernels compiled, or read from their cache."""
        from prunecert.verifiers.sparse.bab.outcome import Limits
        from prunecert.verifiers.sparse.bab.search import Search
        from prunecert.verifiers.sparse.warmup import warm_up

        self._make_limits, self._make_search = Limits, Search
        warm_up()

    def load(self, onnx: Path) -> None:
        """Reads the network."""
        from prunecert.verifiers.sparse.certify import Checker
        from prunecert.verifiers.sparse.crown.engine import Engine
        from prunecert.verifiers.sparse.onnx.reader import read_network

        self._network = read_network(onnx)
        self._loaded = onnx
        self._certifier, self._proving = None, {}
        self._names: Names | None = None
        self._engine = Engine(self._network, threads())
        self._checker = Checker(self._network, threads())

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Answers them one by one."""
        return [self._solve(instance) for instance in instances]

    @staticmethod
    def _replay(instance: Instance, x: FloatArray) -> FloatArray:
        """Runs the file in onnxruntime, as the judge of a counterexample will."""
        (output,) = outputs(instance.onnx, x.reshape(1, *instance.lower.shape))
        return np.asarray(output, dtype=np.float32)

    def _limits(self) -> dict[str, Any]:
        """Returns arguments of `verifiers.sparse.bab.outcome.Limits`."""
        raise NotImplementedError

    def _find(self, instance: Instance) -> Earlier | None:
        """Returns what there is to start from."""
        return None

    def _keep(self, run: Search) -> str:
        """Stores what the next network's search may start from; returns what to say about reuse."""
        return ""

    def _solve(self, instance: Instance) -> Verdict:
        if instance.norm != "linf":
            return boxes_only(self.name, instance)
        deadline = time.monotonic() + max(instance.timeout - _RESERVE_S, 0.5 * instance.timeout)
        limits = self._make_limits(**self._limits())
        earlier = self._find(instance)
        leaves = sum(run.outcome.certified for run in self._proving.values())
        if instance.vnnlib is None or instance.vnnlib != self._property or leaves > _KEPT:
            self._proving = {}
        self._property = instance.vnnlib
        run = self._make_search(
            self._engine,
            self._checker,
            instance.lower,
            instance.upper,
            instance.spec,
            limits,
            deadline,
            earlier,
            self._names,
            instance.allowance,
            functools.partial(self._replay, instance),
        )
        out = run.run()
        detail = self._keep(run)
        if out.status is Status.UNSAT:
            self._proving[instance.question()] = run
        bounds = out.bounds
        if bounds is not None and not all(np.isfinite(bounds)):
            bounds = None
        return Verdict(
            out.status,
            "; ".join(filter(None, (out.detail, detail))),
            witness=None if out.witness is None else out.witness.reshape(instance.lower.shape),
            bounds=bounds,
            times=Times(bound_s=out.bound_s, search_s=out.search_s),
            stage=out.stage,
            unstable=out.unstable,
            domains=out.domains,
            iterations=out.rounds,
        )

    def _make_certifier(self, onnx: Path) -> Certifier:
        from prunecert.verifiers.sparse.certificates import Certifier

        # A network whose normal form was loaded is another one to the engine.
        return Certifier(onnx, (self._engine, self._checker) if onnx == self._loaded else None)

    def _finished(self, questions: Sequence[str]) -> list[Search]:
        return [self._proving[question] for question in questions if question in self._proving]
