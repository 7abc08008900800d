"""Names in figures, shown as they are."""

from __future__ import annotations


def literal(name: str) -> str:
    r"""Returns a name as Matplotlib shows it unchanged.

    Two dollar signs would begin and end a formula, and a formula that is none ends the drawing; a label that begins
    with an underscore would be left out of the legend. Tick labels need formulas, so that they can't be switched off.

    Args:
        name: What somebody called a network, an objective or a pruner, or a text with such names in it.
    """
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
