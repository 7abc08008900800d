"""Everything that a run leaves beside its rows: summary, table, figures, page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from prunecert.bench.report import certificates_table as certified
from prunecert.bench.report import figures, html, shapes, table
from prunecert.bench.results.summary import summarise
from prunecert.files import write_text


def write_all(directory: Path, console: Console, *, part: bool = False) -> tuple[dict[str, Any], list[Path]]:
    """Summarises a run directory, shows the table, and writes the files.

    Args:
        directory: The run directory.
        console: Where the table is shown.
        part: Whether this is one of several processes that fill the directory. Files are then written only when
            all parts are done, so that no part overwrites the whole with what it saw of it.

    Returns:
        The summary, and the paths of ``report.html``, ``summary.json``, ``table.md`` and the figures.
    """
    summary = summarise(directory)
    if part and not summary["finished"]:
        table.show(summary, console)
        return summary, []
    paths = [
        write_text(directory / "report.html", html.render(summary)),
        write_text(directory / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n"),
        write_text(
            directory / "table.md",
            "\n".join(
                [table.markdown(summary), shapes.markdown(shapes.of_summary(summary)), certified.markdown(summary)]
            ),
        ),
        *figures.save(summary, directory / "figures"),
    ]
    table.show(summary, console)
    return summary, paths
