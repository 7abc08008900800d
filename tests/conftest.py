"""`pytest` without arguments is quick, and says what it left out."""

from __future__ import annotations

import pytest

#: What `pytest` runs unless -m asks for something else, see ``addopts`` in pyproject.toml.
QUICK = "not slow"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says that slow tests were left out, with how many where that is known (not with -n)."""
    if config.getoption("markexpr") == QUICK:
        deselected = len(terminalreporter.stats.get("deselected", ()))
        terminalreporter.write_line(
            f"Left out: {deselected or 'all'} tests marked slow. With them: pytest -n 2 -m '' (or tox); "
            "of one file: pytest -m '' FILE"
        )
