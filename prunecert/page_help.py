"""How the help of all commands is set."""

from __future__ import annotations

import argparse
import re
import textwrap


class PageHelp(argparse.RawDescriptionHelpFormatter):
    """Help whose description has paragraphs, filled to the screen; names such as `sparse-bab` are never divided.

    Commands are indented. What doesn't fit on a line goes on in the next one, as a shell takes it.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.strip("\n").split("\n\n")
        return "\n\n".join(
            "\n".join(line for command in part.split("\n") for line in _continued(command, width))
            if part.startswith(" ")
            else "\n".join(_filled(part, width))
            for part in parts
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        return _filled(text, width)


def _filled(text: str, width: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False, break_long_words=False)


def _continued(command: str, width: int) -> list[str]:
    """Returns the lines of a command, whose first one is indented; an option stays beside its value."""
    margin = " " * (len(command) - len(command.lstrip()))
    lines, line = list[str](), ""
    for part in re.split(r" (?=-)", command.strip()):
        if line and len(f"{margin}{line} {part} \\") > width:
            lines.append(f"{margin}{line} \\")
            margin, line = f"{margin}    " if len(lines) == 1 else margin, part
        else:
            line = f"{line} {part}" if line else part
    return [*lines, f"{margin}{line}"]
