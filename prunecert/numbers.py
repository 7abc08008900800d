"""Numbers that people write: in ASCII digits, as every tool reads them."""

from __future__ import annotations

_LONGEST = 60


def read_number(text: str) -> float | None:
    """Returns the number that a text is; None if it is none.

    Python's own `float` takes more than other tools that read the same file do: underscores, and any script's digits.

    Example:
        >>> read_number("1e-3"), read_number("inf"), read_number("1_0"), read_number("٣"), read_number("")
        (0.001, inf, None, None, None)

    Args:
        text: The text; infinities and NaN are numbers here.
    """
    if len(text) > _LONGEST or not text.isascii() or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None
