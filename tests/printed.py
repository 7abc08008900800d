"""What documents hold of `python -m bench.retention`; ``python -m tests.printed DOCUMENT ...`` renews it.

A command in backquotes, outside of tables, stands before what it prints: all of it between the marks
``<!-- printed -->`` and ``<!-- /printed -->`` where these come next, else the next table.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from prunecert.bench.retention import main as retention

_COMMAND = re.compile(r"`(python -m bench\.retention[^`]*)`")
#: With the remark on other epochs, which is printed behind some.
_TABLE = re.compile(r"^(?:\|[^\n]*\n)+(?:\n\\\* [^\n]*\n)?", re.M)


def commands_of(text: str) -> list[str]:
    """Returns the commands that a document has outside of its tables."""
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    return [" ".join(command.split()) for command in _COMMAND.findall(prose)]


def printed_by(command: str) -> str:
    """Returns what a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        retention(shlex.split(command)[3:])
    return out.getvalue()


def renewed(text: str, run: Callable[[str], str] = printed_by) -> str:
    """Returns a document with what its commands print now.

    Args:
        text: The document.
        run: Returns what a command prints.

    Raises:
        ValueError: Nothing stands behind a command that what it prints could replace.
    """
    at = 0
    while command := _COMMAND.search(text, at):
        at = command.end()
        if text[text.rfind("\n", 0, command.start()) + 1] == "|":
            continue
        mark, table = text.find("<!-- printed -->\n", at), _TABLE.search(text, at)
        if mark >= 0 and (table is None or mark < table.start()):
            start, end = mark + len("<!-- printed -->\n"), text.index("<!-- /printed -->", mark)
        elif table is not None:
            start, end = table.span()
        else:
            raise ValueError(f"nothing stands behind {command[1]}")
        text = text[:start] + run(" ".join(command[1].split())) + text[end:]
    return text


def main() -> None:
    """Renews the documents that are named."""
    for name in sys.argv[1:]:
        document = Path(name)
        document.write_text(renewed(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
