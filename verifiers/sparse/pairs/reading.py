"""Reads a joined file of which one network rounds its activations, or both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecert.verifiers.base import UnsupportedError
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx.reader import read_model
from prunecert.verifiers.sparse.pairs.rounded import Member
from prunecert.verifiers.sparse.quantised.question import quantised

if TYPE_CHECKING:
    import onnx

#: How far float32 may be from float64, of the outputs' scale; `verifiers.rounding.guard` asks what it means.
_TOLERANCE = 1e-4


def read_rounded_pair(path: Path) -> tuple[Member, Member] | None:
    """Reads the two networks of a joined file; None if neither rounds.

    Args:
        path: What `prunecert.onnx.merge` has written.

    Raises:
        UserError: It is no ONNX network.
        UnsupportedError: A node isn't taken, and is named; or the file was joined by somebody else.
    """
    from prunecert.onnx.io import load_model
    from prunecert.onnx.merge import taken_apart

    model = load_model(path)
    if not _rounds(model):
        return None
    halves = taken_apart(model)
    if halves is None:
        raise UnsupportedError(
            f"{path.name} rounds its activations; of such networks two are compared that `bench.verify --with` joins."
        )
    first, second = (
        _member(half, f"{path.name}, {word}") for half, word in zip(halves, ("first", "second"), strict=True)
    )
    return first, second


def _rounds(model: onnx.ModelProto) -> bool:
    from prunecert.onnx.normal import normal_nodes
    from prunecert.onnx.quantised import holds_quantisation

    return holds_quantisation(model) and normal_nodes(model) is None


def _member(model: onnx.ModelProto, name: str) -> Member:
    return quantised(model, name) if _rounds(model) else read_model(model, name)


def enclose(members: tuple[Member, Member], point: Float32Array) -> tuple[Float64Array, Float64Array]:
    """Returns what both networks' outputs may be at a point, one after the other."""
    lower: list[Float64Array] = []
    upper: list[Float64Array] = []
    for member in members:
        if isinstance(member, Network):
            (values,) = member.evaluate(point[None])
            room = _TOLERANCE * max(1.0, float(np.abs(values).max()))
            lower.append(values - room)
            upper.append(values + room)
        else:
            last = member.box(point, point).intervals[-1]
            lower.append(last.lower)
            upper.append(last.upper)
    return np.concatenate(lower), np.concatenate(upper)
