"""A gate's result in a terminal: a table of cells, then what failed and which images changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement

from prunecert.bench.gating.markdown import change
from prunecert.bench.gating.result import CaseState, CellResult, GateResult, Metric, TimeRatio
from prunecert.bench.report.medium import Table, print_sentence
from prunecert.printable import plural

#: Heading, and whether the column holds numbers.
COLUMNS: tuple[tuple[str, bool], ...] = (
    ("cell", False),
    ("result", False),
    ("n", True),
    ("verified", True),
    ("95 % interval", True),
    ("McNemar p", True),
    ("lost", True),
    ("gained", True),
    ("under attack", True),
    ("clean", True),
    ("time", True),
)
#: What a narrow screen does without, in this order.
_RARE = ("McNemar p", "clean", "under attack", "95 % interval", "time")
_PLAIN_WIDTH = 200
_SHOWN = 20
_STYLES = {
    CaseState.PASS: "green",
    CaseState.WARN: "yellow",
    CaseState.SKIP: "dim",
    CaseState.ERROR: "magenta",
    CaseState.FAIL: "red",
}


def row(cell: CellResult) -> list[str]:
    """Returns a cell's line, in the order of `COLUMNS`."""
    verified: Metric = cell.metrics["verified"]
    low, high = verified.interval
    return [
        cell.name,
        str(cell.state).upper() + (" (same network)" if cell.same_network else ""),
        str(verified.n),
        change(verified),
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        f"{verified.p:.2g}",
        str(len(cell.lost)),
        str(len(cell.gained)),
        change(cell.metrics["attacked"]),
        change(cell.metrics["clean"]),
        f"×{cell.time.ratio:.2f}" if isinstance(cell.time, TimeRatio) else "–",
    ]


def show(result: GateResult, console: Console) -> None:
    """Prints the table, every case that is no plain pass, and the images that were gained."""
    styles = [_STYLES[cell.state] for cell in result.cells]
    table = Table(COLUMNS, [row(cell) for cell in result.cells])
    wide = console if console.is_terminal else Console(file=console.file, width=_PLAIN_WIDTH)
    drawn = table.terminal(styles=styles)
    if Measurement.get(wide, wide.options.update(max_width=_PLAIN_WIDTH), drawn).maximum <= wide.width:
        wide.print(drawn)
    else:
        for line, style in narrow(table, styles, wide.width):
            wide.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    for case in result.all_cases:
        if case.state is CaseState.PASS and not (case.name == "images" and case.lines):
            continue
        where = f"{case.cell}, {case.name}" if case.cell else case.name
        print_sentence(console, f"{str(case.state).upper()}: {where}: {case.message}", _STYLES[case.state])
        for line in shortened(list(case.lines)):
            console.print(f"  {line}", markup=False, soft_wrap=True)
    for cell in result.cells:
        if cell.gained:
            lines = shortened([str(one) for one in cell.gained])
            text = f"gained: {cell.name}: {plural(len(cell.gained), 'image')} newly proved"
            console.print(text, markup=False, soft_wrap=True)
            for line in lines:
                console.print(f"  {line}", markup=False, soft_wrap=True)
    for note in result.notes:
        print_sentence(console, f"note: {note}")
    print_sentence(console, result.headline, "bold")


def narrow(table: Table, styles: Sequence[str], width: int) -> list[tuple[str, str]]:
    """Returns the table's lines where its columns have no room, each with its style: names stand above their numbers.

    Columns that are rarely asked for go first, until the rest fits; a line says where they are.

    Args:
        table: With all columns.
        styles: Each row's.
        width: Columns of the screen.
    """
    headings = [heading for heading, _ in table.columns]
    sizes = [max(len(row[i]) for row in [headings, *table.rows]) for i in range(len(headings))]
    shown = list(range(1, len(headings)))
    left_out = []
    for heading in _RARE:
        if sum(sizes[i] + 2 for i in shown) <= width:
            break
        shown.remove(headings.index(heading))
        left_out.append(heading)

    def line(cells: Sequence[str]) -> str:
        words = [cells[i].rjust(sizes[i]) if table.columns[i][1] else cells[i].ljust(sizes[i]) for i in shown]
        return " " + "  ".join(words).rstrip()

    lines = [("", ""), (line(headings), "bold"), (" " + "─" * (sum(sizes[i] + 2 for i in shown) - 2), "")]
    for row, style in zip(table.rows, styles, strict=True):
        lines += [(f" {row[0]}", style), (line(row), style)]
    note = f" {', '.join(left_out)}: in gate.md, or in a wider window."
    return [*lines, *([(note, "dim")] if left_out else []), ("", "")]


def shortened(lines: list[str]) -> list[str]:
    """Returns the first lines, and how many more there are."""
    return lines if len(lines) <= _SHOWN else [*lines[: _SHOWN - 1], f"… and {len(lines) - _SHOWN + 1} more"]
