"""What becomes of a request for a certificate, and who can be asked for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

#: Ways of proving, the cheapest first.
WAYS = ("intervals", "crown-ibp", "crown", "bab", "boxes")


@dataclass(frozen=True)
class Written:
    """What became of a request for a certificate.

    Args:
        status: What it certifies, ``unsat`` or ``sat``; ``unknown`` or ``timeout`` where there is none.
        reason: Why there is none; empty if there is one.
        how: One of `WAYS`, or ``witness``; empty if there is none.
        leaves: Of all trees.
        size: Of the file, in bytes.
        search_s: Seconds until the proof was there.
        check_s: Seconds of checking the file.
    """

    status: str
    reason: str = ""
    how: str = ""
    leaves: int = 0
    size: int = 0
    search_s: float = 0.0
    check_s: float = 0.0

    def describe(self) -> str:
        """Returns in one line how it came about, or why there is none."""
        if self.reason:
            return f"{self.status}, uncertified: {self.reason}"
        return (
            f"{self.status}, certified by {self.how}: {self.leaves} leaves, {self.size} bytes, "
            f"made in {self.search_s:.2f} s and checked in {self.check_s:.2f} s"
        )


@runtime_checkable
class Certifying(Protocol):
    """An adapter that writes certificates."""

    def certify(
        self, onnx: Path, vnnlib: bytes, timeout: float, witness: npt.NDArray[Any] | None, questions: Sequence[str]
    ) -> tuple[Written, bytes]:
        """Certifies an answer: from the searches that found it, if they were the last ones, or by others.

        Args:
            onnx: The network as it was given; the one that was loaded, or that its normal form was made of.
            vnnlib: The property.
            timeout: Seconds for a search.
            witness: The counterexample, where the answer is `sat`; None where it is `unsat`.
            questions: Hashes of the questions, one for each box of the property (`verifiers.base.Instance.question`),
                as the adapter was asked them.

        Returns:
            What came of it, and the file's content; empty where there is none.
        """
