"""How networks are laid out for CROWN, whatever their size: each of these is asked for in tests of bounds."""

from __future__ import annotations

from typing import NamedTuple


class Way(NamedTuple):
    """Two settings of `Engine`.

    Args:
        few_entries: Of it.
        least_density: Of it.
    """

    few_entries: int
    least_density: float


#: In units, with levels of blocks wherever there may be some, and with none; and row by row.
IN_BLOCKS, IN_UNITS, BY_ROWS = Way(0, 0.0), Way(0, 2.0), Way(10**9, 2.0)
WAYS = (IN_BLOCKS, IN_UNITS, BY_ROWS)
