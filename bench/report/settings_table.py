"""The table of all settings of all verifiers, for `bench.ls` and for `docs/settings.md`.

``python -m bench.report.settings_table`` writes it into the document; a test sees to it that it was done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prunecert.bench.report.medium import Table
from prunecert.bench.results.schema import between_marks, write_document
from prunecert.errors import run_main
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.settings import rows

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
BEGIN, END = (
    "<!-- made by python -m bench.report.settings_table: begin -->",
    "<!-- made by python -m bench.report.settings_table: end -->",
)
HEADINGS = ("setting", "default", "allowed", "meaning")


def tables() -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    """Yields each verifier that has settings, with a line (`HEADINGS`) for each of them."""
    for name in VERIFIERS:
        lines = list(rows(VERIFIERS.get(name).known_settings))
        if lines:
            yield name, lines


def render() -> str:
    """Returns a section for each verifier that this package brings along, in Markdown."""
    parts: list[str] = []
    for name, lines in tables():
        adapter = VERIFIERS.get(name)
        if not adapter.__module__.startswith("prunecert."):
            continue
        summary = (adapter.__doc__ or "").splitlines()[0]
        cells = [(f"`{key}`", f"`{default}`", allowed, meaning) for key, default, allowed, meaning in lines]
        table = Table([(heading, False) for heading in HEADINGS], cells)
        parts += [f"### {name}", "", summary, "", *table.markdown(), ""]
    return "\n".join(parts)


def updated(text: str) -> str:
    """Returns the document with the tables as they are to be.

    Raises:
        UserError: It lacks the marks between which they stand.
    """
    return between_marks(text, BEGIN, END, render())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return write_document(argv, "python -m bench.report.settings_table", __doc__, DOCUMENT, updated)


if __name__ == "__main__":
    run_main(main)
