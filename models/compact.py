"""Removes from an ONNX network what pruning has left without effect, so that its layers become smaller.

A unit of a linear layer, or a channel of a convolution, goes

- if nothing uses it: all weights on it are zero, or belong to units that go themselves;
- if it is constant, as when all its incoming weights are zero: what it adds to the next layer is added to that layer's
  biases, in float64, and rounded to float32 once. With a domain of inputs (all pixels in [0, 1]), that holds, too, for
  a ReLU whose input is never above 0 in the domain.

Padding. A constant c before a convolution that pads with zeros is no constant behind it, because the border sees zeros
in its place. So c is folded only where it is 0 or nothing is padded; all other constant channels of that layer become
one channel that is 1 everywhere, with the sum of their kernels, each times its constant: exact at the border, too.

Sums. Tensors that are added, and what a ReLU, a pooling or a normalisation makes of them, share their channels: one
goes only if it can go for every layer that reads any of them. A loop of a residual stream that nothing else reads goes.

A layer that would lose all its units keeps one, which is 0: the network's output then doesn't depend on that layer.
What is left is a fixpoint: nothing more goes if it is done again (but for ReLUs at the edge of what bounds over a
domain can show, since rounding errors shrink with the layers). Any ONNX network is taken; operators that are not
understood keep all channels round them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from prunecert.compaction import METADATA_KEY, Compaction, LayerChange
from prunecert.errors import UserError
from prunecert.files import write_bytes
from prunecert.models.compact_graph import Array, BoolArray, CompactGraph, CompactNode, Role
from prunecert.models.compact_values import Values, evaluate
from prunecert.onnx import rounding
from prunecert.onnx.io import check_network, reason_of


def compact(
    model: onnx.ModelProto,
    *,
    domain: tuple[float, float] | None = None,
    exact: bool = False,
    masked_sha256: str | None = None,
) -> tuple[onnx.ModelProto, Compaction]:
    """Returns a smaller network with the same outputs, and the record of what was removed.

    Args:
        model: Any ONNX network; not changed.
        domain: Lowest and highest value of every input for which the outputs must agree; None for all inputs.
        exact: Fold no constants but zeros, so that the two networks are the same function in exact arithmetic;
            otherwise they differ by the rounding of the biases that were folded into.
        masked_sha256: Hash of the model's file, if it has one; else that of its serialised form.

    Returns:
        The network, which carries the record in its ``metadata_props``, and the record. A network that loses nothing
        comes back as it was, without a record in it.

    Raises:
        UserError: The domain is empty or not finite, or constants are too large to be folded.
    """
    if domain is not None and not (np.isfinite(domain).all() and domain[0] <= domain[1]):
        raise UserError(f"The domain {domain} is refused; it must be a finite lowest and highest value of the inputs.")
    graph = CompactGraph(model)
    plan = _Plan(graph, evaluate(graph, domain), exact)
    record = _record(plan, domain, exact, masked_sha256 or hashlib.sha256(model.SerializeToString()).hexdigest())
    if not record.shrank:
        return model, record
    smaller = _Writer(plan).write()
    del smaller.metadata_props[:]
    # What was rounded is said by the number of a node, and nodes go; the file that is compacted counts from here on.
    properties = {item.key: item.value for item in model.metadata_props if item.key != rounding.KEY}
    helper.set_model_props(smaller, dict(sorted({**properties, METADATA_KEY: record.dump()}.items())))
    return smaller, record


def compact_file(
    source: Path,
    target: Path,
    *,
    domain: tuple[float, float] | None = None,
    exact: bool = False,
    masked_sha256: str | None = None,
) -> Compaction:
    """Compacts an ONNX file; see `compact`.

    Args:
        source: The file.
        target: What to write; replaced as a whole, or left as it was. A network that loses nothing is copied.
        domain: See `compact`.
        exact: See `compact`.
        masked_sha256: Hash of the network that the record is to name, if that isn't the file.

    Raises:
        UserError: The file is missing, no ONNX network, or the domain is refused.
        ValueError: The smaller network fails a check; nothing is written.
    """
    try:
        raw = source.read_bytes()
        model = onnx.load_from_string(raw)
    except OSError as error:
        raise UserError(f"Network {source} can't be read ({error.strerror}); an ONNX file is needed.") from error
    except Exception as error:
        # protobuf's decoding error has no base class that the package promises.
        raise UserError(
            f"{source} is refused because it is no ONNX network or is cut off ({reason_of(error)})."
        ) from error
    check_network(model, source)
    smaller, record = compact(
        model, domain=domain, exact=exact, masked_sha256=masked_sha256 or hashlib.sha256(raw).hexdigest()
    )
    if record.shrank:
        onnx.checker.check_model(smaller, full_check=True)
        raw = smaller.SerializeToString()
    write_bytes(target, raw)
    return record


@dataclass(eq=False)
class _Reading:
    """How a dense node takes the constants among its input channels.

    Args:
        fold: Channels that can be added to its biases.
        merge: Channels that need one shared constant channel.
    """

    fold: BoolArray
    merge: BoolArray


class _Plan:
    """Decides what goes.

    Attributes:
        keep: By class of tensors, the channels that vary and are used.
        final: The channels that are left: those, a shared constant, or a zero where nothing else is left.
        shared: By class, the constant channels that the one named by `speaker` stands for.
        speaker: By class, the index of the shared channel.
        stub: By class, the index of the channel that is kept as a zero.
    """

    def __init__(self, graph: CompactGraph, values: dict[str, Values], exact: bool) -> None:
        self.graph, self.values = graph, values
        sizes = graph.classes()
        self.readings = {node.output: self._reading(node, exact) for node in graph.dense}
        self.keep = {name: np.full(size, name in graph.locked) for name, size in sizes.items()}
        self.shared = {name: np.zeros(size, dtype=bool) for name, size in sizes.items()}
        self._close({name for name in sizes if self._can_share(name)})
        self.final = {name: mask.copy() for name, mask in self.keep.items()}
        self.speaker: dict[str, int] = {}
        self.stub: dict[str, int] = {}
        for name, mask in self.shared.items():
            mask &= ~self.keep[name]
            if mask.any():
                self.speaker[name] = int(np.flatnonzero(mask)[0])
                self.final[name][self.speaker[name]] = True
            if not self.final[name].any() and len(mask):
                self.stub[name] = 0
                self.final[name][0] = True

    def _reading(self, node: CompactNode, exact: bool) -> _Reading:
        values = self.values[node.inputs[0]]
        zero = values.constant & ~values.value.any(axis=1)
        nothing = np.zeros_like(zero)
        if exact:
            return _Reading(zero, nothing)
        if not node.is_conv:
            return _Reading(values.constant, nothing)
        uniform = values.constant & values.uniform()
        if node.padded:
            return _Reading(zero, uniform & ~zero)
        return _Reading(zero | uniform, nothing)

    def _can_share(self, name: str) -> bool:
        """Whether a channel that is 1 where it is made is 1 in all tensors of the class."""
        makers = [node for node in self.graph.nodes if self._makes(node, name)]
        dense = [node for node in makers if node.role is Role.DENSE]
        steady = {Role.DENSE, Role.RELU, Role.POOL, Role.RESHAPE}
        return len(dense) == 1 and name not in self.graph.locked and all(node.role in steady for node in makers)

    def _makes(self, node: CompactNode, name: str) -> bool:
        return node.output in self.graph.channels and self.graph.find(node.output) == name

    def _close(self, sharing: set[str]) -> None:
        """Grows `keep` and `shared` from the outputs until nothing more is needed: the least fixpoint."""
        changed = True
        while changed:
            changed = False
            for node in reversed(self.graph.dense):
                name = self.graph.find(node.inputs[0])
                rows = self.keep[self.graph.find(node.output)]
                used = np.any(node.weight[rows] != 0, axis=(0, 2)) & ~self.readings[node.output].fold
                merge = self.readings[node.output].merge & (name in sharing)
                for mask, more in ((self.keep[name], used & ~merge), (self.shared[name], used & merge)):
                    if np.any(more & ~mask):
                        mask |= more
                        changed = True

    def folds(self, node: CompactNode) -> BoolArray:
        """Which input channels of a dense node are added to its biases: constants that go, but for zeros."""
        name = self.graph.find(node.inputs[0])
        gone = ~self.keep[name] & self.readings[node.output].fold
        if self.shared[name].sum() == 1:
            # It stays as it is.
            gone &= ~self.shared[name]
        rows = self.keep[self.graph.find(node.output)]
        used = np.any(node.weight[rows] != 0, axis=(0, 2))
        folding: BoolArray = gone & used & self.values[node.inputs[0]].value.any(axis=1)
        return folding


def _record(plan: _Plan, domain: tuple[float, float] | None, exact: bool, masked_sha256: str) -> Compaction:
    graph = plan.graph
    layers, folded = [], {name: np.zeros_like(mask) for name, mask in plan.final.items()}
    for node in graph.dense:
        rows, columns = (plan.final[graph.find(name)] for name in (node.output, node.inputs[0]))
        folded[graph.find(node.inputs[0])] |= plan.folds(node)
        places = 1 if node.is_conv else node.weight.shape[2]
        before = (len(rows), len(columns) * places, *node.kernel)
        after = (int(rows.sum()), int(columns.sum()) * places, *node.kernel)
        layers.append(LayerChange(node.label, node.proto.op_type, before, after))
    relus = [node.output for node in graph.nodes if node.role is Role.RELU]
    neurons = [(plan.final[graph.find(name)], graph.places[name]) for name in relus]
    return Compaction(
        masked_sha256=masked_sha256,
        domain=domain,
        exact=exact,
        layers=tuple(layers),
        kept={name: plan.final[graph.find(name)] for name in graph.tensors if not plan.final[graph.find(name)].all()},
        relus=(sum(len(mask) * places for mask, places in neurons), sum(int(m.sum()) * p for m, p in neurons)),
        folded=sum(int(mask.sum()) for mask in folded.values()),
        merged=sum(int(mask.sum()) for mask in plan.shared.values() if mask.sum() > 1),
    )


class _Writer:
    """Writes the smaller network that a plan describes."""

    def __init__(self, plan: _Plan) -> None:
        self.plan, self.graph = plan, plan.graph
        self.smaller = onnx.ModelProto()
        self.smaller.CopyFrom(plan.graph.model)
        self.new: dict[str, npt.NDArray[np.float32]] = {}
        self.uses: dict[str, int] = {}
        for proto in self.smaller.graph.node:
            for name in proto.input:
                self.uses[name] = self.uses.get(name, 0) + 1

    def write(self) -> onnx.ModelProto:
        """Returns the model."""
        for node, proto in zip(self.graph.nodes, self.smaller.graph.node, strict=True):
            if node.role is Role.DENSE:
                self._dense(node, proto)
            elif node.output in self.graph.channels and not self.plan.final[self.graph.find(node.output)].all():
                if node.role is Role.AFFINE:
                    self._affine(node, proto)
                elif proto.op_type == "Reshape":
                    # Its target shape names the old size.
                    self._flatten(proto)
        self._clean()
        return self.smaller

    def _put(self, proto: onnx.NodeProto, place: int, values: Array, role: str) -> None:
        """Makes `values` a node's input in a place, under the old name where no other node uses it."""
        old = proto.input[place] if place < len(proto.input) else ""
        name = old if old and self.uses[old] == 1 else f"{proto.output[0]}_{role}"
        # -0.0 is a zero like any other, but not for those who compare bytes.
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float32) + np.float32(0)
        if not np.isfinite(rounded).all():
            raise UserError(
                f"{proto.name or proto.output[0]} ({proto.op_type}) can't be compacted: a weight, or a bias with the "
                "constants folded into it, is not a finite float32 number."
            )
        self.new[name] = np.ascontiguousarray(rounded)
        while len(proto.input) <= place:
            proto.input.append("")
        proto.input[place] = name

    def _dense(self, node: CompactNode, proto: onnx.NodeProto) -> None:
        plan, graph = self.plan, self.graph
        source, target = graph.find(node.inputs[0]), graph.find(node.output)
        folds = plan.folds(node)
        whole = plan.final[source].all() and plan.final[target].all()
        special = source in plan.stub or target in plan.stub or plan.shared[source].any() or plan.shared[target].any()
        if whole and not special and not folds.any():
            return
        values = plan.values[node.inputs[0]]
        weight, bias = node.weight.astype(np.float64), node.bias.copy()
        if node.is_conv:
            bias += weight[:, folds].sum(axis=2) @ values.value[folds, 0]
        else:
            bias += np.einsum("oct,ct->o", weight[:, folds], values.value[folds])
        if source in plan.stub:
            weight[:, plan.stub[source]] = 0.0
        if plan.shared[source].sum() > 1:
            merge = plan.shared[source] & plan.readings[node.output].merge
            merged = np.einsum("oct,c->ot", weight[:, merge], values.value[merge, 0])
            weight[:, plan.speaker[source]] = merged
        if target in plan.stub:
            weight[plan.stub[target]] = bias[plan.stub[target]] = 0.0
        if target in plan.speaker:
            row = plan.speaker[target]
            alone = plan.shared[target].sum() == 1
            weight[row] = 0.0
            bias[row] = plan.values[node.output].value[row, 0] if alone else 1.0
        rows, columns = plan.final[target], plan.final[source]
        weight, bias = weight[rows][:, columns], bias[rows]
        if node.is_conv:
            self._put(proto, 1, weight.reshape(*weight.shape[:2], *node.kernel), "weight")
        else:
            matrix = weight.reshape(len(weight), -1)
            self._put(proto, 1, matrix if node.attributes.get("transB", 0) else matrix.T, "weight")
        if len(proto.input) > 2 or bias.any():
            if proto.op_type == "MatMul":
                proto.op_type = "Gemm"
            self._put(proto, 2, bias, "bias")

    def _affine(self, node: CompactNode, proto: onnx.NodeProto) -> None:
        kept = self.plan.final[self.graph.find(node.output)]
        shape = self.graph.shapes[node.inputs[0]]
        for place, name in enumerate(proto.input):
            if name in node.inputs or not name:
                continue
            values = self.graph.constants[name]
            per_channel = proto.op_type in ("Conv", "BatchNormalization")
            axis = 0 if per_channel else values.ndim - (len(shape) - 1)
            if axis >= 0 and values.ndim > axis and values.shape[axis] > 1:
                # A flattened channel has several places in a row.
                mask = np.repeat(kept, values.shape[axis] // len(kept))
                self._put(proto, place, np.compress(mask, values, axis=axis), f"constant{place}")
        if proto.op_type == "Conv":
            _set(proto, "group", int(kept.sum()))

    def _flatten(self, proto: onnx.NodeProto) -> None:
        proto.op_type = "Flatten"
        del proto.input[1:], proto.attribute[:]
        _set(proto, "axis", 1)

    def _clean(self) -> None:
        """Writes the new constants, and drops the old ones, shapes of inner tensors included."""
        graph = self.smaller.graph
        used = {name for proto in graph.node for name in proto.input}
        unused = [
            p for p in graph.node if p.op_type == "Constant" and (p.output[0] in self.new or p.output[0] not in used)
        ]
        for proto in unused:
            graph.node.remove(proto)
        old = [item for item in graph.initializer if item.name in used and item.name not in self.new]
        kept = {item.name: item for item in old}
        names = [item.name for item in graph.initializer if item.name in kept or item.name in self.new]
        names += [name for name in self.new if name not in names]
        tensors = [kept[n] if n in kept else numpy_helper.from_array(self.new[n], n) for n in names]
        replaced = [onnx.TensorProto.FromString(item.SerializeToString()) for item in tensors]
        del graph.initializer[:]
        graph.initializer.extend(replaced)
        entries = [item for item in graph.input if item.name in self.graph.entries]
        if len(entries) < len(graph.input):
            # Older files name their constants among the inputs, with the shapes that they had.
            copies = [onnx.ValueInfoProto.FromString(item.SerializeToString()) for item in entries]
            del graph.input[:]
            graph.input.extend(copies)
            self.smaller.ir_version = max(self.smaller.ir_version, 4)
        del graph.value_info[:]


def _set(proto: onnx.NodeProto, name: str, value: int) -> None:
    for attribute in list(proto.attribute):
        if attribute.name == name:
            proto.attribute.remove(attribute)
    proto.attribute.append(helper.make_attribute(name, value))
