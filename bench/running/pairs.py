"""Two networks asked about together: files that put the question to any verifier, and the check on both networks."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prunecert.bench.results.vnncomp import Task
from prunecert.bench.schema.alike import ALIKE, alike_spec
from prunecert.errors import UserError
from prunecert.files import write_bytes, write_text
from prunecert.hashing import digest
from prunecert.onnx.io import identity
from prunecert.verifiers.base import Instance, OutputSpec, Status, Verdict
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.formats.support import network_info
from prunecert.verifiers.formats.vnnlib import (
    Case,
    Property,
    parse_property,
    read_bytes,
    read_property,
    read_text,
    to_vnnlib,
)
from prunecert.verifiers.formats.vnnlib_pairs import read_pair, speaks_of_two, write_pair


@dataclass(frozen=True, eq=False)
class PairFiles:
    """The two networks of a pair, as they were given.

    Args:
        first: The first.
        second: The other.
        case: The box of the property that was given; a counterexample has to lie in it.
        spec: What is unsafe of both outputs, one after the other.
    """

    first: Path
    second: Path
    case: Case
    spec: OutputSpec


def unpack(path: Path, folder: Path) -> Path:
    """Returns a network's file, or where its content was written if it was packed (``.onnx.gz``)."""
    content = read_bytes(path, "ONNX")
    if content == path.read_bytes():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    target = _kept_apart(folder, path.name.removesuffix(".gz").removesuffix(".onnx"), ".onnx", content)
    write_bytes(target, content)
    return target


def pair_tasks(
    first: Path, second: Path, vnnlib: Path, kind: str | None, category: str, timeout: float, folder: Path
) -> list[tuple[Task, PairFiles]]:
    """Writes the question whether two networks are alike over the boxes of a property.

    Args:
        first: The network that is compared with.
        second: The other.
        vnnlib: A property of either network, of which the boxes count, and what it says of outputs doesn't; or, without
            `kind`, a query of VNN-LIB 2.0 over both.
        kind: See `bench.schema.pairs.ALIKE`.
        category: Of the counterexamples' files.
        timeout: Seconds for each box.
        folder: Where the merged network and the properties go, and the same over both files as queries of VNN-LIB 2.0,
            `NAME.query.vnnlib`, where the two are isomorphic.

    Returns:
        For each box the files to be verified, as any others, and what they stand for.

    Raises:
        UserError: The networks can't be compared, or the property isn't one of theirs.
    """
    from prunecert.onnx.merge import isomorphic, merge

    merged = merge(first, second)
    folder.mkdir(parents=True, exist_ok=True)
    content = merged.SerializeToString(deterministic=True)
    path = _kept_apart(folder, f"{first.stem}-with-{second.stem}", ".onnx", content)
    write_bytes(path, content)
    info = network_info(path)
    size = info.outputs[0].size
    assert size is not None
    boxes, whole_spec = _read(first, second, vnnlib, kind, size // 2)
    shape = info.sample_shape
    if boxes.inputs != math.prod(shape):
        raise UserError(
            f"{vnnlib} has {boxes.inputs} inputs, but each of {first} and {second} has {math.prod(shape)}; they must "
            "be equal."
        )
    questions = boxes.instances(path, identity(path), shape, timeout, f"{first.name} with {second.name}")
    if not questions:
        raise UserError(f"{vnnlib} has no box over which to compare networks ({boxes.empty}).")
    queries = kind is not None and isomorphic(first, second)
    tasks = []
    for number, (case, instance) in enumerate(zip(boxes.cases, questions, strict=True)):
        stem = vnnlib.name.removesuffix(".gz").removesuffix(".vnnlib").removesuffix(".query")
        name = f"{path.stem}_{stem}" + (f"_{kind.replace(':', '-')}" if kind else "")
        name += f"_{number}" if len(questions) > 1 else ""
        spec = whole_spec or case.spec
        text = to_vnnlib(_asked(instance, spec, size)) + _box(case)
        target = _kept_apart(folder, name, ".vnnlib", text.encode())
        name = target.name.removesuffix(".vnnlib")
        write_text(target, text)
        if queries:
            lower, upper = case.lower.reshape(shape), case.upper.reshape(shape)
            write_text(folder / f"{name}.query.vnnlib", write_pair(lower, upper, spec, size // 2))
        tasks.append((Task(category, path, target, timeout, name), PairFiles(first, second, case, spec)))
    return tasks


def _kept_apart(folder: Path, name: str, ending: str, content: bytes) -> Path:
    """Returns where content goes: under its name, or, if something else lies there, with some digits of its hash."""
    path = folder / f"{name}{ending}"
    if not path.exists() or path.read_bytes() == content:
        return path
    return folder / f"{name}-{hashlib.sha256(content).hexdigest()[:8]}{ending}"


def _read(
    first: Path, second: Path, vnnlib: Path, kind: str | None, outputs: int
) -> tuple[Property, OutputSpec | None]:
    """Returns the boxes, and what is unsafe over all of them; None where each box says that itself."""
    text = read_text(vnnlib, "VNN-LIB")
    if not speaks_of_two(text):
        if kind is None:
            raise UserError(f"{vnnlib} speaks of one network; say with --alike what is asked of the two: {ALIKE}.")
        return read_property(vnnlib), alike_spec(kind, outputs)
    if kind is not None:
        raise UserError(f"{vnnlib} speaks of two networks and says itself what is asked of them; leave --alike out.")
    query = read_pair(text, str(vnnlib))
    if query.equal and identity(first) != identity(second):
        raise UserError(f"{vnnlib} speaks of two equal networks, and {first} and {second} are two; name one twice.")
    boxes = parse_property(query.text, str(vnnlib), vnnlib)
    if boxes.outputs != 2 * outputs:
        raise UserError(f"{vnnlib} has {boxes.outputs // 2} outputs, but each of the networks has {outputs}.")
    return boxes, None


def _box(case: Case) -> str:
    """Returns a comment by which two boxes are two questions though one float32 box is round both; else nothing."""
    corners = np.concatenate([case.lower, case.upper, *(case.inner or ())])
    if case.inner is None and np.array_equal(corners, np.concatenate(case.outer())):
        return ""
    return f"; counterexamples count in the box {digest(corners.tolist())}\n"


def _asked(instance: Instance, spec: OutputSpec, size: int) -> Instance:
    return replace(instance, spec=spec, classes=size, label=None, eps=None, vnnlib=None)


def on_both(verdict: Verdict, pair: PairFiles) -> Verdict:
    """Takes a `sat` back whose witness is none for the two networks as they were given, in the box that was given.

    Args:
        verdict: The answer for the merged network; its witness was replayed there.
        pair: The two networks.
    """
    inside = verdict.witness is not None and pair.case.contains(verdict.witness)
    return confirmed_on(verdict, (pair.first, pair.second), pair.spec, inside=inside)


def confirmed_on(verdict: Verdict, files: tuple[Path, Path], spec: OutputSpec, *, inside: bool) -> Verdict:
    """Takes a `sat` back whose witness is none for two networks themselves.

    Args:
        verdict: The answer for the merged network.
        files: The two networks.
        spec: What is unsafe of both outputs, one after the other.
        inside: Whether the witness lies in the box that was asked about.
    """
    if verdict.witness is None:
        return verdict
    point = verdict.witness[None]
    values = np.concatenate([outputs(path, point)[0].reshape(-1) for path in files])
    if inside and spec.violated_by(values):
        return replace(verdict, detail="; ".join(filter(None, (verdict.detail, "replayed on both networks"))))
    return replace(
        verdict,
        status=Status.UNKNOWN,
        detail="a counterexample was found for the merged network that is none for the two networks themselves",
        witness=None,
        stage=None,
    )
