"""The commands of an entry's page: what somebody else types to have its file and to measure it again.

They are made from what the entry says of its protocol. The command that was typed back then names the folders, the
earlier runs and the machine of whoever typed it, which are of no use to others.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from prunecert.bench.leaderboard.suites import shipped_suite

#: Options of `bench.run` that name somebody's folders, machine or name, and whether words follow them.
_OWN: Mapping[str, bool] = {
    **dict.fromkeys(("--out", "--data-root", "--checkpoints", "--exports", "--abcrown", "--reuse", "--by"), True),
    **dict.fromkeys(("--workers", "--executor", "--chunk", "--shard", "--retry"), True),
    **dict.fromkeys(("--submit", "--no-pin", "--warm-start", "--dry-run"), False),
}


def without_places(words: Sequence[str]) -> list[str]:
    """Returns a command without the options that name somebody's folders, machine or name.

    Example:
        >>> without_places("python -m bench.run --suite s --reuse old/a old/b --workers=4 --submit --by Me".split())
        ['python', '-m', 'bench.run', '--suite', 's']

    Args:
        words: The command, word by word.
    """
    kept: list[str] = []
    dropping = False
    for word in words:
        if word.startswith("--"):
            name, _, value = word.partition("=")
            own = name in _OWN or name.startswith("--slurm-")
            dropping = own and not value and _OWN.get(name, True)
            if own:
                continue
        elif dropping:
            continue
        kept.append(word)
    return kept


def shipped(entry: Mapping[str, Any]) -> bool:
    """Whether the network is a cell of a shipped suite, so that its checkpoint is to be had here."""
    protocol = entry["protocol"]
    suite = shipped_suite(protocol["suite"], protocol["profile"])
    name = entry["cell"]["name"]
    return suite is not None and entry["training"] is not None and any(cell.name == name for cell, _ in suite.cells)


def measure_again(entry: Mapping[str, Any]) -> str:
    """Returns the command that asks the same verifiers about the same network and images."""
    protocol = entry["protocol"]
    words = ["prunecert", "run", "--suite", protocol["suite"]]
    if protocol["profile"] != "default":
        words += ["--profile", protocol["profile"]]
    words += ["--cells", entry["cell"]["name"]] if shipped(entry) else ["--card", "card.yaml"]
    verifiers = [stage["verifier"] for stage in protocol["stages"]]
    if verifiers != list(protocol["asked"]["cascade"]):
        words += ["--verifiers", ",".join(verifiers)]
    if protocol["device"] != "cpu":
        words += ["--device", protocol["device"]]
    return shlex.join(words)


def export_again(entry: Mapping[str, Any]) -> str | None:
    """Returns the command that writes the ONNX file of the given hash; None for networks that don't ship."""
    if not shipped(entry):
        return None
    return shlex.join(["prunecert", "export", "--suite", entry["protocol"]["suite"], "--cells", entry["cell"]["name"]])


def card_text(entry: Mapping[str, Any]) -> str:
    """Returns the card (YAML) by which somebody else enters this network's file again."""
    cell, method, weights = entry["cell"], entry["method"], entry["weights"]
    facts: list[tuple[str, Any]] = [
        ("name", cell["name"]),
        ("onnx", f"{cell['name']}.onnx"),
        *((key, cell[key]) for key in ("network", "objective", "pruner", "eps", "seed")),
    ]
    if weights["dense"] != weights["total"]:
        facts.append(("dense_weights", weights["dense"]))
    facts += [(key, method[key]) for key in ("title", "authors", "url", "notes") if method.get(key)]
    return "".join(f"{key}: {_scalar(value)}\n" for key, value in facts)


def _scalar(value: Any) -> str:
    """Returns a value as a YAML scalar: JSON's strings are YAML's, too."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)
