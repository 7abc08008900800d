"""The table of certificates: a table of its own, in a terminal, as Markdown and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunecert.bench.report.medium import Table

Summary = Mapping[str, Any]
TITLE = "Certificates of randomized smoothing"
CAPTION = f"{TITLE}: % of images certified at l2 radius r"


def columns(summary: Summary) -> tuple[tuple[str, bool], ...]:
    """Returns headings, and whether each column holds numbers; a column for each radius that any cell can reach."""
    return (
        ("network", False),
        ("objective", False),
        ("σ", True),
        ("pruner", False),
        ("seed", True),
        ("×", True),
        ("n", True),
        ("samples; α", True),
        ("unsmoothed %", True),
        *((f"r = {radius:g}", True) for radius in _radii(summary)),
        ("ACR", True),
        ("abstained", True),
        ("wrong", True),
        ("failed", True),
        ("median s", True),
    )


def _radii(summary: Summary) -> list[float]:
    return sorted({item["radius"] for cell in summary["certificates"] for item in cell["certified"]})


def narrow(summary: Summary) -> list[tuple[str, Table]]:
    """Returns a table for each network, objective and σ, for 80 columns, with its title."""
    radii = _radii(summary)
    columns = (
        ("pruner", False),
        ("seed", True),
        ("×", True),
        *((f"r = {radius:g}", True) for radius in radii),
        ("ACR", True),
    )
    groups: dict[str, list[list[str]]] = {}
    for cell in summary["certificates"]:
        title = f"{cell['network']}, {cell['objective']}, σ = {cell['sigma']:g}, {cell['images']} images: % certified"
        at = {item["radius"]: item for item in cell["certified"]}
        shares = [_percent(at[radius], interval=False) if radius in at else "–" for radius in radii]
        acr = "–" if cell["acr"] is None else f"{cell['acr']:.3f}"
        groups.setdefault(title, []).append(
            [cell["pruner"], str(cell["seed"]), f"{cell['compression']:g}", *shares, acr]
        )
    return [(title, Table(columns, rows)) for title, rows in groups.items()]


def rows(summary: Summary) -> list[list[str]]:
    """Returns the table's cells as text, in the order of `columns`."""
    return [_row(cell, _radii(summary)) for cell in summary["certificates"]]


def _row(cell: Mapping[str, Any], radii: list[float]) -> list[str]:
    at = {item["radius"]: item for item in cell["certified"]}
    to_do = cell["images_asked"] - cell["images"]
    failed = ", ".join(f"{status} {count}" for status, count in cell["failed"].items()) or "0"
    seconds = cell["time"]["median_s"]
    return [
        cell["network"],
        cell["objective"],
        f"{cell['sigma']:g}",
        cell["pruner"],
        str(cell["seed"]),
        f"{cell['compression']:g}",
        str(cell["images"]),
        f"{cell['n0']} + {cell['n']:,}; {cell['alpha']:g}",
        _percent(cell["clean"], interval=False),
        *(_percent(at[radius]) if radius in at else "–" for radius in radii),
        "–" if cell["acr"] is None else f"{cell['acr']:.3f}" + _error(cell["acr_error"]),
        str(cell["abstained"]),
        str(cell["wrong"]),
        failed + (f" + {to_do} to do" if to_do else ""),
        "–" if seconds is None else f"{seconds:.3g}",
    ]


def _error(value: float | None) -> str:
    return "" if value is None else f" ± {1.96 * value:.3f}"


def _percent(share: Mapping[str, Any], interval: bool = True) -> str:
    if share["value"] is None:
        return "–"
    text = f"{100 * share['value']:.1f}"
    return f"{text} ({100 * share['low']:.1f}–{100 * share['high']:.1f})" if interval else text


def notes(summary: Summary) -> list[str]:
    """Returns what has to be said beneath the table."""
    if not summary["certificates"]:
        return []
    lines = [
        "certificates speak of the smoothed classifier (the class that the network gives most often under Gaussian "
        "noise), not of the network: its class is the label at every point within the l2 radius r, in pixels of "
        "[0, 1]. Each holds with probability 1 − α over the noise, unlike a proof, so none counts as verified. Shares "
        f"are of all images, with {100 * summary['confidence']:.0f} % Wilson intervals; ACR is the average certified "
        "radius, 0 where it abstains or is wrong, ± 1.96 standard errors; a dash: no radius as large can be shown with "
        "so many samples; unsmoothed: the clean accuracy of the network itself."
    ]
    for cell in summary["certificates"]:
        if cell["note"]:
            lines.append(f"WARNING: {cell['name']} is {cell['note']}.")
    return lines


def markdown(summary: Summary) -> str:
    """Returns the table and its notes as Markdown; nothing where nothing is certified."""
    if not summary["certificates"]:
        return ""
    lines = Table(columns(summary), rows(summary)).markdown()
    return "\n".join(["", f"## {CAPTION}", "", *lines, "", *notes(summary), ""])
