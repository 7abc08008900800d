"""Groups of methods against each other, as a table; see `bench.results.impact.contrasts`."""

from __future__ import annotations

from collections.abc import Sequence

from prunecert.bench.report.impact_tables import of_change, p_value
from prunecert.bench.report.medium import Column, Table
from prunecert.bench.results.impact.contrasts import TOLERANCES, ContrastLine

CONTRAST_NOTE = (
    "Mean over a group's methods minus the mean over those of the other that are matched with each of them, in points; "
    "paired by image and seed. n: methods of both. equal: what they are matched by, within "
    + " and ".join(f"{100 * (ratio - 1):.0f} % of {measure}" for measure, ratio in TOLERANCES.items())
    + "; in brackets the ratio of what is left of it; where both match the same networks, weights alone stand there. "
    "95 % intervals and p by a bootstrap over images and seeds, p corrected by Holm for all tests of the family. They "
    "speak of other images: of other trainings one or two seeds know little, and of other methods nothing."
)


def contrasts_table(lines: Sequence[ContrastLine]) -> Table:
    """Returns the contrasts of a family, line by line."""
    columns: list[Column] = [
        ("contrast", False),
        ("×", True),
        ("equal", False),
        ("n", True),
        ("seeds", True),
        ("verified (95 %)", True),
        ("p", True),
        ("under attack (95 %)", True),
        ("p", True),
    ]
    rows = []
    for line in lines:
        verified, attacked = line.changes.get("verified"), line.changes.get("attacked")
        rows.append(
            [
                line.title,
                f"{line.nominal:g}",
                f"{line.measure} ({line.ratio:.2f})",
                f"{len(line.methods)}, {len(line.others)}",
                str(line.seeds),
                of_change(verified),
                "–" if verified is None else p_value(verified.p),
                of_change(attacked),
                "–" if attacked is None else p_value(attacked.p),
            ]
        )
    return Table(columns, rows)


def unmatched_note(lines: Sequence[ContrastLine]) -> str:
    """Returns which methods nothing was near in size, or nothing."""
    parts = [
        f"{', '.join(line.unmatched)} at {line.nominal:g}× by {line.measure} ({line.title})"
        for line in lines
        if line.unmatched
    ]
    return (
        f"Left out, since what they would be held against is missing or not near in size: {'; '.join(parts)}."
        if parts
        else ""
    )
