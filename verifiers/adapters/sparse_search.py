"""α-CROWN and branch and bound by the sparse engine: bounds on the network that is left over each image's box.

`sparse-alpha-crown` optimises the slopes of the disjuncts that CROWN leaves open. `sparse-bab` splits ReLUs from
there until every subdomain is proved, a counterexample is found or time is up. Nothing counts as proved before
`verifiers.sparse.certify` has bounded it on the original layers in float64 with all rounding charged, so `unsat` holds
for the real-valued network whose weights are those of the file.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from prunecert.errors import UserError
from prunecert.onnx.io import identity
from prunecert.verifiers.adapters.sparse_adapter import SparseVerifier, boxes_only
from prunecert.verifiers.base import FloatArray, Instance, Kind, Times, Verdict
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.sparse.threads import threads

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.bab.search import Search
    from prunecert.verifiers.sparse.onnx.neuron_names import Names
    from prunecert.verifiers.sparse.proofs.store import Earlier, Store

#: Seconds kept back from an instance's limit: for the end of the step that is under way.
_RESERVE_S = 0.05


class _Sparse(SparseVerifier):
    """What both share."""

    tightens = True
    #: Settings that must be at least 1; the others at least 0.
    _positive: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def resolve(cls, settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Checks values as well as types."""
        merged = super().resolve(settings)
        for key, value in merged.items():
            least = 1 if key in cls._positive else 0
            if isinstance(value, int | float) and not isinstance(value, bool) and not value >= least:
                raise UserError(f"Setting {key!r} of verifier {cls.name!r} is {value}; it must be {least} or more.")
        return merged

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


class SparseAlphaCrown(_Sparse):
    """CROWN, then optimised slopes (α) for the disjuncts that it leaves open, certified in float64.

    Settings:
        iterations: Steps of the optimiser, 1 or more.
    """

    name = "sparse-alpha-crown"
    kind = Kind.INCOMPLETE
    defaults: ClassVar[Mapping[str, Any]] = {"iterations": 20}
    _positive = frozenset({"iterations"})

    def _limits(self) -> dict[str, Any]:
        return {"root_steps": self.settings["iterations"], "attack_steps": 0, "splits": False}


class SparseBab(_Sparse):
    """Branch and bound on ReLUs with α, β and filtered smart branching; every leaf is certified in float64.

    Settings:
        root_iterations: Steps of the optimiser on the whole box, 1 or more.
        iterations: Steps for a pair of children, 1 or more.
        candidates: Splits whose children are bounded before one is chosen, 1 or more; 1: none is.
        batch: Subdomains split together; 0: by the size of what is left of the network.
        attack_steps: Gradient steps of an attack; 0: no attack, during the search neither.
        memory_mb: Most memory in MiB that open subdomains, or what is left of the network, may take, 1 or more.
        seed: Of the attack's random starts.
        proofs: Folder of counterexamples and trees to start from and to add to, by box and property: of the same
            network at another compression ratio, or of this one; empty: none. A counterexample is tried before
            anything else, a tree once CROWN has left the box open; each leaf is certified anew. It changes how long
            an answer takes, not what is proved. Of a search that runs out of time only a small tree is kept.
    """

    name = "sparse-bab"
    kind = Kind.COMPLETE
    defaults: ClassVar[Mapping[str, Any]] = {
        "root_iterations": 60,
        "iterations": 12,
        "candidates": 6,
        "batch": 0,
        "attack_steps": 20,
        "memory_mb": 3072,
        "seed": 0,
        "proofs": "",
    }
    _positive = frozenset({"root_iterations", "iterations", "candidates", "memory_mb"})

    def _limits(self) -> dict[str, Any]:
        own = self.settings
        return {
            "root_steps": own["root_iterations"],
            "steps": own["iterations"],
            "candidates": own["candidates"],
            "batch": own["batch"],
            "attack_steps": own["attack_steps"],
            "memory_mb": float(own["memory_mb"]),
            "seed": own["seed"],
        }

    def load(self, onnx: Path) -> None:
        """Reads the network."""
        super().load(onnx)
        self._sha256 = identity(onnx)
        self._store: Store | None = None
        if self.settings["proofs"]:
            from prunecert.verifiers.sparse.onnx.neuron_names import names_of
            from prunecert.verifiers.sparse.proofs.store import Store, key

            self._name_of = key
            self._names = names_of(self._network, onnx)
            folder = Path(self.settings["proofs"])
            with contextlib.suppress(OSError):
                # The answers will say that nothing can be stored.
                folder.mkdir(parents=True, exist_ok=True)
            self._store = Store(folder, self._names)

    def _find(self, instance: Instance) -> Earlier | None:
        if self._store is None:
            return None
        self._key = self._name_of(instance)
        return self._store.find(self._key)

    def _keep(self, run: Search) -> str:
        earlier, out = run.earlier, run.outcome
        if self._store is None or self._names is None or earlier is None:
            return ""
        said = []
        if out.reused and earlier.summary is not None:
            said.append(f"{out.reused} leaves from the proof for network {earlier.summary.network[:12]}")
        if earlier.refused:
            said.append(f"a stored proof was not used: {', '.join(earlier.refused)}")
        try:
            known = earlier.witness
            if out.witness is not None and (known is None or not np.array_equal(out.witness, known)):
                self._store.keep_witness(self._key, out.witness)
            proof = run.pack(self._sha256, self._names)
            if proof is not None:
                self._store.keep_tree(self._key, proof)
        except OSError as error:
            said.append(f"the proof could not be stored: {error}")
        return "; ".join(said)
