"""Changed leaderboard entries and cards of checkpoints: valid, or named in a sentence; never a site with anything else.

Run with ``python -m tests.fuzz.entries N SEED``.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

from prunecert.bench.check import main as check
from prunecert.bench.leaderboard.check import check_tree
from prunecert.bench.leaderboard.entry import entry_digest, seal
from prunecert.bench.publish import main as publish
from prunecert.bench.report.kept_accuracies import of_card
from prunecert.models.checkpoint import ZOO, load_card
from tests.bench import boards
from tests.fuzz import harness, mutate


@functools.cache
def _board() -> tuple[dict[str, Any], ...]:
    return (boards.make(), boards.make("dense", 1.0), boards.make("hydra", 2.0))


def _json(data: Any) -> str:
    return json.dumps(data)


def _tree(folder: Path, text: str, name: str) -> Path:
    root = folder / "results"
    shutil.rmtree(root, ignore_errors=True)
    boards.write(root, _board()[1])
    (root / "leaderboard" / f"{name}.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    return root


def _judged(root: Path) -> str:
    """Returns ``valid`` or ``named``; what is printed must be printable, and the honest entry must stay."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = check([str(root)])
    lines = out.getvalue().splitlines()
    if not all(line.isprintable() for line in lines) or any(line.lstrip().startswith("::") for line in lines):
        return "RAW"
    honest = _board()[1]["name"]
    good, problems = check_tree(root)
    if (code == 1) != bool(problems) or honest not in good:
        return "WRONG"
    return "named" if problems else "valid"


def entry(rng: random.Random, folder: Path) -> str:
    """Tries an entry with changed values, sometimes sealed again by its forger."""
    data = mutate.data(rng, copy.deepcopy(rng.choice(_board()[::2])))
    with contextlib.suppress(Exception):
        # A forger makes the digest fit, and all that follows from the rest, where it can be computed.
        if rng.random() < 0.5:
            data["digest"] = entry_digest(data)
        elif rng.random() < 0.5:
            data = seal(data)
    name = data.get("name") if isinstance(data, dict) else None
    plain = isinstance(name, str) and 0 < len(name) < 200 and name.isprintable() and "/" not in name
    return _judged(_tree(folder, _json(data), str(name) if plain else "zz"))


def text(rng: random.Random, folder: Path) -> str:
    """Tries an entry whose text was changed."""
    data = rng.choice(_board()[::2])
    return _judged(_tree(folder, mutate.text(rng, _json(data)), data["name"]))


def site(rng: random.Random, folder: Path) -> str:
    """Tries to publish a board with a changed entry in it."""
    data = mutate.data(rng, copy.deepcopy(_board()[0]))
    with contextlib.suppress(Exception):
        data = seal(data)
    root, out = _tree(folder, _json(data), "zz"), folder / "site"
    with contextlib.redirect_stdout(io.StringIO()):
        code = publish([str(root), "--out", str(out), "--skip-invalid"])
    page = out / "entries" / f"{_board()[1]['name']}.html"
    return "published" if code == 0 and page.is_file() else "WRONG"


def card(rng: random.Random, folder: Path) -> str:
    """Tries a changed card of a checkpoint."""
    source = sorted(ZOO.glob("*.json"))[0].read_text(encoding="utf-8")
    changed = _json(mutate.data(rng, json.loads(source))) if rng.random() < 0.7 else mutate.text(rng, source)
    path = folder / "card.json"
    path.write_bytes(changed.encode("utf-8", "surrogatepass"))
    of_card(load_card(path))
    return "read"


ATTEMPTS: dict[str, harness.Try] = {"entry": entry, "text": text, "site": site, "card": card}

if __name__ == "__main__":
    sys.exit(harness.main(ATTEMPTS))
