"""Tiny ReLU networks whose exact answer is known: from a mixed-integer program solved by SciPy's HiGHS."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import Bounds, LinearConstraint, brentq, milp

from prunecert.hashing import sha256_file
from prunecert.verifiers.base import FloatArray, Instance, OutputSpec

Matrix = npt.NDArray[np.float64]
_SHAPES = ((5, 8, 4), (4, 8, 8, 3), (6, 12, 5), (5, 8, 6, 6, 3))
#: Radii by the number of the network, which several adapters' tests ask for and which take a second or more.
_radii: dict[int, float | None] = {}


@dataclass(frozen=True, eq=False)
class Tiny:
    """A dense ReLU network and its ONNX file."""

    path: Path
    layers: tuple[tuple[Matrix, Matrix], ...]

    def __call__(self, x: npt.ArrayLike) -> Matrix:
        y = np.asarray(x, dtype=np.float64).reshape(-1)
        for index, (weight, bias) in enumerate(self.layers):
            y = weight @ (np.maximum(y, 0) if index else y) + bias
        return y


def tiny(path: Path, sizes: tuple[int, ...], seed: int, sparsity: float = 0.0) -> Tiny:
    """Writes a random network; `sparsity` of each weight matrix but the last is zero."""
    rng = np.random.default_rng(seed)
    layers, nodes, constants = [], [], []
    value = "input"
    for index, (n, m) in enumerate(itertools.pairwise(sizes)):
        weight = rng.normal(size=(m, n)).astype(np.float32) * np.float32(np.sqrt(2 / n))
        if index < len(sizes) - 2:
            weight[rng.random(weight.shape) < sparsity] = 0
        bias = rng.normal(size=m).astype(np.float32) * np.float32(0.2)
        layers.append((weight.astype(np.float64), bias.astype(np.float64)))
        constants += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        last = index == len(sizes) - 2
        output = "output" if last else f"z{index}"
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [output], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [output], [f"h{index}"]))
            value = f"h{index}"
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, sizes[0]])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, sizes[-1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return Tiny(path, tuple(layers))


def smallest(network: Tiny, lower: npt.ArrayLike, upper: npt.ArrayLike, row: npt.ArrayLike) -> float:
    """Returns the exact minimum of ``row @ network(x)`` over the box, within 1e-6."""
    low, high = np.asarray(lower, dtype=np.float64).reshape(-1), np.asarray(upper, dtype=np.float64).reshape(-1)
    # Columns: x, then for each hidden layer z (pre-activation), h (activation), d (phase).
    sizes = [len(b) for _, b in network.layers[:-1]]
    columns = len(low) + 3 * sum(sizes)
    lo, hi, integer = np.full(columns, -np.inf), np.full(columns, np.inf), np.zeros(columns)
    lo[: len(low)], hi[: len(low)] = low, high
    rows, rlo, rhi = [], [], []

    def constraint(entries: dict[int, float], least: float, most: float) -> None:
        line = np.zeros(columns)
        for column, factor in entries.items():
            line[column] += factor
        rows.append(line)
        rlo.append(least)
        rhi.append(most)

    before, start = list(range(len(low))), len(low)
    l_in, u_in = low, high
    for weight, bias in network.layers[:-1]:
        n = len(bias)
        positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
        l_z, u_z = positive @ l_in + negative @ u_in + bias, positive @ u_in + negative @ l_in + bias
        for i in range(n):
            z, h, d = start + i, start + n + i, start + 2 * n + i
            lo[z], hi[z], lo[h], hi[h], lo[d], hi[d], integer[d] = l_z[i], u_z[i], 0, max(u_z[i], 0), 0, 1, 1
            line = {z: 1.0}
            for column, factor in zip(before, weight[i], strict=True):
                line[column] = line.get(column, 0.0) - factor
            constraint(line, bias[i], bias[i])
            constraint({h: 1.0, z: -1.0}, 0, np.inf)
            least, most = min(l_z[i], 0.0), max(u_z[i], 0.0)
            constraint({h: 1.0, d: -most}, -np.inf, 0)
            constraint({h: 1.0, z: -1.0, d: -least}, -np.inf, -least)
        before, start = list(range(start + n, start + 2 * n)), start + 3 * n
        l_in, u_in = np.maximum(l_z, 0), np.maximum(u_z, 0)
    weight, bias = network.layers[-1]
    factors = np.asarray(row, dtype=np.float64)
    cost = np.zeros(columns)
    cost[before] = factors @ weight
    solution = milp(
        cost,
        constraints=LinearConstraint(np.array(rows), rlo, rhi),
        bounds=Bounds(lo, hi),
        integrality=integer,
        options={"mip_rel_gap": 0.0},
    )
    assert solution.status == 0, solution.message
    return float(solution.fun + factors @ bias)


def margin(network: Tiny, lower: npt.ArrayLike, upper: npt.ArrayLike, label: int) -> float:
    """Returns the exact smallest margin of `label` over all other classes on the box."""
    classes = len(network.layers[-1][1])
    lines = [np.eye(classes)[label] - np.eye(classes)[j] for j in range(classes) if j != label]
    return min(smallest(network, lower, upper, line) for line in lines)


def box(center: FloatArray, eps: float) -> tuple[FloatArray, FloatArray]:
    """Returns the corners of the l-infinity ball, clipped to [0, 1]."""
    low = np.clip(center.astype(np.float64) - eps, 0, 1).astype(np.float32)
    return low, np.clip(center.astype(np.float64) + eps, 0, 1).astype(np.float32)


def radius(network: Tiny, center: FloatArray, label: int) -> float | None:
    """Returns the exact robustness radius within 1e-5, or None if it exceeds 0.5."""
    low, high = 0.0, 0.02
    # Small boxes are solved in no time, and halving them would ask twice as often.
    while margin(network, *box(center, high), label) > 0:
        if high == 0.5:
            return None
        low, high = high, min(2 * high, 0.5)
    root: float = brentq(lambda eps: margin(network, *box(center, eps), label), low, high, xtol=1e-5)
    return root


def instance(network: Tiny, center: FloatArray, eps: float, label: int, timeout: float = 60.0) -> Instance:
    """Returns the robustness question for the ball round `center`."""
    low, high = box(center, eps)
    classes = len(network.layers[-1][1])
    return Instance(
        onnx=network.path,
        onnx_sha256=sha256_file(network.path),
        lower=low,
        upper=high,
        spec=OutputSpec.robustness(label, classes),
        timeout=timeout,
        name=f"{network.path.stem}, eps {eps:.5f}",
        label=label,
        classes=classes,
        eps=eps,
    )


def questions(folder: Path, networks: int, factors: tuple[float, ...], seed: int = 0) -> list[tuple[Instance, bool]]:
    """Returns instances with radii of `factors` times the exact one, and whether the property holds."""
    pairs: list[tuple[Instance, bool]] = []
    attempt = seed * 1000
    while len(pairs) < networks * len(factors):
        sizes = _SHAPES[attempt % len(_SHAPES)]
        network = tiny(folder / f"net{attempt}.onnx", sizes, attempt, sparsity=0.5 if attempt % 2 else 0.0)
        center = np.random.default_rng(attempt + 7).uniform(0.2, 0.8, size=sizes[0]).astype(np.float32)
        label = int(np.argmax(network(center)))
        if attempt not in _radii:
            _radii[attempt] = radius(network, center, label)
        exact = _radii[attempt]
        attempt += 1
        if exact is not None and exact > 1e-3:
            pairs += [(instance(network, center, exact * factor, label), factor < 1) for factor in factors]
    return pairs


def load(path: Path) -> Tiny:
    """Reads a network back that `tiny` wrote."""
    values = {
        item.name: numpy_helper.to_array(item).astype(np.float64) for item in onnx.load(str(path)).graph.initializer
    }
    return Tiny(path, tuple((values[f"w{index}"], values[f"b{index}"]) for index in range(len(values) // 2)))


#: An unsafe disjunct: rows and offsets.
Disjunct = tuple[Matrix, Matrix]


def disjuncts_around(instance: Instance) -> tuple[Disjunct, Disjunct, Disjunct]:
    """Returns what the first output never reaches, a conjunction that only both rows exclude, and one that is met."""
    network = load(instance.onnx)
    row = np.eye(instance.classes)[:1]
    low = smallest(network, instance.lower, instance.upper, row[0])
    high = -smallest(network, instance.lower, instance.upper, -row[0])
    middle, gap = (low + high) / 2, 0.2 * (high - low)
    both = np.vstack([row, -row])
    never = (row, np.array([low - 1.0]))
    return never, (both, np.array([middle - gap, -middle - gap])), (both, np.array([middle + gap, -middle + gap]))
