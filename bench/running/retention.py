"""What pruning kept of a run's proofs: a guarantee of the dense network carries over, or was proved anew, or is lost.

Let m_j be the dense network's margin of the label over class j, and m_j >= μ_j over an image's box. If the margins of
the two networks differ by no less than -D_j there, m'_j >= μ_j - D_j: where that is above what float32 rounding may do,
the pruned network is proved without having been searched (METHODS: retention certificates). μ and D are computed by
`verifiers.sparse.pairs`, and the result passes the same guard as every verifier's `unsat`. For what doesn't carry over,
the run's own answer about the pruned network counts.

A run's int8 networks are followed from their own networks in float32. What such a file computes of an input it computes
of the lattice point to which that is rounded; so both margins are compared there, over the box of these points.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from prunecert.bench.planning.exports import Calibration, Export, export_cell, int8_export
from prunecert.bench.planning.plan import robustness_instance
from prunecert.bench.planning.select import CHECKPOINTS
from prunecert.bench.report.retention import Fate, Retained, Way, show
from prunecert.bench.results.outcome import Outcome, seconds, settle
from prunecert.bench.results.row_types import ImageRow, VerdictRow
from prunecert.bench.results.session_types import SessionCell, SessionRow
from prunecert.bench.results.store import Log
from prunecert.bench.running.margin_transfer import Transfer, carries
from prunecert.bench.running.progress import Output
from prunecert.bench.schema.cell import INT8, fitting
from prunecert.bench.schema.suite import load_suite
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, UserError
from prunecert.models import DENSE
from prunecert.models.checkpoint_folders import hidden, locate
from prunecert.models.data import Dataset
from prunecert.models.datasets.source import load_split
from prunecert.printable import say
from prunecert.verifiers.base import Status, UnsupportedError
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.quantised.question import Quantised, read_quantised

#: Who proves by intervals alone.
_INTERVALS = ("ibp", "sparse-ibp")


@dataclass(frozen=True)
class Retention:
    """What came of a run.

    Args:
        networks: The pruned networks, in the run's order.
        classes: Names of the classes.
        contradictions: One sentence for each proof that carries over to a network that the run has broken.
    """

    networks: tuple[Retained, ...]
    classes: tuple[str, ...]
    contradictions: tuple[str, ...]


@dataclass(frozen=True)
class _Answer:
    """A verdict row as `settle` takes it."""

    status: str
    seconds: float
    stage: str
    verifier: str = ""


@dataclass(frozen=True)
class _Answers:
    """A cell of the run with its answers, by image and stage."""

    cell: SessionCell
    by_image: Mapping[int, Mapping[str, _Answer]]
    misclassified: frozenset[int]

    def outcome(self, image: int) -> tuple[Outcome, Way]:
        """Returns what became of an image, and in what way."""
        if image in self.misclassified:
            return Outcome("misclassified", "the image itself", 0.0, 0.0), Way.MISCLASSIFIED
        answers = self.by_image.get(image, {})
        settled = settle(self.cell.stages, [answers.get(stage.key) for stage in self.cell.stages])
        if settled.status == Status.SAT:
            return settled, Way.BROKEN
        if settled.status != Status.UNSAT:
            return settled, Way.OPEN
        proving = next(a for a in answers.values() if a.status == Status.UNSAT)
        if proving.verifier in _INTERVALS:
            return settled, Way.INTERVALS
        return settled, Way.SEARCH if proving.stage == "bab" else Way.ROOT


#: A network and smaller ones that its guarantees are followed into.
_Group = tuple[_Answers, list[_Answers]]


def retention(
    run: Path,
    checkpoints: Path,
    exports: Path,
    root: Path | None,
    tell: Callable[[str], None],
    *,
    compressions: Collection[float] | None = None,
    cells: str | None = None,
) -> Retention:
    """Follows each guarantee of a run's dense networks through its pruned ones.

    Args:
        run: The run directory.
        checkpoints: Folder of the trained cells.
        exports: Where ONNX files go.
        root: Folder of the data set, or None to look for it.
        tell: Takes a line about what is going on.
        compressions: Only pruned networks of these ratios; None: all.
        cells: Only those whose name fits one of these comma-separated shell patterns.

    Raises:
        UserError: There is no run, no pruned network is chosen, or none has a dense one of the same kind beside it; a
            checkpoint or the data are others than the run's.
    """
    session, answers = _read(run)
    groups = _groups(answers)
    if not groups:
        raise UserError(
            f"{run} has no dense network together with pruned ones of the same network, objective, radius and seed, "
            "verified on the same images, nor one together with its int8 form; name a run of a suite that has both."
        )
    groups = _chosen(groups, compressions, cells, run)
    suite = load_suite(session.suite)
    for line in hidden(checkpoints, (one.cell.name for dense, pruned in groups for one in (dense, *pruned))):
        tell(line)
    networks: list[Retained] = []
    disputes: list[str] = []
    data: dict[str, Dataset] = {}
    calibration = Calibration(lambda: load_split(suite.data, "val", root).images)
    for dense, pruned in groups:
        split = dense.cell.split
        if split not in data:
            data[split] = load_split(suite.data, split, root)  # type: ignore[arg-type]
            _check_data(data[split], dense.cell, run)
        for one, disagreements in _followed(
            dense, pruned, data[split], _Files(checkpoints, exports, calibration), tell
        ):
            networks.append(one)
            disputes += disagreements
    names = next(iter(data.values())).classes
    return Retention(tuple(networks), tuple(str(label) for label in range(names)), tuple(disputes))


def _chosen(
    groups: Sequence[_Group], compressions: Collection[float] | None, patterns: str | None, run: Path
) -> list[_Group]:
    """Returns the groups with those of their smaller networks that are asked for."""
    names = {item.cell.name for _, members in groups for item in members}
    if patterns is not None:
        names &= set(fitting(sorted(names), patterns, f"run {run}, pruned or int8"))
    ratios = sorted({item.cell.compression for _, members in groups for item in members})
    for ratio in compressions or ():
        if ratio not in ratios:
            raise UserError(
                f"Compression {ratio:g} is refused: {run} has {', '.join(f'{one:g}' for one in ratios)} with a dense "
                "network beside it."
            )
    chosen = [
        (
            dense,
            [item for item in members if item.cell.name in names and item.cell.compression in (compressions or ratios)],
        )
        for dense, members in groups
    ]
    if not any(members for _, members in chosen):
        raise UserError(f"{run} has no network that both --cells and --compression choose; leave one of them out.")
    return [group for group in chosen if group[1]]


def tell(
    run: Path,
    root: Path | None = None,
    *,
    checkpoints: Path = CHECKPOINTS,
    compressions: Collection[float] | None = None,
    cells: str | None = None,
) -> int:
    """Prints what became of a run's guarantees.

    Args:
        run: The run directory.
        root: Folder of the data set, or None to look for it.
        checkpoints: Folder of the trained cells.
        compressions: Only pruned networks of these ratios; None: all.
        cells: Only those whose name fits one of these comma-separated shell patterns.

    Returns:
        The exit code: 1 if a proof that carries over is contradicted by the run.
    """
    result = retention(run, checkpoints, Path("onnx_exports"), root, say, compressions=compressions, cells=cells)
    show(result.networks, result.classes, Output())
    for sentence in result.contradictions:
        print(sentence)
    return EXIT_REGRESSION if result.contradictions else EXIT_OK


def _read(run: Path) -> tuple[SessionRow, list[_Answers]]:
    """Returns the run's last session, and its cells with their answers."""
    session: SessionRow | None = None
    cells: dict[str, SessionCell] = {}
    rows: dict[str, dict[int, VerdictRow]] = {}
    wrong: dict[str, set[int]] = {}
    for row in Log(run).rows():
        if isinstance(row, SessionRow):
            session = row
            cells.update({cell.name: cell for cell in row.cells})
        elif isinstance(row, ImageRow) and not row.correct:
            wrong.setdefault(row.key, set()).add(row.image)
        elif isinstance(row, VerdictRow):
            rows.setdefault(row.key, {})[row.image] = row
    if session is None:
        raise UserError(f"{run} is no run of a suite; name the folder that prunecert run wrote.")
    answers = []
    for cell in cells.values():
        # Rounded weights aren't those of the cell's checkpoint.
        if cell.certified_only or cell.norm == "l2" or cell.timing is not None or cell.bits:
            continue
        by_image: dict[int, dict[str, _Answer]] = {}
        for stage in cell.stages:
            for image, row in rows.get(stage.key, {}).items():
                by_image.setdefault(image, {})[stage.key] = _Answer(
                    str(row.status), seconds(row.times), row.stage, stage.verifier
                )
        answers.append(_Answers(cell, by_image, frozenset(wrong.get(cell.image_key, ()))))
    return session, answers


def _groups(answers: Sequence[_Answers]) -> list[_Group]:
    """Returns each dense cell with the pruned ones beside it, and each cell in float32 with its int8 form."""

    def kind(item: _Answers) -> tuple[object, ...]:
        cell = item.cell
        return (
            cell.network.removesuffix(f" {INT8}"), cell.objective, cell.eps, cell.seed, cell.split,
            tuple(cell.numbers), cell.data_fingerprint,
        )  # fmt: skip

    plain = [item for item in answers if not item.cell.int8]
    groups = []
    for dense in plain:
        pruned = [
            item for item in plain
            if dense.cell.pruner == DENSE != item.cell.pruner and kind(item) == kind(dense)
        ]  # fmt: skip
        own = [item for item in answers if item.cell.name == f"{dense.cell.name}_{INT8}" and kind(item) == kind(dense)]
        if pruned or own:
            groups.append((dense, [*sorted(pruned, key=lambda item: item.cell.compression), *own]))
    return groups


def _check_data(data: Dataset, cell: SessionCell, run: Path) -> None:
    if data.fingerprint != cell.data_fingerprint:
        raise UserError(
            f"{run} was made with the data {cell.data_fingerprint[:12]}, and here are {data.fingerprint[:12]}; give "
            "the same ones with --data-root."
        )


@dataclass(frozen=True)
class _Files:
    """Where networks are found and made."""

    checkpoints: Path
    exports: Path
    calibration: Calibration


def _export(cell: SessionCell, files: _Files) -> Export:
    export = export_cell(locate(files.checkpoints, cell.name.removesuffix(f"_{INT8}")), files.exports)
    if cell.checkpoint_sha256 and export.checkpoint_sha256 != cell.checkpoint_sha256:
        raise UserError(
            f"Checkpoint {cell.name} has the hash {export.checkpoint_sha256[:12]}, and the run verified "
            f"{cell.checkpoint_sha256[:12]}; put the same one back, or verify this one."
        )
    if not cell.int8:
        return export
    export = int8_export(export, files.exports, files.calibration)
    if export.sha256 != cell.onnx_sha256:
        raise UserError(
            f"{cell.name} becomes a file of the hash {export.sha256[:12]} here, and the run verified "
            f"{cell.onnx_sha256[:12]}; use the onnxruntime and the data of the run, or verify this one."
        )
    return export


def _read_member(path: Path) -> Network | Quantised:
    return read_quantised(path) or read_network(path)


def _followed(
    dense: _Answers, pruned: Sequence[_Answers], data: Dataset, files: _Files, tell: Callable[[str], None]
) -> Iterator[tuple[Retained, list[str]]]:  # fmt: skip
    """Yields the fates of a dense network's guarantees in each of the pruned ones, and what is contradicted."""
    transfer = Transfer(read_network(_export(dense.cell, files).path))
    networks = {item.cell.name: _export(item.cell, files) for item in pruned}
    able = set()
    for name, export in networks.items():
        try:
            transfer.add(name, _read_member(export.path))
            able.add(name)
        except (UserError, UnsupportedError) as error:
            tell(f"{name}: no margin carries over: {error}")
    guarantees = [image for image in dense.cell.numbers if dense.outcome(image)[0].status == Status.UNSAT]
    place = {int(number): position for position, number in enumerate(data.indices)}
    fates: dict[str, list[Fate]] = {name: [] for name in networks}
    disputes: dict[str, list[str]] = {name: [] for name in networks}
    for image in guarantees:
        for item in pruned:
            name = item.cell.name
            question = robustness_instance(
                networks[name], data, place[image], Fraction(item.cell.eps), 1.0, f"{name} image {image}"
            )
            begin = time.perf_counter()
            proved = name in able and carries(transfer.bounds(name, question), question)
            took = time.perf_counter() - begin
            settled, way = item.outcome(image)
            if proved and way in (Way.BROKEN, Way.MISCLASSIFIED):
                disputes[name].append(
                    f"CONTRADICTION: {name}, image {image}: broken by {settled.by}; proved by a dense margin."
                )
            elif proved:
                way = Way.TRANSFER
            fates[name].append(Fate(image, int(data.labels[place[image]]), way, took, settled.seconds))
    for item in pruned:
        name = item.cell.name
        form = INT8 if item.cell.int8 else ""
        kept = Retained(name, dense.cell.name, item.cell.compression, tuple(fates[name]), form)
        yield kept, disputes[name]
