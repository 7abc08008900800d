"""Somebody else's network, entered by an ONNX file and a card; none of our training code is needed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from prunecert.bench.planning.exports import Export
from prunecert.bench.planning.plan import CellPlan
from prunecert.bench.planning.select import Cells
from prunecert.bench.planning.stages import (
    Installed,
    describe_float32_only,
    make_stages,
    other_reasons,
    supported_stages,
)
from prunecert.bench.schema.cell import Cell, Protocol, parse_eps, show_eps
from prunecert.bench.schema.suite import Suite
from prunecert.bench.schema.yamlfile import Document, Section
from prunecert.errors import UserError, describe_os_error
from prunecert.models import DENSE
from prunecert.models.data import Dataset
from prunecert.onnx.count import count_layers, totals
from prunecert.onnx.io import identity
from prunecert.printable import shortened

SCHEMA_VERSION = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
#: A compression that the card claims may differ from the counted one by this share.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class CardCell(Cell):
    """A cell that a card describes; its name is the card's."""

    title: str = ""

    @property
    def name(self) -> str:
        """The card's name."""
        return self.title


@dataclass(frozen=True)
class NetworkCard:
    """What a card says.

    Args:
        path: The card.
        onnx: The network's file.
        name: Short name: small letters, digits, ``.``, ``_`` and ``-``.
        network: The architecture; a shipped name only if it is that network.
        objective: The training objective, in the author's word.
        pruner: The pruning method, or ``dense``.
        eps: Radius of the sup norm.
        seed: Seed of training.
        dense_weights: Weights before pruning, where the file was shrunk; else None.
        claimed: The compression that the card claims, or None.
        title: The method in a few words.
        url: Where it is described.
        notes: Anything else.
        authors: Who made it, as a citation names them.
    """

    path: Path
    onnx: Path
    name: str
    network: str
    objective: str
    pruner: str
    eps: Fraction
    seed: int
    dense_weights: int | None
    claimed: float | None
    title: str
    url: str
    notes: str
    authors: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns plain data without paths."""
        return {
            "network": self.network,
            "objective": self.objective,
            "pruner": self.pruner,
            "eps": show_eps(self.eps),
            "seed": self.seed,
            "dense_weights": self.dense_weights,
            "title": self.title,
            "url": self.url,
            "notes": self.notes,
            "authors": self.authors,
        }


def read_card(path: Path) -> NetworkCard:
    """Reads and checks a card (YAML, or JSON, which is YAML).

    Raises:
        UserError: A key is missing, unknown or refused, or the ONNX file isn't there; file and line are named.
    """
    root = Document(path).root
    version = root.take("schema_version", int, SCHEMA_VERSION)
    if not 1 <= version <= SCHEMA_VERSION:
        raise root.refusal(
            "schema_version", f"{version} is refused; this program reads versions up to {SCHEMA_VERSION}."
        )
    name = root.take("name", str)
    if not _NAME.fullmatch(name):
        raise root.refusal(
            "name", f"{name!r} is refused; allowed are small letters, digits, '.', '_' and '-', at most 80."
        )
    eps_text = root.take("eps", str)
    try:
        eps = parse_eps(eps_text)
    except UserError as error:
        raise root.refusal("eps", str(error)) from error
    onnx = path.parent / root.take("onnx", str)
    try:
        there = onnx.is_file()
    except OSError as error:  # A name that is too long, a folder that may not be entered.
        raise root.refusal("onnx", describe_os_error(error)) from error
    if not there:
        raise root.refusal("onnx", f"there is no file {shortened(onnx)}; the path is relative to the card.")
    claimed = root.take("compression", float) if "compression" in root else None
    dense = root.take("dense_weights", int) if "dense_weights" in root else None
    card = NetworkCard(
        path=path,
        onnx=onnx,
        name=name,
        network=_text(root, "network"),
        objective=_text(root, "objective"),
        pruner=_text(root, "pruner"),
        eps=eps,
        seed=root.take("seed", int, 0),
        dense_weights=dense,
        claimed=claimed,
        title=_text(root, "title", ""),
        url=_text(root, "url", ""),
        notes=_text(root, "notes", "", 2000),
        authors=_text(root, "authors", "", 400),
    )
    if card.url and not re.fullmatch(r"https?://\S+", card.url):
        raise root.refusal("url", f"{card.url!r} is refused; it must begin with https:// or http://.")
    root.finish(("compression", "dense_weights"))
    return card


def _text(root: Section, key: str, default: str | None = None, longest: int = 80) -> str:
    text = root.take(key, str, default)
    plain = text.replace("\n", " ") if key == "notes" else text
    if (default is None and not text.strip()) or len(text) > longest or not plain.isprintable():
        raise root.refusal(key, f"{text!r:.100} is refused; it must be 1 to {longest} printable characters.")
    return text


def measure(card: NetworkCard, shape: Sequence[int] = (3, 32, 32)) -> tuple[Cell, Export]:
    """Counts the weights in the file and compares them with what the card says.

    Raises:
        UserError: Input or output have other sizes than the data set's, or the counted compression isn't the claimed
            one.
    """
    from prunecert.verifiers.formats.support import network_info

    info = network_info(card.onnx)
    expected, allowed = tuple(shape), [1, *shape]
    if info.input_shape[1:] == (*expected[1:], expected[0]) != expected:
        raise UserError(
            f"{card.onnx.name} is refused: its input has shape {list(info.input_shape)}, channels last; allowed is "
            f"{allowed}: `python -m prunecert.onnx normalise {card.onnx.name} NEW.onnx` writes such a network."
        )
    if info.input_shape[1:] != expected:
        raise UserError(
            f"{card.onnx.name} is refused: its input has shape {list(info.input_shape)}; allowed is {allowed}, "
            "pixels in [0, 1], with any normalisation inside of the network."
        )
    weights, kept = totals(count_layers(card.onnx))
    dense = card.dense_weights or weights
    if kept == 0 or dense < weights:
        why = "all its weights are zero" if kept == 0 else f"dense_weights {dense:,} is below the file's {weights:,}"
        raise UserError(f"{card.path}: {card.onnx.name} is refused: {why}.")
    compression = dense / kept
    if card.claimed is not None and abs(card.claimed - compression) > _TOLERANCE * compression:
        raise UserError(
            f"{card.path}, compression: the card says {card.claimed:g}, the file has {kept:,} non-zero of {dense:,} "
            f"weights, which is {compression:.4g}; correct the card, or export with the masks multiplied in."
        )
    if card.pruner == DENSE and compression > 1 + _TOLERANCE:
        raise UserError(
            f"{card.path}, pruner: the card says 'dense', but the file's compression is {compression:.4g}; name the "
            "pruner."
        )
    ratio = card.claimed if card.claimed is not None else (1.0 if card.pruner == DENSE else float(f"{compression:.4g}"))
    cell = CardCell(card.network, card.objective, card.eps, card.pruner, ratio, card.seed, card.name)
    export = Export(card.onnx, identity(card.onnx), 1 - kept / dense, compression, "", card.to_json())
    return cell, export


def card_cells(suite: Suite, cards: Sequence[NetworkCard]) -> tuple[Cells, dict[str, Export]]:
    """Returns a cell for each card, under the suite's protocol, and their files by cell name.

    The protocol is that of the suite's cells of the same network and radius, where it has some, else its base one.

    Raises:
        UserError: Two cards have one name; see also `measure`.
    """
    cells: list[tuple[Cell, Protocol]] = []
    exports: dict[str, Export] = {}
    for card in cards:
        if card.name in exports:
            raise UserError(f"{card.path}, name: {card.name!r} is another card's name already; give each its own.")
        cell, exports[card.name] = measure(card, suite.data.shape)
        cells.append((cell, card_protocol(suite, card.network, card.eps)))
    return tuple(cells), exports


def card_protocol(suite: Suite, network: str, eps: Fraction) -> Protocol:
    """Returns how the suite verifies a network that it does not train itself."""
    return next((p for cell, p in suite.cells if (cell.network, cell.eps) == (network, eps)), suite.base)


def card_plans(
    cells: Cells,
    exports: dict[str, Export],
    installed: Installed,
    data: dict[str, Dataset],
    tell: Callable[[str], None],
) -> tuple[CellPlan, ...]:
    """Makes the plans of cards' cells; see `bench.planning.select.prepare`.

    Raises:
        UserError: The network does not give ten outputs.
    """
    from prunecert.verifiers.formats.counterexample import outputs

    plans = []
    for cell, protocol in cells:
        export, images = exports[cell.name], data[protocol.split]
        logits = outputs(export.path, images.images[:1])
        if logits.shape != (1, images.classes):
            raise UserError(
                f"{export.path.name} is refused: it has {logits.shape[-1]} outputs; allowed are {images.classes}."
            )
        stages, unsupported = supported_stages(make_stages(protocol, installed), export.path)
        for reason in dict.fromkeys(other_reasons(unsupported).values()):
            tell(f"{cell.name}: {reason} It is left out there.")
        plans.append(CellPlan(cell, protocol, export, stages, unsupported, images, min(protocol.images, len(images))))
    for line in describe_float32_only({plan.name: plan.unsupported for plan in plans}):
        tell(line)
    return tuple(plans)
