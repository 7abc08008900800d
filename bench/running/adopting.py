"""Takes networks that others have trained into the checkpoints: CTRAIN's, and those of Adversarial Pruning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from prunecert.bench.planning import select
from prunecert.bench.schema.cell import Cell, parse_eps, show_eps
from prunecert.errors import UserError
from prunecert.files import write_text
from prunecert.models import DENSE, OBJECTIVES

if TYPE_CHECKING:
    from torch import nn

#: How far a compression may be from its key's, or a share of units: layers that a method leaves whole.
_RATE = 0.1


@dataclass(frozen=True, kw_only=True)
class ForeignNetwork:
    """A network's file that somebody else has written, and where it goes.

    Args:
        file: A state dictionary.
        sha256: Its SHA-256, as it is published.
        out: Folder of checkpoints.
        force: Whether a checkpoint of that name is replaced.
    """

    file: Path
    sha256: str
    out: Path = select.CHECKPOINTS
    force: bool = False


def name_of_import(cell: Cell) -> str:
    """Returns what an imported network is called: like the dense cell that it is, but as no cell of any suite can be.

    So that the dense control of its pruned networks, which is fine-tuned for as long as they are, is a cell beside it.
    Names of cells end with a compression and a seed, or, of one's own networks, with a radius and a word.

    >>> name_of_import(Cell("cnn5-standardised", "mtl-ibp", parse_eps("2/255"), DENSE, 1.0, 0))
    'cnn5-standardised_mtl-ibp_eps2_imported_s0'

    Args:
        cell: Its architecture, objective, radius and seed.
    """
    return f"{cell.family}_imported_s{cell.seed}".replace(":", ".")


def adopt_ctrain(
    foreign: ForeignNetwork,
    network: str,
    objective: str,
    eps: str,
    seed: int,
    *,
    images: int | None = None,
    data_root: Path | None = None,
) -> None:
    """Makes a checkpoint of a network that CTRAIN trained, measured on the validation split.

    These images may be among those that it was trained on, which its card says.

    Args:
        foreign: The file.
        network: Its architecture.
        objective: What it was trained with; for its name.
        eps: Radius that it was trained for.
        seed: Number that tells it from others.
        images: Measure on the first so many of these images; None: all.
        data_root: Folder that holds ``cifar-10-batches-py``; None: it is looked for.

    Raises:
        UserError: The file is another one, doesn't fit the network, or there is a checkpoint of that name.
    """
    from prunecert.models.ctrain import load_ctrain

    if images is not None and images < 1:
        raise UserError(f"--images {images} is refused; it must be at least 1.")
    OBJECTIVES.check(objective)
    cell = Cell(network, objective, parse_eps(eps), DENSE, 1.0, seed)
    name = name_of_import(cell)
    target = foreign.out / f"{name}.json"
    if target.exists() and not foreign.force:
        raise UserError(f"{target} is there already; allowed are --force, which replaces it, another --seed or --out.")
    model = load_ctrain(foreign.file, network, foreign.sha256)

    import torch

    import prunecert
    from prunecert.models.checkpoint import save
    from prunecert.models.data import load
    from prunecert.models.evaluate import evaluate
    from prunecert.models.holdout import FOREIGN_SPLIT
    from prunecert.models.masks import Masks
    from prunecert.models.pipeline import MEASURED

    val = load("val", data_root, allow_sample=False)
    accuracy = evaluate(model, val, float(cell.eps), limit=images)
    card = save(
        foreign.out,
        model,
        Masks.dense(model),
        name=name,
        network=cell.network,
        objective=cell.objective,
        eps=show_eps(cell.eps),
        pruner=DENSE,
        compression=1.0,
        seed=cell.seed,
        recipe={"imported": foreign.sha256.lower()},
        accuracy=accuracy,
        measured=("" if images is None else f"first {images:,} images of the ")
        + MEASURED.replace("validation split", FOREIGN_SPLIT),
        data_fingerprint=val.fingerprint,
        versions={"prunecert": prunecert.__version__, "torch": torch.__version__},
        device="cpu",
        train_seconds=0.0,
        command=f"python -m bench.adopt --file {foreign.file.name} --sha256 {foreign.sha256.lower()} "
        f"--network {cell.network} --objective {cell.objective} --eps {show_eps(cell.eps)} --seed {cell.seed}",
    )
    print(f"{card.name}: {card.weights:,} weights; validation: {card.told()}")
    print(f"To prune it, write `parent: {card.name}` into the recipe of {cell.network}/{cell.objective}.")
    print(f"To verify it as it is, make it a network of a suite: `checkpoint: {target.with_suffix('.safetensors')}`.")


def _check_structured(file: Path, model: nn.Module, sparsity: float, rate: int) -> None:
    """Refuses a file of which neither filters, channels nor weights are gone as its key says."""
    from prunecert.models.ap import units_pruned

    filters, channels = units_pruned(model)
    if all(abs(share - rate / 100) > _RATE for share in (filters, channels, sparsity)):
        raise UserError(
            f"{file} is refused: {filters:.1%} of its filters, {channels:.1%} of its channels and {sparsity:.1%} of "
            f"its weights are zero, and its key says {rate} %; give the key of this file, or a file with its masks "
            "multiplied in."
        )


def adopt_ap(foreign: ForeignNetwork, key_text: str) -> None:
    """Writes a network of the Adversarial Pruning benchmark as ONNX, with its card.

    Args:
        foreign: The file.
        key_text: The benchmark's key of it.

    Raises:
        UserError: The file is another one, its zeros aren't those of the key, or there is a card of that name.
    """
    from prunecert.models.ap import load_ap, parse_key
    from prunecert.models.export import export_model

    key = parse_key(key_text)
    out = foreign.out
    onnx, card = out / f"{key_text.lower()}.onnx", out / f"{key_text.lower()}.yaml"
    if card.exists() and not foreign.force:
        raise UserError(f"{card} is there already; allowed are --force, which replaces it, or another --out.")
    scored = key.rate / 100 if key.pruner == "hydra" and not key.structured else None
    model, masks = load_ap(foreign.file, key.network, foreign.sha256, scored=scored)
    if key.structured:
        _check_structured(foreign.file, model, masks.sparsity, key.rate)
    elif abs(masks.compression / key.compression - 1) > _RATE:
        raise UserError(
            f"{foreign.file} is refused: {masks.sparsity:.1%} of its weights are zero, and its key says {key.rate} %; "
            "give the key of this file, or a file with its masks multiplied in."
        )
    info = export_model(model, masks, {"ap_key": key_text, "sparsity": f"{masks.sparsity:.9f}"}, onnx)
    fields = {
        "schema_version": 1,
        "name": key_text.lower(),
        "onnx": onnx.name,
        "network": key.network,
        "objective": "adversarial",
        "pruner": key.pruner,
        "eps": "8/255",
        "title": key_text,
        "url": "https://arxiv.org/abs/2409.01249",
        "notes": f"Checkpoint of SHA-256 {foreign.sha256.lower()}, read by order and shape.",
    }
    write_text(card, yaml.safe_dump(fields, sort_keys=False))
    print(f"{key_text}: {masks.kept:,} of {masks.total:,} weights ({info.compression:.1f}x)")
    print(f"Attack it: prunecert run --suite cifar10-ap --card {card}")
