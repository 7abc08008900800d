"""Questions with exact answers, and certificates of them, for the checker's tests."""

from __future__ import annotations

import functools
import hashlib
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import onnx.numpy_helper
import onnx.parser

from prunecert.verifiers.checker.files import HEAD, MAGIC, VERSION
from prunecert.verifiers.checker.network import read_network
from prunecert.verifiers.checker.vnnlibfile import read_property
from prunecert.verifiers.formats.vnnlib import write
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.quadratic import attempt
from prunecert.verifiers.sparse.certificates import Attempt, Certifier
from prunecert.verifiers.sparse.proofs.certificate import CaseProof
from tests.soundness.networks import Array, Network
from tests.soundness.questions import FAMILIES, Question, around, robustness, seeded

FOLDER = Path(tempfile.mkdtemp(prefix="prunecert-checker-"))


@dataclass(frozen=True, eq=False)
class Files:
    """A question as files."""

    question: Question
    onnx: Path
    vnnlib: Path

    def certificate(self, body: bytes, answer: int = 0) -> bytes:
        """Returns a certificate of this question with such a body, whatever it says."""
        digests = [hashlib.sha256(path.read_bytes()).digest() for path in (self.onnx, self.vnnlib)]
        return HEAD.pack(MAGIC, VERSION, answer, *digests) + zlib.compress(body, 1)

    def curved_proof(self) -> CaseProof:
        """Returns one that has trees by second-order bounds, however large, wherever they are possible."""
        limits = Limits(attack_steps=0, tighten_after=1, second_order=True)
        with mock.patch.multiple(attempt, _WORTH=1e6, _SHARE=0.7, _TURN=1e3, _MOST=(2000, 2000)):
            return self.proof(limits)

    def proof(self, limits: Limits | None = None) -> CaseProof:
        """Returns the proof that the engine finds."""
        certifier = Certifier(self.onnx)
        network = read_network(self.onnx.read_bytes())
        sizes = network.nodes[0].size, network.nodes[network.output].size
        (case,) = read_property(self.vnnlib.read_bytes(), *sizes)
        proof, _ = certifier._case(case, np.inf, Attempt(limits or Limits(attack_steps=0)))
        assert isinstance(proof, CaseProof)
        return proof


@functools.cache
def questions(family: str) -> tuple[Files, ...]:
    """Returns eight boxes of growing radius round one centre; the last four are false."""
    name = f"{family}-checker"
    rng = seeded(name)
    net = FAMILIES[family](name, rng).balance(rng)
    onnx = net.save(FOLDER / f"{family}.onnx")
    made = []
    for number, question in enumerate(around(net, rng, name, 1, robustness(net))):
        vnnlib = FOLDER / f"{family}-{number}.vnnlib"
        write(question.instance(onnx), vnnlib)
        made.append(Files(question, onnx, vnnlib))
    return tuple(made)


def network_file(net: Network, name: str) -> Path:
    """Saves a network."""
    return net.save(FOLDER / f"{name}.onnx")


def text(inputs: Sequence[tuple[float, float]], outputs: int, *asserts: str) -> bytes:
    """Returns a property file of a box and assertions."""
    lines = [f"(declare-const X_{i} Real)" for i in range(len(inputs))]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i, (low, high) in enumerate(inputs):
        lines += [f"(assert (>= X_{i} {low!r}))", f"(assert (<= X_{i} {high!r}))"]
    return "\n".join([*lines, *(f"(assert {item})" for item in asserts)]).encode()


def batch_norm(path: Path) -> Path:
    """Saves a network of four inputs and three outputs that has batch normalisation by itself after linear layers."""
    rng = np.random.default_rng(0)
    shapes = {"w": (4, 10), "u": (10, 10), "v": (10, 3), "n": (10,), "b": (10,)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    constants["n"] = 1 + abs(constants["n"])
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 13]> net (float[1, 4] x) => (float[1, 3] y) {
            a = MatMul (x, w)  c = BatchNormalization (a, n, b, b, n)  d = Relu (c)
            e = MatMul (d, u)  f = BatchNormalization (e, n, b, b, n)  g = Relu (f)
            y = MatMul (g, v)
        }"""
    )
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    path.write_bytes(model.SerializeToString())
    return path


def keeps_class(path: Path, radius: float) -> bytes:
    """Returns the property that a network of `batch_norm` keeps its class round a point."""
    network, center = read_network(path.read_bytes()), np.random.default_rng(1).random(4)
    values = [center[None]]
    for node in network.nodes[1:]:
        sources = [values[source] for source in node.sources]
        values.append(np.maximum(sources[0], 0) if node.relu else node.forward(sources, np.asarray) + node.bias)
    label, *others = np.argsort(-values[-1][0]).tolist()
    unsafe = " ".join(f"(>= Y_{other} Y_{label})" for other in others)
    return text([(x - radius, x + radius) for x in center.tolist()], 3, f"(or {unsafe})")


def points(rng: np.random.Generator, lower: Array, upper: Array, count: int) -> Array:
    """Draws points of a box, half of them corners."""
    shares = rng.random((count, len(lower)))
    shares[::2] = np.round(shares[::2])
    return lower + shares * (upper - lower)
