"""A run with certificates: the zoo's networks, asked by the sparse engine's verifiers."""

from __future__ import annotations

from pathlib import Path

from tests.bench.conftest import CELLS, Zoo

#: Whose answers are certified while the run goes on, and at its end.
SUITE = """\
name: proved
description: Untrained networks whose answers get certificates
cells:
  - networks: [cnn-small]
    objectives: [ibp]
    eps: [2/255]
    pruners: [lwm]
    compression: [1, 10]
verify:
  images: 3
  cascade: [sparse-ibp, pgd, sparse-bab]
  cross_check: [pgd]
  timeouts: {sparse-ibp: 10, pgd: 10, sparse-bab: 20}
"""


def arguments(zoo: Zoo, out: Path, *more: str) -> list[str]:
    """Returns the arguments of a run on the zoo by the suite above."""
    suite = zoo.data / "proved.yaml"
    suite.write_text(SUITE)
    words = zoo.arguments(out, "--workers", "1", "--cells", CELLS[1], "--certificates", *more)
    words[words.index("--suite") + 1] = str(suite)
    return words
