"""What NeuralSAT's words mean here."""

from __future__ import annotations

from collections.abc import Mapping

from prunecert.verifiers.base import Status

#: Every word that NeuralSAT's search can end with. `restart` and `invalid_counterexample` are internal: a search
#: that ends with them has gone wrong.
STATUS: Mapping[str, tuple[Status, str]] = {
    "unsat": (Status.UNSAT, ""),
    "sat": (Status.SAT, ""),
    "unknown": (Status.UNKNOWN, "NeuralSAT gave up: too many domains, or no memory for a single one"),
    "early_stop": (Status.UNKNOWN, "NeuralSAT gave up: the first bound is hopeless, or too many iterations"),
    "timeout": (Status.TIMEOUT, "NeuralSAT's own limit was reached"),
    "restart": (Status.ERROR, "NeuralSAT ended with its internal word 'restart'"),
    "invalid_counterexample": (Status.ERROR, "NeuralSAT found a counterexample that its network does not confirm"),
}


def parse_status(word: object) -> tuple[Status, str]:
    """Returns status and detail of NeuralSAT's word; any other word is `error`."""
    if isinstance(word, str) and word in STATUS:
        return STATUS[word]
    return Status.ERROR, f"NeuralSAT ended with {word!r}, which is none of its known words"
