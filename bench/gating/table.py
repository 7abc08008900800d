"""A gate's result in a terminal: a table of cells, then what failed and which images changed."""

from __future__ import annotations

from rich.console import Console

from prunecert.bench.gating.markdown import change
from prunecert.bench.gating.result import CellResult, GateResult, Metric, State, TimeRatio, plural
from prunecert.bench.report.medium import Table

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
_PLAIN_WIDTH = 200
_SHOWN = 20
_STYLES = {State.PASS: "green", State.WARN: "yellow", State.SKIP: "dim", State.ERROR: "magenta", State.FAIL: "red"}


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
    table = Table(COLUMNS, [row(cell) for cell in result.cells]).terminal(styles=styles)
    (console if console.is_terminal else Console(file=console.file, width=_PLAIN_WIDTH)).print(table)
    for case in result.all_cases:
        if case.state is State.PASS and not (case.name == "images" and case.lines):
            continue
        where = f"{case.cell}, {case.name}" if case.cell else case.name
        console.print(
            f"{str(case.state).upper()}: {where}: {case.message}",
            style=_STYLES[case.state],
            markup=False,
            soft_wrap=True,
        )
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
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    console.print(result.headline, style="bold", markup=False, soft_wrap=True)


def shortened(lines: list[str]) -> list[str]:
    """Returns the first lines, and how many more there are."""
    return lines if len(lines) <= _SHOWN else [*lines[: _SHOWN - 1], f"… and {len(lines) - _SHOWN + 1} more"]
