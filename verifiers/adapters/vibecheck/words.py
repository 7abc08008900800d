"""What Vibecheck's words mean here."""

from __future__ import annotations

from collections.abc import Mapping

from prunecert.verifiers.base import Status

#: Every word of its interface.
STATUS: Mapping[str, Status] = {
    "unsat": Status.UNSAT,
    "sat": Status.SAT,
    "unknown": Status.UNKNOWN,
    "timeout": Status.TIMEOUT,
    "error": Status.ERROR,
}
#: Share of the limit after which `unknown` is a timeout: it stops a little before.
_USED_UP = 0.95


def parse_status(word: object, said: str, seconds: float, limit: float) -> tuple[Status, str]:
    """Returns status and detail of Vibecheck's word; any other than its five is `error`.

    Args:
        word: The word.
        said: What it says besides.
        seconds: How long it took.
        limit: How long it was given.
    """
    if not isinstance(word, str) or word not in STATUS:
        return Status.ERROR, f"Vibecheck ended with {word!r}, which is none of its known words"
    status = STATUS[word]
    if status is Status.UNKNOWN and seconds >= _USED_UP * limit:
        return Status.TIMEOUT, f"Vibecheck ended with {word!r} after {seconds:.1f} of {limit:g} s"
    if status.decided:
        return status, ""
    return status, f"Vibecheck ended with {word!r} after {seconds:.1f} of {limit:g} s{f': {said}' if said else ''}"
