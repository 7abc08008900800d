"""Which copy of auto_LiRPA is used, and what is said where there is none."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from prunecert.verifiers.adapters import autolirpa


def test_an_old_upstream_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "auto_LiRPA"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "0.3"\nraise RuntimeError("must not be imported")\n')
    monkeypatch.syspath_prepend(tmp_path)
    place = autolirpa.find.__wrapped__()
    assert "0.3 is too old" in place.why_not
    assert not place.upstream
    assert "in neuralsat" in place.source
    (package / "__init__.py").write_text('__version__ = "0.7.1"\n')
    newer = autolirpa.find.__wrapped__()
    assert newer.upstream
    assert newer.source == "auto_LiRPA 0.7.1"


def test_without_any_copy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", nobody)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name == "torch" else None)
    monkeypatch.setattr(autolirpa, "find", autolirpa.find.__wrapped__)
    absent = autolirpa.availability()
    assert not absent.installed
    assert absent.hint.endswith("python -m pip install neuralsat gurobipy")
    with pytest.raises(RuntimeError, match="auto_LiRPA is missing"):
        autolirpa.library.__wrapped__()


def test_the_copy_in_the_wheel_is_loaded_under_a_name_of_its_own() -> None:
    place = autolirpa.find()
    if place.upstream:
        pytest.skip("upstream's package is installed")
    present = autolirpa.availability()
    assert present.installed
    assert present.version == place.version
    assert "in neuralsat" in present.source
    library = autolirpa.library()
    assert library.__name__ == "verifiers_auto_lirpa"
    assert library.BoundedModule
