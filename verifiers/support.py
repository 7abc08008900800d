"""What an ONNX file holds, and whether a verifier takes it; asked before the long work."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prunecert.compaction import Compaction
from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from verifiers.base import Instance, Norm, OutputSpec, Verifier

SpecKind = Literal["robustness", "dnf"]

#: What `verifiers.onnx_graph` converts; the last line only where the inputs are constants, as the sums over shapes are
#: that exporters leave.
OPERATORS = frozenset(
    [
        *("Add", "AveragePool", "BatchNormalization", "Constant", "Conv", "Div", "Dropout", "Flatten", "Gemm"),
        *("GlobalAveragePool", "Identity", "MatMul", "MaxPool", "Mul", "Relu", "Reshape", "Squeeze", "Sub"),
        "Unsqueeze",
        *("Cast", "Concat", "Gather", "Shape", "Slice"),
    ]
)


@dataclass(frozen=True)
class NetworkInfo:
    """What is known of an ONNX file without running it.

    Args:
        sha256: Hash of the file.
        opset: Opset of the default domain.
        ir_version: ONNX IR version.
        operators: Pairs (operator, name of the first node that uses it), in the order of the graph; an operator
            of another domain is written ``domain::operator``.
        input_name: The one input that is no initialiser.
        input_shape: Its shape, the batch axis included; 0 for a free dimension.
        output_name: The one output.
        domain: Lowest and highest value of the inputs for which a compacted network stands for the masked one; None
            if there is no such limit.
    """

    sha256: str
    opset: int
    ir_version: int
    operators: tuple[tuple[str, str], ...]
    input_name: str
    input_shape: tuple[int, ...]
    output_name: str
    domain: tuple[float, float] | None = None


def network_info(path: Path) -> NetworkInfo:
    """Reads an ONNX file once; asked again, it answers from memory unless the file has changed.

    Raises:
        UserError: The file is missing, is no ONNX, is cut off, or has not one input and one output.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"Network {path} can't be read ({error.strerror}); an ONNX file is needed.") from error
    return _network_info(path, stat.st_mtime_ns, stat.st_size)


def load_model(path: Path) -> Any:
    """Reads and checks an ONNX file.

    Returns:
        The ``onnx.ModelProto``.

    Raises:
        UserError: It is no ONNX file or is cut off.
    """
    import onnx

    refusal = f"{path} is refused because it is no ONNX network or is cut off"
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except OSError as error:
        raise UserError(f"Network {path} can't be read ({error.strerror}); an ONNX file is needed.") from error
    except Exception as error:
        # protobuf's decoding error, the checker's and onnx's own share no base class.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{refusal} ({reason:.200}); allowed is what `onnx.checker` accepts.") from error
    if not model.graph.node:
        raise UserError(f"{refusal} (it has no node); allowed is what `onnx.checker` accepts.")
    return model


@functools.lru_cache(maxsize=256)
def _network_info(path: Path, mtime_ns: int, size: int) -> NetworkInfo:
    model = load_model(path)
    graph = model.graph
    constants = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UserError(
            f"Network {path} has {len(inputs)} inputs and {len(graph.output)} outputs; allowed is one of each."
        )
    operators: dict[str, str] = {}
    for index, node in enumerate(graph.node):
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        operators.setdefault(name, node.name or f"number {index}")
    opsets = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    record = Compaction.of(model.metadata_props)
    return NetworkInfo(
        sha256=sha256_file(path),
        opset=opsets[0] if opsets else 0,
        ir_version=model.ir_version,
        operators=tuple(operators.items()),
        input_name=inputs[0].name,
        input_shape=tuple(dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim),
        output_name=graph.output[0].name,
        domain=None if record is None else record.domain,
    )


@functools.lru_cache(maxsize=64)
def spec_kind(spec: OutputSpec, classes: int) -> SpecKind:
    """Says whether an unsafe set is that of a label against all other classes, or something else."""
    import numpy as np

    if len(spec.disjuncts) != classes - 1:
        return "dnf"
    first = spec.disjuncts[0][0]
    labels = np.flatnonzero(first[0] == 1.0) if first.shape == (1, classes) else np.zeros(0, dtype=np.int64)
    if labels.size != 1:
        return "dnf"
    wanted = OutputSpec.robustness(int(labels[0]), classes)
    same = all(
        a.shape == c.shape and np.array_equal(a, c) and np.array_equal(b, d)
        for (a, b), (c, d) in zip(spec.disjuncts, wanted.disjuncts, strict=True)
    )
    return "robustness" if same else "dnf"


def check_supported(verifier: type[Verifier], onnx: Path, norm: Norm, spec: SpecKind) -> str | None:
    """Says why a verifier doesn't take a network or a property.

    Args:
        verifier: The adapter.
        onnx: The network.
        norm: Norm of the input set.
        spec: Kind of the property, see `spec_kind`.

    Returns:
        One sentence with what is not supported and what is, or None if all is.

    Raises:
        UserError: The file is no ONNX network.
    """
    info = network_info(onnx)
    allowed = verifier.capabilities()
    for operator, node in info.operators:
        if operator not in allowed.operators:
            return (
                f"{verifier.name} doesn't take the operator {operator} (node {node!r} of {onnx.name}); "
                f"it takes {', '.join(sorted(allowed.operators))}."
            )
    low, high = allowed.opsets
    if not low <= info.opset <= high:
        return f"{verifier.name} doesn't take opset {info.opset} ({onnx.name}); it takes {low} to {high}."
    if norm not in allowed.norms:
        return f"{verifier.name} doesn't take the norm {norm}; it takes {', '.join(allowed.norms)}."
    if spec == "dnf" and allowed.specs == "robustness":
        return f"{verifier.name} takes only robustness properties (a label against all other classes), not this one."
    return None


def check_instance(verifier: type[Verifier], instance: Instance) -> str | None:
    """`check_supported` for an instance; also refuses a network that is not the one that the instance names.

    Raises:
        UserError: The file is no ONNX network, has another hash than the instance says, or has an input of another
            size than the instance's box.
    """
    info = network_info(instance.onnx)
    if info.sha256 != instance.onnx_sha256:
        raise UserError(
            f"Network {instance.onnx} has the hash {info.sha256[:12]}…, but {instance.onnx_sha256[:12]}… was planned; "
            "put the planned file back or plan the run again."
        )
    size = 1
    for dim in info.input_shape[1:]:
        size *= dim
    if 0 not in info.input_shape[1:] and size != instance.lower.size:
        raise UserError(
            f"Instance {instance.name}: its box has the shape {instance.lower.shape}, but {instance.onnx.name} takes "
            f"{info.input_shape[1:]}."
        )
    if info.domain is not None and not info.domain[0] <= instance.lower.min() <= instance.upper.max() <= info.domain[1]:
        low, high = info.domain
        return (
            f"{instance.onnx.name} is compacted for inputs from {low:g} to {high:g} and may be another function "
            f"elsewhere, but the instance's inputs are from {instance.lower.min():g} to {instance.upper.max():g}; take "
            "the masked network, or compact it for all inputs."
        )
    return check_supported(verifier, instance.onnx, instance.norm, spec_kind(instance.spec, instance.classes))
