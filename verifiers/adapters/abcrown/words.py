"""What alpha-beta-CROWN's words mean here."""

from __future__ import annotations

from collections.abc import Mapping

from prunecert.verifiers.base import Status

#: Every status that upstream's sources can give, with what it means here and the stage that decided. Each is
#: compared as a whole: `'safe' in 'unsafe-pgd'` is true.
STATUS: Mapping[str, tuple[Status, str | None]] = {
    "safe": (Status.UNSAT, "bab"),
    "safe-incomplete": (Status.UNSAT, "incomplete"),
    "safe-mip": (Status.UNSAT, "bab"),
    "unsafe": (Status.SAT, "bab"),
    "unsafe-pgd": (Status.SAT, "attack"),
    "unsafe-bab": (Status.SAT, "bab"),
    "unsafe-mip": (Status.SAT, "bab"),
    "unknown": (Status.UNKNOWN, None),
    "unknown-mip": (Status.UNKNOWN, None),
    "timeout": (Status.TIMEOUT, None),
}


def parse_status(word: object, seconds: float, limit: float) -> tuple[Status, str | None, str]:
    """Translates upstream's word.

    Args:
        word: What upstream ended with.
        seconds: How long it took: upstream says `unknown` for a search that ran out of time, too.
        limit: How long it was given.

    Returns:
        Status, deciding stage, detail. A word that is not known as a whole is `error`.
    """
    if not isinstance(word, str) or word not in STATUS:
        return Status.ERROR, None, f"alpha-beta-CROWN ended with {word!r}, which is none of its known words"
    status, stage = STATUS[word]
    if status is Status.UNKNOWN and seconds >= limit:
        return Status.TIMEOUT, None, f"alpha-beta-CROWN ended with {word!r} after its limit"
    if status is Status.UNKNOWN:
        return status, None, f"alpha-beta-CROWN ended with {word!r} after {seconds:.1f} of {limit:g} s"
    return status, stage, ""
