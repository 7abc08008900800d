"""One table for a terminal, a Markdown file and an HTML page, and the set-up of the pages' templates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table as TerminalTable

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.console import Console

#: A bar, and backslashes before it, which would undo its escape.
_BAR = re.compile(r"(\\*)\|")
#: A heading, and whether the column holds numbers, which stand at the right.
Column = tuple[str, bool]


@dataclass(frozen=True)
class Table:
    r"""A table of text.

    Example:
        >>> table = Table([("pruner", False), ("verified %", True)], [["lwm", "47.0"], ["a|b", "3.1"]])
        >>> print("\n".join(table.markdown()))
        | pruner | verified % |
        |---|---:|
        | lwm | 47.0 |
        | a\|b | 3.1 |

    Args:
        columns: Its columns.
        rows: Its cells, line by line, as many in each as there are columns.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def only(self, keep: Sequence[int]) -> Table:
        """Returns the table with these columns alone, by number."""
        return Table([self.columns[i] for i in keep], [[row[i] for i in keep] for row in self.rows])

    def markdown(self) -> list[str]:
        """Returns the table's lines in Markdown; a cell can't break out of its place, whatever is in it."""
        return [
            _line(heading for heading, _ in self.columns),
            "|" + "|".join("---:" if number else "---" for _, number in self.columns) + "|",
            *(_line(map(cell, row)) for row in self.rows),
        ]

    def terminal(self, title: str | None = None, styles: Sequence[str] | None = None) -> TerminalTable:
        """Returns the table for `rich.console.Console.print`.

        Args:
            title: What stands above it.
            styles: Each row's style, e.g. ``"red"``.
        """
        table = TerminalTable(
            title=None if title is None else escape(title),
            box=box.SIMPLE_HEAD,
            title_justify="left",
            padding=(0, 1, 0, 0),
        )
        for heading, number in self.columns:
            table.add_column(escape(heading), justify="right" if number else "left", overflow="fold")
        for place, row in enumerate(self.rows):
            table.add_row(*map(escape, row), style=None if styles is None else styles[place])
        return table


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def cell(text: str) -> str:
    """Returns text as a cell of a Markdown table: on one line, its bars escaped."""
    return _BAR.sub(r"\1\1\\|", " ".join(text.splitlines()))


def templates(package: str, filters: Mapping[str, Callable[..., Any]] | None = None) -> Environment:
    """Returns the set-up of a package's templates: everything escaped, no undefined name taken for nothing.

    Args:
        package: The package in whose folder they lie.
        filters: Filters by name.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters or {})
    return environment


def print_sentence(console: Console, text: str, style: str = "") -> None:
    """Prints a sentence: wrapped between words on a terminal, and as one line, which tools search, anywhere else.

    Args:
        console: Where to.
        text: The sentence; nothing in it is taken for markup.
        style: As rich has it, e.g. ``"red"``.
    """
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=not console.is_terminal)
