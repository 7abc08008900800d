"""What there is, as tables: suites, networks, objectives, pruners, verifiers with their settings, and runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as TerminalTable

from prunecert.bench.report.medium import Table
from prunecert.bench.report.settings_table import HEADINGS, tables
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.results.store import Log, is_run
from prunecert.bench.schema.suite import available_suites, load_suite
from prunecert.errors import UserError
from prunecert.models import ADDONS, NETWORKS, OBJECTIVES, PRUNERS
from prunecert.printable import shortened
from prunecert.registry import Registry
from prunecert.verifiers import VERIFIERS

#: Lines of a table, its headings first.
Listing = list[tuple[str, ...]]


def _suites(_: Path) -> Listing:
    rows: Listing = [("suite", "cells", "profiles", "description")]
    for name in available_suites():
        suite = load_suite(name)
        rows.append((name, str(len(suite.cells)), ", ".join(suite.profiles), suite.description))
    return rows


def _names(kind: str, registry: Registry[Any]) -> Callable[[Path], Listing]:
    return lambda _: [(kind,), *((name,) for name in registry)]


def _verifiers(_: Path) -> Listing:
    rows: Listing = [("verifier", "kind", "here", "version", "devices")]
    for name in VERIFIERS:
        adapter = VERIFIERS.get(name)
        there = adapter.availability()
        version = f"{there.version} ({there.source})" if there.source else there.version
        state = ("yes", version, ", ".join(there.devices)) if there.installed else ("no", there.hint, "")
        rows.append((name, str(adapter.kind), *state))
    return rows


def _settings(_: Path) -> Listing:
    return [("verifier", *HEADINGS), *((name, *line) for name, lines in tables() for line in lines)]


def _runs(folder: Path) -> Listing:
    rows: Listing = [("run", "suite", "profile", "begun", "cells", "summary")]
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--runs-dir {shortened(folder)} is refused: it is no folder; name the one that runs are in.")
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            if not is_run(path):
                continue
        except (OSError, UserError) as error:
            # The others are to be seen all the same.
            rows.append((str(path), "?", "?", "?", "?", f"can't be read ({getattr(error, 'strerror', None) or error})"))
            continue
        sessions = Log(path).all_sessions()
        if not sessions:
            rows.append((str(path), "?", "?", "?", "?", "killed before it began"))
            continue
        first = min(sessions, key=lambda row: row.started)
        # What bench.verify writes says with each answer how far it is.
        files = (
            file.name for pattern in ("report.html", "results.csv", "*/results.csv") for file in path.glob(pattern)
        )
        ended = next(files, "not ended; run the same command again")
        shape = (first.profile, str(len(first.cells))) if isinstance(first, SessionRow) else ("", "")
        rows.append((str(path), first.suite, shape[0], first.started, shape[1], ended))
    return rows


#: What can be listed: a function of the folder of runs for each.
WHAT: dict[str, Callable[[Path], Listing]] = {
    "suites": _suites,
    "networks": _names("network", NETWORKS),
    "objectives": _names("objective", OBJECTIVES),
    "addons": _names("add-on", ADDONS),
    "pruners": _names("pruner", PRUNERS),
    "verifiers": _verifiers,
    "settings": _settings,
    "runs": _runs,
}


def _show_entries(rows: Listing, console: Console) -> None:
    """Prints each row as its first cell, which is long and wants to be copied, and a line of what is known of it."""
    for row in rows[1:]:
        facts = [f"{text} {name}" if text.isdecimal() else text for name, text in zip(rows[0], row, strict=True)]
        console.print(f"[bold]{escape(row[0])}[/bold]", soft_wrap=True)
        console.print(f"  {' · '.join(filter(None, facts[1:]))}", markup=False, highlight=False)


def show(rows: Listing, console: Console, *, grouped: bool = False) -> None:
    """Prints a table with a heading row; tab-separated lines where the output is no terminal.

    Args:
        rows: The table, its headings first.
        console: Where to.
        grouped: Whether, in a terminal, rows of one first cell stand together below it, which leaves more room.
    """
    if not console.is_terminal:
        for row in rows:
            # Not through the console, which would turn tabs into spaces.
            print("\t".join(row), file=console.file)
        return
    if rows[0][0] == "run":
        _show_entries(rows, console)
        return
    if not grouped:
        console.print(Table([(heading, False) for heading in rows[0]], rows[1:]).terminal())
        return
    table = TerminalTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, heading in enumerate(rows[0][1:], start=2):
        # The last column is the one to read.
        table.add_column(heading, overflow="fold", max_width=20 if place < len(rows[0]) else None)
    group = ""
    for row in rows[1:]:
        if row[0] != group:
            group = row[0]
            table.add_section()
            table.add_row(f"[bold]{escape(group)}[/bold]")
        table.add_row(*(escape(text) for text in row[1:]))
    console.print(table)
