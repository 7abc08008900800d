"""Cells that nothing but their names would tell apart: tables, figures and comparisons know networks by their radii."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from prunecert.bench.schema.cell import Cell, show_eps


def why_mixed_up(cells: Collection[Cell]) -> str | None:
    """Returns why the cells can't be those of one suite, or None.

    Args:
        cells: All of a suite's.
    """
    balls = {(cell.network, cell.objective, cell.eps) for cell in cells if cell.ball}
    radii: dict[tuple[str, str, Fraction], Fraction] = {}
    names: dict[str, Cell] = {}
    for cell in cells:
        if (same := names.setdefault(cell.name, cell)).compression != cell.compression:
            return (
                f"the compressions {same.compression!r} and {cell.compression!r} have one name, {cell.name}; write "
                "them with six digits at most."
            )
        key = cell.network, cell.objective, cell.eps
        if not cell.ball and key in balls:
            return (
                f"{cell.network} by {cell.objective} has the radius {show_eps(cell.eps)} in both norms, and tables "
                "tell cells apart by their radii; make two suites of it."
            )
        trained = cell.trained_eps or cell.eps
        if (other := radii.setdefault(key, trained)) != trained:
            return (
                f"{cell.network} by {cell.objective} is verified at {show_eps(cell.eps, ball=cell.ball)} as trained "
                f"for {show_eps(other)} and for {show_eps(trained)}, and tables tell cells apart by the radii that "
                "they are verified at; make two suites of it."
            )
    return None
