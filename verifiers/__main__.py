"""``python -m verifiers``: which verifiers can run here, in which version, on which device, and what is missing."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from prunecert.errors import EXIT_OK, run_main
from prunecert.page_help import PageHelp
from prunecert.verifiers import VERIFIERS


def survey() -> list[dict[str, Any]]:
    """Asks every registered verifier whether it can run here; imports none of the verifiers themselves.

    Returns:
        For each, by name: ``name``, ``kind``, ``batch_size``, ``norms``, ``specs``, and the fields of `Availability`.
        An adapter that can't even be asked is not installed, with the reason as its hint.
    """
    rows = []
    for name in VERIFIERS:
        try:
            adapter = VERIFIERS.get(name)
            allowed = adapter.capabilities()
            row: dict[str, Any] = {
                "name": name,
                "kind": str(adapter.kind),
                "batch_size": adapter.batch_size,
                "norms": list(allowed.norms),
                "specs": allowed.specs,
                **asdict(adapter.availability()),
            }
        except Exception as error:
            # One broken installation must not hide what the others are.
            hint = f"asking it failed: {type(error).__name__}: {error}"
            row = {
                "name": name,
                "kind": "",
                "installed": False,
                "version": "",
                "hint": hint,
                "devices": (),
                "source": "",
            }
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Prints the table.

    Args:
        arguments: Command line without the program; None: that of the process.

    Returns:
        Exit code 0.
    """
    parser = argparse.ArgumentParser(prog="prunecert verifiers", description=__doc__, formatter_class=PageHelp)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    rows = survey()
    if options.json:
        print(json.dumps(rows, indent=2))
        return EXIT_OK
    from rich.console import Console
    from rich.table import Table

    # Piped, the width is that of no terminal: nothing is cut off.
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    table = Table(box=None, header_style="bold")
    for column in ("verifier", "kind", "installed", "devices", "version, or what is missing"):
        table.add_column(column, overflow="fold")
    hints = []
    for row in rows:
        installed = "yes" if row["installed"] else "no"
        about = row["source"] or row["version"] if row["installed"] else row["hint"]
        if console.is_terminal and not row["installed"]:
            # A command in a narrow column is broken within its words, and can't be copied.
            hints.append(f"{row['name']}: {about}")
            about = "see below"
        table.add_row(row["name"], row["kind"], installed, " ".join(row["devices"]), about)
    console.print(table, markup=False)
    for hint in hints:
        console.print(f"\n{hint}", markup=False, highlight=False, soft_wrap=True)
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
