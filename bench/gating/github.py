"""GitHub Actions: annotations on standard output, and the summary of a step.

Workflow commands are documented under "Workflow commands for GitHub Actions": a command ends with its line, so line
breaks in messages are written %0A, and so on.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from bench.gating.result import Case, GateResult, State

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
    found = []
    for level, states in (("error", (State.FAIL, State.ERROR)), ("warning", (State.WARN,))):
        cases = [case for case in result.all_cases if case.state in states]
        shown = cases if len(cases) <= SHOWN else cases[: SHOWN - 1]
        found += [annotation(level, f"bench.gate: {case.cell or 'run'}, {case.name}", _text(case)) for case in shown]
        if len(cases) > len(shown):
            found.append(annotation(level, "bench.gate", f"and {len(cases) - len(shown)} more; see the summary"))
    return found


def _text(case: Case) -> str:
    more = [f"… and {len(case.lines) - _LINES} more"] if len(case.lines) > _LINES else []
    return "\n".join([case.message, *case.lines[:_LINES], *more])


def active(environment: Mapping[str, str]) -> bool:
    """Whether this is a step of GitHub Actions."""
    return environment.get("GITHUB_ACTIONS") == "true"


def append_summary(environment: Mapping[str, str], text: str) -> Path | None:
    """Appends Markdown to the step's summary, if there is one; returns its path.

    Text that would make the file larger than GitHub takes is cut at a line, and says so. A file that can't be written
    (a container to which the variable is handed on, and not the file) is warned of: the gate's result stands whether
    it is shown there or not.
    """
    if not environment.get("GITHUB_STEP_SUMMARY"):
        return None
    path = Path(environment["GITHUB_STEP_SUMMARY"])
    try:
        _append(path, text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        message = f"the step's summary {path} can't be written ({reason}); the gate's result does not depend on it."
        print(f"warning: {message}", file=sys.stderr)
        if active(environment):
            print(annotation("warning", "bench.gate", message))
        return None
    return path


def _append(path: Path, text: str) -> None:
    room = SUMMARY_LIMIT - (path.stat().st_size if path.exists() else 0)
    data = text.encode(errors="backslashreplace")
    if len(data) > room:
        note = "\n\nCut off here: the summary of a step may have 1 MiB.\n"
        cut = data[: max(0, room - len(note.encode()))].rpartition(b"\n")[0]
        text = cut.decode(errors="ignore") + note if room > len(note.encode()) else ""
    # Not of a pipe, whose opening would wait for a reader.
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
        stream.write(text)
