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

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunecert.verifiers.formats.support import network_info
from prunecert.verifiers.rounding.float64_rules import RULES, Array, is_real

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


#: Operators that round to whole numbers on purpose.
_WHOLE = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
#: Types that a Cast of real numbers may have: FLOAT, FLOAT16, DOUBLE and BFLOAT16.
_FLOATS = frozenset({1, 10, 11, 16})


class UnreadableError(Exception):
    """The network can't be run in float64 here; the message says why."""


class WholeNumbersError(UnreadableError):
    """It rounds activations to whole numbers: in float64 others lie on the other side of a tie."""


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

    A Cast of what depends on the input changes nothing there: in real arithmetic nothing is rounded, neither to
    float32 nor to 16 bits. One of constants is made as it stands, since what comes out are the network's weights.

    Args:
        path: The file.
        count: Numbers of the output that is meant, of several; None: the first.
        normal: Whether its normal form is run in its place, whose operators are few.

    Raises:
        UnreadableError: It can't be.
    """

    def __init__(self, path: Path, count: int | None = None, *, normal: bool = False) -> None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        from prunecert.onnx.graph import inlined
        from prunecert.onnx.types import moving_names, unit_of

        self._order: npt.NDArray[np.int64] | None = None
        try:
            model = inlined(onnx.load(str(path)))
            self._unit = unit_of(model)
            if _rounds_whole(model):
                # In float64 other values lie on the other side of a tie: what differs then is no rounding of float32.
                raise WholeNumbersError("it rounds activations to whole numbers")
            if normal:
                model, self._order = _normal_form(path, count)
            operators = ReferenceEvaluator(model).rt_nodes_
        except UnreadableError:
            raise
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
        if normal:
            self._shape = tuple(dim.dim_value for dim in entries[0].type.tensor_type.shape.dim)
            self._exit = model.graph.output[0].name
        else:
            fitting = [output.name for output in info.outputs if count is None or output.size in (count, None)]
            if not fitting:
                raise UnreadableError(f"it has no output of {count} numbers")
            self._exit = fitting[0]
        self._nodes = []
        #: What depends on the input.
        self._moving = moving_names(model.graph)
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
                u sqrt(n / 3) max(sqrt(sum of s_i^2), |sum|), u = 2**-24 (more where
                the file computes in 16 bits): that of recursive summation in float32 when
                roundings are independent and uniform, and the partial sums no larger than a random walk's or, if they
                all have one sign, than their end.

        Returns:
            Flat outputs.

        Raises:
            UnreadableError: A node can't be run.
        """
        values: dict[str, Any] = {"": None, **self._constants}
        try:
            flat = np.asarray(point, dtype=np.float64).reshape(-1)
            values[self._entry] = (flat if self._order is None else flat[self._order]).reshape(self._shape)
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
        if node.operator == "Cast" and node.inputs[0] in self._moving and node.attributes.get("to") in _FLOATS:
            (value,) = arguments
            if is_real(value):
                return (value if noise is None else self._disturbed(value, np.abs(value), 1, noise),)
        rule = RULES.get(node.operator)
        if rule is None:
            results = node.reference.run(*arguments)
            if noise is None or node.operator in _EXACT:
                return results if isinstance(results, tuple) else (results,)
            if node.operator in ("ReduceMean", "ReduceSum"):
                (value,) = results
                terms = max(1, arguments[0].size // max(1, value.size))
                (squares,) = node.reference.run(arguments[0] ** 2, *arguments[1:])
                mean = node.operator == "ReduceMean"
                return (self._disturbed(value, np.sqrt(squares / terms if mean else squares), terms, noise),)
            return tuple(
                self._disturbed(result, _OTHERS * np.abs(result), 1, noise) if is_real(result) else result
                for result in (results if isinstance(results, tuple) else (results,))
            )
        value, squares, terms = rule(node.attributes, arguments, None if noise is None else self._square)
        if noise is not None and squares is not None:
            value = self._disturbed(value, np.sqrt(squares), terms, noise)
        return (value,)

    def _disturbed(self, value: Array, size: Array, terms: float, noise: np.random.Generator) -> Array:
        deviation = self._unit * math.sqrt(max(terms, 1) / 3) * np.maximum(size, np.abs(value))
        disturbed: Array = value + deviation * noise.standard_normal(value.shape)
        return disturbed


def _rounds_whole(model: Any) -> bool:
    """Whether something that an output reads rounds what depends on the input to whole numbers."""
    from prunecert.onnx.types import moving_names

    moving, read = moving_names(model.graph), {item.name for item in model.graph.output}
    for node in reversed(model.graph.node):
        if not read.isdisjoint(node.output):
            read.update(node.input)
            if node.op_type in _WHOLE and node.input[0] in moving:
                return True
    return False


def _normal_form(path: Path, count: int | None) -> tuple[Any, npt.NDArray[np.int64] | None]:
    """Returns a file's normal form and the order of its input.

    Raises:
        UnreadableError: Its outputs are others than the file's.
        UserError: It has none.
    """
    from prunecert.onnx.io import load_model
    from prunecert.onnx.normalise import normalise

    form = normalise(load_model(path), outputs=count, keep=("MaxPool", "Sigmoid", "Tanh"))
    if form.last != "none":
        raise UnreadableError(f"its normal form lacks the last {form.removed}")
    return form.model, form.input_order


def _wide(value: Any) -> Any:
    """Returns float arrays as float64 ones."""
    return value.astype(np.float64, copy=False) if is_real(value) else value


class Float64:
    """A file in float64: as it stands, or, where that can't be run, its normal form.

    Args:
        path: The file.
        count: Numbers of the output that is meant, of several; None: the first.

    Raises:
        UnreadableError: Neither can be run.
    """

    def __init__(self, path: Path, count: int | None) -> None:
        self._path, self._count = path, count
        self._network = self._read()

    @property
    def weights(self) -> int:
        """How many numbers the network holds: about the work of a run."""
        return self._network.weights

    def run(self, point: npt.ArrayLike, noise: np.random.Generator | None = None) -> Array:
        """Evaluates one point, see `Network.run`."""
        try:
            return self._network.run(point, noise)
        except UnreadableError as error:
            if self._normal:
                raise
            self._switch(error)
            return self._network.run(point, noise)

    def _read(self) -> Network:
        self._normal = False
        try:
            return Network(self._path, self._count)
        except WholeNumbersError:
            raise
        except UnreadableError as error:
            return self._switch(error)

    def _switch(self, why: UnreadableError) -> Network:
        """Goes on with the normal form."""
        self._normal = True
        try:
            self._network = Network(self._path, self._count, normal=True)
        except WholeNumbersError:
            raise
        except UnreadableError as error:
            raise UnreadableError(f"{why}; {error}") from error
        return self._network


@functools.lru_cache(maxsize=2)
def read(path: Path, sha256: str, count: int | None = None) -> Float64:
    """Returns a file's network, from memory if it is one of the last that were asked for.

    Args:
        path: The file.
        sha256: Its hash, so that a file that has changed is read again.
        count: Numbers of the output that is meant, of several; None: the first.

    Raises:
        UnreadableError: It can't be run in float64.
    """
    return Float64(path, count)
