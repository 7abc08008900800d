"""An ONNX network in float64: what its float32 execution is compared with, node by node and without torch.

Convolutions, products and averages are NumPy's, in float64; everything else is the operator's reference
implementation in `onnx.reference`, which takes any type. Weights are the file's float32 numbers, exact in float64, and
so are attributes, whose defaults are float32 numbers, too. So an output is the real one up to about 1e-15 of what is
summed, which next to a rounding of float32 counts for nothing.

The same walk can be disturbed: each sum gets an error of the size that float32 would make (`Network.run`). That is
Monte Carlo arithmetic (Parker 1997): rounding errors become independent random numbers, and are carried to the outputs
by the network itself, so that cancellation and sharing count as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.formats.support import network_info

Array = npt.NDArray[np.float64]

#: Unit roundoff of float32.
UNIT = 2.0**-24
#: Operators that select or move numbers and round nothing.
_EXACT = frozenset(
    {
        *(
            "Cast",
            "Clip",
            "Concat",
            "Constant",
            "ConstantOfShape",
            "Dropout",
            "Expand",
            "Flatten",
            "Gather",
            "Identity",
        ),
        *("Max", "MaxPool", "GlobalMaxPool", "Min", "Neg", "Pad", "Relu", "Reshape", "Shape", "Slice", "Split"),
        *("Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    }
)
#: Roundings that an operator without a rule of its own is taken to make.
_OTHERS = 16.0


class UnreadableError(Exception):
    """The network can't be run in float64 here; the message says why."""


@dataclass(frozen=True, eq=False)
class _Node:
    """A node of the graph, made ready.

    Args:
        operator: ONNX operator.
        inputs: Names, empty for one that is left out.
        outputs: Names.
        attributes: By name.
        reference: The operator of `onnx.reference`.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    reference: Any


class Network:
    """An ONNX network that runs in float64.

    Args:
        path: The file.
        count: Numbers of the output that is meant, of several; None: the first.

    Raises:
        UnreadableError: It can't be.
    """

    def __init__(self, path: Path, count: int | None = None) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        try:
            model = onnx.load(str(path))
            operators = ReferenceEvaluator(model).rt_nodes_
        except Exception as error:
            # Whatever a file can hold that the reference implementation has no word for.
            raise UnreadableError(f"{type(error).__name__}: {error}") from error
        self._constants = {item.name: _wide(onnx.numpy_helper.to_array(item)) for item in model.graph.initializer}
        #: Squares of weights, by the identity of what is squared, which the constants keep alive.
        self._squares: dict[int, Array] = {}
        self._kept = {id(item) for item in self._constants.values()}
        entries = [item for item in model.graph.input if item.name not in self._constants]
        if len(entries) != 1 or len(operators) != len(model.graph.node):
            raise UnreadableError(f"it has {len(entries)} inputs")
        self._entry = entries[0].name
        # As the replay shapes a point, and the output that it looks at.
        info = network_info(path)
        self._shape = tuple(dim or -1 for dim in info.run_shape)
        fitting = [output.name for output in info.outputs if count is None or output.size in (count, None)]
        if not fitting:
            raise UnreadableError(f"it has no output of {count} numbers")
        self._exit = fitting[0]
        self._nodes = []
        for node, operator in zip(model.graph.node, operators, strict=True):
            if any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
                raise UnreadableError(f"{node.op_type} holds a graph of its own")
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            self._nodes.append(_Node(node.op_type, tuple(node.input), tuple(node.output), attributes, operator))

    @property
    def weights(self) -> int:
        """How many numbers the file holds: about the work of a run."""
        return sum(item.size for item in self._constants.values())

    def run(self, point: npt.ArrayLike, noise: np.random.Generator | None = None) -> Array:
        """Evaluates one point.

        Args:
            point: One input, of the input's size.
            noise: Where it is given, every sum of n products s_i gets a normal error whose deviation is
                u sqrt(n / 3) max(sqrt(sum of s_i^2), |sum|), u = 2**-24: that of recursive summation in float32 when
                roundings are independent and uniform, and the partial sums no larger than a random walk's or, if they
                all have one sign, than their end.

        Returns:
            Flat outputs.

        Raises:
            UnreadableError: A node can't be run.
        """
        values: dict[str, Any] = {"": None, **self._constants}
        try:
            values[self._entry] = np.asarray(point, dtype=np.float64).reshape(self._shape)
        except ValueError as error:
            raise UnreadableError(f"its input: {type(error).__name__}: {error}") from error
        for node in self._nodes:
            arguments = [values[name] for name in node.inputs]
            try:
                # Overflow is an answer, which the caller sees as a number that is not finite.
                with np.errstate(all="ignore"):
                    results = self._apply(node, arguments, noise)
            except Exception as error:
                raise UnreadableError(f"{node.operator}: {type(error).__name__}: {error}") from error
            for name, result in zip(node.outputs, results, strict=False):
                values[name] = _wide(result)
        outputs: Array = np.asarray(values[self._exit], dtype=np.float64).reshape(-1)
        return outputs

    def _square(self, value: Array) -> Array:
        """Returns squares, those of weights from memory."""
        if id(value) not in self._kept:
            return value * value
        if id(value) not in self._squares:
            self._squares[id(value)] = value * value
        return self._squares[id(value)]

    def _apply(self, node: _Node, arguments: list[Any], noise: np.random.Generator | None) -> Sequence[Any]:
        rule = _RULES.get(node.operator)
        if rule is None:
            results = node.reference.run(*arguments)
            if noise is None or node.operator in _EXACT:
                return results if isinstance(results, tuple) else (results,)
            if node.operator in ("ReduceMean", "ReduceSum"):
                (value,) = results
                terms = max(1, arguments[0].size // max(1, value.size))
                (squares,) = node.reference.run(arguments[0] ** 2, *arguments[1:])
                mean = node.operator == "ReduceMean"
                return (_disturbed(value, np.sqrt(squares / terms if mean else squares), terms, noise),)
            return tuple(
                _disturbed(result, _OTHERS * np.abs(result), 1, noise) if _real(result) else result
                for result in (results if isinstance(results, tuple) else (results,))
            )
        value, squares, terms = rule(node.attributes, arguments, None if noise is None else self._square)
        if noise is not None and squares is not None:
            value = _disturbed(value, np.sqrt(squares), terms, noise)
        return (value,)


def _real(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _wide(value: Any) -> Any:
    """Returns float arrays as float64 ones."""
    return value.astype(np.float64, copy=False) if _real(value) else value


def _disturbed(value: Array, size: Array, terms: float, noise: np.random.Generator) -> Array:
    deviation = UNIT * math.sqrt(max(terms, 1) / 3) * np.maximum(size, np.abs(value))
    disturbed: Array = value + deviation * noise.standard_normal(value.shape)
    return disturbed


_Result = tuple[Array, Array | None, float]
_Square = Callable[[Array], Array] | None


def _product(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    left, right = arguments
    value = left @ right
    return value, None if square is None else square(left) @ square(right), left.shape[-1]


def _gemm(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    left = arguments[0].T if attributes.get("transA", 0) else arguments[0]
    right = arguments[1].T if attributes.get("transB", 0) else arguments[1]
    alpha, beta = float(attributes.get("alpha", 1.0)), float(attributes.get("beta", 1.0))
    value = left @ right if alpha == 1.0 else alpha * (left @ right)
    size = None
    if square is not None:
        squares = square(arguments[1])
        size = alpha * alpha * (square(left) @ (squares.T if attributes.get("transB", 0) else squares))
    if len(arguments) > 2 and arguments[2] is not None:
        shift = beta * arguments[2]
        value = value + shift
        size = None if size is None else size + shift * shift
    return value, size, left.shape[-1] + 1


def _windows(x: Array, kernel: Sequence[int], attributes: dict[str, Any], fill: float = 0.0) -> npt.NDArray[Any]:
    """Returns the windows of [1, C, *sizes] as a view [C, *positions, *kernel] of its padded form."""
    rank = len(kernel)
    strides = list(attributes.get("strides", [1] * rank))
    dilations = list(attributes.get("dilations", [1] * rank))
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    auto = attributes.get("auto_pad", b"NOTSET")
    pads = list(attributes.get("pads", [0] * 2 * rank))
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        missing = [
            max(0, (-(-size // stride) - 1) * stride + far - size)
            for size, stride, far in zip(x.shape[2:], strides, reach, strict=True)
        ]
        less = [size // 2 for size in missing]
        more = [size - half for size, half in zip(missing, less, strict=True)]
        pads = [*less, *more] if auto == b"SAME_UPPER" else [*more, *less]
    elif auto == b"VALID":
        pads = [0] * 2 * rank
    padded = np.pad(x[0], [(0, 0), *zip(pads[:rank], pads[rank:], strict=True)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(1, rank + 1)))
    steps = tuple(slice(None, None, stride) for stride in strides)
    inner = tuple(slice(None, None, step) for step in dilations)
    result: npt.NDArray[Any] = view[(slice(None), *steps, *inner)]
    return result


def _convolution(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    x, weight = arguments[0], arguments[1]
    if len(x) != 1:
        raise ValueError("a batch of more than one")
    rank, groups = weight.ndim - 2, int(attributes.get("group", 1))
    view = _windows(x, weight.shape[2:], attributes)
    places = view.shape[1 : 1 + rank]
    # [positions, channels * kernel], group by group.
    columns = np.moveaxis(view, 0, rank).reshape(math.prod(places), groups, -1)
    flat = weight.reshape(groups, weight.shape[0] // groups, -1)
    value = _grouped(columns, flat, places)
    size = None if square is None else _grouped(columns * columns, square(weight).reshape(flat.shape), places)
    if len(arguments) > 2 and arguments[2] is not None:
        shift = arguments[2].reshape(1, -1, *[1] * rank)
        value = value + shift
        size = None if size is None else size + shift * shift
    return value, size, flat.shape[-1] + 1


def _grouped(columns: Array, weights: Array, places: Sequence[int]) -> Array:
    parts = [weights[group] @ columns[:, group].T for group in range(len(weights))]
    return np.concatenate(parts).reshape(1, -1, *places)


def _average(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    (x,) = arguments
    if attributes.get("ceil_mode", 0) or len(x) != 1:
        raise ValueError("ceil_mode or a batch of more than one")
    kernel = attributes["kernel_shape"]
    axes = tuple(range(-len(kernel), 0))
    counted: Any = 1.0 if attributes.get("count_include_pad", 0) else 0.0
    counts = _windows(np.ones((1, 1, *x.shape[2:])), kernel, attributes, counted).sum(axis=axes)
    view = _windows(x, kernel, attributes)
    value = (view.sum(axis=axes) / counts)[None]
    size = None if square is None else ((view * view).sum(axis=axes) / counts**2)[None]
    return value, size, math.prod(kernel)


def _global_average(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    (x,) = arguments
    axes = tuple(range(2, x.ndim))
    count = math.prod(x.shape[2:])
    value = x.mean(axis=axes, keepdims=True)
    return value, None if square is None else (x * x).sum(axis=axes, keepdims=True) / count**2, count


def _normalise(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    if attributes.get("training_mode", 0):
        raise ValueError("in training mode it is no function of its input")
    x = arguments[0]
    shape = (1, -1, *[1] * (x.ndim - 2))
    scale, shift, mean, variance = (item.reshape(shape) for item in arguments[1:5])
    # The default is a float32 number like every attribute.
    epsilon = float(attributes.get("epsilon", np.float32(1e-5)))
    factor = scale / np.sqrt(variance + epsilon)
    value = (x - mean) * factor + shift
    # The runtime may take the mean and the shift together first, so each of the three counts.
    size = None if square is None else (x * factor) ** 2 + (mean * factor) ** 2 + shift**2
    return value, size, 8


def _sum(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    value = functools.reduce(np.add, arguments)
    return (
        value,
        None if square is None else functools.reduce(np.add, [item * item for item in arguments]),
        len(arguments),
    )


def _difference(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    left, right = arguments
    return left - right, None if square is None else left * left + right * right, 1


def _multiply(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    value = arguments[0] * arguments[1]
    return value, None if square is None else value * value, 1


def _divide(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    if not (_real(arguments[0]) and _real(arguments[1])):
        raise ValueError("a division of integers")
    value = arguments[0] / arguments[1]
    return value, None if square is None else value * value, 1


def _identity(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    return arguments[0], None, 1


def _rectify(attributes: dict[str, Any], arguments: list[Any], square: _Square) -> _Result:
    return np.maximum(arguments[0], 0), None, 1


_RULES: dict[str, Any] = {
    "Add": _sum,
    "AveragePool": _average,
    "BatchNormalization": _normalise,
    "Conv": _convolution,
    "Div": _divide,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "Identity": _identity,
    "MatMul": _product,
    "Mul": _multiply,
    "Relu": _rectify,
    "Sub": _difference,
    "Sum": _sum,
}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Has NumPy's products run in one thread, where its OpenBLAS can be told so.

    These are small products beside verifiers that keep all cores busy, where threads that wait for each other take
    twenty times as long as one.
    """
    before = [(library, library[1]()) for library in _blas()]
    for (assign, _), _ in before:
        assign(1)
    try:
        yield
    finally:
        for (assign, _), threads in before:
            assign(threads)


@functools.cache
def _blas() -> list[tuple[Callable[[int], None], Callable[[], int]]]:
    """Returns how to set and to get the threads of the OpenBLAS in NumPy's wheel."""
    found = []
    for path in sorted((Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*")):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))
            for start, end in itertools.product(("scipy_openblas", "openblas"), ("64_", "")):
                assign, query = (getattr(library, f"{start}_{verb}_num_threads{end}", None) for verb in ("set", "get"))
                if assign is not None and query is not None:
                    assign.argtypes, assign.restype, query.restype = [ctypes.c_int], None, ctypes.c_int
                    found.append((assign, query))
                    break
    return found


@functools.lru_cache(maxsize=2)
def read(path: Path, sha256: str, count: int | None = None) -> Network:
    """Returns a file's network, from memory if it is one of the last that were asked for.

    Args:
        path: The file.
        sha256: Its hash, so that a file that has changed is read again.
        count: Numbers of the output that is meant, of several; None: the first.

    Raises:
        UnreadableError: It can't be run in float64.
    """
    return Network(path, count)
