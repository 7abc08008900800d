"""ONNX files: read within limits, with the weights that lie beside them, and known by all that decides them."""

from __future__ import annotations

import functools
import hashlib
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from prunecert.errors import UserError
from prunecert.hashing import sha256_file
from prunecert.printable import shortened

if TYPE_CHECKING:
    import onnx

#: Most bytes of a graph with its external data: what protobuf can hold in one message.
LIMIT = 2**31 - 1
_CHUNK = 2**20
#: Where onnxruntime raises an error: file and line, the function's signature, and what is written there.
_SOURCE = re.compile(r"/onnxruntime_src/\S+ (?:[^()]*\([^()]*\)(?: const)? )?(?:.* was false\. )?")
_LONGEST_REASON = 4_000
_CODE = re.compile(r"^\[ONNXRuntimeError\] : [0-9]+ : \w+ : ")


@dataclass(frozen=True)
class Segment:
    """Where the values of one tensor lie beside the graph.

    Args:
        path: The file, inside of the network's folder.
        offset: First byte.
        length: Bytes.
    """

    path: Path
    offset: int
    length: int


def first_line(error: BaseException) -> str:
    """Returns an error's first line, printable and short enough for a message."""
    text = str(error).strip()
    line = text.splitlines()[0] if text else type(error).__name__
    return "".join(c if c.isprintable() else " " for c in line)[:200]


def reason_of(error: BaseException) -> str:
    r"""Returns what an error of onnx or onnxruntime says, on one line, without where in its sources it was raised.

    >>> reason_of(ValueError("input 'a' of node: \nname: r OpType: Relu\n is not output of any previous nodes."))
    "input 'a' of node: name: r OpType: Relu is not output of any previous nodes"
    >>> place = "/onnxruntime_src/onnxruntime/core/quantize.cc:86 void onnxruntime::Prepare(const Tensor&, int64_t) "
    >>> reason_of(RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : Node: {place}size(x) == 1 was false. x must be one"))
    'Node: x must be one'
    """
    # Cut first: names of foreign files, which it repeats, may be as long as their author likes.
    text = _SOURCE.sub("", _CODE.sub("", shortened(" ".join(str(error).split()), _LONGEST_REASON))).rstrip(".")
    return shortened(text or type(error).__name__, 400)


def load_model(path: Path, limit: int = LIMIT) -> onnx.ModelProto:
    """Reads and checks a network, with its external data.

    Args:
        path: The ONNX file.
        limit: Most bytes of the graph and its external data together.

    Returns:
        The model; no tensor is external any more.

    Raises:
        UserError: The file is missing, too large, no ONNX network or cut off, or refers to data outside of its folder.

    >>> import onnx
    >>> text = '<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y) { y = Relu (x) }'
    >>> onnx.save(onnx.parser.parse_model(text), "relu.onnx")
    >>> load_model(Path("relu.onnx")).graph.node[0].op_type
    'Relu'
    >>> load_model(Path("none.onnx"))
    Traceback (most recent call last):
    prunecert.errors.UserError: Network none.onnx can't be read (No such file or directory); an ONNX file is needed.
    """
    import onnx

    model = _parse(path, limit)
    total = path.stat().st_size
    for tensor in tensors(model):
        segment = _segment(path, tensor)
        if segment is None:
            continue
        total += segment.length
        if total > limit:
            raise UserError(f"{path} is refused because it and its external data exceed {limit:,} bytes.")
        with segment.path.open("rb") as stream:
            stream.seek(segment.offset)
            tensor.raw_data = stream.read(segment.length)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.DEFAULT
    check_network(model, path)
    if not model.graph.node:
        raise _no_network(path, "it has no node")
    return model


def check_network(model: onnx.ModelProto, path: Path) -> None:
    """Refuses what the checker of onnx doesn't accept.

    Raises:
        UserError: It doesn't; the versions in which the file says that it is written are named.
    """
    import onnx

    try:
        onnx.checker.check_model(model)
    except Exception as error:
        # The checker's, protobuf's and shape inference's exceptions share no base class.
        if model.ir_version > onnx.IR_VERSION:
            raise UserError(
                f"{path} is refused because it has the IR version {model.ir_version}; read are files of at most "
                f"{onnx.IR_VERSION}: export it again, or install a newer onnx."
            ) from error
        opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), None)
        if opset is None or not model.graph.node:
            raise _no_network(path, reason_of(error)) from error
        raise UserError(
            f"{path} is refused because it isn't valid as ONNX of opset {opset} ({reason_of(error)}); allowed is what "
            "`onnx.checker` accepts."
        ) from error


def identity(path: Path) -> str:
    """Returns what a network is known by: 64 hex digits that change with its graph and with each of its weights.

    It is the SHA-256 of the file if that holds all weights, else one over the file and every segment of external data
    that it refers to. Asked again, it answers from memory unless one of the files has another size or time.

    Raises:
        UserError: See `load_model`; the graph is not checked.

    >>> import onnx
    >>> text = '<ir_version: 8, opset_import: ["": 13]> net (float[1, 2] x) => (float[1, 2] y) { y = Relu (x) }'
    >>> for name, graph in (("a", text), ("b", text), ("c", text.replace("Relu", "Abs"))):
    ...     onnx.save(onnx.parser.parse_model(graph), f"{name}.onnx")
    >>> a, b, c = (identity(Path(f"{name}.onnx")) for name in "abc")
    >>> a == b, a == c, a == sha256_file(Path("a.onnx"))
    (True, False, True)
    """
    files = (path, *external_files(path))
    return _identity(path, tuple(_stamp(file) for file in files))


def external_files(path: Path) -> tuple[Path, ...]:
    """Returns the files beside a network that hold weights of it, each once, in the order of their first use.

    Raises:
        UserError: See `identity`.
    """
    return tuple(dict.fromkeys(segment.path for segment in _segments(path, _stamp(path))))


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yields every tensor of a model: initialisers, sparse ones, attributes, those of subgraphs and functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),):
            yield from (sparse.values, sparse.indices)
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graph_tensors(graph)


def _no_network(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is refused because it is no ONNX network or is cut off ({reason}); allowed is what `onnx.checker` "
        "accepts."
    )


def _stamp(path: Path) -> tuple[int, ...]:
    """Returns the size of a regular file, and what changes when it is written or replaced."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"Network {path} can't be read ({reason}); an ONNX file is needed.") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"Network {path} is refused because it is no regular file; an ONNX file is needed.")
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _parse(path: Path, limit: int) -> onnx.ModelProto:
    import onnx

    if (size := _stamp(path)[0]) > limit:
        raise UserError(f"{path} is refused because it has {size:,} bytes; allowed are {limit:,}.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise UserError(f"Network {path} can't be read ({error.strerror}); an ONNX file is needed.") from error
    except Exception as error:
        # protobuf's decoding error has no base class that the package promises.
        raise _no_network(path, reason_of(error)) from error
    return model


def _segment(path: Path, tensor: onnx.TensorProto) -> Segment | None:
    import onnx

    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    entries = {item.key: item.value for item in tensor.external_data}
    name, label = entries.get("location", ""), f"the external data of tensor {tensor.name!r:.80}"
    pure = PurePosixPath(name)
    if not name or "\0" in name or pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise UserError(
            f"{path} is refused because {label} lie in {name!r:.120}; allowed is a file in the network's own folder, "
            "named relative to it, without '..'."
        )
    file = path.parent / name
    try:
        inside = file.resolve(strict=True).is_relative_to(path.parent.resolve())
        regular = stat.S_ISREG(file.stat().st_mode)
        size = file.stat().st_size
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(
            f"{path} is refused because {label} can't be read from {file} ({reason}); put that file beside the network."
        ) from error
    if not inside or not regular:
        what = "a link out of the network's folder" if not inside else "no regular file"
        raise UserError(f"{path} is refused because {label} lie in {name!r:.120}, which is {what}.")
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries.get("length") or size - offset)
    except ValueError as error:
        raise UserError(f"{path} is refused because {label} have no whole number for offset and length.") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise UserError(
            f"{path} is refused because {label} are bytes {offset} to {offset + length} of {file.name}, "
            f"which has {size}."
        )
    return Segment(file, offset, length)


@functools.lru_cache(maxsize=256)
def _segments(path: Path, _key: tuple[int, ...]) -> tuple[Segment, ...]:
    segments = (_segment(path, tensor) for tensor in tensors(_parse(path, LIMIT)))
    return tuple(segment for segment in segments if segment is not None)


@functools.lru_cache(maxsize=256)
def _identity(path: Path, key: tuple[tuple[int, ...], ...]) -> str:
    segments = _segments(path, key[0])
    if not segments:
        return sha256_file(path)
    whole: Any = hashlib.sha256(f"graph and external data\n{sha256_file(path)}\n".encode())
    for segment in segments:
        whole.update(f"{segment.length}\n".encode())
        with segment.path.open("rb") as stream:
            stream.seek(segment.offset)
            left = segment.length
            while left and (block := stream.read(min(_CHUNK, left))):
                whole.update(block)
                left -= len(block)
    return str(whole.hexdigest())
