"""Words and widths that progress, tables and reports have in common."""

from __future__ import annotations

#: Columns of a terminal in which a run's table stands unbroken.
TABLE_WIDTH = 237


def duration(seconds: float) -> str:
    """Returns seconds as ``42 s``, ``3 min 05 s`` or ``2 h 10 min``.

    Example:
        >>> duration(0.4), duration(75), duration(5000)
        ('0 s', '1 min 15 s', '1 h 23 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
