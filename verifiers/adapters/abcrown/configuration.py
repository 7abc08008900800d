"""alpha-beta-CROWN's configuration: ours over its own, and which of its nested settings are settings here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from prunecert.verifiers.settings import Setting

DEFAULTS: Mapping[str, Any] = yaml.safe_load((Path(__file__).parent / "default.yaml").read_text())
#: Flat settings and where they belong in upstream's configuration.
FLAT: Mapping[str, tuple[str, ...]] = {
    "alpha_iterations": ("solver", "alpha-crown", "iteration"),
    "alpha_lr": ("solver", "alpha-crown", "lr_alpha"),
    "beta_iterations": ("solver", "beta-crown", "iteration"),
    "beta_lr": ("solver", "beta-crown", "lr_beta"),
    "branching": ("bab", "branching", "method"),
    "branching_candidates": ("bab", "branching", "candidates"),
    "pgd_order": ("attack", "pgd_order"),
    "pgd_restarts": ("attack", "pgd_restarts"),
    "pgd_steps": ("attack", "pgd_steps"),
    "seed": ("general", "seed"),
}


def _flat(name: str, meaning: str, **limits: Any) -> Setting:
    """Declares a setting whose default is that of the configuration."""
    value: Any = DEFAULTS
    for key in FLAT[name]:
        value = value[key]
    return Setting(default=value, help=meaning, **limits)


#: The adapter's settings.
SETTINGS: Mapping[str, Setting] = {
    "alpha_iterations": _flat("alpha_iterations", "steps on alpha-CROWN's slopes before the search", at_least=0),
    "alpha_lr": _flat("alpha_lr", "learning rate of these steps"),
    "beta_iterations": _flat("beta_iterations", "steps on each bound in the search", at_least=0),
    "beta_lr": _flat("beta_lr", "learning rate of these steps"),
    "branching": _flat(
        "branching",
        "which ReLU to split",
        choices=("kfsb", "babsr", "fsb", "kfsb-intercept-only"),
    ),
    "branching_candidates": _flat("branching_candidates", "the k of kfsb", at_least=1),
    "pgd_order": _flat(
        "pgd_order",
        "attack before or after alpha-CROWN, or not at all",
        choices=("before", "after", "skip"),
    ),
    "pgd_restarts": _flat("pgd_restarts", "restarts of the attack", at_least=1),
    "pgd_steps": _flat("pgd_steps", "gradient steps of a restart", at_least=0),
    "seed": _flat("seed", "of everything random"),
    "batch_size": Setting(
        default=0,
        at_least=0,
        help="most domains bounded together; 0: by free memory and the number of ReLUs, at most 1,024",
    ),
    "extra": Setting(default={}, help="any further settings, nested as in upstream's files"),
    "split": Setting(
        default="auto",
        choices=("auto", "hidden", "input"),
        help="auto: inputs up to 20 numbers are split themselves, else ReLUs",
    ),
}


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the adapter's flat settings where they belong in upstream's configuration."""
    tree: dict[str, Any] = {}
    for name, path in FLAT.items():
        group = tree
        for key in path[:-1]:
            group = group.setdefault(key, {})
        group[path[-1]] = settings[name]
    return tree
