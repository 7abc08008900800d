"""The HTML page of a run: one file, no outside requests, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prunecert.bench.machine import quote
from prunecert.bench.report import certificates_table as certified
from prunecert.bench.report import pairs_table, screen, shapes, table
from prunecert.bench.report.figures import CERTIFIED, FIGURES, caption, inline_svg
from prunecert.bench.report.medium import templates


def render(summary: Mapping[str, Any], impact: str = "") -> str:
    """Returns the page.

    Args:
        summary: A run's summary.
        impact: The section of `bench.report.impact`.
    """
    from markupsafe import Markup

    filters: dict[str, Callable[..., Any]] = {
        "percent": table.percent,
        "seconds": table.seconds,
        "undecided": table.undecided,
    }
    environment = templates("prunecert.bench.report", filters)
    figures: list[dict[str, str]] = []
    certified_figures: list[dict[str, str]] = []
    for name in FIGURES:
        svg = inline_svg(summary, name)
        if svg is not None:
            # Our own drawing: matplotlib escapes the names that it writes as text.
            place = certified_figures if name == CERTIFIED else figures
            place.append({"caption": caption(summary, name), "svg": Markup(svg)})  # noqa: S704
    beneath = (*table.legend(summary), *table.notes(summary))
    return environment.get_template("report.html.j2").render(
        run=summary,
        columns=table.columns(summary),
        rows=table.rows(summary),
        finding=screen.finding(summary),
        notes=[note for note in beneath if not note.startswith("NOT PUBLISHABLE")],
        figures=figures,
        pairs_title=pairs_table.CAPTION,
        pairs_columns=pairs_table.COLUMNS,
        pairs_rows=pairs_table.rows(summary),
        pairs_notes=pairs_table.notes(summary),
        certified_title=certified.CAPTION,
        certified_columns=certified.columns(summary),
        certified_rows=certified.rows(summary),
        certified_notes=certified.notes(summary),
        certified_figures=certified_figures,
        shape_columns=shapes.COLUMNS,
        shapes=shapes.of_summary(summary),
        command=quote(summary["command"]),
        # Made by a template that escapes what it shows.
        impact=Markup(impact),  # noqa: S704
    )
