"""One pass that turns a network into the normal form; see `prunecert.onnx.normal`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from prunecert.errors import UserError
from prunecert.onnx import activations, arithmetic, linear, moves, pooling
from prunecert.onnx.constants import Evaluator, constant_value, is_random, label, refuse, stored_values
from prunecert.onnx.emit import Emitter
from prunecert.onnx.graph import Graph, inlined
from prunecert.onnx.io import first_line
from prunecert.onnx.layers import Layers, ReorderError
from prunecert.onnx.merge import PAIR_KEY
from prunecert.onnx.nodes import CURVES
from prunecert.onnx.normal import (
    DEFAULT_DOMAINS,
    ELEMENTS,
    Array,
    IntArray,
    Normalised,
    UnsupportedNetworkError,
    has_relu_on_input,
    is_normal,
    normal_nodes,
)
from prunecert.onnx.reading import Handler, Input, Reading
from prunecert.onnx.values import Shape, Term, Value, moved, shared

__all__ = ["Normalised", "UnsupportedNetworkError", "is_normal", "normalise"]

_HANDLERS: Mapping[str, Handler] = {
    **moves.HANDLERS,
    **arithmetic.HANDLERS,
    **activations.HANDLERS,
    **linear.HANDLERS,
    **pooling.HANDLERS,
}
#: What may follow a Sigmoid or Tanh that was removed, and a Softmax, each of whose values speaks of all others.
_AFTER_LAST = moves.MOVES | {"Cast", "Dropout", "Identity"}
_AFTER_ALL = frozenset({"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
#: Who takes a network that rounds, and who two that `prunecert.onnx.merge` has joined.
_ONE, _TWO = "a verifier of quantised networks (sparse-bab and its kin)", "sparse-pair"
#: What to do about operators that are often met and not taken.
_ADVICE: Mapping[str, str] = {
    "ArgMax": "export the network without it: the property speaks of the scores",
    "DynamicQuantizeLinear": "verify the float network, whose weights may be quantised",
    **dict.fromkeys(("Loop", "Scan"), "control flow isn't read; export the network by tracing it"),
    "QuantizeLinear": "rounding of what depends on the input is no piecewise linear function with few pieces; take "
    f"{_ONE}, or verify the float network",
}


def normalise(
    model: onnx.ModelProto,
    *,
    output: str | int | None = None,
    outputs: int | None = None,
    keep: Collection[str] = (),
    name: str = "The network",
) -> Normalised:
    """Rewrites a network into normal form.

    Args:
        model: What `prunecert.onnx.io.load_model` returned; it is not changed.
        output: Name or number of the output that counts, where there are several.
        outputs: How many values the output that counts has (the property's Y's): the first such output is taken.
        keep: Operators that are to stay where they can: ``MaxPool``, and ``Sigmoid`` and ``Tanh`` where there is no
            other way.
        name: What to call the network in messages.

    Raises:
        UserError: The file is damaged.
        UnsupportedNetworkError: A node isn't taken.

    A leaky ReLU of slope 0.5 is half its argument and half a ReLU of it; both factors go into layers:

    >>> text = '''<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y)
    ... <float[2, 2] w = {1, 0, 2, -1}> { h = Gemm <transB = 1> (x, w) y = LeakyRelu <alpha = 0.5> (h) }'''
    >>> form = normalise(onnx.parser.parse_model(text))
    >>> [node.op_type for node in form.model.graph.node]
    ['Gemm', 'Relu', 'Gemm', 'Gemm', 'Add']
    >>> form.relus, form.notes
    (2, ('LeakyRelu is written as a x + (1 - a) ReLU(x).',))
    """
    plain = frozenset(keep) - CURVES
    bodies = (model.graph.node, *(function.node for function in model.functions))
    curved = any(node.op_type in CURVES and node.op_type in keep for body in bodies for node in body)
    try:
        try:
            return _as_it_is(model, output, outputs, plain) or _normalised(model, output, outputs, plain)
        except UnsupportedNetworkError:
            # At the end they are removed, which leaves a network that more can be said of.
            if not curved:
                raise
        return _as_it_is(model, output, outputs, keep) or _normalised(model, output, outputs, keep)
    except UserError as error:
        able = _TWO if any(item.key == PAIR_KEY for item in model.metadata_props) else _ONE
        raise type(error)(f"{name} is refused. {error}".replace(_ONE, able)) from error


def _as_it_is(
    model: onnx.ModelProto, output: str | int | None, outputs: int | None, keep: Collection[str]
) -> Normalised | None:
    """Returns a network that is in normal form already, if its output counts and no ReLU stands on the input itself."""
    nodes = normal_nodes(model, keep)
    if nodes is not None and not has_relu_on_input(nodes):
        only = model.graph.output[0]
        size = int(only.type.tensor_type.shape.dim[1].dim_value)
        if output in (None, 0, only.name) and outputs in (None, size):
            return Normalised(model, False, None, size, output=only.name)
    return None


def _normalised(
    model: onnx.ModelProto, output: str | int | None, outputs: int | None, keep: Collection[str]
) -> Normalised:
    graph = Graph(inlined(model))
    problems: list[UserError] = []
    sizes: list[str] = []
    for chosen in _meant(graph, _candidates(graph, output), None if output is not None else outputs):
        try:
            normal = _read(graph, chosen, keep)
        except UserError as error:
            if outputs is None or not _is_label(graph, chosen):
                # This is the one that counts, or may be, whatever the file declares: another is another question.
                raise
            problems.append(error)
            continue
        if outputs is None or normal.outputs == outputs:
            return normal
        sizes.append(f"{chosen!r:.80} with {normal.outputs}")
        if output is not None:
            break
    if problems and not sizes:
        raise problems[0]
    raise UserError(
        f"It has no output with {outputs} values, of which the property speaks; it has {', '.join(sizes)}."
        + (f" Another one isn't taken: {problems[0]}" if problems else "")
    )


def read_shapes(model: onnx.ModelProto, name: str) -> tuple[dict[str, Shape], int]:
    """Returns the shapes of all values that depend on the input, by name, and the number of ReLUs of the normal form.

    Args:
        model: The network.
        name: What to call it in messages.

    Raises:
        UserError: It has no normal form.
    """
    graph = Graph(inlined(model))
    try:
        reader = _Reader(graph, graph.proto.output[0].name, (), _input_shape(graph), None, reorder=False)
        normal = reader.read()
    except UserError as error:
        raise UserError(f"{name} is refused. {error}") from error
    shapes = {key: item.shape for key, item in reader.values.items() if isinstance(item, Value)}
    return shapes, normal.relus


def _candidates(graph: Graph, output: str | int | None) -> list[str]:
    names = [item.name for item in graph.proto.output]
    if isinstance(output, int):
        if not 0 <= output < len(names):
            raise UserError(f"It has {len(names)} outputs; there is no number {output}.")
        return [names[output]]
    if output is not None:
        if output not in names:
            raise UserError(f"It has no output {output!r:.80}; it has {', '.join(map(repr, names)):.400}.")
        return [output]
    return list(dict.fromkeys(names))


def _meant(graph: Graph, names: list[str], outputs: int | None) -> list[str]:
    """Returns the outputs that may be the one that counts, as `prunecert.verifiers.formats.counterexample` has it.

    That is the first of so many values by what the file declares, if it declares all sizes; else by what is computed.
    """
    declared = {item.name: _declared_size(item) for item in graph.proto.output}
    sizes = [declared[name] for name in names]
    return [names[sizes.index(outputs)]] if outputs in sizes and None not in sizes and len(sizes) > 1 else names


def _declared_size(value: onnx.ValueInfoProto) -> int | None:
    """Returns how many values an output has in one sample by its declaration, None where that is open."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if len(sizes) > 1 and not sizes[0]:
        # A free first axis is the batch's.
        sizes[0] = 1
    return None if 0 in sizes else math.prod(sizes)


def _is_label(graph: Graph, name: str) -> bool:
    """Whether an output holds integers, of which no property speaks where there are others."""
    kind = next(item.type.tensor_type.elem_type for item in graph.proto.output if item.name == name)
    return len(graph.proto.output) > 1 and kind in (TensorProto.INT64, TensorProto.INT32)


def _input_shape(graph: Graph) -> Shape:
    """Returns the normal network's input, flat or an image: some readers take no other."""
    image = len(graph.shape) == 4 and graph.shape[0] == 1
    return graph.shape if image else (1, math.prod(graph.shape))


def _read(graph: Graph, output: str, keep: Collection[str]) -> Normalised:
    """Reads the graph up to one output, twice if its input comes in an order of its own."""
    try:
        return _Reader(graph, output, keep, _input_shape(graph), None).read()
    except ReorderError as error:
        return _Reader(graph, output, keep, error.shape, error.order, reorder=False).read()


class _Reader:
    """Reads a graph node by node.

    Args:
        graph: The graph.
        output: The output that counts.
        keep: See `normalise`.
        shape: Shape of the normal network's input.
        order: Its order, see `Normalised.input_order`.
        reorder: Whether another order may be asked for.
    """

    def __init__(
        self,
        graph: Graph,
        output: str,
        keep: Collection[str],
        shape: Shape,
        order: IntArray | None,
        reorder: bool = True,
    ) -> None:
        self.graph = graph
        self.output = output
        self.order = order
        layers = Layers(shape, reorder)
        self.reading = Reading(graph.opset, layers, Emitter(layers), Evaluator(graph.opset), keep)
        entry = Value(graph.shape, (Term(0),))
        if order is not None:
            entry = moved(Value((len(order),), (Term(0),)), np.argsort(order).reshape(graph.shape))
        self.values: dict[str, Input] = {**graph.constants, graph.entry.name: entry, "": None}
        self.alive, self.uses = graph.alive(output)

    def read(self) -> Normalised:
        """Returns the normal network."""
        for number, node in enumerate(self.graph.proto.node):
            if number in self.alive:
                self._node(node)
        result = self.values.get(self.output)
        if result is None:
            raise UserError(f"Its output {self.output!r:.80} is computed by no node.")
        value = result if isinstance(result, Value) else Value(result.shape, (), result.astype(np.float64).reshape(-1))
        if value.size < 1:
            raise UnsupportedNetworkError(f"Its output {self.output!r:.80} is empty.")
        self._check_batch(value.shape)
        number = self._written(value)
        reading = self.reading
        notes = self._notes(value)
        return Normalised(
            reading.layers.write(number, notes),
            True,
            self.order,
            value.size,
            value.last,
            notes,
            self.output,
            value.maker,
            reading.layers.relus(number),
        )

    def _written(self, value: Value) -> int:
        layers = self.reading.layers
        try:
            number = layers.reshape(self.reading.emitter.node(value), (1, value.size))
            if layers.nodes[number].operator in ("Input", "Reshape") and layers.starts(number):
                number = layers.gemm(number, np.eye(value.size), np.zeros(value.size))
        except UnsupportedNetworkError as error:
            raise UnsupportedNetworkError(f"Its output {self.output!r:.80} isn't taken. {error}") from error
        return number

    def _check_batch(self, shape: Shape) -> None:
        """Refuses several samples at once: a property speaks of one."""
        entry = self.graph.shape
        if len(entry) > 1 and entry[0] > 1 and math.prod(entry[1:]) > 1 and len(shape) > 1 and shape[0] == entry[0]:
            raise UnsupportedNetworkError(
                f"It takes {entry[0]} samples at once (input {list(entry)}, output {list(shape)}); allowed is one: "
                "export it with a batch of 1 or a free batch axis."
            )

    def _notes(self, value: Value) -> tuple[str, ...]:
        notes = list(self.reading.notes)
        if self.graph.kind != "float32":
            notes.append(f"The file's input is {self.graph.kind}; the network is verified in float32.")
        if any(array.dtype == np.float64 for array in self.graph.constants.values()):
            notes.append("Weights in float64 were rounded to float32.")
        if self.order is not None:
            notes.append("The input's order was changed to channels first.")
        if value.last != "none":
            notes.append(f"The last operator, {value.maker}, was removed: it keeps the order of the outputs.")
        if len(self.graph.proto.output) > 1:
            notes.append(f"Of {len(self.graph.proto.output)} outputs, {self.output!r} counts.")
        return tuple(notes)

    def _node(self, node: onnx.NodeProto) -> None:
        try:
            results = self._results(node)
        except UnsupportedNetworkError as error:
            raise error if str(error).startswith("The node ") else refuse(node, _inner(error)) from error
        except (ReorderError, UserError, MemoryError):
            raise
        except Exception as error:
            # A node that is damaged, or is used in a way that nobody thought of, is refused and never guessed.
            raise refuse(node, f"it isn't understood ({type(error).__name__}: {first_line(error)})") from error
        for name, result in zip(node.output, results, strict=False):
            if isinstance(result, Value) and self.uses.get(name, 0) != 1:
                result = shared(result)
            if name:
                self.values[name] = result

    def _results(self, node: onnx.NodeProto) -> Sequence[Value | Array | None]:
        if node.domain not in DEFAULT_DOMAINS:
            raise refuse(node, f"its operator is of the domain {node.domain!r:.60}; read are ONNX's own")
        if node.op_type == "Constant":
            return [constant_value(node)]
        missing = [name for name in node.input if name not in self.values]
        if missing:
            raise UserError(f"The node {label(node)} reads {missing[0]!r:.80}, which nothing computes.")
        if node.op_type == "If":
            return self._branch(node)
        if any(item.HasField("g") or item.graphs for item in node.attribute):
            raise refuse(node, _ADVICE.get(node.op_type, "it holds a graph of its own"))
        inputs = [self.values[name] for name in node.input]
        for name, item in zip(node.input, inputs, strict=True):
            if name and item is None:
                raise refuse(node, f"it reads {name!r:.80}, which is no result that is taken")
        if is_random(node) or (
            not any(isinstance(item, Value) for item in inputs)
            and node.op_type not in ("Dropout", "BatchNormalization")
        ):
            arrays = {name: item for name, item in zip(node.input, inputs, strict=True) if isinstance(item, np.ndarray)}
            return self._folded(node, arrays)
        self._check_last(node, inputs)
        handler = _HANDLERS.get(node.op_type)
        if handler is None:
            raise refuse(
                node,
                _ADVICE.get(node.op_type, f"of what depends on the input, taken are {', '.join(sorted(_HANDLERS))}"),
            )
        results = handler(self.reading, node, inputs)
        for result in results:
            if result is not None and math.prod(result.shape) > ELEMENTS:
                raise refuse(node, f"its result has {list(result.shape)} elements; allowed are {ELEMENTS:,}")
        return results

    def _folded(self, node: onnx.NodeProto, arrays: Mapping[str, Array]) -> list[Array]:
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        results: list[Any] = self.reading.evaluator.fold(plain, arrays)
        named = iter(results)
        return [next(named) if name else np.zeros(0) for name in node.output]

    def _branch(self, node: onnx.NodeProto) -> Sequence[Input]:
        """Reads the branch of an If whose condition is known."""
        condition = self.values[node.input[0]]
        if not isinstance(condition, np.ndarray) or condition.size != 1:
            raise refuse(node, "its condition depends on the network's input; export the network by tracing it")
        branch = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        graph = next(item.g for item in node.attribute if item.name == branch)
        # What has a name within a branch has it there alone, whatever has the same name outside.
        outer, self.values = self.values, {**self.values, **stored_values(graph)}
        for inner in graph.node:
            self._node(inner)
        results = [self.values.get(item.name) for item in graph.output]
        self.values = outer
        return results

    def _check_last(self, node: onnx.NodeProto, inputs: Sequence[Input]) -> None:
        for item in inputs:
            after = _AFTER_ALL if isinstance(item, Value) and item.maker in ("Softmax", "LogSoftmax") else _AFTER_LAST
            if isinstance(item, Value) and item.last != "none" and node.op_type not in after:
                raise refuse(
                    node,
                    f"it comes after {item.maker}, which is taken only at the end, where it keeps the outputs' order",
                )


def _inner(error: UserError) -> str:
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]
