"""Two networks of one architecture compared by the sparse engine: differential bounds, then branch and bound.

The question is asked of one ONNX file in which both networks take the same input and put their outputs side by side
(`prunecert.onnx.merge`); any file whose outputs fall apart into two halves of one architecture will do.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from prunecert.verifiers.adapters.sparse_adapter import SparseVerifier, boxes_only
from prunecert.verifiers.base import FloatArray, Instance, Kind, Times, Verdict
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.settings import Setting
from prunecert.verifiers.sparse.threads import threads

#: Seconds kept back from an instance's limit: for the end of the step that is under way.
_RESERVE_S = 0.1


class SparsePair(SparseVerifier):
    """Differences of two networks by intervals and walks, then splits that are shared by both.

    Proofs hold in real arithmetic, as those of the other sparse verifiers do.
    """

    name = "sparse-pair"
    kind = Kind.COMPLETE
    tightens = True
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "entries": Setting(
            default=20_000,
            at_least=0,
            help="most weights of both networks, each counted at every place where it is used, for which splits carry "
            "differences along, with linear programmes; above, what differential bounds leave open is split by what "
            "`sparse-bab` does alone",
        ),
        "seed": Setting(default=0, at_least=0, help="of the attack's random starts"),
    }

    def start(self) -> None:
        """Imports the engine and has its kernels compiled, or read from their cache."""
        from prunecert.verifiers.sparse.pairs.search import PairSearch
        from prunecert.verifiers.sparse.warmup import warm_up

        self._make_search = PairSearch
        warm_up()

    def load(self, onnx: Path) -> None:
        """Reads the file and takes it apart."""
        from prunecert.verifiers.sparse.onnx.reader import read_network
        from prunecert.verifiers.sparse.pairs.search import PairNetworks

        self._network = read_network(onnx)
        self._networks = PairNetworks(self._network, threads())

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Answers them one by one."""
        return [self._solve(instance) for instance in instances]

    @staticmethod
    def _replay(instance: Instance, x: FloatArray) -> FloatArray:
        (output,) = outputs(instance.onnx, x.reshape(1, *instance.lower.shape))
        return np.asarray(output, dtype=np.float32)

    def _solve(self, instance: Instance) -> Verdict:
        if instance.norm != "linf":
            return boxes_only(self.name, instance)
        begin = time.monotonic()
        deadline = begin + max(instance.timeout - _RESERVE_S, 0.5 * instance.timeout)
        search = self._make_search(
            self._networks,
            instance.lower,
            instance.upper,
            instance.spec,
            deadline,
            instance.allowance,
            functools.partial(self._replay, instance),
            self.settings["entries"],
            self.settings["seed"],
        )
        out = search.run()
        bounds = out.bounds if out.bounds is not None and all(np.isfinite(out.bounds)) else None
        return Verdict(
            out.status,
            out.detail,
            witness=None if out.witness is None else out.witness.reshape(instance.lower.shape),
            bounds=bounds,
            times=Times(bound_s=out.bound_s, search_s=out.search_s),
            stage=out.stage,
            unstable=out.unstable,
            domains=out.domains,
        )
