"""Proofs kept for the next network of a compression chain: the counterexample, and the tree of splits with its duals.

A network and its neighbour in a chain of compression ratios differ little, and so do their proofs (IVAN: Ugare et al.
2023, "Incremental Verification of Neural Networks"; FANC: Ugare et al. 2022). Two files are kept for a box and a
property: the last counterexample, which the next search tries before anything else (and, if it fails but no tree came
after it, attacks from before it bounds anything), and the last tree of a search with α and β of its leaves. The next
search bounds all the tree's nodes at once, takes the topmost that are proved for leaves (so that splits that help no
more go), and goes on splitting where none is. The tree is read when it is needed, after CROWN and, unless it promises a
proof, after a first attack.

What is stored only proposes. A counterexample is evaluated on the network at hand. Splits are copied node by node from
a tree whose every split has both phases, so that the leaves cover the box whatever the file says, and every leaf is
bounded and certified anew on the network at hand. A split of a neuron that is stable now is dropped: its subtree of the
other phase is empty. A file that is damaged, or of a network with other layers, is refused with a reason and not used.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.base import Instance
from prunecert.verifiers.sparse.arrays import Float32Array, Float64Array, Int64Array
from prunecert.verifiers.sparse.onnx.neuron_names import Names
from prunecert.verifiers.sparse.proofs.file import (
    SCHEMA_VERSION,
    Proof,
    ProofSummary,
    RefusedProofError,
    glance,
    read,
    write,
)

_MAGIC = b"sparse-point\n"
#: Schema, hash of the layout, checksum of the point.
_START = struct.Struct("<I32sI")
_MOST_BYTES = 2**26


def key(instance: Instance) -> str:
    """Returns the name under which proofs of a box and a property are kept, whatever the network."""
    spec = [part for pair in instance.spec.disjuncts for part in pair]
    arrays: list[npt.NDArray[np.floating]] = [instance.lower, instance.upper, *spec]
    digest = hashlib.sha256(repr([(array.dtype.str, array.shape) for array in arrays]).encode())
    digest.update(b"".join([array.tobytes() for array in arrays]))
    return digest.hexdigest()[:32]


class Store:
    """A folder of proofs, for each box, property and number of neurons those of the network asked last.

    Args:
        folder: Where the files are; it must be there when something is kept.
        names: Of the network at hand.
    """

    def __init__(self, folder: Path, names: Names) -> None:
        self._folder = folder
        self._layout = names.layout
        self._digest = hashlib.sha256(repr(names.layout).encode()).digest()
        self._suffix = self._digest.hex()[:8]

    def paths(self, name: str) -> tuple[Path, Path]:
        """Returns the files of the counterexample and of the tree for a box and a property, by what `key` says."""
        start = f"{name}.{self._suffix}"
        return self._folder / f"{start}.witness", self._folder / f"{start}.tree"

    def find(self, name: str) -> Earlier:
        """Returns what is kept for a box and a property; nothing is read yet."""
        return Earlier(*self.paths(name), self._layout, self._digest)

    def keep_witness(self, name: str, witness: Float32Array) -> None:
        """Stores a counterexample in the place of the one before; the tree stays."""
        data = witness.astype(np.float32).tobytes()
        write(self.paths(name)[0], _MAGIC + _START.pack(SCHEMA_VERSION, self._digest, zlib.crc32(data)) + data)

    def keep_tree(self, name: str, proof: Proof) -> None:
        """Stores a tree in the place of the one before; the counterexample stays."""
        proof.save(self.paths(name)[1])


class Earlier:
    """What earlier searches left for a box and a property, each part read when it is first asked for.

    Args:
        witness: File of the counterexample.
        tree: File of the tree.
        layout: Neurons of each node of the network at hand before compaction.
        digest: SHA-256 of that.
    """

    def __init__(self, witness: Path, tree: Path, layout: tuple[int, ...], digest: bytes) -> None:
        self._files = witness, tree
        self._layout, self._digest = layout, digest
        #: Why files were refused.
        self.refused: list[str] = []

    @cached_property
    def witness(self) -> Float32Array | None:
        """The counterexample, flat; None if there is none that can be used."""
        try:
            content = read(self._files[0], _MOST_BYTES)
            begin = len(_MAGIC) + _START.size
            if not content.startswith(_MAGIC) or len(content) < begin or len(content) % 4 != begin % 4:
                raise RefusedProofError("it is no counterexample")
            schema, digest, checksum = _START.unpack_from(content, len(_MAGIC))
            if schema != SCHEMA_VERSION:
                raise RefusedProofError(f"its schema is {schema}, not {SCHEMA_VERSION}")
            data = content[begin:]
            if zlib.crc32(data) != checksum:
                raise RefusedProofError("its checksum is another")
            if digest != self._digest:
                raise RefusedProofError("it is of a network with other layers")
            point: Float32Array = np.frombuffer(data, dtype=np.float32)
            if not np.isfinite(point).all():
                raise RefusedProofError("it is not finite")
        except FileNotFoundError:
            return None
        except (RefusedProofError, OSError) as error:
            self._refuse(0, error)
            return None
        return point

    @property
    def mark(self) -> int:
        """What tells the counterexample from another; 0 if there is none."""
        return 0 if self.witness is None else zlib.crc32(self.witness.tobytes())

    @property
    def latest(self) -> bool:
        """Whether no counterexample came after the tree."""
        return self.summary is not None and self.summary.witness == self.mark

    @property
    def broken(self) -> bool:
        """Whether there is a counterexample, and none of a tree that came after it."""
        return self.witness is not None and not self.latest

    @cached_property
    def summary(self) -> ProofSummary | None:
        """What is known of the tree without reading it; None if there is none that can be used."""
        try:
            return self._fitting(glance(self._files[1]))
        except FileNotFoundError:
            return None
        except (RefusedProofError, OSError) as error:
            self._refuse(1, error)
            return None

    @property
    def entries(self) -> int:
        """How many the tree has; 0 if there is none."""
        return 0 if self.summary is None else self.summary.entries

    @cached_property
    def tree(self) -> Proof | None:
        """The tree; None if there is none that can be used."""
        if self.summary is None:
            return None
        try:
            proof = Proof.load(self._files[1])
            self._fitting(proof.summary)
        except (RefusedProofError, OSError) as error:
            self._refuse(1, error)
            return None
        return proof

    def promises(self, crown: Float64Array, open_: Int64Array, most: int) -> bool:
        """Whether a proof is to be expected of the tree, so that it goes before an attack.

        Args:
            crown: CROWN's bounds of the disjuncts on the network at hand.
            open_: Disjuncts that are not proved.
            most: Leaves that are still soon tried.
        """
        summary = self.summary
        return summary is not None and summary.leaves <= most and self.latest and summary.promises(crown, open_)

    def refuse_tree(self, why: str) -> None:
        """Says why the tree is not used although it can be read."""
        self._refuse(1, RefusedProofError(why))

    def _fitting(self, summary: ProofSummary) -> ProofSummary:
        if summary.layout != self._layout:
            raise RefusedProofError("it is of a network with other layers")
        return summary

    def _refuse(self, which: int, error: Exception) -> None:
        reason = f"{self._files[which].name}: {error}"
        if reason not in self.refused:
            self.refused.append(reason)
