"""Names of networks, objectives and pruners, as figures and tables show them."""

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


def rest_of(name: str, other: str) -> str:
    """Returns a cell's name without the parts at its beginning that it shares with another's.

    Example:
        >>> rest_of("cnn-small_ibp_eps2_lwm_x2_s0", "cnn-small_ibp_eps2_lwm_x10_s0"), rest_of("net", "net")
        ('x2_s0', 'net')

    Args:
        name: The name.
        other: The other name.
    """
    parts, others = name.split("_"), other.split("_")
    shared = next((i for i, (one, two) in enumerate(zip(parts, others, strict=False)) if one != two), len(others))
    return "_".join(parts[shared:]) or name
