"""Which copy of auto_LiRPA is used: upstream where a recent one is installed, else the one in the neuralsat wheel."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunecert.verifiers.adapters.hardware import visible_devices
from prunecert.verifiers.base import Availability

#: Older ones (PyPI's is 0.3 of 2022) fail with the torch of today.
OLDEST = (0, 5)
_COPY = "src/abstractor/auto_LiRPA/__init__.py"
_ALIAS = "verifiers_auto_lirpa"
_INSTALL = "python -m pip install neuralsat gurobipy"


@dataclass(frozen=True)
class Found:
    """A copy of auto_LiRPA.

    Args:
        path: Its ``__init__.py``; None if there is none that can be used.
        version: With the commit, where it was installed from a repository.
        source: Which copy it is.
        upstream: Whether it is upstream's package.
        why_not: Why there is none, or why upstream's is not used.
    """

    path: Path | None
    version: str = ""
    source: str = ""
    upstream: bool = False
    why_not: str = ""


def _version_in(path: Path) -> str:
    match = re.search(r"""__version__\s*=\s*['"]([^'"]+)['"]""", path.read_text(encoding="utf-8"))
    return match.group(1) if match else "0"


def _commit() -> str:
    try:
        text = importlib.metadata.distribution("auto_LiRPA").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return ""
    commit = json.loads(text or "{}").get("vcs_info", {}).get("commit_id", "")
    return f"+g{commit[:12]}" if commit else ""


@functools.cache
def find() -> Found:
    """Looks for auto_LiRPA without importing it."""
    why_not = ""
    spec = importlib.util.find_spec("auto_LiRPA")
    if spec is not None and spec.origin is not None:
        version = _version_in(Path(spec.origin))
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= OLDEST:
            version += _commit()
            return Found(Path(spec.origin), version, f"auto_LiRPA {version}", upstream=True)
        why_not = f"the installed auto_LiRPA {version} is too old (0.5 is the oldest taken)"
    try:
        wheel = importlib.metadata.distribution("neuralsat")
    except importlib.metadata.PackageNotFoundError:
        missing = why_not or "auto_LiRPA is missing"
        return Found(None, why_not=f"{missing}, and so is the neuralsat wheel that carries a copy: {_INSTALL}")
    path = Path(str(wheel.locate_file(_COPY)))
    if not path.is_file():
        return Found(None, why_not=f"neuralsat {wheel.version} carries no auto_LiRPA; 0.2.17 does: {_INSTALL}")
    if importlib.util.find_spec("gurobipy") is None:
        return Found(None, why_not="the auto_LiRPA in neuralsat imports gurobipy: python -m pip install gurobipy")
    version = _version_in(path)
    source = f"auto_LiRPA {version} in neuralsat {wheel.version}"
    return Found(path, version, f"{source} ({why_not})" if why_not else source, why_not=why_not)


def availability() -> Availability:
    """Says whether bounds can be computed here, and by which copy."""
    if importlib.util.find_spec("torch") is None:
        return Availability(False, hint="torch is missing: python -m pip install torch")
    place = find()
    if place.path is None:
        return Availability(False, hint=place.why_not)
    return Availability(True, place.version, devices=visible_devices(), source=place.source)


@functools.cache
def library() -> Any:
    """Imports and returns auto_LiRPA.

    The copy is loaded from its file under a name of its own: it sits in a top-level package called ``src``, which
    any folder of that name would hide.

    Raises:
        RuntimeError: There is none.
    """
    place = find()
    if place.path is None:
        raise RuntimeError(place.why_not)
    name = "auto_LiRPA" if place.upstream else _ALIAS
    filters = warnings.filters[:]
    with warnings.catch_warnings():
        # Both copies compile small functions with torch.jit.script, which torch 2.13 deprecates.
        warnings.simplefilter("ignore")
        if place.upstream:
            module = importlib.import_module(name)
        else:
            spec = importlib.util.spec_from_file_location(name, place.path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
    # It sets a filter of its own on import.
    warnings.filters[:] = filters  # type: ignore[index]
    return module
