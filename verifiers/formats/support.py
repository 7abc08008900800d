"""What an ONNX file holds, and whether a verifier takes it; asked before the long work.

What a file says of itself (`network_info`) is read here: it is parsed and hashed, never evaluated. What its normal form
is (`prunecert.onnx`) takes evaluating constants, which a foreign file can make as long and large as it likes, so that
is asked in a process with limits (`verifiers.process.inspection`).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prunecert.compaction import Compaction
from prunecert.errors import UserError
from prunecert.onnx.io import identity, load_model
from prunecert.verifiers.base import Capabilities, Instance, Norm, OutputSpec, Verifier

SpecKind = Literal["robustness", "dnf"]

#: Key in the ``metadata_props`` of a normal form that is not the given file.
_REWRITTEN = "prunecert.rewritten"

#: What a network in normal form may hold beyond what each verifier takes; `verifiers.formats.onnx_torch` converts all
#: of it.
NORMAL_OPERATORS = frozenset({"Add", "AveragePool", "Conv", "Flatten", "Gemm", "Relu", "Reshape"})
#: The same with what some verifiers take as it stands, and others as sums of ReLUs.
OPERATORS = NORMAL_OPERATORS | {"MaxPool"}
#: What makes a network one that rounds its activations.
_ROUNDING = "QuantizeLinear"
#: What a quantised network may hold, for verifiers that take one (`prunecert.onnx.quantised`).
QUANTISED_OPERATORS = frozenset(
    {*NORMAL_OPERATORS, "DequantizeLinear", "GlobalAveragePool", "Identity", "MatMul", "MaxPool", _ROUNDING}
)


@dataclass(frozen=True)
class NetworkOutput:
    """An output of a network, as the file declares it.

    Args:
        name: Its name.
        size: Numbers of one sample, or None where the file leaves that open.
    """

    name: str
    size: int | None


@dataclass(frozen=True)
class NetworkInfo:
    """What is known of an ONNX file without running it.

    Args:
        sha256: The network's identity, `prunecert.onnx.io.identity`: of the file, and of all weights beside it.
        opset: Opset of the default domain.
        ir_version: ONNX IR version.
        operators: Pairs (operator, name of the first node that uses it), in the order of the graph; an operator
            of another domain is written ``domain::operator``.
        input_name: The one input that is no initialiser.
        input_shape: Its shape as declared; 0 for a free dimension.
        input_type: NumPy's name of its type, e.g. ``float32``.
        outputs: All outputs, in order.
        normal: Whether the file is in normal form as it stands.
        domain: Lowest and highest value of the inputs for which a compacted network stands for the masked one; None
            if there is no such limit.
    """

    sha256: str
    opset: int
    ir_version: int
    operators: tuple[tuple[str, str], ...]
    input_name: str
    input_shape: tuple[int, ...]
    input_type: str
    outputs: tuple[NetworkOutput, ...]
    normal: bool
    domain: tuple[float, float] | None = None

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: without a first axis of 1 or free size, which is the batch, if there are others."""
        shape = self.input_shape
        return shape[1:] if len(shape) > 1 and shape[0] in (0, 1) else shape

    @property
    def run_shape(self) -> tuple[int, ...]:
        """Shape in which one sample is given to the network."""
        return (self.input_shape[0] or 1, *self.input_shape[1:]) if len(self.input_shape) > 1 else self.input_shape

    def sizes(self) -> tuple[int | None, ...]:
        """Returns the sizes of all outputs, None where the file leaves one open."""
        return tuple(output.size for output in self.outputs)


def network_info(path: Path) -> NetworkInfo:
    """Reads an ONNX file once; asked again, it answers from memory unless the file or its weights have changed.

    Raises:
        UserError: The file is missing, is no ONNX, is cut off, or has not one input.
    """
    return _network_info(path, identity(path))


@functools.lru_cache(maxsize=256)
def _network_info(path: Path, sha256: str) -> NetworkInfo:
    import onnx

    from prunecert.onnx.normal import is_normal

    model = load_model(path)
    graph = model.graph
    constants = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or not graph.output:
        raise UserError(
            f"Network {path} has {len(inputs)} inputs and {len(graph.output)} outputs; allowed is one input, and one "
            "output or more."
        )
    operators: dict[str, str] = {}
    for index, node in enumerate(graph.node):
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        operators.setdefault(name, node.name or f"number {index}")
    opsets = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    record = Compaction.of(model.metadata_props)
    entry = inputs[0].type.tensor_type
    try:
        input_type = str(onnx.helper.tensor_dtype_to_np_dtype(entry.elem_type))
    except KeyError as error:
        raise UserError(f"Network {path} has an input of no type; allowed is float32.") from error
    return NetworkInfo(
        sha256=sha256,
        opset=opsets[0] if opsets else 0,
        ir_version=model.ir_version,
        operators=tuple(operators.items()),
        input_name=inputs[0].name,
        input_shape=tuple(dim.dim_value for dim in entry.shape.dim),
        input_type=input_type,
        outputs=tuple(NetworkOutput(value.name, _size(value)) for value in graph.output),
        normal=is_normal(model),
        domain=None if record is None else record.domain,
    )


def _size(value: Any) -> int | None:
    """Returns how many numbers a declared value has in one sample, None where that is open."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if len(dims) > 1 and dims[0] == 0:
        dims[0] = 1
    return None if 0 in dims else math.prod(dims)


def mark_rewritten(model: Any) -> None:
    """Notes in a normal form (an ``onnx.ModelProto``) that its numbers are the given file's up to one rounding."""
    model.metadata_props.add(key=_REWRITTEN, value="1")


def is_rewritten(model: Any) -> bool:
    """Whether a network's numbers are those of the file that was given up to one rounding to float32 only."""
    return any(item.key == _REWRITTEN for item in model.metadata_props)


def spec_kind(spec: OutputSpec, classes: int) -> SpecKind:
    """Says whether an unsafe set is that of a label against all other classes, or something else."""
    return "robustness" if spec.label is not None and len(spec.disjuncts) == classes - 1 else "dnf"


def takes_native(info: NetworkInfo, allowed: Capabilities) -> bool:
    """Whether a verifier takes a network that has no normal form as it is.

    One that takes quantised networks is given every such network, and names itself what it doesn't take of it.
    """
    operators = {operator for operator, _ in info.operators}
    if _ROUNDING in operators:
        return _ROUNDING in allowed.native
    return info.input_type == "float32" and operators <= allowed.native


def unknown_operator(verifier: type[Verifier], operators: tuple[tuple[str, str], ...], name: str) -> str | None:
    """Names an operator that a verifier doesn't take.

    Args:
        verifier: The adapter.
        operators: Pairs (operator, node), of a network in normal form.
        name: What to call the network.
    """
    vocabulary = verifier.capabilities().operators
    for operator, node in operators:
        if operator not in vocabulary:
            return (
                f"{verifier.name} doesn't take the operator {operator} (node {node!r} of {name}); it takes "
                f"{', '.join(sorted(vocabulary))}."
            )
    return None


def check_question(verifier: type[Verifier], norm: Norm, spec: SpecKind) -> str | None:
    """Says why a verifier doesn't take an input set or a property, whatever the network."""
    allowed = verifier.capabilities()
    if norm not in allowed.norms:
        return f"{verifier.name} doesn't take the norm {norm}; it takes {', '.join(allowed.norms)}."
    if spec == "dnf" and allowed.specs == "robustness":
        return f"{verifier.name} takes only robustness properties (a label against all other classes), not this one."
    return None


def check_instance(verifier: type[Verifier], instance: Instance) -> str | None:
    """Says why a verifier doesn't take an instance, as far as that shows without evaluating anything of its network.

    What its network's normal form holds is checked where it is made, in the verifier's own process.

    Raises:
        UserError: The file is no ONNX network, is another network than the instance says, or has an input of another
            size than the instance's box.
    """
    info = network_info(instance.onnx)
    if info.sha256 != instance.onnx_sha256:
        raise UserError(
            f"Network {instance.onnx} has the hash {info.sha256[:12]}…, but {instance.onnx_sha256[:12]}… was planned; "
            "put the planned file back or plan the run again."
        )
    shape = info.sample_shape
    if 0 not in shape and math.prod(shape) != instance.lower.size:
        raise UserError(
            f"Instance {instance.name}: its box has the shape {instance.lower.shape}, but {instance.onnx.name} takes "
            f"{shape}."
        )
    if info.domain is not None and not info.domain[0] <= instance.lower.min() <= instance.upper.max() <= info.domain[1]:
        low, high = info.domain
        return (
            f"{instance.onnx.name} is compacted for inputs from {low:g} to {high:g} and may be another function "
            f"elsewhere, but the instance's inputs are from {instance.lower.min():g} to {instance.upper.max():g}; take "
            "the masked network, or compact it for all inputs."
        )
    return check_question(verifier, instance.norm, spec_kind(instance.spec, instance.classes))
