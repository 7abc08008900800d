"""Trees and counterexamples made by hand, and the questions whose answers they must not change."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import Instance, OutputSpec, Status, Verdict, Verifier
from prunecert.verifiers.sparse.onnx.neuron_names import names_of
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.proofs.file import Proof, ProofSummary
from prunecert.verifiers.sparse.proofs.store import Store, key
from tests.soundness.networks import Network as Drawn
from tests.verifiers.sparse.searching import bab

#: An entry: parent, unstable neuron, phase, disjunct.
Entry = tuple[int, int, int, int]
#: Neurons 0 and 1 are the ReLU of one input, 2 and 3 that of the other; disjunct 0 asks for the first.
BOTH: list[Entry] = [(-1, -1, 0, 0), (-1, -1, 0, 1), (0, 0, 1, 0), (0, 0, -1, 0), (1, 2, 1, 1), (1, 2, -1, 1)]
START = struct.Struct("<II")
MAGIC = b"sparse-proof\n"


def network(share: float) -> Drawn:
    """Outputs 0.25, a relu less its copy (always 0), and a relu less a share of its copy: 1 - share at most."""
    net = Drawn("net", (2,))
    # Two more, one always active and one never, so that a tree can name stable neurons.
    hidden = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]], dtype=float)
    value = net.relu(net.gemm(0, hidden, np.array([0, 0, 0, 0, 5, -5.0])))
    out = np.array([[0, 0, 0, 0, 0, 0], [1, -1, 0, 0, 0, 0], [0, 0, 1, -share, 0, 0]], dtype=float)
    net.gemm(value, out, np.array([0.25, 0, 0]))
    return net


@dataclass
class Question:
    """A network with a question, the file of its tree, and the right answer."""

    query: Instance
    file: Path
    store: Store
    answer: Status
    verifiers: list[Verifier]

    def ask(self) -> list[Verdict]:
        """Returns the answers without attacks, where only branch and bound decides, and with them."""
        content = self.file.read_bytes() if self.file.is_file() else None
        verdicts = []
        for verifier in self.verifiers:
            self.clear()
            if content is not None:
                self.file.write_bytes(content)
            verdicts += verifier.solve([self.query])
        self.clear()
        return verdicts

    def clear(self) -> None:
        for file in self.file.parent.iterdir():
            file.unlink()


def pose(folder: Path) -> list[Question]:
    """One that holds, and one of a network with the same layers that does not, for a quarter of its box."""
    prepared = []
    for share, answer in ((1.0, Status.UNSAT), (0.5, Status.SAT)):
        net = network(share)
        path = net.save(folder / f"{answer}.onnx")
        corner = np.ones(2, dtype=np.float32)
        spec = OutputSpec.robustness(0, 3)
        query = Instance(path, sha256_file(path), -corner, corner, spec, 20.0, "test", 0, 3)
        proofs = folder / str(answer)
        proofs.mkdir()
        store = Store(proofs, names_of(read_network(path), path))
        verifiers = [bab(path, proofs=str(proofs), attack_steps=steps) for steps in (0, 20)]
        prepared.append(Question(query, store.paths(key(query))[1], store, answer, verifiers))
        # The right answer by evaluation, not by the verifier.
        outputs = net.evaluate(np.random.default_rng(0).uniform(-1, 1, (4000, 2)))
        assert (answer is Status.SAT) == bool((outputs.argmax(axis=1) != 0).any())
    return prepared


def tree(splits: list[Entry], leaf: list[int] | None = None, /, **changes: Any) -> Proof:
    """Returns a proof with these entries, whatever they are; `changes` are of its arrays, or of its summary."""
    parent, neuron, sign, disjunct = (np.array(column) for column in zip(*splits, strict=True))
    if leaf is None:
        leaf = np.setdiff1d(np.arange(len(splits)), parent).tolist()
    arrays: dict[str, Any] = {
        "node": [1] * 4,
        "index": [0, 1, 2, 3],
        "parent": parent,
        "neuron": neuron,
        "sign": sign.astype(np.int8),
        "disjunct": disjunct,
        "leaf": leaf,
        # The copy is the input itself in the active phase, and 0 below it in the other.
        "alpha": np.array([[65535 * (sign[min(at, len(sign) - 1)] > 0)] * 4 for at in leaf], np.uint16).reshape(-1, 4),
        "beta_leaf": [],
        "beta_neuron": [],
        "beta": np.zeros(0, dtype=np.float32),
    }
    summary: dict[str, Any] = {
        "network": "0" * 64,
        "layout": (2, 6, 3),
        "status": "unsat",
        "crown": (-10.0, -10.0),
        "proved": (1e6, 1e6),
        "witness": 0,
        "entries": len(splits),
        "leaves": len(leaf),
    }
    for name, value in changes.items():
        (arrays if name in arrays else summary)[name] = value
    typed: dict[str, Any] = {
        name: np.asarray(value, dtype=np.int32) if isinstance(value, list) or value.dtype == np.int64 else value
        for name, value in arrays.items()
    }
    return Proof(ProofSummary(**summary), **typed)


def repeated(neuron: int, times: int) -> list[Entry]:
    """Splits one neuron again and again below its inactive phase."""
    entries = list(BOTH)
    for _ in range(times):
        parent = len(entries) - 1
        entries += [(parent, neuron, 1, 1), (parent, neuron, -1, 1)]
    return entries


def rewrite(proof: Proof, path: Path, change: Callable[[dict[str, Any]], object], body: bytes | None = None) -> None:
    """Saves a proof with another header, or another body, and right checksums."""
    proof.save(path)
    content = path.read_bytes()
    length, _ = START.unpack_from(content, len(MAGIC))
    begin = len(MAGIC) + START.size
    header = json.loads(content[begin : begin + length])
    if body is None:
        body = content[begin + length :]
    header["crc32"] = zlib.crc32(body)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(MAGIC + START.pack(len(text), zlib.crc32(text)) + text + body)


def shape(name: str, *sizes: int) -> Callable[[dict[str, Any]], object]:
    return lambda header: header["shapes"].update({name: list(sizes)})


def altered(**what: Any) -> Callable[[dict[str, Any]], object]:
    return lambda header: header["summary"].update(what)


def random_tree(rng: np.random.Generator) -> Proof:
    """Returns a tree with splits in pairs, of neurons of any node, with anything in the place of the rest."""
    entries: list[Entry] = [(-1, -1, 0, int(k)) for k in rng.integers(0, 3, rng.integers(1, 4))]
    ends = list(range(len(entries)))
    for _ in range(rng.integers(0, 10)):
        parent = ends.pop(rng.integers(len(ends)))
        split, turn = int(rng.integers(4)), int(rng.choice([-1, 1]))
        for phase in (turn, -turn):
            ends.append(len(entries))
            entries.append((parent, split, phase, int(rng.integers(0, 3))))
    if rng.random() < 0.5:
        # One number is another.
        at, field = rng.integers(len(entries)), int(rng.integers(4))
        changed = list(entries[at])
        changed[field] = int(rng.integers(-2, 5))
        entries[at] = (changed[0], changed[1], changed[2], changed[3])
    leaves = max(len([e for e in range(len(entries)) if e not in {p for p, *_ in entries}]), 1)
    count = int(rng.integers(0, 6))
    return tree(
        entries,
        None if leaves > 1 else [len(entries) - 1],
        node=rng.choice([0, 1, 1, 1, 1, 2], 4).tolist(),
        index=rng.integers(0, 7, 4).tolist(),
        alpha=rng.integers(0, 65536, (leaves, 4)).astype(np.uint16),
        beta_leaf=rng.integers(0, leaves, count).tolist(),
        beta_neuron=rng.integers(0, 4, count).tolist(),
        beta=np.exp(rng.uniform(-5, 12, count)).astype(np.float32),
    )
