"""The end of a run: its summary, tables, figures and pages, what is wrong with it, and the exit code that says so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prunecert.bench.report.medium import Table
from prunecert.bench.results.store import Log
from prunecert.bench.results.summary import summarise
from prunecert.bench.results.timing import summarise_times
from prunecert.bench.results.timing_observations import read
from prunecert.errors import EXIT_OK, EXIT_REGRESSION, EXIT_USAGE
from prunecert.files import write_text

if TYPE_CHECKING:
    from prunecert.models.data import Dataset


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a run comes to.

    Args:
        summary: What ``summary.json`` holds; see `bench.results.summary_types`.
        paths: The files written; none if it is a part and others are not done.
    """

    summary: dict[str, Any] = field(repr=False)
    paths: tuple[Path, ...] = ()

    @property
    def contradictions(self) -> list[dict[str, Any]]:
        """Images that one verifier proves and another breaks; see `bench.results.summary_types.ContradictionRecord`."""
        contradictions: list[dict[str, Any]] = self.summary["contradictions"]
        return contradictions

    @property
    def broken_verifiers(self) -> list[str]:
        """Verifiers that failed on everything they were asked."""
        names: list[str] = self.summary["broken_verifiers"]
        return names

    @property
    def untaken(self) -> list[str]:
        """Networks that no verifier takes, so that nothing is known of them."""
        return [
            cell["name"] for cell in self.summary.get("cells", ()) if cell["unsupported"] and not cell["by_verifier"]
        ]

    @property
    def exit_code(self) -> int:
        """0; 1 if verifiers contradict each other; 2 if one failed on everything, or none takes a network."""
        if self.contradictions:
            return EXIT_REGRESSION
        return EXIT_USAGE if self.broken_verifiers or self.untaken else EXIT_OK


def conclude(
    out: Path,
    console: Console,
    *,
    part: bool = False,
    data: Sequence[Dataset] = (),
    checkpoints: Path | None = None,
) -> Conclusion:
    """Writes and shows the summary, the figures and the report of a run, or of a part.

    What the directory holds decides which: times have tables of their own.

    Args:
        out: The run directory.
        console: Where tables are shown, contradictions named, and paths said.
        part: Whether this is one of several processes that fill the directory; the last one writes the report.
        data: Splits whose images the page shows.
        checkpoints: Folder of the networks, whose gradients the page shows.
    """
    from prunecert.bench.report.publish import write_all

    if holds_times(out):
        summary, paths = conclude_times(out, console)
    else:
        summary, paths = write_all(out, console, part=part, data=data, checkpoints=checkpoints)
    if not paths:
        console.print(
            f"this part is done; the last part that runs into {out} writes the report, or prunecert merge does",
            markup=False,
            soft_wrap=True,
        )
    for path in paths:
        console.print(f"wrote {path}", markup=False, soft_wrap=True)
    conclusion = Conclusion(summary, tuple(paths))
    _name_faults(conclusion, console)
    return conclusion


def _name_faults(conclusion: Conclusion, console: Console) -> None:
    """Names contradictions or, where there are none, verifiers that never worked."""
    for item in conclusion.contradictions:
        console.print(
            f"CONTRADICTION: {item['cell']} image {item['image']}: {item['unsat_by']} proves it, "
            f"{item['sat_by']} breaks it",
            markup=False,
            soft_wrap=True,
        )
    if conclusion.contradictions:
        return
    for name in conclusion.untaken:
        console.print(f"NOT VERIFIED: no verifier that was asked takes {name}; see above", markup=False, soft_wrap=True)
    for name in conclusion.broken_verifiers:
        console.print(f"BROKEN: {name} failed on every instance; see the logs folder of the run", markup=False)


def holds_times(out: Path) -> bool:
    """Whether a run directory is that of a timing suite."""
    return any(session.timed for session in Log(out).sessions())


def conclude_times(out: Path, console: Console) -> tuple[dict[str, Any], list[Path]]:
    """Writes and shows the tables and figures of a timing run; returns the usual summary, and the paths written."""
    from prunecert.bench.report import timing_figures, timing_table

    times = summarise_times(read(out))
    paths = [
        write_text(out / "timing.html", timing_table.html(times)),
        write_text(out / "timing.json", json.dumps(times, indent=1, allow_nan=False) + "\n"),
        write_text(out / "timing.md", timing_table.markdown(times)),
        *timing_figures.save(times, out / "figures"),
    ]
    for group in times["groups"]:
        console.print(Table(timing_table.COLUMNS, timing_table.rows(group)).terminal(group["name"]))
    for line in timing_table.notes(times):
        console.print(line, markup=False, soft_wrap=True)
    return summarise(out), paths
