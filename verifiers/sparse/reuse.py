"""Proofs kept for the next network of a compression chain: the tree of splits, the dual variables, the counterexample.

A network and its neighbour in a chain of compression ratios differ little, and so do their proofs (IVAN: Ugare et al.
2023, "Incremental Verification of Neural Networks"; FANC: Ugare et al. 2022). What is kept for a box and a property is
the tree of the search with α and β of its leaves. The next search bounds all its nodes at once, takes the topmost
that are proved for leaves (so that splits that help no more go), and goes on splitting where none is.

A stored proof only proposes. Splits are copied node by node from a tree whose every split has both phases, so that the
leaves cover the box whatever the file says, and every leaf is bounded and certified anew on the network at hand. A
split of a neuron that is stable now is dropped: its subtree of the other phase is empty. A file that is damaged, or of
a network with other layers, is refused with a reason and not used.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verifiers.base import Instance
from verifiers.sparse.network import Network

Single = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

SCHEMA_VERSION = 2
_MAGIC = b"sparse-proof\n"
#: Largest tree that is kept, in entries.
MOST_ENTRIES = 60_000
#: Largest file that is read, in bytes, and largest content.
_MOST_BYTES = 512 * 2**20
#: Bytes from which the arrays are compressed; for less, compressing costs more than it saves.
_PACKED = 2**18

#: What a slope of 1 is stored as.
ALPHA = 65535.0

_ARRAYS = {
    "witness": np.float32,
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
    """A stored proof can't be used; the message says why."""


@dataclass(frozen=True, eq=False)
class Proof:
    """What is kept of a search. U unstable neurons, T entries of the tree, L of them leaves.

    Args:
        network: Hash of the network that it was found for.
        layout: Neurons of each node before compaction.
        status: How the search ended.
        witness: The counterexample, flat; empty if there is none.
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

    network: str
    layout: tuple[int, ...]
    status: str
    witness: Single
    node: npt.NDArray[np.int32]
    index: npt.NDArray[np.int32]
    parent: npt.NDArray[np.int32]
    neuron: npt.NDArray[np.int32]
    sign: npt.NDArray[np.int8]
    disjunct: npt.NDArray[np.int32]
    leaf: npt.NDArray[np.int32]
    alpha: npt.NDArray[np.uint16]
    beta_leaf: npt.NDArray[np.int32]
    beta_neuron: npt.NDArray[np.int32]
    beta: Single

    def check(self) -> None:
        """Refuses what no search can have written.

        Raises:
            RefusedProofError: Says what.
        """

        def need(condition: bool, what: str) -> None:
            if not condition:
                raise RefusedProofError(what)

        if self.witness.ndim == 1 and not any(getattr(self, name).size for name in _ARRAYS if name != "witness"):
            # Nothing but a counterexample.
            return
        entries, width, leaves = len(self.parent), len(self.node), len(self.leaf)
        flat = (self.witness, self.node, self.index, self.parent, self.neuron, self.sign, self.disjunct, self.leaf)
        need(
            all(array.ndim == 1 for array in (*flat, self.beta_leaf, self.beta_neuron, self.beta)), "its arrays' shapes"
        )
        need(entries <= MOST_ENTRIES, f"its tree has more than {MOST_ENTRIES} entries")
        need(len(self.index) == width, "its neurons")
        need(entries == len(self.neuron) == len(self.sign) == len(self.disjunct), "its tree's arrays differ in length")
        need(self.alpha.shape == (leaves, width), "its slopes' shape")
        need(len(self.beta_leaf) == len(self.beta_neuron) == len(self.beta), "its multipliers differ in length")
        need(_within(self.node, 0, len(self.layout)) and _within(self.index, 0, 2**31), "its neurons' places")
        need(bool(np.all(self.parent < np.arange(entries))) and _within(self.parent, -1, entries), "its tree's order")
        need(_within(self.leaf, 0, entries) and len(np.unique(self.leaf)) == leaves, "its leaves")
        need(_within(self.beta_leaf, 0, leaves) and _within(self.beta_neuron, 0, width), "its multipliers' places")
        need(bool(np.isfinite(self.beta).all() and (self.beta >= 0).all()), "its multipliers' values")
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
                "network": self.network,
                "layout": list(self.layout),
                "status": self.status,
                "shapes": {name: list(array.shape) for name, array in arrays.items()},
                "packed": packed,
                "crc32": zlib.crc32(body),
            }
        ).encode()
        name = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            name.write_bytes(_MAGIC + len(header).to_bytes(4, "little") + header + body)
            name.replace(path)
        except BaseException:
            name.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path) -> Proof:
        """Reads a proof.

        Raises:
            RefusedProofError: The file is damaged, too large, of another schema, or no proof.
            FileNotFoundError: It is missing.
        """
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > _MOST_BYTES:
                    raise RefusedProofError("it is too large")
                content = file.read()
            if not content.startswith(_MAGIC):
                raise RefusedProofError("it does not begin as a proof does")
            begin = len(_MAGIC) + 4
            end = begin + int.from_bytes(content[len(_MAGIC) : begin], "little")
            header = json.loads(content[begin:end].decode())
            if header["schema_version"] != SCHEMA_VERSION:
                raise RefusedProofError(f"its schema is {header['schema_version']!r}, not {SCHEMA_VERSION}")
            body = content[end:]
            if zlib.crc32(body) != header["crc32"]:
                raise RefusedProofError("its checksum is another")
            layout = tuple(int(size) for size in header["layout"])
            arrays = _arrays(_unpacked(body) if header["packed"] else body, header["shapes"])
            proof = cls(str(header["network"]), layout, str(header["status"]), **arrays)
        except (RefusedProofError, FileNotFoundError):
            raise
        except Exception as error:
            # zlib, NumPy and json raise whatever they like on damaged files.
            raise RefusedProofError(f"it can't be read ({type(error).__name__}: {error})") from error
        proof.check()
        return proof


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


def key(instance: Instance) -> str:
    """Returns the name under which proofs of a box and a property are kept, whatever the network."""
    found = hashlib.sha256()
    spec = [part for pair in instance.spec.disjuncts for part in pair]
    arrays: list[npt.NDArray[np.floating]] = [instance.lower, instance.upper, *spec]
    for array in arrays:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:32]


class Store:
    """A folder of proofs, one file for each box, property and number of neurons: that of the network asked last.

    Args:
        folder: Made when something is kept.
        names: Of the network at hand.
    """

    def __init__(self, folder: Path, names: Names) -> None:
        self._folder = folder
        self._layout = names.layout
        self._suffix = hashlib.sha256(repr(names.layout).encode()).hexdigest()[:8]

    def path(self, name: str) -> Path:
        """Returns the file for a box and a property, by what `key` says."""
        return self._folder / f"{name}.{self._suffix}.proof"

    def find(self, name: str) -> tuple[Proof | None, str]:
        """Returns the proof for a box and a property, or None and, if there is one that can't be used, why."""
        path = self.path(name)
        try:
            proof = Proof.load(path)
            if proof.layout != self._layout:
                raise RefusedProofError("it is of a network with other layers")
        except FileNotFoundError:
            return None, ""
        except RefusedProofError as error:
            return None, f"{path.name}: {error}"
        return proof, ""

    def keep(self, name: str, proof: Proof) -> None:
        """Stores a proof in the place of the one before."""
        proof.save(self.path(name))


@dataclass(frozen=True, eq=False)
class Names:
    """What the neurons of a network are called before compaction.

    Args:
        layout: Neurons of each node.
        original: For each node the place of each neuron, or None where nothing was removed.
    """

    layout: tuple[int, ...]
    original: tuple[Indices | None, ...]

    def places(self, nodes: Indices, indices: Indices) -> npt.NDArray[np.int32]:
        """Returns the places before compaction of neurons of nodes."""
        result = indices.astype(np.int32)
        for node in np.unique(nodes):
            kept = self.original[node]
            if kept is not None:
                mine = nodes == node
                result[mine] = kept[indices[mine]]
        return result


def names_of(network: Network, onnx: Path) -> Names:
    """Returns a network's names; those of a compacted one from the record that its file carries."""
    from prunecert.compaction import Compaction
    from verifiers.support import load_model

    model = load_model(onnx)
    record = Compaction.of(model.metadata_props)
    outputs = {item.name or f"number {i}": item.output[0] for i, item in enumerate(model.graph.node)}
    layout, original = [], []
    for node in network.nodes:
        kept = None
        tensor = outputs.get(node.name, "")
        if record is not None and tensor in record.kept:
            mask = record.kept[tensor]
            inner = node.size // max(int(mask.sum()), 1)
            if int(mask.sum()) * inner == node.size:
                kept = record.indices(tensor, inner)
                layout.append(len(mask) * inner)
        if kept is None:
            layout.append(node.size)
        original.append(kept)
    return Names(tuple(layout), tuple(original))


def pack(
    network: str,
    names: Names,
    status: str,
    witness: Single | None,
    unstable: tuple[Indices, Indices],
    tree: tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]],
    leaves: tuple[Indices, Single, Single],
) -> Proof | None:
    """Makes a proof of a search's results; None where the tree is too large or not finished.

    Args:
        network: Hash.
        names: Of the network.
        status: How it ended.
        witness: Counterexample, flat.
        unstable: Nodes and indices of the unstable neurons.
        tree: Parents, neurons, signs and disjuncts of its entries.
        leaves: Entries without children, [L], their α and β, [L, U].
    """
    parent, neuron, sign, disjunct = tree
    if len(parent) > MOST_ENTRIES:
        return None
    place, alpha, beta = leaves
    _, keep = np.unique(place, return_index=True)
    place, alpha, beta = place[keep], alpha[keep], beta[keep]
    rows, columns = np.nonzero(beta > 0)
    return Proof(
        network,
        names.layout,
        status,
        np.zeros(0, dtype=np.float32) if witness is None else witness.reshape(-1).astype(np.float32),
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
        beta[rows, columns].astype(np.float32),
    )
