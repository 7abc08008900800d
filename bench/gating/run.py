"""Holds a run to a baseline: the run is there already, or is made first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prunecert.bench.gating.certificates import Sources, with_certificates
from prunecert.bench.gating.compare import compare
from prunecert.bench.gating.records import Snapshot, of_run
from prunecert.bench.gating.refusal import planned, refuse_incomparable
from prunecert.bench.gating.result import GateResult
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.running.proof_checks import EXPORTS
from prunecert.bench.running.request import RunRequest
from prunecert.bench.schema.cell import fitting
from prunecert.bench.schema.gate import RuleSet
from prunecert.bench.schema.suite import available_suites, load_rules, load_suite


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRequest:
    """What is gated, and how.

    Args:
        base: The baseline.
        directory: The run directory.
        run: The run that is made first; None: it is there already.
        suite: The suite that it is made of, name or file; None: that of the run that is there.
        rules: A file with a ``gate:`` section; None: the suite's own.
        cells: Shell patterns of cell names, comma-separated; None: all cells of the baseline.
        skip_unavailable: Whether the run may lack verifiers that were not installed.
        any_version: Whether verifiers may have other versions than in the baseline.
        fail_on_time: Whether a slower run is a regression.
        require: What each verified image needs, one of `bench.schema.gate.REQUIREMENTS`; empty: what the rules say.
        exports: Folder of the networks' ONNX files.
        data_root: Folder of the images; None: it is looked for.
    """

    base: Snapshot
    directory: Path
    run: RunRequest | None = None
    suite: str | None = None
    rules: Path | None = None
    cells: str | None = None
    skip_unavailable: bool = False
    any_version: bool = False
    fail_on_time: bool = False
    require: str = ""
    exports: Path = EXPORTS
    data_root: Path | None = None

    def rule_set(self) -> RuleSet:
        """Returns the rules of the file; else those of the suite; else the defaults.

        Raises:
            UserError: A file can't be read.
        """
        if self.rules is not None:
            return load_rules(self.rules)
        suite = self.suite or self.base.head.suite
        if self.suite is not None or suite in available_suites():
            return load_suite(suite).gate or RuleSet()
        return RuleSet()

    def chosen_cells(self) -> list[str] | None:
        """Returns the baseline's cells that fit the patterns; None for all.

        Raises:
            UserError: One fits none.
        """
        return None if self.cells is None else fitting(self.base.cells, self.cells, "the baseline")


def run_gate(request: GateRequest) -> GateResult:
    """Compares a run with a baseline; makes the run first where that is asked for.

    What makes a comparison impossible is found before the first image where the run is still to be made.

    Raises:
        UserError: The two can't be compared.
    """
    # Before the long work, not after it.
    rules = request.rule_set()
    required = request.require or rules.require
    cells = request.chosen_cells()
    if request.run is not None:
        run = request.run
        if required:
            run = replace(run, certificates=True, argv=(*run.argv, "--certificates"))
        _run(request, run, list(request.base.cells if cells is None else cells))
    snapshot = of_run(request.directory)
    result = compare(
        request.base,
        snapshot,
        rules,
        cells=cells,
        skip_unavailable=request.skip_unavailable,
        any_version=request.any_version,
        fail_on_time=request.fail_on_time,
    )
    if required:
        sources = Sources(request.exports, request.data_root, request.suite)
        result = with_certificates(result, snapshot, request.directory, sources)
    return result


def _run(request: GateRequest, run: RunRequest, names: Sequence[str]) -> None:
    """Runs the suite, unless it couldn't be compared with the baseline when it is done.

    What the run's exit code stands for is in the run, so the gate finds it there.
    """
    from prunecert.bench.running.run import run_suite

    def inspect(session: SessionRow) -> None:
        refuse_incomparable(
            request.base,
            planned(session, request.base),
            list(names),
            skip_unavailable=request.skip_unavailable,
            any_version=request.any_version,
        )

    # A sample is compared with a sample only: without the data nothing is begun.
    run_suite(replace(run, sample=any(data.sample for data in request.base.head.data)), inspect=inspect)
