"""What a verifier says of itself: whether it can run here, and what it takes. `verifiers.base` has both names, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Norms of input sets.
Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Availability:
    """Whether a verifier can run here.

    Args:
        installed: Whether it can.
        version: Its version, with the commit where there is one; empty if not installed.
        hint: One sentence: what is missing and how to install it; empty if installed.
        devices: Devices it can use here, e.g. ``("cpu",)``.
        source: Which copy it is, e.g. ``"auto_LiRPA 0.7.1"`` or ``"auto_LiRPA 0.6.0 in neuralsat 0.2.17"``.
    """

    installed: bool
    version: str = ""
    hint: str = ""
    devices: tuple[str, ...] = ("cpu",)
    source: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What a verifier takes; asked before the long work.

    Args:
        operators: ONNX operators of a network in normal form (`prunecert.onnx`): no adapter sees another network.
        norms: Norms of the input set.
        specs: ``"robustness"``: only a label against all others; ``"dnf"``: any `OutputSpec`.
        vnnlib: VNN-LIB version.
        native: Operators of networks that have no normal form and are handed over as they are, if they hold no others.
    """

    operators: frozenset[str]
    norms: tuple[Norm, ...] = ("linf",)
    specs: Literal["robustness", "dnf"] = "robustness"
    vnnlib: str = "1.0"
    native: frozenset[str] = frozenset()
