"""Changed suites, cards, rules and spaces: read, or refused in a sentence.

Run with ``python -m tests.fuzz.yaml_files N SEED``.
"""

from __future__ import annotations

import functools
import random
import sys
from pathlib import Path

from prunecert.bench.planning.card import read_card
from prunecert.bench.schema.search_space import draw, read_space
from prunecert.bench.schema.suite import SUITES, load_rules, load_suite
from prunecert.bench.schema.yamlfile import load_scalar
from prunecert.models.recipe import Recipe
from tests.fuzz import harness, mutate

CARD = """\
name: my-network
onnx: net.onnx
network: cnn-small
objective: mine
pruner: mine
eps: 2/255
compression: 10
dense_weights: 214760
seed: 0
title: My network
url: https://example.org/a
notes: |
  Two
  lines
"""
RULES = """\
gate:
  verified: -0.5pp
  clean_min: 40%
  undecided: 2%
  broken: 0
  time: 1.5
  networks:
    cnn-small: {verified: -1pp, strict_below: 0.5}
  cells:
    "*lwm*": {attacked: -2pp}
"""
SPACE = """\
lr: {low: 1e-4, high: 1e-2, log: true}
objective.alpha: [0.1, 0.5]
pretrain_epochs: {low: 3, high: 9}
"""


@functools.cache
def _shipped() -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8") for path in sorted(SUITES.glob("*.yaml")))


def _written(rng: random.Random, folder: Path, source: str) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(mutate.text(rng, source).encode("utf-8", "surrogatepass"))
    return path


def suite(rng: random.Random, folder: Path) -> str:
    """Tries a changed suite, with its recipes."""
    path = _written(rng, folder, rng.choice(_shipped()))
    loaded = load_suite(str(path), rng.choice(["default", "smoke"]))
    loaded.digest()
    for network, objective in sorted({(cell.network, cell.objective) for cell, _ in loaded.cells}):
        Recipe.from_dict(loaded.recipe(network, objective), objective, where="the suite")
    return "read"


def card(rng: random.Random, folder: Path) -> str:
    """Tries a changed card."""
    (folder / "net.onnx").touch()
    read_card(_written(rng, folder, CARD)).to_json()
    return "read"


def rules(rng: random.Random, folder: Path) -> str:
    """Tries changed rules."""
    load_rules(_written(rng, folder, RULES)).of("cnn-small_ibp_eps2_lwm_x10_s0", "cnn-small")
    return "read"


def space(rng: random.Random, folder: Path) -> str:
    """Tries a changed search space."""
    draw(read_space(_written(rng, folder, SPACE)), 5, 0)
    return "read"


def scalar(rng: random.Random, folder: Path) -> str:
    """Tries what may follow the equals sign of a setting."""
    load_scalar(mutate.text(rng, rng.choice(["1e-4", "true", "[1, 2]", "word", "7"])))
    return "read"


ATTEMPTS: dict[str, harness.Try] = {"suite": suite, "card": card, "rules": rules, "space": space, "scalar": scalar}

if __name__ == "__main__":
    sys.exit(harness.main(ATTEMPTS))
