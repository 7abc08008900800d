"""What the adapters to the sparse engine share, for bounds and for search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

import prunecert
from prunecert.verifiers.adapters.hardware import first_missing
from prunecert.verifiers.base import Availability, Capabilities, FloatArray, Instance, Norm, Status, Verdict, Verifier
from prunecert.verifiers.certification import Written
from prunecert.verifiers.formats.support import NORMAL_OPERATORS
from prunecert.verifiers.sparse import cache

if TYPE_CHECKING:
    from prunecert.verifiers.sparse.bab.outcome import Limits
    from prunecert.verifiers.sparse.bab.search import Search
    from prunecert.verifiers.sparse.certificates import Certifier
    from prunecert.verifiers.sparse.network import Network


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
        """Convolutions, linear layers, ReLU, sums, averages; boxes, for some l2 balls, too; any linear property."""
        return Capabilities(operators=NORMAL_OPERATORS, norms=cls.norms, specs="dnf")

    @classmethod
    def preparation(cls) -> str:
        """Says that kernels will be compiled, unless they are kept."""
        return cache.pending(cls.kernels)

    def evaluate(self, points: FloatArray) -> npt.NDArray[Any] | None:
        """Computes the sparse matrices' outputs in float64."""
        return self._network.evaluate(points)

    def certify(
        self, onnx: Path, vnnlib: bytes, timeout: float, witness: npt.NDArray[Any] | None, question: str
    ) -> tuple[Written, bytes]:
        """Writes a certificate; see `verifiers.certification.Certifying`."""
        if self._certifier is None or self._certifier[0] != onnx:
            self._certifier = onnx, self._make_certifier(onnx)
        finished = self._finished(question) if witness is None else None
        return self._certifier[1].certify(vnnlib, timeout, self._search_limits(), finished=finished, witness=witness)

    def _make_certifier(self, onnx: Path) -> Certifier:
        from prunecert.verifiers.sparse.certificates import Certifier

        return Certifier(onnx)

    def _finished(self, question: str) -> Search | None:
        """Returns the search that has answered a question, if it is still there."""
        return None

    def _search_limits(self) -> Limits | None:
        """Returns how hard to search for a proof that isn't there; None: as hard as by default."""
        return None
