# ruff: noqa: E501 — the table stands here as it is printed
from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from prunecert.bench.gating import table
from tests.bench.gatekit import (
    result,
)

TERMINAL = """\

 cell                            result    n                   verified   95 % interval  McNemar p  lost  gained               under attack                      clean   time
 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 cnn-small_ibp_eps2_lwm_x10_s0   FAIL    100    97.0 → 97.0 % (+0.0 pp)    -5.1 to +5.1          1     3       3    98.0 → 99.0 % (+1.0 pp)   99.0 → 100.0 % (+1.0 pp)  ×1.00
 cnn-small_ibp_eps2_dense_x1_s0  PASS      4  75.0 → 100.0 % (+25.0 pp)  -27.6 to +60.9          1     0       1  100.0 → 100.0 % (+0.0 pp)  100.0 → 100.0 % (+0.0 pp)      –

FAIL: cnn-small_ibp_eps2_lwm_x10_s0, images: 3 proved images lost, 3 gained: 1 now sat or misclassified (0 allowed), 1 now undecided, proved in good time before (0 allowed), 1 now undecided, proved near the limit before (1 allowed)
  image 0: was unsat by ibp, now sat by pgd
  image 1: was unsat by bab, now timeout
  image 2: was unsat by bab (took 60 % of its limit), now timeout
SKIP: cnn-small_ibp_eps2_dense_x1_s0, time: not compared: only 4 images that both classify correctly
gained: cnn-small_ibp_eps2_lwm_x10_s0: 3 images newly proved
  image 3: was sat by pgd, now unsat by ibp
  image 4: was timeout, now unsat by ibp
  image 5: was misclassified, now unsat by ibp
gained: cnn-small_ibp_eps2_dense_x1_s0: 1 image newly proved
  image 3: was timeout, now unsat by ibp
FAILED: a regression or a contradiction in 1 of 2 cells; 3 proved images lost, 4 gained
"""


def test_the_table_is_what_it_was() -> None:
    stream = io.StringIO()
    table.show(result(), Console(file=stream, width=200, highlight=False))
    assert [line.rstrip() for line in stream.getvalue().splitlines()] == TERMINAL.splitlines()


@pytest.mark.parametrize(
    ("width", "lacking"), [(80, "McNemar p, clean, under attack: in"), (120, "McNemar p, clean: in")]
)
def test_a_narrow_terminal_cuts_no_word(width: int, lacking: str) -> None:
    """Names stand above their numbers, and what has no room is said to be in the file."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None, highlight=False)
    table.show(result(), console)
    text = stream.getvalue()
    drawn = text[: text.index("FAIL: ")]
    assert max(map(len, drawn.splitlines())) <= width
    for cell in result().cells:
        words = table.row(cell)
        assert f" {words[0]}\n" in drawn
        assert words[3] in drawn
    assert f" {lacking} gate.md" in drawn


def test_long_lists_are_cut() -> None:
    lines: Sequence[str] = [str(i) for i in range(50)]
    assert table.shortened(list(lines))[-1] == "… and 31 more"
    assert table.shortened(list(lines[:20])) == list(lines[:20])
