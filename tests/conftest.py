"""`pytest` without arguments is quick: it uses two to four cores, leaves slow tests out, and says so.

Of a property it draws fewer examples than `tox` does.

Processes that share the cores share them out: each one's libraries, and the programs that it starts, use its part
alone, or threads of one would wait for those of another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import pytest

#: What `pytest` runs unless -m asks for something else, see ``addopts`` in pyproject.toml.
QUICK = "not slow"
#: Examples that a plain run draws of a property that doesn't say how many; all tests draw a hundred.
EXAMPLES = 40
#: Workers beyond these would save less than they take to import torch.
MOST_WORKERS = 4
_LEFT_OUT = pytest.StashKey[int]()

# Before torch is imported: later it isn't read any more.
if (_workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    _cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores // _workers)))


# The many programs that tests start, and the workers, would each compile all sources anew, which takes half their time.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Returns how many processes ``-n auto`` starts: one a core for all tests, none of its own for those of a path."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS) if cores > 1 else 0


def pytest_configure(config: pytest.Config) -> None:
    """Says how many examples are drawn, unless it is told otherwise; before tests are imported, which ask for it.

    An example may take as long as it takes: machines are busy.
    """
    if not config.pluginmanager.hasplugin("hypothesispytest") or config.getoption("--hypothesis-profile"):
        return
    from hypothesis import settings

    usual = settings.get_profile("default")
    settings.register_profile("quick", usual, deadline=None, max_examples=EXAMPLES)
    settings.register_profile("whole", usual, deadline=None)
    settings.load_profile("quick" if config.getoption("markexpr") == QUICK else "whole")


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Counts slow tests that are left out, and tells the process that started this worker."""
    for item in items[:1]:
        slow = sum(other.get_closest_marker("slow") is not None for other in items)
        item.config.stash[_LEFT_OUT] = item.config.stash.get(_LEFT_OUT, 0) + slow
        getattr(item.config, "workeroutput", {})["left_out"] = item.config.stash[_LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Takes what a worker told; all collect the same tests."""
    node.config.stash[_LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says how many slow tests were left out."""
    number = config.stash.get(_LEFT_OUT, 0)
    if number and config.getoption("markexpr") == QUICK:
        terminalreporter.write_line(f"{number:,} slow tests left out: tox or -m '' runs them; of one file: -m '' FILE.")
