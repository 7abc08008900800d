"""Every example in a docstring is run, and says what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests import house

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [name for name, source in house.modules().items() if ">>> " in source.read_text()]


def failures(module: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Runs a module's examples; returns how many there are, and what is wrong."""
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module), module):
        runner.run(test)
    return runner.tries, capsys.readouterr().out


@pytest.mark.parametrize("module", MODULES)
def test_examples(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Files that an example writes are there for the module's other examples, and nowhere else.
    monkeypatch.chdir(tmp_path)
    count, said = failures(module, capsys)
    assert count
    assert not said, said


def test_an_example_that_is_wrong_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wrong_example.py").write_text(
        'def f():\n    """A.\n\n    >>> 1 + 1\n    3\n    >>> 2\n    2\n    """\n'
    )
    count, said = failures("wrong_example", capsys)
    assert count == 2
    assert "Expected:\n    3\nGot:\n    2" in said
