"""Registries import what a name stands for when it is asked for, and name the nearest for one that they lack."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from prunecert.errors import UserError
from prunecert.registry import Registry


@pytest.fixture(name="registry")
def _registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[int]:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "heavy_plugin.py").write_text("LOADS = 7\n")
    monkeypatch.delitem(sys.modules, "heavy_plugin", raising=False)
    return Registry(
        "plug-in", {"heavy": "heavy_plugin:LOADS", "absent": "no_such_module:X", "empty": "heavy_plugin:NO"}
    )


def test_names_are_listed_in_order_without_an_import(registry: Registry[int]) -> None:
    assert list(registry) == ["absent", "empty", "heavy"]
    assert "heavy" in registry
    assert "light" not in registry
    assert "heavy_plugin" not in sys.modules


def test_a_name_is_imported_once(registry: Registry[int], tmp_path: Path) -> None:
    assert registry.get("heavy") == 7
    sys.modules.pop("heavy_plugin")
    assert registry.get("heavy") == 7
    assert "heavy_plugin" not in sys.modules


def test_unknown_names_are_refused_with_the_nearest(registry: Registry[int]) -> None:
    assert registry.check("heavy") == "heavy"
    with pytest.raises(
        UserError, match=r"Unknown plug-in 'heavi'. Did you mean 'heavy'\? Available: absent, empty, heavy"
    ):
        registry.get("heavi")


def test_names_are_added_and_not_taken_over(registry: Registry[int]) -> None:
    registry.register("more", "heavy_plugin:LOADS")
    registry.register("more", "heavy_plugin:LOADS")
    assert registry.get("more") == 7
    with pytest.raises(ValueError, match="plug-in 'more' is registered already as heavy_plugin:LOADS"):
        registry.register("more", "elsewhere:X")


def test_a_target_that_is_not_there_is_no_user_s_fault(registry: Registry[int]) -> None:
    with pytest.raises(ModuleNotFoundError):
        registry.get("absent")
    with pytest.raises(AttributeError):
        registry.get("empty")
