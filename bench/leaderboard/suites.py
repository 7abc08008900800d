"""The suites that ship, by which entries are judged."""

from __future__ import annotations

import functools

from prunecert.bench.schema.suite import Suite, available_suites, load_suite
from prunecert.errors import UserError


@functools.cache
def shipped_suite(name: str, profile: str) -> Suite | None:
    """Returns a shipped suite, or None where there is none of that name and profile."""
    if name not in available_suites():
        return None
    try:
        return load_suite(name, profile)
    except UserError:
        return None
