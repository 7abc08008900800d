"""Mutated ONNX files: each is read, or refused in one sentence; what is read is the function that onnxruntime runs.

    python -m tests.fuzz.onnx_files 5000 [seed]

tries that many in processes of their own, with 4 GiB and 60 s for each file, and prints what went wrong.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
from onnx import helper

from prunecert.errors import UserError
from prunecert.onnx.check import check
from prunecert.onnx.count import count_layers
from prunecert.onnx.io import identity, load_model
from prunecert.onnx.normalise import normalise
from tests.prunecert.onnx import seeds

Rng = np.random.Generator
_INTEGERS = (-(2**63), -(2**31), -3, -2, -1, 0, 1, 2, 3, 4, 5, 7, 64, 1000, 2**20, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-38, 1e30, 3.4e38, float("inf"), float("-inf"), float("nan"))
_OPERATORS = (
    *("Abs", "Add", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv", "ConvTranspose"),
    *("Div", "Dropout", "Expand", "Flatten", "Gather", "Gemm", "GlobalAveragePool", "HardSigmoid", "Identity"),
    *("LeakyRelu", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "RandomNormalLike"),
    *("ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Softmax"),
    *("Split", "Squeeze", "Sub", "Tile", "TopK", "Transpose", "Unsqueeze", "Where"),
)
#: Those that need no more than one or two inputs alike.
_FITTING = (
    *("Abs", "Add", "AveragePool", "Clip", "Concat", "Dropout", "Flatten", "GlobalAveragePool", "HardSigmoid"),
    *("Identity", "LeakyRelu", "Max", "MaxPool", "Min", "Neg", "ReduceMax", "ReduceMean", "Relu", "Shape", "Sigmoid"),
    *("Softmax", "Sub", "Transpose", "Transpose", "MaxPool"),
)
_SECONDS = 60
_BYTES = 4 * 2**30


def _pick(rng: Rng, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def _bytes(rng: Rng, data: bytes) -> bytes:
    """Damages the file itself."""
    array = bytearray(data)
    kind = int(rng.integers(4))
    place = int(rng.integers(len(array)))
    if kind == 0:
        return bytes(array[:place])
    if kind == 1:
        for _ in range(int(rng.integers(1, 9))):
            array[int(rng.integers(len(array)))] = int(rng.integers(256))
    elif kind == 2:
        array[place:place] = rng.bytes(int(rng.integers(1, 40)))
    else:
        del array[place : place + int(rng.integers(1, 40))]
    return bytes(array)


def _attribute(rng: Rng, model: onnx.ModelProto) -> None:
    attributes = [item for node in model.graph.node for item in node.attribute]
    if not attributes:
        return
    item = _pick(rng, attributes)
    if item.ints:
        item.ints[int(rng.integers(len(item.ints)))] = _pick(rng, _INTEGERS)
        if rng.random() < 0.2:
            item.ints.append(_pick(rng, _INTEGERS))
    elif item.type == onnx.AttributeProto.INT:
        item.i = _pick(rng, _INTEGERS)
    elif item.type == onnx.AttributeProto.FLOAT:
        item.f = _pick(rng, _FLOATS)
    elif item.type == onnx.AttributeProto.STRING:
        item.s = _pick(rng, (b"", b"VALID", b"SAME_UPPER", b"NOTSET", b"reflect", b"linear", b"\xff", b"x" * 9999))
    else:
        item.name = "other"


def _new_attribute(rng: Rng, model: onnx.ModelProto) -> None:
    name = _pick(
        rng,
        (
            "axis",
            "axes",
            "pads",
            "strides",
            "dilations",
            "kernel_shape",
            "group",
            "alpha",
            "transA",
            "ceil_mode",
            "keepdims",
            "auto_pad",
            "perm",
            "training_mode",
            "mode",
        ),
    )
    value: Any = _pick(
        rng, (_pick(rng, _INTEGERS), [_pick(rng, _INTEGERS[2:12]) for _ in range(4)], _pick(rng, _FLOATS), "VALID")
    )
    node = _pick(rng, model.graph.node)
    if all(item.name != name for item in node.attribute):
        node.attribute.append(helper.make_attribute(name, value))


def _operator(rng: Rng, model: onnx.ModelProto) -> None:
    _pick(rng, model.graph.node).op_type = _pick(rng, _OPERATORS)


def _inputs(rng: Rng, model: onnx.ModelProto) -> None:
    node = _pick(rng, model.graph.node)
    names = [name for other in model.graph.node for name in (*other.input, *other.output)] + [""]
    kind = int(rng.integers(4))
    if kind == 0 and node.input:
        node.input[int(rng.integers(len(node.input)))] = _pick(rng, names)
    elif kind == 1:
        node.input.append(_pick(rng, names))
    elif kind == 2 and node.input:
        del node.input[int(rng.integers(len(node.input)))]
    elif len(node.input) > 1:
        node.input[0], node.input[1] = node.input[1], node.input[0]


def _insert(rng: Rng, model: onnx.ModelProto) -> None:
    """Puts an operator of one input between two nodes."""
    number = int(rng.integers(len(model.graph.node)))
    node = model.graph.node[number]
    if not node.output:
        return
    name = node.output[0]
    node.output[0] = f"{name}_before"
    more: dict[str, Any] = {}
    operator = _pick(rng, _FITTING)
    if operator == "Transpose" and rng.random() < 0.8:
        more["perm"] = [int(axis) for axis in rng.permutation(_pick(rng, (2, 3, 4)))]
    elif operator in ("AveragePool", "MaxPool"):
        more = {
            "kernel_shape": [int(size) for size in rng.integers(1, 4, 2)],
            "strides": [int(s) for s in rng.integers(1, 3, 2)],
        }
        if rng.random() < 0.5:
            more["pads"] = [int(size) for size in rng.integers(0, 2, 4)]
    elif operator in ("Softmax", "Flatten", "Concat", "ReduceMax", "Split") and rng.random() < 0.5:
        key = {"ReduceMax": "axes"}.get(operator, "axis")
        axis = int(rng.integers(-3, 4))
        more[key] = [axis] if key == "axes" else axis
    inputs = [node.output[0]] * (2 if operator in ("Add", "Concat", "Max", "Min", "Sub") else 1)
    model.graph.node.insert(number + 1, helper.make_node(operator, inputs, [name], **more))


def _delete(rng: Rng, model: onnx.ModelProto) -> None:
    if len(model.graph.node) > 1:
        number = int(rng.integers(len(model.graph.node)))
        node = model.graph.node[number]
        old, new = (node.output[0] if node.output else ""), (node.input[0] if node.input else "")
        del model.graph.node[number]
        for other in model.graph.node:
            for place, name in enumerate(other.input):
                if name == old:
                    other.input[place] = new


def _tensor(rng: Rng, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = _pick(rng, model.graph.initializer)
    kind = int(rng.integers(5))
    if kind == 0 and tensor.dims:
        tensor.dims[int(rng.integers(len(tensor.dims)))] = _pick(rng, _INTEGERS)
    elif kind == 1:
        tensor.data_type = int(rng.integers(25))
    elif kind == 2 and tensor.raw_data:
        tensor.raw_data = _bytes(rng, tensor.raw_data)
    elif kind == 3:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (
            ("location", _pick(rng, ("a.data", "../a", "/dev/zero", "", "."))),
            ("offset", "-1"),
            ("length", "99"),
        ):
            if rng.random() < 0.8:
                tensor.external_data.add(key=key, value=value)
    else:
        tensor.dims.reverse()


def _entry(rng: Rng, model: onnx.ModelProto) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    kind = int(rng.integers(4))
    if kind == 0 and dims:
        _pick(rng, dims).dim_value = _pick(rng, _INTEGERS)
    elif kind == 1 and dims:
        _pick(rng, dims).dim_param = "n"
    elif kind == 2:
        model.graph.input[0].type.tensor_type.elem_type = int(rng.integers(25))
    else:
        model.opset_import[0].version = int(rng.integers(0, 30))


_MUTATIONS: tuple[Callable[[Rng, onnx.ModelProto], None], ...] = (
    _attribute,
    _new_attribute,
    _operator,
    _inputs,
    _insert,
    _insert,
    _delete,
    _tensor,
    _entry,
)


def mutated(rng: Rng) -> bytes:
    """Returns one file."""
    model = onnx.ModelProto()
    model.CopyFrom(_pick(rng, seeds.models()))
    if rng.random() < 0.15:
        return _bytes(rng, model.SerializeToString())
    for _ in range(_pick(rng, (1, 1, 1, 1, 2, 3))):
        if model.graph.node:
            try:
                _pick(rng, _MUTATIONS)(rng, model)
            except (ValueError, TypeError):
                # protobuf refuses what the field doesn't hold.
                continue
    return bytes(model.SerializeToString())


def attempt(data: bytes, folder: Path) -> str:
    """Reads one file; returns ``read``, ``refused``, or what went wrong."""
    path = folder / "mutated.onnx"
    path.write_bytes(data)
    try:
        identity(path)
        model = load_model(path)
        normal = normalise(model)
        if not normal.changed:
            return "normal"
        size = int(np.prod([max(1, dim.dim_value) for dim in model.graph.input[0].type.tensor_type.shape.dim]))
        check(model, normal, np.full(size, -1.0), np.full(size, 1.5), points=5)
        with contextlib.suppress(UserError):
            # There may be nothing to count.
            count_layers(path)
    except UserError as error:
        text = str(error)
        return "refused" if "\n" not in text and len(text) < 2000 else f"wrong: a message of {len(text)} characters"
    except RuntimeError as error:
        if "overflow" in str(error):
            # Found by the check, as it must be: an error verdict.
            return "overflowing"
        return f"wrong: {error}"
    except Exception:
        return f"wrong: {traceback.format_exc()}"
    return "read"


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"took over {_SECONDS} s")


def _chunk(first: int, last: int, seed: int, keep: str, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    signal.signal(signal.SIGALRM, _stop)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, last):
            results.put((number, "died"))
            data = mutated(np.random.default_rng([seed, number]))
            signal.alarm(_SECONDS)
            outcome = attempt(data, Path(folder))
            signal.alarm(0)
            results.put((number, outcome))
            if outcome.startswith("wrong") and keep:
                (Path(keep) / f"{number}.onnx").write_bytes(data)


def main(number: int, seed: int, keep: str = "") -> int:
    """Tries that many files and prints the outcomes; returns how many went wrong."""
    context = multiprocessing.get_context("fork")
    outcomes: dict[int, str] = {}
    first = 0
    while first < number:
        results: Any = context.SimpleQueue()
        process = context.Process(target=_chunk, args=(first, min(number, first + 250), seed, keep, results))
        process.start()
        while process.is_alive() or not results.empty():
            if results.empty():
                process.join(0.05)
                continue
            case, outcome = results.get()
            outcomes[case] = outcome
        last = max(outcomes, default=first)
        if process.exitcode:
            outcomes[last] = f"wrong: the process ended with {process.exitcode}"
        first = last + 1
    wrong = {case: text for case, text in outcomes.items() if text.startswith(("wrong", "died"))}
    print(dict(Counter(text.split(":")[0] for text in outcomes.values())))
    for case, text in wrong.items():
        print(f"--- {case}\n{text}")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, *sys.argv[3:4]) and 1)
