"""``require: certificates``: an image counts as verified only with a proof that is checked then and there.

Nothing that the run says of its certificates is believed: networks are looked up by their hashes, properties are
written anew from the images, and `verifiers.checker` goes through each proof.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from prunecert.bench.gating.records import Snapshot
from prunecert.bench.gating.result import CaseState, GateCase, GateResult
from prunecert.bench.running.proof_checks import EXPORTS, Networks, ProvedRun, check_run, images_of
from prunecert.printable import plural
from prunecert.verifiers.base import Status

NAME = "certificates"


@dataclass(frozen=True)
class Sources:
    """What properties and networks are found by.

    Args:
        exports: Folder of the networks' ONNX files.
        data_root: Folder of the images; None: it is looked for.
        suite: The run's suite, name or file; None: the shipped one that it names.
        workers: Processes side by side.
    """

    exports: Path = EXPORTS
    data_root: Path | None = None
    suite: str | None = None
    workers: int = 1


def with_certificates(result: GateResult, snapshot: Snapshot, directory: Path, sources: Sources) -> GateResult:
    """Returns a comparison's result with a test case more in each cell: that what is verified is proved.

    Args:
        result: The comparison.
        snapshot: The run.
        directory: The run's directory.
        sources: Where networks and images are.

    Raises:
        UserError: A network or the images aren't here.
    """
    run = ProvedRun(directory)
    verified = [
        (cell.name, image, Status.UNSAT)
        for cell in result.cells
        for image, outcome in snapshot.cells[cell.name].outcomes().items()
        if outcome.status == Status.UNSAT
    ]
    lines: dict[str, list[str]] = defaultdict(list)
    for name, image, status in verified:
        row = run.proof(name, image, status)
        if row is None or not row.sha256:
            why = row.detail if row is not None and row.detail else "prunecert run --certificates writes them"
            lines[name].append(f"image {image} has no certificate: {why}")
    networks, images = Networks([sources.exports]), images_of(run, sources.suite, sources.data_root)
    tally = check_run(run, networks, images, workers=sources.workers, places=verified)
    for problem in tally.problems:
        lines[problem.cell].append(f"image {problem.image}: {problem.problem}")
    counts = {cell.name: sum(name == cell.name for name, *_ in verified) for cell in result.cells}
    return replace(
        result,
        cells=[
            replace(cell, cases=[*cell.cases, _case(cell.name, counts[cell.name], lines[cell.name])])
            for cell in result.cells
        ],
    )


def _case(cell: str, verified: int, lines: list[str]) -> GateCase:
    if lines:
        message = f"{len(lines)} of {plural(verified, 'verified image')} without a certificate that holds"
        return GateCase(cell, NAME, CaseState.FAIL, message, lines)
    return GateCase(cell, NAME, CaseState.PASS, f"{plural(verified, 'certificate')} checked and accepted")
