"""One search of the sparse engine an instance: limits in, verdict out."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecert.verifiers.adapters.sparse_adapter import SparseVerifier, boxes_only
from prunecert.verifiers.adapters.sparse_balls import Balls
from prunecert.verifiers.adapters.sparse_smooth import Smooth, no_balls
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec, Status, Times, Verdict
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.settings import idle
from prunecert.verifiers.sparse.threads import threads

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.bab.outcome import Limits, Outcome
    from prunecert.verifiers.sparse.bab.search import Search
    from prunecert.verifiers.sparse.certificates import Certifier
    from prunecert.verifiers.sparse.onnx.neuron_names import Names
    from prunecert.verifiers.sparse.proofs.store import Earlier
    from prunecert.verifiers.sparse.quantised.question import Quantised

#: Seconds kept back from an instance's limit: for the end of the step that is under way.
_RESERVE_S = 0.05
#: Leaves of the searches that are kept for the certificate of one property, one search for each box, and the memory
#: that these take, as a part of a search's. Of what has more, the latest search is kept alone.
_KEPT, _KEPT_MEMORY = 50_000, 1 / 6


def verdict_of(out: Outcome, instance: Instance, detail: str = "") -> Verdict:
    """Returns what a search has found as a verdict.

    Args:
        out: It.
        instance: The question.
        detail: What else is to be said.
    """
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


class SparseSearch(SparseVerifier):
    """What the adapters to the search share."""

    tightens = True
    norms = ("linf", "l2")
    #: The searches that have proved boxes of the latest property, by question, for its certificate; and that property.
    _proving: dict[str, Search]
    _property: Path | None = None
    _balls: Balls | None = None
    _curved: Smooth | None = None

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

        self._read(onnx)
        self._loaded = onnx
        self._certifier, self._proving, self._balls, self._curved = None, {}, None, None
        self._names: Names | None = None
        if self._smooth is not None:
            return
        self._engine = Engine(self._network, threads())
        self._checker = Checker(self._network, threads())

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Answers them one by one."""
        return [self._solve(instance) for instance in instances]

    @staticmethod
    def _replay_rounded(instance: Instance, x: FloatArray) -> FloatArray:
        """Runs a quantised file at the point of the box that is nearest to one behind the first rounding."""
        return SparseSearch._replay(instance, np.clip(x.reshape(instance.lower.shape), instance.lower, instance.upper))

    @staticmethod
    def _replay(instance: Instance, x: FloatArray) -> FloatArray:
        """Runs the file in onnxruntime, as the judge of a counterexample will."""
        (output,) = outputs(instance.onnx, x.reshape(1, *instance.lower.shape))
        return np.asarray(output, dtype=np.float32)

    def _limits(self) -> dict[str, Any]:
        """Returns arguments of `verifiers.sparse.bab.outcome.Limits`."""
        raise NotImplementedError

    def _idle(self, out: Outcome, *kinds: str) -> str:
        """Says which settings were given that do nothing for such a question."""
        if out.inputs:
            kinds = (*kinds, "inputs")
        return idle(self.known_settings, self.settings, kinds)

    def _find(self, instance: Instance) -> Earlier | None:
        """Returns what there is to start from."""
        return None

    def _keep(self, run: Search) -> str:
        """Stores what the next network's search may start from; returns what to say about reuse."""
        return ""

    def _solve(self, instance: Instance) -> Verdict:
        deadline = time.monotonic() + max(instance.timeout - _RESERVE_S, 0.5 * instance.timeout)
        limits = self._make_limits(**self._limits())
        if self._smooth is not None:
            if instance.norm != "linf":
                return no_balls(self.name, instance)
            self._curved = self._curved or Smooth(self._smooth)
            out = self._curved.search(instance, limits, deadline, functools.partial(self._replay, instance))
            return verdict_of(out, instance, self._idle(out, "curves"))
        if instance.norm != "linf":
            if self._quantised is not None:
                return boxes_only(self.name, instance)
            self._balls = self._balls or Balls(self._network, self._checker)
            out = self._balls.search(instance, limits, deadline, functools.partial(self._replay, instance))
            return verdict_of(out, instance, self._idle(out, "l2"))
        if self._quantised is not None:
            return self._solve_quantised(self._quantised, instance, limits, deadline)
        earlier = self._find(instance)
        searches = self._proving.values()
        full = (
            sum(run.outcome.certified for run in searches) > _KEPT
            or sum(run.megabytes for run in searches) > _KEPT_MEMORY * limits.memory_mb
        )
        if instance.vnnlib is None or instance.vnnlib != self._property or full:
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
        detail = "; ".join(filter(None, (self._keep(run), self._idle(out))))
        if out.status is Status.UNSAT:
            self._proving[instance.question()] = run
        return verdict_of(out, instance, detail)

    def _solve_quantised(self, quantised: Quantised, instance: Instance, limits: Limits, deadline: float) -> Verdict:
        """Proves by intervals, which are exact through roundings, or searches the ReLU network that stands for it.

        A counterexample there is one if onnxruntime says so of the file at the point of the box that is rounded to it.
        """
        begin = time.monotonic()
        boxed = self._boxed(quantised, instance)
        spec = OutputSpec(instance.tightened(1 + 2.0**-10).disjuncts)
        bounds = [float(quantised.rows(boxed, a, b).max(initial=-np.inf)) for a, b in spec.disjuncts]
        if bounds and min(bounds) > 0:
            more = instance.allowance or (0.0,) * len(bounds)
            proved = tuple(bound + (1 + 2.0**-11) * allowed for bound, allowed in zip(bounds, more, strict=True))
            seconds = time.monotonic() - begin
            said = idle(self.known_settings, self.settings, ["int8"])
            return Verdict(Status.UNSAT, said, bounds=proved, times=Times(bound_s=seconds), stage="incomplete")
        run = self._make_search(
            self._engine,
            self._checker,
            boxed.lower,
            boxed.upper,
            instance.spec,
            limits,
            deadline,
            allowance=instance.allowance,
            replay=functools.partial(self._replay_rounded, instance),
            sharpen=functools.partial(quantised.sharpen, boxed.intervals),
        )
        out = run.run()
        if out.witness is not None:
            out.witness = np.clip(out.witness, instance.lower.reshape(-1), instance.upper.reshape(-1))
        if out.stuck:
            out.detail = (
                f"{out.stuck} subdomains with every ReLU fixed are left open by what the file's own rounding to "
                "integers may do there; splits don't narrow that"
            )
        return verdict_of(out, instance, self._idle(out, "int8"))

    def _make_certifier(self, onnx: Path) -> Certifier:
        from prunecert.verifiers.sparse.certificates import Certifier

        # A network whose normal form was loaded is another one to the engine.
        return Certifier(onnx, (self._engine, self._checker) if onnx == self._loaded else None)

    def _finished(self, questions: Sequence[str]) -> list[Search]:
        return [self._proving[question] for question in questions if question in self._proving]
