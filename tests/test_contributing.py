"""The guides of CONTRIBUTING.md are run as they stand: written, registered, and tested by their own tests."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

from prunecert.bench.schema.suite import load_suite
from prunecert.models import NETWORKS, OBJECTIVES, PRUNERS
from prunecert.registry import Registry
from prunecert.verifiers import VERIFIERS
from tests import house

GUIDES = dict(
    re.findall(r"^## Add an? (\w+)\n(.*?)(?=^## |\Z)", (house.ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
)
REGISTRIES: dict[str, Registry[object]] = {
    "verifiers/__init__.py, in VERIFIERS": VERIFIERS,  # type: ignore[dict-item]
    "models/__init__.py, in PRUNERS": PRUNERS,  # type: ignore[dict-item]
    "models/__init__.py, in OBJECTIVES": OBJECTIVES,  # type: ignore[dict-item]
    "models/__init__.py, in NETWORKS": NETWORKS,  # type: ignore[dict-item]
}


def blocks(guide: str) -> dict[str, str]:
    """Returns a guide's blocks of code by where they go, as their first lines say."""
    return dict(re.findall(r"^```(?:python|yaml)\n# (.+?)\n(.*?)^```$", GUIDES[guide], re.M | re.S))


@pytest.mark.parametrize("guide", ["verifier", "pruner", "objective", "network"])
def test_what_a_guide_adds_passes_its_own_tests(guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (source, code), (entry, line), (test, checks) = blocks(guide).items()
    # A child process finds the module by its name on the path that it is given; the checkout isn't written to.
    name = f"guide_{Path(source).stem}"
    (tmp_path / f"{name}.py").write_text(code)
    dotted = "prunecert." + source.removesuffix(".py").replace("/", ".")
    monkeypatch.setitem(sys.modules, dotted, importlib.import_module(name))
    ((key, target),) = eval("{" + line + "}").items()
    assert target.partition(":")[0] == dotted
    monkeypatch.setitem(REGISTRIES[entry]._targets, key, target)
    assert house.ROOT / test in house.own_tests(dotted)
    space: dict[str, object] = {}
    exec(compile(checks, test, "exec"), space)
    tests = [value for key, value in space.items() if key.startswith("test_")]
    assert tests
    for check in tests:
        assert callable(check)
        check(**({"tmp_path": tmp_path} if inspect.signature(check).parameters else {}))
    REGISTRIES[entry]._loaded.pop(key, None)
    sys.modules.pop(name)


def test_the_guides_suite_is_what_it_says(tmp_path: Path) -> None:
    ((_, text),) = blocks("suite").items()
    path = tmp_path / "first-steps.yaml"
    path.write_text(text)
    suite = load_suite(str(path))
    assert [cell.compression for cell, _ in suite.cells] == [1, 10, 10]
