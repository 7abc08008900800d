"""GitHub Actions: annotations on standard output, and the summary of a step.

Workflow commands are documented under "Workflow commands for GitHub Actions": a command ends with its line, so line
breaks in messages are written %0A, and so on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from prunecert.bench.gating.result import CaseState, GateCase, GateResult
from prunecert.errors import describe_os_error
from prunecert.printable import printable

#: GitHub shows ten errors and ten warnings a step; the last one is spent on saying that there are more.
SHOWN = 10
#: A step's summary may have 1 MiB.
SUMMARY_LIMIT = 1 << 20
_LINES = 10


def escape(text: str) -> str:
    """Escapes a command's message."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Escapes the value of a command's property."""
    return escape(text).replace(":", "%3A").replace(",", "%2C")


def annotation(level: str, title: str, message: str) -> str:
    """Returns one annotation command.

    Args:
        level: ``error``, ``warning`` or ``notice``.
        title: Its heading.
        message: Its text; may have several lines.
    """
    return f"::{level} title={escape_property(title)}::{escape(message)}"


def commands(result: GateResult) -> list[str]:
    """Returns an error for each failed or broken test case and a warning for each that warns."""
    lines = []
    for level, states in (("error", (CaseState.FAIL, CaseState.ERROR)), ("warning", (CaseState.WARN,))):
        cases = [case for case in result.all_cases if case.state in states]
        shown = cases if len(cases) <= SHOWN else cases[: SHOWN - 1]
        lines += [annotation(level, f"bench.gate: {case.cell or 'run'}, {case.name}", _text(case)) for case in shown]
        if len(cases) > len(shown):
            lines.append(annotation(level, "bench.gate", f"and {len(cases) - len(shown)} more; see the summary"))
    return lines


def _text(case: GateCase) -> str:
    more = [f"… and {len(case.lines) - _LINES} more"] if len(case.lines) > _LINES else []
    return "\n".join([case.message, *case.lines[:_LINES], *more])


def active(environment: Mapping[str, str]) -> bool:
    """Whether this is a step of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def append_summary(environment: Mapping[str, str], text: str) -> Path | None:
    """Appends Markdown to the step's summary, if there is one; returns its path, or None if nothing was written.

    Text that would make the file larger than GitHub takes is cut at a line, and says so. A file that can't be written
    (the variable names one of the host's, in a container or under act) is warned of: it decides nothing.
    """
    if not environment.get("GITHUB_STEP_SUMMARY"):
        return None
    path = Path(environment["GITHUB_STEP_SUMMARY"])
    try:
        _append(path, text)
    except (OSError, ValueError) as error:
        why = describe_os_error(error) if isinstance(error, OSError) else printable(error)
        print(f"warning: the summary of the step is left out (GITHUB_STEP_SUMMARY): {why}", file=sys.stderr)
        return None
    return path


def _append(path: Path, text: str) -> None:
    room = SUMMARY_LIMIT - (path.stat().st_size if path.exists() else 0)
    data = text.encode()
    if len(data) > room:
        note = "\n\nCut off here: the summary of a step may have 1 MiB.\n"
        cut = data[: max(0, room - len(note.encode()))].rpartition(b"\n")[0]
        text = cut.decode(errors="ignore") + note if room > len(note.encode()) else ""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)
