"""Everything that a run leaves beside its rows: summary, table, figures, page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from prunecert.bench.report import certificates_table as certified
from prunecert.bench.report import figures, gradients, html, impact, pairs_table, shapes, table
from prunecert.bench.results.impact.images import outcomes_of_rows
from prunecert.bench.results.store import Log
from prunecert.bench.results.summary import Rows, read, summary_of
from prunecert.files import write_text

if TYPE_CHECKING:
    from prunecert.models.data import Dataset


def write_all(
    directory: Path,
    console: Console,
    *,
    part: bool = False,
    data: Sequence[Dataset] = (),
    checkpoints: Path | None = None,
) -> tuple[dict[str, Any], list[Path]]:
    """Summarises a run directory, shows the table, and writes the files.

    Args:
        directory: The run directory.
        console: Where the table is shown.
        part: Whether this is one of several processes that fill the directory. Files are then written only when
            all parts are done, so that no part overwrites the whole with what it saw of it.
        data: Splits whose images the page shows; without them it names the images by number.
        checkpoints: Folder of the networks; without it the page says nothing of gradients.

    Returns:
        The summary, and the paths of ``report.html``, ``summary.json``, ``table.md`` and the figures.
    """
    rows = read(Log(directory))
    summary = summary_of(rows)
    if part and not summary["finished"]:
        table.show(summary, console)
        return summary, []
    paths = [
        write_text(directory / "report.html", html.render(summary, _impact(rows, data, checkpoints))),
        write_text(directory / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n"),
        write_text(
            directory / "table.md",
            "\n".join(
                [
                    table.markdown(summary),
                    shapes.markdown(shapes.of_summary(summary)),
                    certified.markdown(summary) + pairs_table.markdown(summary),
                ]
            ),
        ),
        *figures.save(summary, directory / "figures"),
    ]
    table.show(summary, console)
    return summary, paths


def _impact(rows: Rows, data: Sequence[Dataset], checkpoints: Path | None) -> str:
    names = impact.class_names(rows.latest().data[0].source if rows.latest().data else "")
    outcomes = outcomes_of_rows(rows)
    measured = None if checkpoints is None else gradients.gradients(outcomes, names, data, checkpoints)
    return impact.section(outcomes, names, data, measured)
