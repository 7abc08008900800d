"""Two networks of one architecture compared by the sparse engine: differential bounds, then branch and bound.

The question is asked of one ONNX file in which both networks take the same input and put their outputs side by side
(`prunecert.onnx.merge`); any file whose outputs fall apart into two halves of one architecture will do. Networks that
round their activations must have been joined by that module.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.adapters.sparse_adapter import SparseVerifier, boxes_only
from prunecert.verifiers.base import FloatArray, Instance, Kind, Times, Verdict
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.settings import Setting, idle
from prunecert.verifiers.sparse.threads import threads

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.pairs.rounded import Member

#: Seconds kept back from an instance's limit: for the end of the step that is under way.
_RESERVE_S = 0.1
#: Points at which networks that round are compared with onnxruntime.
_POINTS = 3


class SparsePair(SparseVerifier):
    """Differences of two networks by intervals and walks, then splits that are shared by both.

    Proofs hold in real arithmetic, as those of the other sparse verifiers do.
    """

    name = "sparse-pair"
    kind = Kind.COMPLETE
    tightens = True
    #: The two networks, where one of them rounds.
    _members: tuple[Member, Member] | None = None
    known_settings: ClassVar[Mapping[str, Setting]] = {
        "entries": Setting(
            default=20_000,
            at_least=0,
            idle=("int8",),
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
        from prunecert.verifiers.sparse.pairs.reading import read_rounded_pair
        from prunecert.verifiers.sparse.pairs.search import PairNetworks, RoundedPairNetworks

        members, self._compared = read_rounded_pair(onnx), False
        self._members = members
        if members is None:
            self._network = read_network(onnx)
            self._networks = PairNetworks(self._network, threads())
        else:
            self._networks = RoundedPairNetworks(*members, threads())
            self._network = self._networks.merged

    def evaluate(self, points: FloatArray) -> npt.NDArray[Any] | None:
        """Computes the outputs of both in float64; of networks that round, nothing (see `_compare`)."""
        return self._network.evaluate(points) if self._members is None else None

    def solve(self, instances: Sequence[Instance]) -> list[Verdict]:
        """Answers them one by one."""
        return [self._solve(instance) for instance in instances]

    def _compare(self, instance: Instance) -> None:
        """Compares networks that round with onnxruntime, once, at points of the first box.

        Raises:
            RuntimeError: The runtime's outputs are outside of what they are said to be.
        """
        if self._members is None or self._compared:
            return
        from prunecert.verifiers.sparse.pairs.reading import enclose

        shares = np.random.default_rng(0).random((_POINTS, *instance.lower.shape), dtype=np.float32)
        points = np.clip(instance.lower + shares * (instance.upper - instance.lower), instance.lower, instance.upper)
        for point, output in zip(points, outputs(instance.onnx, points, instance.classes), strict=True):
            lower, upper = enclose(self._members, point)
            if not bool(((lower <= output) & (output <= upper)).all()):
                raise RuntimeError(f"{instance.onnx.name}: onnxruntime's outputs are outside of their bounds")
        self._compared = True

    @staticmethod
    def _replay(instance: Instance, x: FloatArray) -> FloatArray:
        (output,) = outputs(instance.onnx, x.reshape(1, *instance.lower.shape))
        return np.asarray(output, dtype=np.float32)

    def _solve(self, instance: Instance) -> Verdict:
        if instance.norm != "linf":
            return boxes_only(self.name, instance)
        begin = time.monotonic()
        self._compare(instance)
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
        said = idle(self.known_settings, self.settings, [] if self._members is None else ["int8"])
        return Verdict(
            out.status,
            "; ".join(filter(None, (out.detail, said))),
            witness=None if out.witness is None else out.witness.reshape(instance.lower.shape),
            bounds=bounds,
            times=Times(bound_s=out.bound_s, search_s=out.search_s),
            stage=out.stage,
            unstable=out.unstable,
            domains=out.domains,
        )
