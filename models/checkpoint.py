"""Checkpoints: safetensors, pruned layers stored as a bit mask and the kept weights, with a JSON card beside.

A weight tensor that a mask prunes is stored as ``<name>.mask`` (uint8, eight weights a byte, as `numpy.packbits`
writes them) and ``<name>.kept`` (the kept weights in the order of the flattened tensor); all others are stored
plainly. Weights are float32, or float16 where the recipe says so and the network was rounded to it; the network is
float32 either way. The card carries the file's SHA-256, and loading checks it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.files import replacing
from prunecert.hashing import sha256_file
from prunecert.jsontext import read_json
from prunecert.models.building import build_for
from prunecert.models.checkpoint_folders import ZOO as ZOO
from prunecert.models.holdout import is_foreign, saw_held_out
from prunecert.models.masks import Masks, prunable
from prunecert.models.networks.factorised import saved
from prunecert.models.surgery import operate
from prunecert.printable import shortened

SCHEMA_VERSION = 1
#: Cards have some 3 kB.
_MOST_BYTES = 1 << 20
#: Fields that are left out of a card where there is nothing to say.
_UNSAID = ("surgery", "data", "parent_sha256", "notes")
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Amount = Annotated[float, Meta(ge=0, le=1e12)]


@dataclass(frozen=True)
class Card:
    """What a checkpoint is, how it was made and how good it is on held-out training images.

    Args:
        name: The cell's name, and the stem of the files.
        network: Name in `models.NETWORKS`.
        objective: Name in `models.OBJECTIVES`.
        eps: l-infinity radius it was trained for, as a fraction (``"2/255"``); for `models.NOISE_OBJECTIVES` the
            standard deviation of the noise (``"1/4"``).
        pruner: Name in `models.PRUNERS`, or ``dense``.
        compression: The ratio asked for: all prunable weights over kept ones.
        sparsity: Zeros over all prunable weights, as counted; of factors, what they save likewise.
        weights: Number of prunable weights.
        kept: Number of kept ones; of a weight that is a product, the numbers of its factors.
        sparsity_by_layer: Likewise by parameter name.
        seed: Seed of training and pruning.
        recipe: See `models.recipe.Recipe`.
        accuracy: On the validation split: ``images``, ``clean``, ``pgd`` and, where bounds apply, ``ibp`` and
            ``crown_ibp``, as shares; for `models.NOISE_OBJECTIVES` ``images``, ``clean`` and ``noisy``. Nothing where
            it was trained on that split, too.
        measured: How `accuracy` was measured, in words.
        mask_sha256: Hash of the masks.
        sha256: Hash of the safetensors file.
        data_fingerprint: Hash of the training split.
        versions: Of Python packages and this one.
        device: What it was trained on.
        train_seconds: Wall-clock seconds of this cell's own stages (pre-training is shared).
        command: The command that makes it again.
        schema_version: Of this card.
        throughput: Training images per second by stage, of the stages that were trained with this cell.
        unfit: Why the network must not be published (e.g. trained on a subset), or nothing.
        surgery: Which layers are others than the architecture's; see `models.surgery`.
        data: Name, shape and classes of the data set; nothing for CIFAR-10.
        parent_sha256: Hash of the checkpoint that it began with, where its recipe names a parent.
        notes: What the pruner says of how it went, as plain data by name; see docs/methods.md.
    """

    name: str
    network: str
    objective: str
    eps: str
    pruner: str
    compression: Annotated[float, Meta(ge=1, le=1e9)]
    sparsity: _Share
    weights: _Count
    kept: _Count
    sparsity_by_layer: Mapping[str, _Share]
    seed: _Count
    recipe: Mapping[str, Any]
    accuracy: Mapping[str, _Amount]
    measured: str
    mask_sha256: str
    sha256: str
    data_fingerprint: str
    versions: Mapping[str, str]
    device: str
    train_seconds: _Amount
    command: str
    schema_version: int = field(default=SCHEMA_VERSION)
    throughput: Mapping[str, _Amount] = field(default_factory=dict)
    unfit: str = ""
    surgery: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    parent_sha256: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def saw_held_out(self) -> bool:
        """Whether the network was trained on the validation split, too, which says nothing of it then."""
        return saw_held_out(self.recipe)

    @property
    def foreign(self) -> bool:
        """Whether somebody else trained the network, or the one that it began with, on images unknown here."""
        return is_foreign(self.recipe, self.measured)

    def told(self) -> str:
        """Returns its accuracies in words, ``clean 61.0%, pgd 44.0%``; why there are none where there are none."""
        shares = (f"{name} {value:.1%}" for name, value in self.accuracy.items() if name != "images")
        return ", ".join(shares) or self.measured

    def to_json(self) -> dict[str, Any]:
        """Returns plain data; what a card needn't say is left out."""
        data = asdict(self)
        for key in _UNSAID:
            if not data[key]:
                del data[key]
        return data


def save(folder: Path, model: nn.Module, masks: Masks, **card: Any) -> Card:
    """Writes ``<name>.safetensors`` and ``<name>.json``, each whole or not at all.

    Args:
        folder: Where; made if missing.
        model: The network; weights outside of `masks` must be exactly zero.
        masks: What is kept.
        **card: The fields of `Card` that do not follow from the network and its masks. Where its recipe's ``storage``
            is ``float16`` prunable weights are written so.

    Raises:
        ValueError: The network does not honour its masks, or it is to be stored in float16 and isn't rounded to it.
    """
    from safetensors.torch import save_file

    if not masks.holds(model):
        raise ValueError("a pruned weight is not zero")
    tensors: dict[str, Tensor] = {}
    half = prunable(model) if card["recipe"].get("storage") == "float16" else {}
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if name in half:
            rounded = tensor.half()
            if not torch.equal(rounded.float(), tensor):
                raise ValueError(f"{name} is to be stored in float16 and holds other values")
            tensor = rounded
        mask = masks.get(name)
        if mask is None or bool(mask.all()):
            tensors[name] = tensor.clone()
        else:
            tensors[f"{name}.mask"] = torch.from_numpy(np.packbits(mask.numpy().ravel()))
            tensors[f"{name}.kept"] = tensor.flatten()[mask.flatten()]
    sparsity, kept = masks.sparsity_by_layer(), masks.kept
    for name, count in saved(model).items():
        sparsity[name], kept = 1 - count / masks[name].numel(), kept + count - masks[name].numel()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{card['name']}.safetensors"
    # The card last: a checkpoint is there when its card is.
    with replacing(file.with_suffix(".json")) as card_scratch, replacing(file) as scratch:
        # One entry only: the order of several is random, and with it the file's hash.
        save_file(tensors, scratch, metadata={"prunecert": str(SCHEMA_VERSION)})
        written = Card(
            sparsity=1 - kept / masks.total,
            weights=masks.total,
            kept=kept,
            sparsity_by_layer=sparsity,
            mask_sha256=masks.sha256(),
            sha256=sha256_file(scratch),
            **card,
        )
        text = json.dumps(written.to_json(), indent=2, sort_keys=True) + "\n"
        card_scratch.write_text(text, encoding="utf-8")
    return written


@torch.no_grad()
def round_to_half(model: nn.Module) -> None:
    """Rounds the prunable weights of a network to float16, in place.

    Raises:
        UserError: A weight is too large for float16.
    """
    for name, weight in prunable(model).items():
        rounded = weight.half().float()
        if not bool(torch.isfinite(rounded).all()):
            raise UserError(
                f"The weights {name!r} cannot be stored in float16: the largest is {float(weight.abs().max()):.4g}, "
                "above 65504; allowed is storage: float32 in the recipe."
            )
        weight.copy_(rounded)


def load_card(path: Path) -> Card:
    """Reads a card.

    Args:
        path: The card, or the checkpoint that it lies beside.

    Raises:
        UserError: There is none, it is no card, or it is of a newer version.
    """
    file = path.with_suffix(".json")
    if not file.exists():
        raise UserError(f"There is no card {str(file)!r}; a checkpoint is a .safetensors file with its .json card.")
    try:
        data = read_json(file, _MOST_BYTES)
    except (UserError, ValueError) as error:
        raise UserError(
            f"The card {str(file)!r} cannot be read ({error}); it must be the JSON that prunecert train writes."
        ) from error
    if not isinstance(data, dict):
        raise UserError(f"The card {str(file)!r} holds no JSON object; it must be the one that prunecert train writes.")
    version = data.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"The card {str(file)!r} has schema version {version}, newer than this "
            f"program's {SCHEMA_VERSION}; update prunecert."
        )
    names = {item.name for item in fields(Card)}
    # Older cards lack what came later, and mean its default.
    needed = names - {"throughput", "unfit", *_UNSAID}
    if not needed <= set(data) <= names:
        missing, extra = sorted(needed - set(data)), sorted(set(data) - names)
        raise UserError(
            f"The card {str(file)!r} is refused: missing {missing or 'nothing'}, unknown {extra or 'nothing'}."
        )
    if any(not text.isprintable() for text in _texts(data)):
        raise UserError(
            f"The card {str(file)!r} is refused: it holds control characters or halves of characters; it must be the "
            "JSON that prunecert train writes."
        )
    try:
        # Checked, not converted: a card's numbers go on as they are written, into hashes among others.
        msgspec.convert(data, Card)
    except msgspec.ValidationError as error:
        raise UserError(
            f"The card {str(file)!r} is refused ({shortened(error)}); it must be the JSON that prunecert train writes."
        ) from error
    return Card(**data)


def _texts(data: object) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield key
            yield from _texts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _texts(value)
    elif isinstance(data, str):
        yield data


def load_model(path: Path) -> tuple[nn.Module, Masks, Card]:
    """Loads a checkpoint onto the CPU, in evaluation mode.

    Args:
        path: The ``.safetensors`` file.

    Returns:
        The network with its masks applied, the masks, the card.

    Raises:
        UserError: The file is missing, truncated, of another hash than its card says, or does not fit its network.

    >>> model, masks, card = load_model(ZOO / "cnn-small_ibp_eps2_lwm_x10_s0")
    >>> card.pruner, masks.kept, card.weights
    ('lwm', 21476, 214760)
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path.with_suffix(".safetensors")
    card = load_card(file)
    if not file.is_file():
        # A card has the command of a checkout.
        command = card.command.replace("python -m bench.", "prunecert ")
        raise UserError(f"There is no checkpoint {str(file)!r}, though its card is there; train it with: {command}")
    sha256 = sha256_file(file)
    if sha256 != card.sha256:
        raise UserError(
            f"The checkpoint {str(file)!r} is refused: its SHA-256 is {sha256[:16]}… and its card says "
            f"{card.sha256[:16]}…, so it is truncated or another file; fetch it again or train it."
        )
    model = build_for(card.network, card.data)
    try:
        operate(model, card.surgery)
    except UserError as error:
        raise UserError(f"The checkpoint {str(file)!r} is refused: {error}") from error
    try:
        stored = load_file(file)
        state, masks = _unpack(stored, model)
        model.load_state_dict(state)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"The checkpoint {str(file)!r} does not fit network {card.network!r} ({str(error).splitlines()[0]}); "
            "it must be one that prunecert train wrote."
        ) from error
    if masks.sha256() != card.mask_sha256 or not masks.holds(model):
        raise UserError(f"The checkpoint {str(file)!r} is refused: its masks are not those of its card.")
    model.eval()
    return model, masks, card


def _unpack(stored: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], Masks]:
    state: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    weights = prunable(model)
    for name, own in model.state_dict().items():
        if f"{name}.mask" in stored:
            bits = np.unpackbits(stored[f"{name}.mask"].numpy(), count=math.prod(own.shape))
            mask = torch.from_numpy(bits.astype(bool)).view(own.shape)
            values = stored[f"{name}.kept"].float()
            if values.numel() != int(mask.sum()):
                raise ValueError(f"{name} has {values.numel()} weights for {int(mask.sum())} places")
            state[name] = torch.zeros(own.shape)
            state[name][mask] = values
        else:
            state[name] = stored[name].to(own.dtype)
            mask = torch.ones(own.shape, dtype=torch.bool)
        if name in weights:
            kept[name] = mask
    for name, weight in weights.items():
        # Products of factors aren't stored, and nothing of them is masked.
        kept.setdefault(name, torch.ones(weight.shape, dtype=torch.bool))
    return state, Masks(kept)
