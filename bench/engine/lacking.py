"""All that a network holds and the reader doesn't take, not only what it comes upon first.

The reader refuses a network at one node. To see what else it would refuse, a stand-in of the same shape that the reader
takes is put into the node's place, and the network is read again: a ReLU of one of the node's inputs, or, where that
has another shape, copies of one number of it. What a stand-in computes is nonsense, and nothing is verified with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from prunecert.errors import UserError
from prunecert.onnx.constants import label
from prunecert.onnx.graph import inlined
from prunecert.onnx.io import load_model
from prunecert.printable import shortened
from prunecert.verifiers.process.inspection import inspect_network

#: Nodes that are replaced before the rest of a network is left unread.
MOST = 48
#: Operators that make numbers of a computed value's shape, which depend on no input.
_SHAPES = frozenset({"Shape", "Size"})
#: How refusals begin of operators that aren't read at all, and of a value that may only be the last.
_UNREAD = "of what depends on the input, taken are", "export the network without it"
_AFTER = "it comes after "
#: What nobody would say of the network itself: stand-ins, copied so often, make it so.
_ARTEFACTS = "a rearranged value of ", "so many factors in a row "


@dataclass(frozen=True)
class Lack:
    """What is refused.

    Args:
        operator: The operator; empty where no node is the reason.
        reason: Why, in few words.
    """

    operator: str
    reason: str

    def __str__(self) -> str:
        return f"{self.operator} ({self.reason})" if self.operator else self.reason


@dataclass(frozen=True)
class Lacking:
    """What a network lacks for being read.

    Args:
        lacks: Each once, in the order in which the reader comes upon them; none: it is read.
        whole: Whether the reader came to the end of the network.
    """

    lacks: tuple[Lack, ...]
    whole: bool = True


def in_few_words(sentence: str) -> str:
    """Returns the beginning of a refusal: what was found, without what is allowed.

    >>> in_few_words("it multiplies two computed values; allowed is one; export it without.")
    'it multiplies two computed values'
    """
    head = sentence.split(";")[0].split(" (")[0].split(": ")[0].rstrip(". ")
    return shortened("isn't read" if head.startswith(_UNREAD) else head, 90)


def lacking(path: Path, folder: Path, keep: Collection[str] = (), outputs: int | None = None) -> Lacking:
    """Reads a network, again and again, with stand-ins for what is refused.

    Args:
        path: The network, not gzipped.
        folder: Where networks with stand-ins go.
        keep: Operators that the verifier takes as they are.
        outputs: Numbers of the output that counts, if there are several.

    Raises:
        UserError: It is no network, or one that can't be read within limits.
    """
    refusal = inspect_network(path, keep=keep, outputs=outputs).refusal
    if not refusal:
        return Lacking(())
    model = _prepared(path)
    shapes = _Shapes(model)
    lacks: dict[Lack, None] = {}
    for number in range(MOST):
        if number and any(text in refusal.lower() for text in _ARTEFACTS):
            return Lacking(tuple(lacks), whole=False)
        place = _refused(model, refusal)
        if place is None:
            lacks.setdefault(Lack("", in_few_words(_plain(refusal))))
            return Lacking(tuple(lacks), whole=False)
        node, reason = model.graph.node[place], refusal.split(" isn't taken: ", 1)[1]
        if reason.startswith(_AFTER):
            before = _before(model, place, reason.removeprefix(_AFTER).split(",")[0])
            if before is not None:
                place, node, reason = before, model.graph.node[before], "not the last operator"
        lacks.setdefault(Lack(node.op_type, in_few_words(reason)))
        if not _replace(model, place, shapes):
            return Lacking(tuple(lacks), whole=False)
        target = folder / f"{path.stem}.{number}.onnx"
        target.write_bytes(model.SerializeToString())
        try:
            refusal = inspect_network(target, keep=keep, outputs=outputs).refusal
        except UserError:
            return Lacking(tuple(lacks), whole=False)
        finally:
            target.unlink()
        if not refusal:
            return Lacking(tuple(lacks))
    return Lacking(tuple(lacks), whole=False)


def _plain(refusal: str) -> str:
    """Returns a refusal without the network's name."""
    return refusal.split(" is refused. ", 1)[-1]


def _prepared(path: Path) -> onnx.ModelProto:
    """Returns a network without functions, one sample at a time, with the shapes that can be told."""
    model = inlined(load_model(path))
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and dims and dims[0].dim_value < 1:
            dims[0].dim_value = 1
    # What the file declares of the batch may be free, or another one.
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _refused(model: onnx.ModelProto, refusal: str) -> int | None:
    """Returns which node a refusal is about."""
    for place, node in enumerate(model.graph.node):
        if f"The node {label(node)} isn't taken: " in refusal:
            return place
    return None


def _before(model: onnx.ModelProto, place: int, operator: str) -> int | None:
    """Returns the last node of an operator that a node's inputs come from."""
    makers = {name: number for number, node in enumerate(model.graph.node) for name in node.output}
    waiting, visited = [place], set[int]()
    while waiting:
        number = waiting.pop(0)
        if number in visited:
            continue
        visited.add(number)
        if number != place and model.graph.node[number].op_type == operator:
            return number
        waiting += [makers[name] for name in model.graph.node[number].input if name in makers]
    return None


def _replace(model: onnx.ModelProto, place: int, shapes: _Shapes) -> bool:
    """Puts stand-ins for a node's results into its place; returns whether their shapes are known."""
    graph, node = model.graph, model.graph.node[place]
    sources = [name for name in node.input if name in _computed(graph)]
    results = {name: shapes.of(name) for name in node.output if name}
    if not sources or None in results.values():
        return False
    stand_ins: list[onnx.NodeProto] = []
    for name, shape in results.items():
        assert shape is not None
        if shapes.of(sources[0]) == shape:
            stand_ins.append(helper.make_node("Relu", [sources[0]], [name], name=f"{name} stand-in"))
            continue
        size = math.prod(shape)
        names = [f"{name} stand-in {part}" for part in ("flat", "of one", "row", "all", "shape")]
        values = np.array([-1]), np.zeros(size, dtype=np.int64), np.array(shape, dtype=np.int64)
        graph.initializer.extend(
            numpy_helper.from_array(value.astype(np.int64), names[k])
            for k, value in zip((0, 3, 4), values, strict=True)
        )
        stand_ins += [
            helper.make_node("Reshape", [sources[0], names[0]], [names[1]], name=names[1]),
            helper.make_node("Gather", [names[1], names[3]], [names[2]], name=names[2], axis=0),
            helper.make_node("Reshape", [names[2], names[4]], [name], name=f"{name} stand-in"),
        ]
    nodes: list[Any] = [*graph.node[:place], *stand_ins, *graph.node[place + 1 :]]
    copies = [onnx.NodeProto.FromString(item.SerializeToString()) for item in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return True


def _computed(graph: onnx.GraphProto) -> set[str]:
    """Returns the values that depend on the network's input."""
    constants = {tensor.name for tensor in graph.initializer}
    names = {value.name for value in graph.input} - constants
    for node in graph.node:
        if node.op_type not in _SHAPES and names.intersection(node.input):
            names.update(node.output)
    return names


class _Shapes:
    """The shapes of a network's values, as they are before there are stand-ins, which keep them.

    Args:
        model: The network, for one sample.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model: onnx.ModelProto | None = onnx.ModelProto.FromString(model.SerializeToString())
        self._shapes: dict[str, tuple[int, ...]] = {}
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
            kind = value.type.tensor_type
            sizes = tuple(dim.dim_value for dim in kind.shape.dim)
            if kind.HasField("shape") and all(size > 0 for size in sizes):
                self._shapes[value.name] = sizes

    def of(self, name: str) -> tuple[int, ...] | None:
        """Returns a value's shape, or None where nothing tells it; what the file leaves open is seen in a run."""
        if name not in self._shapes and self._model is not None:
            self._shapes |= _run(self._model)
            self._model = None
        return self._shapes.get(name)


def _run(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all computed values in a run of onnxruntime, at the input of zeros; none if it fails."""
    import onnxruntime

    constants = {tensor.name for tensor in model.graph.initializer}
    entry = next(value for value in model.graph.input if value.name not in constants)
    names = sorted(_computed(model.graph) - {entry.name, ""})
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    kind = helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type)
    zeros = np.zeros([dim.dim_value for dim in entry.type.tensor_type.shape.dim], dtype=kind)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = session.run(names, {entry.name: zeros})
    except Exception:
        # onnxruntime's exception classes share no base of their own; a network that it can't run is left unread.
        return {}
    return {name: value.shape for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}
