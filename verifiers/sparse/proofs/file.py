"""The tree of a search as it is kept for the next network: splits, slopes, multipliers; its checks and its file.

A file is a fixed start, a header in JSON with a checksum, and the arrays with another. The header says what a search
must know before it decides to use the tree at all (`ProofSummary`), and is read without the arrays.

    start │ header: `ProofSummary`, checksum │ arrays: the tree's splits, leaves' slopes and multipliers, checksum
          └─ read always ────────────────────────┴─ read where the tree is to be tried
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import Status
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int8Array, Int32Array, Int64Array
from prunecert.verifiers.sparse.onnx.neuron_names import Names

SCHEMA_VERSION = 3
_MAGIC = b"sparse-proof\n"
#: Length and checksum of the header.
_START = struct.Struct("<II")
#: Largest header, in bytes.
_MOST_HEADER = 2**16
#: Largest tree that is kept, in entries.
MOST_ENTRIES = 60_000
#: Largest file that is read, in bytes, and largest content.
_MOST_BYTES = 512 * 2**20
#: Bytes from which the arrays are compressed; for less, compressing costs more than it saves.
_PACKED = 2**18

#: Largest multiplier that is kept: sums of as many as there are leaves stay far from the end of float32.
_MOST_BETA = 1e12

#: What a slope of 1 is stored as.
ALPHA = 65535.0

_ARRAYS = {
    "node": np.int32,
    "index": np.int32,
    "parent": np.int32,
    "neuron": np.int32,
    "sign": np.int8,
    "disjunct": np.int32,
    "leaf": np.int32,
    "alpha": np.uint16,
    "beta_leaf": np.int32,
    "beta_neuron": np.int32,
    "beta": np.float32,
}


class RefusedProofError(ValueError):
    """What is stored can't be used; the message says why."""


@dataclass(frozen=True)
class ProofSummary:
    """What is known of a search before its tree is read.

    Args:
        network: Hash of the network that it was found for.
        layout: Neurons of each node before compaction.
        status: How the search ended.
        crown: CROWN's bound of each disjunct of the property over the box.
        proved: Least certified bound of each disjunct over the tree's leaves.
        witness: Checksum of the counterexample that was stored when the tree was; 0 if there was none.
        entries: Of the tree.
        leaves: Among them.
    """

    network: str
    layout: tuple[int, ...]
    status: str
    crown: tuple[float, ...]
    proved: tuple[float, ...]
    witness: int
    entries: int
    leaves: int

    def promises(self, crown: Float64Array, open_: Int64Array) -> bool:
        """Whether the tree proves the disjuncts that are open, if its bounds fall as CROWN's have.

        Args:
            crown: CROWN's bounds of the network at hand, of all disjuncts.
            open_: Those to be proved.
        """
        if self.status != Status.UNSAT or len(crown) != len(self.crown):
            return False
        with np.errstate(invalid="ignore", over="ignore"):
            # Of infinite bounds the difference may be no number, which promises nothing.
            return bool(np.all((np.array(self.proved) + crown - np.array(self.crown))[open_] > 0))


@dataclass(frozen=True, eq=False)
class Proof:
    """A search's tree. U unstable neurons, T entries of the tree, L of them leaves.

    Args:
        summary: Of the search.
        node: [U] node of each unstable neuron.
        index: [U] its place in the node before compaction.
        parent: [T] an earlier entry; -1 for the box.
        neuron: [T] the unstable neuron that tells an entry from its sibling; -1 for the box.
        sign: [T] its phase, 1 or -1; 0 for the box.
        disjunct: [T] of the property.
        leaf: [L] entries without children.
        alpha: [L, U] slopes times `ALPHA`.
        beta_leaf: Row of `leaf` of each multiplier that is not 0.
        beta_neuron: Its neuron.
        beta: Its value, 0 or more.
    """

    summary: ProofSummary
    node: Int32Array
    index: Int32Array
    parent: Int32Array
    neuron: Int32Array
    sign: Int8Array
    disjunct: Int32Array
    leaf: Int32Array
    alpha: npt.NDArray[np.uint16]
    beta_leaf: Int32Array
    beta_neuron: Int32Array
    beta: Float32Array

    def check(self) -> None:
        """Refuses what no search can have written.

        Raises:
            RefusedProofError: Says what.
        """

        def need(condition: bool, what: str) -> None:
            if not condition:
                raise RefusedProofError(what)

        flat = (self.node, self.index, self.parent, self.neuron, self.sign, self.disjunct, self.leaf)
        need(
            all(array.ndim == 1 for array in (*flat, self.beta_leaf, self.beta_neuron, self.beta)), "its arrays' shapes"
        )
        entries, width, leaves = len(self.parent), len(self.node), len(self.leaf)
        said = (self.summary.entries, self.summary.leaves)
        need(said == (entries, leaves) and leaves > 0, "its numbers of entries and leaves")
        need(entries <= MOST_ENTRIES, f"its tree has more than {MOST_ENTRIES} entries")
        need(len(self.index) == width, "its neurons")
        need(entries == len(self.neuron) == len(self.sign) == len(self.disjunct), "its tree's arrays differ in length")
        need(self.alpha.shape == (leaves, width), "its slopes' shape")
        need(len(self.beta_leaf) == len(self.beta_neuron) == len(self.beta), "its multipliers differ in length")
        need(_within(self.node, 0, len(self.summary.layout)) and _within(self.index, 0, 2**31), "its neurons' places")
        need(bool(np.all(self.parent < np.arange(entries))) and _within(self.parent, -1, entries), "its tree's order")
        need(_within(self.leaf, 0, entries) and len(np.unique(self.leaf)) == leaves, "its leaves")
        need(_within(self.beta_leaf, 0, leaves) and _within(self.beta_neuron, 0, width), "its multipliers' places")
        need(bool(np.all((self.beta >= 0) & (self.beta <= _MOST_BETA))), "its multipliers' values")
        root = self.parent < 0
        need(_within(self.neuron[~root], 0, width) and bool(np.all(np.abs(self.sign[~root]) == 1)), "its splits")
        need(_within(self.disjunct, 0, 2**31), "its disjuncts")
        order = np.argsort(self.parent[~root], kind="stable")
        inner = np.flatnonzero(~root)[order]
        need(len(inner) % 2 == 0, "an entry with one child")
        first, second = inner[::2], inner[1::2]
        paired = (
            np.array_equal(self.parent[first], self.parent[second])
            and np.array_equal(self.neuron[first], self.neuron[second])
            and np.array_equal(self.sign[first], -self.sign[second])
            and len(np.unique(self.parent[first])) == len(first)
        )
        need(paired, "siblings that are not the two phases of one neuron")
        need(not np.isin(self.leaf, self.parent).any(), "a leaf with children")

    def save(self, path: Path) -> None:
        """Writes the proof, whole or not at all."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        body = b"".join(array.tobytes() for array in arrays.values())
        packed = len(body) > _PACKED
        if packed:
            body = zlib.compress(body, 1)
        header = json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "summary": asdict(self.summary),
                "shapes": {name: list(array.shape) for name, array in arrays.items()},
                "packed": packed,
                "crc32": zlib.crc32(body),
            }
        ).encode()
        write(path, _MAGIC + _START.pack(len(header), zlib.crc32(header)) + header + body)

    @classmethod
    def load(cls, path: Path) -> Proof:
        """Reads a proof.

        Raises:
            RefusedProofError: The file is damaged, too large, of another schema, or no proof.
            FileNotFoundError: It is missing.
        """
        with _refusing():
            content = read(path, _MOST_BYTES)
            header, end = _header(content)
            body = content[end:]
            if zlib.crc32(body) != header["crc32"]:
                raise RefusedProofError("its checksum is another")
            arrays = _arrays(_unpacked(body) if header["packed"] else body, header["shapes"])
            proof = cls(_summary(header), **arrays)
            proof.check()
        return proof


def glance(path: Path) -> ProofSummary:
    """Reads what a file says of its proof, without the tree.

    Raises:
        RefusedProofError: The start of the file is damaged, of another schema, or no proof's.
        FileNotFoundError: It is missing.
    """
    with _refusing():
        return _summary(_header(read(path, len(_MAGIC) + _START.size + _MOST_HEADER, whole=False))[0])


def read(path: Path, most: int, whole: bool = True) -> bytes:
    """Returns a file's content.

    Args:
        path: The file.
        most: Bytes.
        whole: Whether a larger file is refused; else its start is returned.

    Raises:
        RefusedProofError: It is too large.
        FileNotFoundError: It is missing.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if whole and size > most:
            raise RefusedProofError("it is too large")
        content = bytearray()
        while len(content) < min(size, most) and (part := file.read(min(size, most) - len(content))):
            content += part
        return bytes(content)


def write(path: Path, content: bytes) -> None:
    """Replaces a file's content, wholly or not at all."""
    name = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with name.open("wb", buffering=0) as file:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
        name.replace(path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (RefusedProofError, FileNotFoundError):
        raise
    except Exception as error:
        # zlib, NumPy and json raise whatever they like on damaged files.
        raise RefusedProofError(f"it can't be read ({type(error).__name__}: {error})") from error


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """Returns the header and where it ends."""
    if not content.startswith(_MAGIC):
        raise RefusedProofError("it does not begin as a proof does")
    begin = len(_MAGIC) + _START.size
    length, checksum = _START.unpack(content[len(_MAGIC) : begin])
    text = content[begin : begin + length]
    if zlib.crc32(text) != checksum:
        raise RefusedProofError("its header's checksum is another")
    header = json.loads(text)
    if header["schema_version"] != SCHEMA_VERSION:
        raise RefusedProofError(f"its schema is {header['schema_version']!r}, not {SCHEMA_VERSION}")
    return header, begin + length


def _summary(header: dict[str, Any]) -> ProofSummary:
    said = header["summary"]
    summary = ProofSummary(
        str(said["network"]),
        tuple(int(size) for size in said["layout"]),
        str(said["status"]),
        tuple(float(bound) for bound in said["crown"]),
        tuple(float(bound) for bound in said["proved"]),
        int(said["witness"]),
        int(said["entries"]),
        int(said["leaves"]),
    )
    if len(summary.crown) != len(summary.proved):
        raise RefusedProofError("its bounds of the disjuncts")
    return summary


def _unpacked(body: bytes) -> bytes:
    reader = zlib.decompressobj()
    result = reader.decompress(body, _MOST_BYTES)
    if reader.unconsumed_tail:
        raise RefusedProofError("it is too large")
    return result


def _arrays(body: bytes, shapes: dict[str, list[int]]) -> dict[str, npt.NDArray[Any]]:
    """Cuts the arrays out of a file's content."""
    arrays, at = {}, 0
    for name, kind in _ARRAYS.items():
        shape = tuple(int(size) for size in shapes[name])
        if any(size < 0 for size in shape):
            raise RefusedProofError(f"the shape of its array {name}")
        count = math.prod(shape)
        arrays[name] = np.frombuffer(body, dtype=kind, count=count, offset=at).reshape(shape)
        at += count * np.dtype(kind).itemsize
    if at != len(body):
        raise RefusedProofError("its length")
    return arrays


def _within(values: npt.NDArray[np.integer], low: int, high: int) -> bool:
    return not len(values) or bool(values.min() >= low and values.max() < high)


def pack(
    names: Names,
    said: dict[str, Any],
    unstable: tuple[Int64Array, Int64Array],
    tree: tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]],
    leaves: tuple[Int64Array, Float32Array, Float32Array],
) -> Proof:
    """Makes a proof of a search's results.

    Args:
        names: Of the network.
        said: What `ProofSummary` takes besides the layout and the sizes.
        unstable: Nodes and indices of the unstable neurons.
        tree: Parents, neurons, signs and disjuncts of its entries.
        leaves: Entries without children, [L], their α and β, [L, U].
    """
    parent, neuron, sign, disjunct = tree
    place, alpha, beta = leaves
    _, keep = np.unique(place, return_index=True)
    place, alpha, beta = place[keep], alpha[keep], beta[keep]
    rows, columns = np.nonzero(beta > 0)
    return Proof(
        ProofSummary(layout=names.layout, entries=len(parent), leaves=len(place), **said),
        unstable[0].astype(np.int32),
        names.places(*unstable),
        np.array(parent, dtype=np.int32),
        np.array(neuron, dtype=np.int32),
        np.array(sign, dtype=np.int8),
        np.array(disjunct, dtype=np.int32),
        place.astype(np.int32),
        np.rint(alpha * ALPHA).astype(np.uint16),
        rows.astype(np.int32),
        columns.astype(np.int32),
        np.minimum(beta[rows, columns], _MOST_BETA).astype(np.float32),
    )
