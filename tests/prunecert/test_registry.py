"""Registries import what a name stands for when it is asked for, and name the nearest for one that they lack."""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from prunecert.errors import UserError
from prunecert.registry import PLUGINS, Registry, import_plugins, imported


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


def test_a_module_that_ends_the_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script without a main guard, as a network or as a plug-in: neither may look like a pass."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ends_it.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(UserError, match=r"The network 'ends_it:make' can't be imported \(SystemExit: 0\)"):
        imported("ends_it:make", "network")
    monkeypatch.setenv(PLUGINS, "ends_it")
    with pytest.raises(UserError, match=r"The plug-in 'ends_it' can't be imported \(SystemExit: 0\)"):
        import_plugins()


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


def test_a_target_may_stand_for_itself_and_modules_here_are_found(
    registry: Registry[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    (tmp_path / "local_module.py").write_text("class Box:\n    VALUE = 5\n")
    assert "local_module:Box" in registry
    assert registry.get("local_module:Box.VALUE") == 5
    assert "local_module:Box" not in list(registry)
    for wrong in ("local_module:Bax", "no_such_module:X"):
        with pytest.raises(UserError, match=f"The plug-in '{wrong}' can't be imported"):
            registry.get(wrong)
    assert "C:/not a target" not in registry


def test_plugins_and_installed_packages_add_names_when_a_name_is_looked_for(
    registry: Registry[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [EntryPoint("from-package", "heavy_plugin:LOADS", registry.group), EntryPoint("heavy", "x:y", "g")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: entries if group == registry.group else [])
    assert registry.group == "prunecert.plugins"
    assert registry.get("heavy") == 7
    assert "from-package" not in registry._targets
    assert registry.get("from-package") == 7
    assert list(registry) == ["absent", "empty", "from-package", "heavy"]
    assert Registry("add-on").group == "prunecert.addons"
    assert Registry("data set").group == "prunecert.datasets"


def test_a_plugin_that_cannot_be_imported_is_named(registry: Registry[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PLUGINS, "heavy_plugin, no_such_module")
    with pytest.raises(UserError, match="The plug-in 'no_such_module' can't be imported"):
        list(registry)
    assert "heavy_plugin" in sys.modules
