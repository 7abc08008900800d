"""What the adapters to the sparse engine share, for bounds and for search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

import prunecert
from prunecert.onnx.nodes import CURVES
from prunecert.verifiers.adapters.hardware import first_missing
from prunecert.verifiers.adapters.sparse_smooth import NO_CERTIFICATE
from prunecert.verifiers.base import (
    Availability,
    Capabilities,
    FloatArray,
    Instance,
    Norm,
    Status,
    UnsupportedError,
    Verdict,
    Verifier,
)
from prunecert.verifiers.certification import Written
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.formats.support import NORMAL_OPERATORS, QUANTISED_OPERATORS
from prunecert.verifiers.sparse import cache

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.bab.outcome import Limits
    from prunecert.verifiers.sparse.bab.search import Search
    from prunecert.verifiers.sparse.certificates import Certifier
    from prunecert.verifiers.sparse.crown.engine import Engine
    from prunecert.verifiers.sparse.network import Network
    from prunecert.verifiers.sparse.quantised.question import Boxed, Quantised
    from prunecert.verifiers.sparse.smooth.network import SmoothNetwork

#: Points of a box at which a quantised network is compared with onnxruntime.
_POINTS = 3


def boxes_only(name: str, instance: Instance) -> Verdict:
    """Returns the verdict of a verifier that takes boxes on an instance that is none."""
    return Verdict(Status.UNSUPPORTED, f"{name} takes boxes (linf), not {instance.norm} balls")


class SparseVerifier(Verifier):
    """An adapter to the sparse engine: what it needs, and what it takes."""

    #: Norms of the balls that it takes.
    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    #: Kernels that it uses.
    kernels: ClassVar[cache.Part] = "search"
    _network: Network
    #: The network, if it is a quantised one; `_network` is then what stands for it.
    _quantised: Quantised | None = None
    #: The network, if it has Sigmoids or Tanhs; there is no `_network` then.
    _smooth: SmoothNetwork | None = None
    #: Whether it has been compared with onnxruntime.
    _compared = False
    _certifier: tuple[Path, Certifier] | None = None

    @classmethod
    def availability(cls) -> Availability:
        """Looks for Numba and SciPy."""
        missing = first_missing("numba", "scipy")
        if missing is not None:
            return Availability(False, hint=f"{cls.name} needs {missing}: python -m pip install {missing}")
        return Availability(True, prunecert.__version__, source=f"prunecert {prunecert.__version__}")

    @classmethod
    def capabilities(cls) -> Capabilities:
        """Convolutions, linear layers, ReLU, sums, averages, also quantised; boxes, some l2 balls; any property."""
        return Capabilities(operators=NORMAL_OPERATORS, norms=cls.norms, specs="dnf", native=QUANTISED_OPERATORS)

    @classmethod
    def preparation(cls) -> str:
        """Says that kernels will be compiled, unless they are kept."""
        return cache.pending(cls.kernels)

    def evaluate(self, points: FloatArray) -> npt.NDArray[Any] | None:
        """Computes the outputs in float64, by what proved them; those of a quantised network are others by rounding."""
        if self._smooth is not None:
            return self._smooth.evaluate(points)
        if self._quantised is not None:
            return None
        engine: Engine | None = getattr(self, "_engine", None)
        return self._network.evaluate(points) if engine is None or not engine.laid_out else engine.evaluate(points)

    def _read(self, onnx: Path) -> None:
        """Reads a network, be it quantised, with Sigmoids or Tanhs (where the adapter takes them), or neither."""
        from prunecert.verifiers.sparse.onnx.reader import read_network
        from prunecert.verifiers.sparse.quantised.question import read_quantised

        self._quantised, self._smooth, self._compared = read_quantised(onnx), None, False
        if self._quantised is None and self.capabilities().operators >= CURVES:
            from prunecert.verifiers.sparse.smooth.network import read_smooth

            self._smooth = read_smooth(onnx)
            if self._smooth is not None:
                return
        self._network = read_network(onnx) if self._quantised is None else self._quantised.network

    def _boxed(self, quantised: Quantised, instance: Instance) -> Boxed:
        """Moves a box behind a quantised network's first rounding; first of all compares it with onnxruntime.

        Raises:
            RuntimeError: At a point of the box the runtime's outputs are outside of what they are said to be there.
        """
        if not self._compared:
            rng = np.random.default_rng(0)
            shares = rng.random((_POINTS, *instance.lower.shape), dtype=np.float32)
            points = np.clip(
                instance.lower + shares * (instance.upper - instance.lower), instance.lower, instance.upper
            )
            for point, output in zip(points, outputs(instance.onnx, points, instance.classes), strict=True):
                last = quantised.box(point, point).intervals[-1]
                if not bool(((last.lower <= output) & (output <= last.upper)).all()):
                    raise RuntimeError(f"{instance.onnx.name}: onnxruntime's outputs are outside of their bounds")
            self._compared = True
        return quantised.box(instance.lower, instance.upper)

    def certify(
        self, onnx: Path, vnnlib: bytes, timeout: float, witness: npt.NDArray[Any] | None, questions: Sequence[str]
    ) -> tuple[Written, bytes]:
        """Writes a certificate; see `verifiers.certification.Certifying`."""
        if self._smooth is not None:
            raise UnsupportedError(NO_CERTIFICATE)
        if self._quantised is not None:
            raise UnsupportedError("certificates speak of networks in normal form, which a quantised one has not")
        if self._certifier is None or self._certifier[0] != onnx:
            self._certifier = onnx, self._make_certifier(onnx)
        finished = self._finished(questions) if witness is None else []
        return self._certifier[1].certify(vnnlib, timeout, self._search_limits(), finished=finished, witness=witness)

    def _make_certifier(self, onnx: Path) -> Certifier:
        from prunecert.verifiers.sparse.certificates import Certifier

        return Certifier(onnx)

    def _finished(self, questions: Sequence[str]) -> list[Search]:
        """Returns the searches that have answered questions, as far as they are still there."""
        return []

    def _search_limits(self) -> Limits | None:
        """Returns how hard to search for a proof that isn't there; None: as hard as by default."""
        return None
