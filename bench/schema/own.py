"""Networks of one's own in a suite: ONNX files, PyTorch factories and checkpoints, beside those of the registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from prunecert.bench.schema.cell import Cell, show_eps
from prunecert.bench.schema.yamlfile import Section
from prunecert.models import DENSE

KINDS = ("onnx", "module", "checkpoint")
#: In the place of an objective's and a pruner's name, where nobody says how a network was trained and pruned.
OWN, PRUNED = "own", "pruned"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,59}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+-]{0,39}")


@dataclass(frozen=True)
class OwnNetwork:
    """Where a network comes from.

    Args:
        kind: ``onnx``, ``module`` or ``checkpoint``.
        target: A path, relative to the suite's file; or ``module:attribute``, a module or what makes one.
        folder: The suite's folder.
    """

    kind: str
    target: str
    folder: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.target


@dataclass(frozen=True)
class OwnCell(Cell):
    """A network of one's own at one radius; its compression is counted when the file is read.

    Args:
        source: Where it comes from.
        dense: The dense network that it was pruned from, if the suite names it.
    """

    source: OwnNetwork
    dense: OwnNetwork | None = None

    @property
    def name(self) -> str:
        """``mine_own_eps2_pruned``; without a compression, which is counted later, and the seed."""
        return f"{self.network}_{self.objective}_eps{float(self.eps * 255):g}_{self.pruner}".replace(" ", "-")

    def to_json(self) -> dict[str, Any]:
        """Returns plain data; `eps` as text, so that it stays exact."""
        return {**super().to_json(), "eps": show_eps(self.eps), "source": self.source.target}


def is_own(block: Section) -> bool:
    """Whether a block's networks are entries and no names."""
    networks = block.data.get("networks")
    return isinstance(networks, dict) or (isinstance(networks, list) and any(isinstance(n, dict) for n in networks))


def own_cells(block: Section, radii: Sequence[Fraction], folder: Path) -> list[OwnCell]:
    """Returns the cells of a block whose networks are one's own: each at each radius, behind its dense network.

    Args:
        block: The block; its networks are entries with one of ``onnx``, ``module`` and ``checkpoint``, and with
            ``dense``, ``name``, ``objective`` and ``pruner`` where there is something to be said.
        radii: The radii.
        folder: The suite's folder.

    Raises:
        UserError: An entry has none or several of these, or an unknown key, or the block is about l2 balls; file and
            line are named.
    """
    for key in ("norm", "trained_eps"):
        if block.data.get(key, "linf") != "linf":
            raise block.refusal(key, "it is refused with networks of one's own, which are verified over boxes.")
    if isinstance(block.data["networks"], dict):
        block.data["networks"] = [block.data["networks"]]
    cells: list[OwnCell] = []
    for entry in block.sections("networks"):
        kinds = [kind for kind in KINDS if kind in entry]
        if len(kinds) != 1:
            raise entry.refusal(None, f"a network needs one of the keys {', '.join(KINDS)}; it has {kinds or 'none'}.")
        (kind,) = kinds
        target = entry.take(kind, str)
        source = _checked(entry, kind, OwnNetwork(kind, target, folder))
        dense_target = entry.take("dense", str, "")
        dense = _checked(entry, "dense", OwnNetwork(kind, dense_target, folder)) if dense_target else None
        name = entry.take("name", str, _stem(target))
        if not _NAME.fullmatch(name):
            raise entry.refusal("name", f"{name!r} is refused; allowed are letters, digits, '.' and '-', at most 60.")
        objective, pruner = (_word(entry, key, usual) for key, usual in (("objective", OWN), ("pruner", "")))
        entry.finish()
        for eps in radii:
            if dense is not None:
                cells.append(OwnCell(name, objective, eps, DENSE, 1.0, 0, dense))
            cells.append(OwnCell(name, objective, eps, pruner or (PRUNED if dense else OWN), 1.0, 0, source, dense))
    names = [cell.name for cell in cells]
    for cell_name in names:
        if names.count(cell_name) > 1:
            raise block.refusal("networks", f"{cell_name!r} stands for two networks; give each a name of its own.")
    return cells


def _stem(target: str) -> str:
    stem = target.rpartition(":")[2] if ":" in target else Path(target).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9.-]+", "-", stem).strip("-.") or "network"


def _word(entry: Section, key: str, default: str) -> str:
    text = entry.take(key, str, default)
    if text != default and not _WORD.fullmatch(text):
        raise entry.refusal(key, f"{text!r} is refused; allowed are letters, digits, blanks, '.', '+' and '-'.")
    return text


def _checked(entry: Section, key: str, network: OwnNetwork) -> OwnNetwork:
    """Refuses what can't be a network of its kind, as far as that shows without reading it."""
    if network.kind == "module":
        if not re.fullmatch(r"[\w.]+:[\w.]+", network.target):
            raise entry.refusal(key, f"{network.target!r} is refused; write module:attribute, e.g. mypkg.nets:make.")
        return network
    ending = ".onnx" if network.kind == "onnx" else ".safetensors"
    if not network.target.endswith(ending):
        raise entry.refusal(key, f"{network.target!r} is refused; it must end in {ending}.")
    if not network.path.is_file():
        raise entry.refusal(
            key, f"there is no file {str(network.path)!r}; the path is relative to the suite's own folder."
        )
    return network
