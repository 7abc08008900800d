"""What verifiers would get to see of a network, found out in a process with limits and before the long work."""

from __future__ import annotations

import functools
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from prunecert.errors import UserError
from prunecert.onnx.io import external_files
from prunecert.onnx.nodes import CURVES
from prunecert.verifiers.base import Norm, Verifier
from prunecert.verifiers.formats.support import SpecKind, check_question, network_info, takes_native, unknown_operator

#: Operators beyond the normal form's that some verifiers take as they are.
_KEPT = frozenset({"MaxPool"}) | CURVES
_GRACE_S = 5.0
#: Seconds that making the normal form of a network may take, and MiB that it may take beside what is there already and
#: for each MiB of the file and its weights: a file of a few kilobytes can ask for any amount of either.
READ_LIMIT_S = 45.0
READ_MEMORY_MB = 2048.0
READ_MEMORY_FACTOR = 10.0


@dataclass(frozen=True)
class Inspection:
    """A network's normal form, in words.

    Args:
        operators: Pairs (operator, first node that uses it), in the order of the graph.
        outputs: Numbers of the output that counts; None if there is no normal form.
        last: What was taken off at the end, see `prunecert.onnx.normal.Normalised`.
        refusal: Why there is no normal form, in one sentence; empty if there is one.
    """

    operators: tuple[tuple[str, str], ...]
    outputs: int | None
    last: str = "none"
    refusal: str = ""


def inspect_network(onnx: Path, *, keep: Collection[str] = (), outputs: int | None = None) -> Inspection:
    """Makes a network's normal form in a process of its own, with limits; a network that has it already needs none.

    Args:
        onnx: The network.
        keep: Operators that the verifier takes as they are.
        outputs: Numbers of the output that counts, if there are several.

    Raises:
        UserError: It is no network, or making its normal form takes too long or too much memory.
    """
    info = network_info(onnx)
    if info.normal:
        return Inspection(info.operators, info.outputs[0].size)
    kept = _KEPT & frozenset(keep)
    names = {operator for operator, _ in info.operators}
    if not names & CURVES and not any("::" in name for name in names):
        # Neither the graph nor a function that it may call has any, so that all verifiers share one answer.
        kept -= CURVES
    return _inspect(onnx, info.sha256, tuple(sorted(kept)), outputs)


@functools.lru_cache(maxsize=256)
def _inspect(onnx: Path, _sha256: str, keep: tuple[str, ...], outputs: int | None) -> Inspection:
    from prunecert.verifiers.process.parent import Process, ProcessError

    process = Process(log=None, threads=1, memory_limit_mb=None)
    try:
        room_mb = process.resident_mb() + read_memory_mb(onnx)
        reply, _ = process.ask("inspect", (str(onnx), keep, outputs), READ_LIMIT_S, _GRACE_S, room_mb)
    except ProcessError as failure:
        if failure.kind == "unsupported":
            return Inspection((), None, refusal=failure.detail)
        if failure.kind == "error":
            raise UserError(failure.detail) from None
        raise UserError(f"{onnx} is refused because it can't be read within limits ({failure.detail}).") from None
    finally:
        process.close()
    operators = tuple((str(operator), str(node)) for operator, node in reply["operators"])
    return Inspection(operators, int(reply["outputs"]), str(reply["last"]))


def check_supported(verifier: type[Verifier], onnx: Path, norm: Norm, spec: SpecKind) -> str | None:
    """Says why a verifier doesn't take a network or a property.

    Args:
        verifier: The adapter.
        onnx: The network; its normal form is made in a process with limits, unless it is in normal form already.
        norm: Norm of the input set.
        spec: Kind of the property, see `verifiers.formats.support.spec_kind`.

    Returns:
        One sentence with what is not supported and what is, or None if all is.

    Raises:
        UserError: The file is no ONNX network.
    """
    reason = check_question(verifier, norm, spec)
    if reason is not None:
        return reason
    operators = verifier.capabilities().operators
    inspection = inspect_network(onnx, keep=operators)
    if inspection.refusal:
        return None if takes_native(network_info(onnx), verifier.capabilities()) else inspection.refusal
    return unknown_operator(verifier, inspection.operators, onnx.name)


def read_memory_mb(onnx: Path) -> float:
    """Returns how much memory making a network's normal form may take, MiB.

    Args:
        onnx: The network; the caller has read it before.
    """
    files = (onnx, *external_files(onnx))
    return READ_MEMORY_MB + READ_MEMORY_FACTOR * sum(file.stat().st_size for file in files) / 2**20
