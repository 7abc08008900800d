"""What Marabou's exit codes mean here."""

from __future__ import annotations

from collections.abc import Mapping

from prunecert.verifiers.base import Status

#: Every exit code that Marabou's Python interface documents, in its spelling.
STATUS: Mapping[str, Status] = {
    "unsat": Status.UNSAT,
    "sat": Status.SAT,
    "TIMEOUT": Status.TIMEOUT,
    "UNKNOWN": Status.UNKNOWN,
    "ERROR": Status.ERROR,
    "QUIT_REQUESTED": Status.ERROR,
}


def parse_status(word: object) -> tuple[Status, str]:
    """Returns status and detail of Marabou's exit code; any other word is `error`."""
    if not isinstance(word, str) or word not in STATUS:
        return Status.ERROR, f"Marabou ended with {word!r}, which is none of its known exit codes"
    status = STATUS[word]
    return status, "" if status.decided else f"Marabou ended with {word}"
