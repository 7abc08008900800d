"""The table of a run: one line a cell, in a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console

from prunecert.bench.planning.select import describe_missing
from prunecert.bench.planning.stages import describe_float32_only, other_reasons
from prunecert.bench.report import certificates_table as certified
from prunecert.bench.report import pairs_table, proofs_table, screen
from prunecert.bench.report.medium import Table, print_sentence
from prunecert.bench.results.protocol_types import Missing
from prunecert.bench.results.words import TABLE_WIDTH

Summary = Mapping[str, Any]
#: Heading, and whether the column holds numbers.
COLUMNS: tuple[tuple[str, bool], ...] = (
    ("network", False),
    ("objective", False),
    ("ε", False),
    ("pruner", False),
    ("seed", True),
    ("×", True),
    ("sparsity", True),
    ("n", True),
    ("clean %", True),
    ("verified %", True),
    ("under attack %", True),
    ("verified by", False),
    ("broken by", False),
    ("undecided", False),
    ("median s", True),
    ("mean s", True),
)
SIZE = ("kB", True)


def columns(summary: Summary) -> tuple[tuple[str, bool], ...]:
    """Returns headings, and whether each column holds numbers: with the networks' sizes, where weights are rounded."""
    return (*COLUMNS, *((SIZE,) if _sized(summary) else ()))


def _sized(summary: Summary) -> bool:
    return any("size" in cell for cell in summary["cells"])


def _size(cell: Mapping[str, Any]) -> str:
    return f"{cell['size']['kilobytes']:.3g}" if "size" in cell else "–"


def percent(share: Mapping[str, Any], interval: bool = True) -> str:
    """Returns a share as ``47.0 (37.5–56.7)``; a dash where there are no images."""
    if share["value"] is None:
        return "–"
    text = f"{100 * share['value']:.1f}"
    return f"{text} ({100 * share['low']:.1f}–{100 * share['high']:.1f})" if interval else text


def seconds(value: float | None) -> str:
    """Returns seconds with three significant digits, down to a tenth of a millisecond."""
    if value is None:
        return "–"
    return f"{value:.4f}" if value < 0.1 else f"{value:.3g}"


def mean_seconds(cell: Mapping[str, Any]) -> str:
    """Returns the mean seconds an image, and which verifier took most of all time: ``0.52 (neuralsat 91 %)``.

    Most images cost next to nothing and a few cost almost everything, which a median doesn't show.
    """
    time = cell["time"]
    # No verifier may take the network: then nobody has spent any time.
    if not time["images"] or not cell["by_verifier"]:
        return "–"
    text = seconds(time["total_s"] / time["images"])
    totals = {name: counts["total_s"] for name, counts in cell["by_verifier"].items()}
    most, whole = max(totals, key=lambda name: totals[name]), sum(totals.values())
    return f"{text} ({most} {100 * totals[most] / whole:.0f} %)" if whole > 0 and len(totals) > 1 else text


def _counts(cell: Mapping[str, Any], status: str) -> str:
    return ", ".join(f"{name} {c[status]}" for name, c in cell["decided_by"].items() if c[status]) or "–"


def undecided(cell: Mapping[str, Any]) -> str:
    """Returns the undecided images by their last status, those still to come, and all failures by verifier."""
    counts = cell["undecided"]
    split = ", ".join(f"{status} {count}" for status, count in counts.items() if status != "total" and count)
    text = f"{counts['total']} ({split})" if split else str(counts["total"])
    if cell["pending"] or cell["images"] < cell["images_asked"]:
        text += f" + {cell['pending'] + cell['images_asked'] - cell['images']} to do"
    failures = failures_of(cell)
    return f"{text}; FAILED: {failures}" if failures else text


def failures_of(cell: Mapping[str, Any]) -> str:
    """Returns which verifiers failed how often: errors and memory, on whatever image."""
    parts = [
        f"{name} {status} {counts[status]}"
        for name, counts in cell["by_verifier"].items()
        for status in ("error", "memout")
        if counts[status]
    ]
    return ", ".join(parts)


def rows(summary: Summary) -> list[list[str]]:
    """Returns the table's cells as text, in the order of `columns`."""
    sized = _sized(summary)
    return [
        [
            cell["network"],
            cell["objective"],
            cell["eps"],
            cell["pruner"],
            str(cell["seed"]),
            f"{cell['compression']:g}",
            f"{cell['sparsity']:.3f}",
            str(cell["images"]),
            percent(cell["clean"], interval=False),
            percent(cell["verified"]),
            percent(cell["attacked"]),
            _counts(cell, "unsat"),
            _counts(cell, "sat"),
            undecided(cell),
            seconds(cell["time"]["median_s"]),
            mean_seconds(cell),
            *([_size(cell)] if sized else []),
        ]
        for cell in summary["cells"]
    ]


def legend(summary: Summary) -> list[str]:
    """Returns what the headings stand for; nothing where there is no table."""
    if not summary["cells"]:
        return []
    return [
        "verified ≤ true robust accuracy ≤ robust accuracy under attack; in brackets the "
        f"{100 * summary['confidence']:.0f} % Wilson intervals; median s, mean s: all verifiers up to the deciding "
        "one, a correctly classified image, without start-up (an undecided one counts with all that was spent), "
        "and which verifier took most of all time."
        + (
            " kB: weights that aren't zero at their bits, scales and biases at 32, without the places of the zeros."
            if _sized(summary)
            else ""
        )
    ]


def notes(summary: Summary) -> list[str]:
    """Returns what has to be said beneath the table, beside its legend."""
    lines = []
    for cell in summary["cells"]:
        if cell["note"]:
            lines.append(f"{cell['name']}: {cell['note']}.")
        lines += [f"{cell['name']}: {line}" for line in _left_out(other_reasons(cell["unsupported"]))]
    lines += describe_float32_only({cell["name"]: cell["unsupported"] for cell in summary["cells"]})
    lines += [f"left out: {name} ({hint})" for name, hint in summary["skipped"].items()]
    missing = msgspec.convert(summary["missing"], list[Missing])
    lines += [f"no checkpoint yet: {line}" for line in describe_missing(missing)]
    lines += [
        f"data: the {data['split']} split is an unofficial copy of {data['source'].partition(' (')[0]} (its files' "
        f"checksums are not the published ones); fingerprint of its pixels and labels: {data['fingerprint']}."
        for data in summary["data"]
        if not (data["official"] or data["sample"])
    ]
    lines += proofs_table.notes(summary)
    if not summary["publishable"]:
        lines.append("NOT PUBLISHABLE: " + "; ".join(summary["unpublishable"]) + ".")
    return lines


def _left_out(unsupported: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each reason why verifiers don't take a network, with their names."""
    named: dict[str, list[str]] = {}
    for verifier, reason in unsupported.items():
        named.setdefault(reason, []).append(verifier)
    return [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} left out there: {reason}"
        for reason, names in named.items()
    ]


def show(summary: Summary, console: Console) -> None:
    """Prints the table, its notes and the finding: by network where the terminal is narrow."""
    if summary["cells"]:
        _show_cells(summary, console)
    if summary["certificates"]:
        _show_certificates(summary, console)
    if summary.get("pairs"):
        _show_pairs(summary, console)
    beneath = (*notes(summary), *certified.notes(summary), *pairs_table.notes(summary))
    for line in (*([] if _narrow(console) else legend(summary)), *beneath):
        print_sentence(console, line)
    if sentence := screen.finding(summary):
        print_sentence(console, sentence)


def _show_cells(summary: Summary, console: Console) -> None:
    if _narrow(console):
        _show_by_network(summary, console)
        return
    console.print(Table(columns(summary), rows(summary)).terminal(f"{summary['suite']} ({summary['profile']})"))


def _narrow(console: Console) -> bool:
    """Whether the whole table has no room, so that a small one, with a legend of its own, is shown."""
    return console.is_terminal and console.width < TABLE_WIDTH


def _show_certificates(summary: Summary, console: Console) -> None:
    if _narrow(console):
        _show_narrow(certified.narrow(summary), console)
        return
    console.print(Table(certified.columns(summary), certified.rows(summary)).terminal(certified.CAPTION))


def _show_pairs(summary: Summary, console: Console) -> None:
    if _narrow(console):
        _show_narrow(pairs_table.narrow(summary), console)
        return
    console.print(Table(pairs_table.COLUMNS, pairs_table.rows(summary)).terminal(pairs_table.CAPTION))


def _show_by_network(summary: Summary, console: Console) -> None:
    """Prints a table for each network, objective, radius and number of images, in the columns that a screen has."""
    _show_narrow(screen.tables(summary, console.width), console)
    console.print(screen.legend(console.width), markup=False, highlight=False)


def _show_narrow(tables: Sequence[tuple[str, Table]], console: Console) -> None:
    for title, small in tables:
        console.print(small.terminal(title))


def markdown(summary: Summary, headings: Sequence[str] | None = None) -> str:
    """Returns the table and its notes as Markdown.

    Args:
        summary: A run's summary.
        headings: Those to keep; None for all.
    """
    whole = columns(summary)
    keep = [i for i, (heading, _) in enumerate(whole) if headings is None or heading in headings]
    if not summary["cells"]:
        return "\n".join([*notes(summary), ""])
    beneath = [*legend(summary), *notes(summary)]
    return "\n".join([*Table(whole, rows(summary)).only(keep).markdown(), "", *beneath, ""])
