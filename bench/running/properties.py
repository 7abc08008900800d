"""Answer a property file: read it, fit it to its network, ask a verifier about each of its boxes, join the answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prunecert.bench.results.outcome import disputes
from prunecert.bench.results.store import Row
from prunecert.bench.results.vnncomp import Task
from prunecert.bench.running.pairs import PairFiles, on_both, unpack
from prunecert.bench.running.plainly import without_verifier
from prunecert.compaction import Compaction, Mode
from prunecert.errors import UserError
from prunecert.hashing import digest
from prunecert.onnx.io import identity
from prunecert.verifiers.base import Instance, Status, Times, Verdict
from prunecert.verifiers.formats.counterexample import replay
from prunecert.verifiers.formats.support import network_info
from prunecert.verifiers.formats.vnnlib import (
    Case,
    Property,
    UnsupportedPropertyError,
    parse_property,
    read_text,
)
from prunecert.verifiers.process.inspection import inspect_network
from prunecert.verifiers.process.worker import Worker

#: Of several boxes with different answers, the first of these is the property's, after `sat`.
_WORST_FIRST = (Status.ERROR, Status.MEMOUT, Status.TIMEOUT, Status.UNKNOWN, Status.UNSUPPORTED, Status.UNSAT)


@dataclass(frozen=True)
class Problem:
    """A task whose files have been read and fit each other.

    Args:
        task: What was asked.
        onnx: The network, not gzipped.
        onnx_sha256: Hash of it.
        vnnlib_sha256: Hash of the property's text.
        refusal: Why the property can't be stated as instances; empty if it can.
        compact: The network without its dead units, if the verifiers get that in its place.
        compact_sha256: Hash of it.
        compaction: What was removed.
        pair: The two networks that `onnx` was merged from, if it was.
    """

    task: Task
    onnx: Path
    onnx_sha256: str
    vnnlib_sha256: str
    refusal: str = ""
    compact: Path | None = None
    compact_sha256: str = ""
    compaction: Compaction | None = None
    pair: PairFiles | None = None

    @property
    def key(self) -> str:
        """Stands for the question, whoever answers it, and in whatever form the network is given to them."""
        return digest([self.onnx_sha256, self.vnnlib_sha256])

    def read(self) -> tuple[Property, list[Instance]]:
        """Reads the property again; the texts of a large benchmark don't fit into memory together.

        Returns:
            The property, and a question about the network as it was given for each of its boxes.
        """
        text = read_text(self.task.vnnlib, "VNN-LIB")
        parsed = parse_property(text, str(self.task.vnnlib), self.task.vnnlib)
        shape = network_info(self.onnx).sample_shape
        return parsed, parsed.instances(self.onnx, self.onnx_sha256, shape, self.task.timeout, self.task.name)

    def for_verifiers(self, instance: Instance) -> Instance:
        """Returns the question in the form in which verifiers get it."""
        if self.compact is None:
            return instance
        return replace(instance, onnx=self.compact, onnx_sha256=self.compact_sha256)


def compacted(problem: Problem, mode: Mode, folder: Path) -> Problem:
    """Returns a problem whose verifiers get the network without its dead units.

    Args:
        problem: The problem.
        mode: What to remove.
        folder: Where the compact network goes.

    Raises:
        UserError: A weight is not finite, or constants are too large to be folded.
    """
    if mode is Mode.OFF or problem.refusal:
        return problem
    if inspect_network(problem.onnx).refusal:
        # It is named when a verifier is asked; folding its constants here could take for ever.
        return problem
    from prunecert.models.compact import compact_file

    target = folder / f"{problem.onnx_sha256[:16]}.compact-{mode}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    record = compact_file(problem.onnx, target, domain=mode.domain, exact=mode is Mode.EXACT)
    if not record.shrank:
        target.unlink()
        return replace(problem, compaction=record)
    return replace(problem, compact=target, compact_sha256=identity(target), compaction=record)


def prepare(task: Task, scratch: Path, unpacked: dict[Path, Path]) -> Problem:
    """Reads a task's files and checks that they fit.

    Args:
        task: The task.
        scratch: Folder for networks that have to be unpacked.
        unpacked: Networks that have been, by their path; added to.

    Raises:
        UserError: A file is missing, cut off, no ONNX or VNN-LIB, or the two have other numbers of inputs or outputs.
    """
    if task.onnx not in unpacked:
        unpacked[task.onnx] = unpack(task.onnx, scratch / str(len(unpacked)))
    onnx = unpacked[task.onnx]
    try:
        info = network_info(onnx)
    except UserError as error:
        # The person knows the file by its own name, not by that of the unpacked copy.
        raise UserError(str(error).replace(str(onnx), str(task.onnx))) from None
    text = read_text(task.vnnlib, "VNN-LIB")
    problem = Problem(task, onnx, info.sha256, digest(text))
    shape = info.sample_shape
    try:
        if 0 in shape:
            raise UnsupportedPropertyError(
                f"the network {task.onnx} takes the shape {info.input_shape} (0: free); allowed is a batch axis, 1 or "
                "free, before fixed ones, or fixed ones alone"
            )
        parsed = parse_property(text, str(task.vnnlib), task.vnnlib)
        if math.prod(shape) != parsed.inputs == math.prod(shape[1:]):
            raise UnsupportedPropertyError(
                f"the network {task.onnx} takes {shape[0]} samples at once, {info.input_shape}; allowed is a batch "
                "axis of 1 or free: export it with one sample"
            )
        parsed.instances(onnx, info.sha256, shape, task.timeout, task.name)
    except UnsupportedPropertyError as error:
        return replace(problem, refusal=str(error))
    # What the file leaves open is compared where the network is read, in the verifier's process: finding it out takes
    # evaluating it, and nothing of a foreign file is evaluated here.
    sizes = info.sizes()
    if None not in sizes and parsed.outputs not in sizes:
        sizes_text = " and ".join(str(size) for size in sizes)
        raise UserError(
            f"{task.vnnlib} has {parsed.outputs} outputs but the network {task.onnx} has {sizes_text}; they must be "
            "equal."
        )
    return problem


def solve(problem: Problem, worker: Worker) -> Verdict:
    """Answers a problem within its limit, box by box until one is `sat`."""
    failed = Verdict(
        Status.UNSUPPORTED,
        problem.refusal,
        device=worker.device,
        verifier=worker.name,
        version=str(worker.identity["version"]),
    )
    if problem.refusal:
        return failed
    parsed, instances = problem.read()
    plain = without_verifier(parsed, instances)
    if plain is not None:
        return replace(plain, device=failed.device, verifier=failed.verifier, version=failed.version)
    verdicts: list[Verdict] = []
    for case, instance in zip(parsed.cases, instances, strict=True):
        left = problem.task.timeout - sum(verdict.times.wall_s for verdict in verdicts)
        if left <= 0:
            verdicts.append(replace(failed, status=Status.TIMEOUT, detail="the limit ended before this box's turn"))
            break
        (verdict,) = worker.verify([replace(problem.for_verifiers(instance), timeout=left)])
        if problem.compact is not None:
            verdict = on_original(verdict, instance)
        # What was written about a pair has the float32 box round the one that was given.
        verdicts.append(established(verdict, case if problem.pair is None else problem.pair.case, instance))
        if problem.pair is not None:
            verdicts[-1] = on_both(verdicts[-1], problem.pair)
        if verdicts[-1].status is Status.SAT:
            break
    return combined(verdicts, len(instances))


def on_original(verdict: Verdict, instance: Instance) -> Verdict:
    """Takes a `sat` of a compact network back whose witness is none for the network as it was given.

    Args:
        verdict: The answer for the compact network; its witness was replayed there.
        instance: The question about the network as it was given.
    """
    if verdict.witness is None:
        return verdict
    check, point = replay(instance, verdict.witness, clip=False)
    if check.ok:
        return replace(verdict, witness=point, witness_check=check.to_json())
    return replace(
        verdict,
        status=Status.UNKNOWN,
        detail=(
            "a counterexample was found for the compact network that is none for the original, by float32 rounding, so "
            "that neither answer is established"
        ),
        witness=None,
        stage=None,
    )


def established(verdict: Verdict, case: Case, instance: Instance) -> Verdict:
    """Takes a `sat` back whose witness lies in the float32 box but not in the file's own.

    Args:
        verdict: The answer for the float32 box; its witness is replayed already.
        case: The box of the file.
        instance: The question that was answered.

    Returns:
        The verdict, with the nearest point inside the file's box for witness if need be, or `unknown`.
    """
    if verdict.witness is None or case.contains(verdict.witness):
        return verdict
    inside = case.nearest(verdict.witness)
    if inside is not None:
        check, point = replay(instance, inside, clip=False)
        if check.ok:
            return replace(verdict, witness=point, witness_check=check.to_json())
    return replace(
        verdict,
        status=Status.UNKNOWN,
        detail=(
            "a counterexample was found only in the sliver by which the float32 box exceeds the file's decimals, so "
            "that neither answer is established"
        ),
        witness=None,
        stage=None,
    )


def combined(verdicts: Sequence[Verdict], cases: int) -> Verdict:
    """Joins the answers for a property's boxes: `sat` if one is, `unsat` only if all are.

    Args:
        verdicts: Answers for the first boxes, at least one; the last may be the `sat` that made the rest needless.
        cases: Number of boxes.
    """
    if cases == 1:
        return verdicts[0]
    chosen = next(
        verdict
        for status in (Status.SAT, *_WORST_FIRST)
        for verdict in verdicts
        if verdict.status is status
    )  # fmt: skip
    number = next(i for i, verdict in enumerate(verdicts, start=1) if verdict is chosen)
    detail = f"all {cases} boxes" if chosen.status is Status.UNSAT else f"box {number} of {cases}"

    def total(values: Sequence[int | None]) -> int | None:
        numbers = [value for value in values if value is not None]
        return sum(numbers) if numbers else None

    return replace(
        chosen,
        detail=f"{detail}: {chosen.detail}" if chosen.detail else detail,
        bounds=None,
        times=Times(
            *(sum(getattr(verdict.times, name) for verdict in verdicts) for name in Times.__dataclass_fields__)
        ),
        unstable=total([verdict.unstable for verdict in verdicts]),
        domains=total([verdict.domains for verdict in verdicts]),
        iterations=total([verdict.iterations for verdict in verdicts]),
        peak_memory_mb=max((v.peak_memory_mb for v in verdicts if v.peak_memory_mb is not None), default=None),
    )


def contradictions(rows: Sequence[Row]) -> list[str]:
    """Names each problem that one verifier proves and another breaks, one sentence each."""
    claims = (
        (
            row["problem"],
            row["status"],
            (f"{row['verifier']} {row.get('version', '')}".strip(), f"{row['onnx']} with {row['vnnlib']}"),
        )
        for row in rows
    )
    # By who says so: the same verifier may have answered in several starts.
    return [
        f"CONTRADICTION: {next(iter(proving.values()))}: unsat by {', '.join(proving)}; sat by {', '.join(breaking)}."
        for proving, breaking in ((dict(dispute.proving), dict(dispute.breaking)) for dispute in disputes(claims))
    ]
