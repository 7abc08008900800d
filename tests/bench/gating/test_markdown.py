# ruff: noqa: E501 — the table stands here as it is printed
from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from prunecert.bench.gating import markdown
from tests.bench.gatekit import (
    result,
)

MARKDOWN = """\
## ❌ FAILED: a regression or a contradiction in 1 of 2 cells; 3 proved images lost, 4 gained

| | cell | n | verified | under attack | clean | lost | gained | McNemar p | time |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
| ❌ | cnn-small\\_ibp\\_eps2\\_lwm\\_x10\\_s0 | 100 | 97.0 → 97.0 % (+0.0 pp) | 98.0 → 99.0 % (+1.0 pp) | 99.0 → 100.0 % (+1.0 pp) | 3 | 3 | 1 | ×1.00 |
| ✅ | cnn-small\\_ibp\\_eps2\\_dense\\_x1\\_s0 | 4 | 75.0 → 100.0 % (+25.0 pp) | 100.0 → 100.0 % (+0.0 pp) | 100.0 → 100.0 % (+0.0 pp) | 0 | 1 | 1 | – |


### Failed

- **cnn-small\\_ibp\\_eps2\\_lwm\\_x10\\_s0**, images: 3 proved images lost, 3 gained: 1 now sat or misclassified (0 allowed), 1 now undecided, proved in good time before (0 allowed), 1 now undecided, proved near the limit before (1 allowed)
  - image 0: was unsat by ibp, now sat by pgd
  - image 1: was unsat by bab, now timeout
  - image 2: was unsat by bab (took 60 % of its limit), now timeout

Baseline of 2026-01-01T00:00:00Z: first
"""


def test_markdown_is_what_it_was() -> None:
    assert markdown.render(result()) == MARKDOWN


@given(st.text())
def test_markdown_is_escaped(text: str) -> None:
    escaped = markdown.escape(text)
    assert "\n" not in escaped
    assert "<" not in escaped
    assert not re.search(r"(?<!\\)(\\\\)*[|`*]", escaped)
