"""A run's folder, read: its table, its figures and its rows; and runs started from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prunecert.api.evaluation import data_frame
from prunecert.bench.report import figures, table
from prunecert.bench.results.row_types import VerdictRow
from prunecert.bench.results.store import Log
from prunecert.bench.results.summary import summarise
from prunecert.errors import UserError, did_you_mean
from prunecert.pages import table as html_table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Console

_COLUMNS = ("network", "objective", "eps", "pruner", "compression", "seed", "sparsity", "images")
_SHARES = ("clean", "attacked", "verified")


@dataclass(frozen=True, eq=False)
class Run:
    """What a run has found, whether it is finished or not.

    Args:
        folder: Its folder.
        summary: What ``summary.json`` holds, made anew from the rows.
    """

    folder: Path
    summary: Mapping[str, Any] = field(repr=False)

    @property
    def networks(self) -> list[str]:
        """The names of its networks."""
        return [cell["name"] for cell in self.summary["cells"]]

    @property
    def contradictions(self) -> list[dict[str, Any]]:
        """Images that one verifier proves and another breaks; there should be none."""
        return list(self.summary["contradictions"])

    def to_pandas(self, rows: Literal["networks", "verdicts"] = "networks") -> pd.DataFrame:
        """Returns a row for each network, or for each verdict.

        Shares are within 0 and 1, with the ends of their 95 % intervals (``verified_low``, ``verified_high``).

        Args:
            rows: ``networks`` or ``verdicts``.

        Raises:
            UserError: pandas isn't installed, or `rows` is something else.
        """
        if rows == "networks":
            return data_frame(_by_network(self.summary["cells"]))
        if rows != "verdicts":
            raise UserError(f"rows={rows!r} is refused; allowed are 'networks' and 'verdicts'.")
        answers = [row for row in Log(self.folder).rows() if isinstance(row, VerdictRow)]
        return data_frame(
            {
                "network": [row.cell for row in answers],
                "image": [row.image for row in answers],
                "verifier": [row.verifier for row in answers],
                "status": [str(row.status) for row in answers],
                "seconds": [row.times.wall_s if row.times is not None else float("nan") for row in answers],
                "detail": [row.detail for row in answers],
            }
        )

    def figure(self, name: str = "verified-accuracy") -> Figure:
        """Returns one of the run's figures, to be shown, changed or saved.

        Args:
            name: ``kept-accuracy`` or ``verified-accuracy`` (against compression), ``time`` (against sparsity) or
                ``certified-radius``.

        Raises:
            UserError: There is no such figure, or the run has nothing to draw in it.
        """
        if name not in figures.FIGURES:
            raise UserError(did_you_mean("figure", name, figures.FIGURES))
        drawn = figures.figure(self.summary, name)
        if drawn is None:
            raise UserError(f"The run {str(self.folder)!r} has nothing for the figure {name!r}.")
        return drawn

    def __repr__(self) -> str:
        images = sum(cell["images"] for cell in self.summary["cells"])
        state = "finished" if self.summary["finished"] else "not finished"
        return (
            f"<Run {self.folder}: {self.summary['suite']}, {len(self.networks)} networks, {images:,} images, {state}>"
        )

    def _repr_html_(self) -> str:
        headings = [heading for heading, _ in table.COLUMNS]
        return html_table(headings, table.rows(self.summary), repr(self).strip("<>"))


def _by_network(cells: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {"name": [cell["name"] for cell in cells]}
    for key in _COLUMNS:
        columns[key] = [cell[key] for cell in cells]
    for share in _SHARES:
        for suffix, end in (("", "value"), ("_low", "low"), ("_high", "high")):
            columns[f"{share}{suffix}"] = [cell[share][end] for cell in cells]
    columns["undecided"] = [cell["undecided"]["total"] for cell in cells]
    columns["median_seconds"] = [cell["time"]["median_s"] for cell in cells]
    return columns


def load_run(folder: str | Path) -> Run:
    """Reads what `prunecert run` has written, also while it is still running.

    Args:
        folder: The run's folder.

    Example:
        run = prunecert.load_run("results/runs/cifar10-4nets-default")
        run.to_pandas().pivot(index="compression", columns="pruner", values="verified")
        run.figure("verified-accuracy")

    Raises:
        UserError: It holds no run, or is damaged.
    """
    path = Path(folder)
    return Run(path, summarise(path))


def run_suite(
    suite: str | Path,
    *,
    profile: str = "default",
    out: str | Path | None = None,
    cells: str | None = None,
    verifiers: str | None = None,
    images: int | None = None,
    checkpoints: str | Path | None = None,
    data_root: str | Path | None = None,
    workers: int | None = None,
    device: str = "cpu",
    skip_unavailable: bool = False,
    console: Console | None = None,
) -> Run:
    """Runs a suite, or goes on where an earlier run in the same folder stopped.

    Args:
        suite: A shipped suite's name, or the path of a YAML file.
        profile: One of its profiles.
        out: The run's folder; None: one of the suite's name under ``results/runs``.
        cells: Only cells whose names fit one of these shell patterns, with commas between.
        verifiers: Verifiers in the place of the suite's, with commas between.
        images: How many images.
        checkpoints: Folder of the trained networks; None: ``checkpoints``, then those that come with the
            package; in a checkout the latter alone.
        data_root: Folder of the data.
        workers: Verifier processes side by side.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        skip_unavailable: Whether verifiers that are not installed are left out.
        console: Where progress is shown; None: on standard output.

    Returns:
        The run; `contradictions` should be empty.

    Raises:
        UserError: Anything about the input; what was answered before is kept.
    """
    from prunecert.bench.planning import select
    from prunecert.bench.running import run
    from prunecert.bench.running.request import RunRequest
    from prunecert.bench.schema.suite import load_suite

    request = RunRequest(
        suite=load_suite(str(suite), profile),
        named=str(suite),
        out=None if out is None else Path(out),
        cells=cells,
        verifiers=verifiers,
        images=images,
        checkpoints=select.CHECKPOINTS if checkpoints is None else Path(checkpoints),
        data_root=None if data_root is None else Path(data_root),
        workers=workers,
        device=device,
        skip_unavailable=skip_unavailable,
    )
    result = run.run_suite(request, console)
    return load_run(result.out)
