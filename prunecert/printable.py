"""Text of foreign files, made fit for a terminal and for one line of a message."""

from __future__ import annotations


def printable(text: object, limit: int | None = None) -> str:
    r"""Shows control characters, line breaks and lone surrogates as text, so that none reaches the terminal.

    Args:
        text: Anything that may come from a file, a file name or another program.
        limit: Length beyond which the middle is left out; None: no limit.

    Returns:
        One line, e.g. ``'\\x1b[31m'`` for an escape sequence.
    """
    shown = str(text)
    if limit is not None and len(shown) > limit:
        # Cut before it is looked at letter by letter: a field may have a million of them.
        head = limit * 2 // 3
        shown = f"{shown[:head]}...{shown[len(shown) - (limit - head) + 3 :]}"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in shown)
