"""Verified robustness of pruned networks: from Python, by commands, and as the packages that both are made of.

`verify`, `export`, `evaluate`, `load`, `load_run` and `run_suite` are for programs and notebooks; `prunecert --help`
lists the commands. Importing this package imports nothing else: names are looked up when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunecert.api.asking import verify
    from prunecert.api.crew import close
    from prunecert.api.critical import critical_radius
    from prunecert.api.evaluation import Evaluation, evaluate
    from prunecert.api.exporting import ExportedNetwork, export, standardised
    from prunecert.api.runs import Run, load_run, run_suite
    from prunecert.api.zoo import available, load
    from prunecert.bench.running.bisection import CriticalRadius
    from prunecert.errors import UserError
    from prunecert.verifiers.base import Status, Verdict

__version__ = "0.1.0"

__all__ = [
    "CriticalRadius",
    "Evaluation",
    "ExportedNetwork",
    "Run",
    "Status",
    "UserError",
    "Verdict",
    "__version__",
    "available",
    "close",
    "critical_radius",
    "evaluate",
    "export",
    "load",
    "load_run",
    "run_suite",
    "standardised",
    "verify",
]

_HOMES = {
    "CriticalRadius": "prunecert.bench.running.bisection",
    "Evaluation": "prunecert.api.evaluation",
    "ExportedNetwork": "prunecert.api.exporting",
    "Run": "prunecert.api.runs",
    "Status": "prunecert.verifiers.base",
    "UserError": "prunecert.errors",
    "Verdict": "prunecert.verifiers.base",
    "available": "prunecert.api.zoo",
    "close": "prunecert.api.crew",
    "critical_radius": "prunecert.api.critical",
    "evaluate": "prunecert.api.evaluation",
    "export": "prunecert.api.exporting",
    "load": "prunecert.api.zoo",
    "load_run": "prunecert.api.runs",
    "run_suite": "prunecert.api.runs",
    "standardised": "prunecert.api.exporting",
    "verify": "prunecert.api.asking",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
