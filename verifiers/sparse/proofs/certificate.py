"""Certificates as bytes: what `docs/certificates.md` describes and `verifiers.checker` reads.

Nothing here is believed by anybody: what is written wrongly is refused when it is read.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.checker.files import HEAD, MAGIC, VERSION, Stream
from prunecert.verifiers.checker.proof import BOUNDS, CUT, LEAF, PARABOLAS, SPLIT

Indices = npt.NDArray[np.int64]
Single = npt.NDArray[np.float32]

#: How slopes may be stored: code, kind of number, what 1 is stored as. Coarse ones first.
PRECISIONS = ((1, "u1", 255.0), (2, "<u2", 65535.0), (4, "<f4", 1.0))


@dataclass(frozen=True, eq=False)
class Slopes:
    """Slopes of lines below ReLUs.

    Args:
        values: [rows, S] in [0, 1].
        precision: Row of `PRECISIONS`.
    """

    values: Single
    precision: int = 2

    def rounded(self) -> Single:
        """Returns the slopes as a reader will see them."""
        _, kind, one = PRECISIONS[self.precision]
        stored = self.values * one if one == 1.0 else np.rint(self.values * one)
        return (stored.astype(kind).astype(np.float64) / one).astype(np.float32)

    def encoded(self) -> bytes:
        """Returns their bytes, with the code before them."""
        code, kind, one = PRECISIONS[self.precision]
        stored = self.values * one if one == 1.0 else np.rint(self.values * one)
        return bytes([code]) + stored.astype(kind).tobytes()


@dataclass(frozen=True, eq=False)
class Walk:
    """Bounds of neurons of one node by walks backwards.

    Args:
        neurons: Which; None for all that are unstable then, with default slopes.
        slopes: With `neurons`: [2 * neurons, S], first for the bounds from below, then for those from above.
        stop: Where the walks end; 0 is the input.
    """

    neurons: Indices | None = None
    slopes: Slopes | None = None
    stop: int = 0


@dataclass(frozen=True, eq=False)
class SiteBounds:
    """How a node that feeds ReLUs is bounded, after intervals.

    Args:
        walks: One after the other.
        slots: Neurons whose slopes the leaves, and later nodes' walks, state.
    """

    walks: tuple[Walk, ...] = ()
    slots: Indices = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class Split:
    """A neuron of a node is <= 0 in the part that follows, and >= 0 in the next."""

    node: int
    neuron: int


@dataclass(frozen=True, eq=False)
class Leaf:
    """A part over which a combination of the alternative's rows is above 0.

    Args:
        weights: Of the rows, 0 or more.
        beta: Multipliers of the splits above it, topmost first.
        slopes: [1, S]; None for the default ones.
        stop: Where the walk ends; 0 is the input.
    """

    weights: Single
    beta: Single
    slopes: Slopes | None = None
    stop: int = 0


@dataclass(frozen=True, eq=False)
class Cut:
    """An input is <= a value in the part that follows, and >= it in the next."""

    place: int
    value: float


@dataclass(frozen=True, eq=False)
class Bounded:
    """The one part that follows is bounded anew.

    Args:
        sites: For each node that feeds ReLUs, in order.
    """

    sites: Sequence[SiteBounds]


@dataclass(frozen=True, eq=False)
class Parabolas:
    """A part over which second-order bounds of the last hidden layer prove a combination of the alternative's rows.

    Args:
        node: That layer.
        weights: Of the rows, 0 or more.
        slopes: [1, S] of the lines before that layer, whatever a coefficient's sign; None for the default ones.
        m: Of the layer's neurons in slots, then of the splits above it before that layer, topmost first.
        p: Likewise.
        D: Of inputs, then of neurons in slots before that layer.
        v: Likewise, float16.
    """

    node: int
    weights: Single
    slopes: Slopes | None
    m: Single
    p: Single
    D: Single
    v: npt.NDArray[np.float16]


Entry: TypeAlias = "Split | Leaf | Parabolas | Cut | Bounded"


@dataclass(frozen=True, eq=False)
class CaseProof:
    """The proof of one box.

    Args:
        sites: For each node that feeds ReLUs, in order.
        trees: For each alternative its entries, a split before its two parts.
    """

    sites: Sequence[SiteBounds]
    trees: Sequence[Sequence[Entry]]

    def encoded(self) -> bytes:
        """Returns the bytes, not compressed."""
        parts = [_site(site) for site in self.sites]
        parts += [_entry(entry) for tree in self.trees for entry in tree]
        return b"".join(parts)


def _numbers(values: npt.NDArray[np.generic], kind: str) -> bytes:
    return values.astype(kind).tobytes()


def _slopes(slopes: Slopes | None) -> bytes:
    return b"\0" if slopes is None else slopes.encoded()


def _site(site: SiteBounds) -> bytes:
    parts = [struct.pack("<I", len(site.walks))]
    parts += [struct.pack("<II", walk.neurons is not None, walk.stop) for walk in site.walks]
    for walk in site.walks:
        if walk.neurons is not None:
            parts += [struct.pack("<I", len(walk.neurons)), _numbers(walk.neurons, "<u4"), _slopes(walk.slopes)]
    return b"".join([*parts, struct.pack("<I", len(site.slots)), _numbers(site.slots, "<u4")])


def _entry(entry: Entry) -> bytes:
    if isinstance(entry, Split):
        return struct.pack("<BII", SPLIT, entry.node, entry.neuron)
    if isinstance(entry, Cut):
        return struct.pack("<BId", CUT, entry.place, entry.value)
    if isinstance(entry, Bounded):
        return bytes([BOUNDS]) + b"".join(map(_site, entry.sites))
    if isinstance(entry, Parabolas):
        numbers = [_numbers(part, "<f4") for part in (entry.m, entry.p, entry.D)]
        head = struct.pack("<BI", PARABOLAS, entry.node) + _numbers(entry.weights, "<f4") + _slopes(entry.slopes)
        return b"".join([head, *numbers, _numbers(entry.v, "<f2")])
    head = struct.pack("<BI", LEAF, entry.stop) + _numbers(entry.weights, "<f4")
    return head + _slopes(entry.slopes) + _numbers(entry.beta, "<f4")


def _file(answer: int, network: bytes, property_: bytes, body: bytes) -> bytes:
    return HEAD.pack(MAGIC, VERSION, answer, network, property_) + zlib.compress(body, 9)


def encode_unsat(network: bytes, property_: bytes, cases: Sequence[CaseProof]) -> bytes:
    """Returns a certificate that a property holds.

    Args:
        network: SHA-256 of the network's file, unpacked.
        property_: SHA-256 of the property's.
        cases: A proof for each box of the property, as `verifiers.checker.vnnlibfile.read_property` orders them.
    """
    return _file(0, network, property_, b"".join(case.encoded() for case in cases))


def encode_sat(network: bytes, property_: bytes, witness: Single) -> bytes:
    """Returns a certificate that a property is broken.

    Args:
        network: SHA-256 of the network's file, unpacked.
        property_: SHA-256 of the property's.
        witness: The input, flat.
    """
    return _file(1, network, property_, _numbers(witness, "<f4"))


def stream(proof: CaseProof) -> Stream:
    """Returns the proof of one box as the checker reads it, of no network and property."""
    return Stream(io.BytesIO(encode_unsat(bytes(32), bytes(32), [proof])))
