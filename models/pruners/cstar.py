"""CSTAR (Phan et al. 2023, algorithms 1 and 2): low rank in place of zeros, chosen while training robustly.

Each weight W is drawn towards a weight Z of low rank by the alternating direction method of multipliers:

    train W with the objective and rho/2 |W - Z + U|²    one epoch
    Z = projection of W + U on the layers' ranks         singular values of all layers compete for the budget
    U = U + W - Z

Then factors take the place of the weights, and are fine-tuned. The paper factorises convolutions; linear layers, which
hold nearly all weights of small networks, are factorised likewise. A layer whose factors would have as many numbers as
its weight keeps the weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.networks.factorised import factorise
from prunecert.models.pruners.allocation import budget
from prunecert.models.pruners.contract import Altered, Epoch, Hook, Hooks, Train, declares
from prunecert.models.pruners.ranks import Ranks, choose, cost, projected
from prunecert.models.settings import Positive


def refuse_beyond(model: nn.Module, compression: float) -> int:
    """Returns the budget of a compression.

    Raises:
        UserError: Factors of rank 1 have more numbers than that; or a convolution has groups.
    """
    grouped = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and m.groups != 1]
    if grouped:
        raise UserError(f"cstar is refused: the convolution {grouped[0]!r} has groups, for which it has no factors.")
    shapes = {name: tuple(weight.shape) for name, weight in prunable(model).items()}
    total = sum(int(torch.Size(shape).numel()) for shape in shapes.values())
    kept = budget(total, compression)
    least = sum(cost(shape, [1] * (1 if len(shape) == 2 else 2)) for shape in shapes.values())
    if kept < least:
        raise UserError(
            f"Compression {compression:g} is refused: with all ranks 1 the factors have {least:,} numbers, more than "
            f"the {kept:,} to keep; allowed is a compression of at most {int(100 * total / least) / 100:g}."
        )
    return kept


@declares(Hook.REGULARISER, Hook.EPOCH, Hook.SURGERY, refuses_by_shape=True)
def prune(model: nn.Module, compression: float, *, train: Train, rho: Positive = 0.01) -> Altered:
    """Draws weights towards low rank, puts factors in their place, and fine-tunes them.

    Ranks are whole numbers, so that a little less than the budget may be kept, never more.

    Args:
        model: The network; trained, and its weights become products.
        compression: All weights over the numbers of the factors, at least 1.
        train: See `models.pruners.contract`.
        rho: Weight of the distance to low rank; above 0.

    Raises:
        UserError: The compression cannot be reached, or a setting is out of range.
    """
    kept = refuse_beyond(model, compression)
    hooks = Hooks()
    if compression > 1 and train.learning:
        names = list(prunable(model))

        def split(name: str) -> dict[str, Tensor]:
            return dict(zip(names, hooks.memory[name], strict=True))

        def update(target: Mapping[str, Tensor], dual: Mapping[str, Tensor]) -> None:
            hooks.memory["target"] = [target[name] for name in names]
            hooks.memory["dual"] = [dual[name] for name in names]

        def over(epoch: Epoch) -> bool:
            with torch.no_grad():
                weights = prunable(model)
                dual, before = split("dual"), split("target")
                shifted = {name: weights[name].detach() + dual[name] for name in names}
                target = projected(shifted, choose(shifted, kept))
                update(target, {name: shifted[name] - target[name] for name in names})
                # How far from low rank the training of the round left them.
                far, size = (
                    torch.stack([part.square().sum() for part in parts]).sum().sqrt().item()
                    for parts in ([weights[name] - before[name] for name in names], [weights[name] for name in names])
                )
                hooks.memory["distances"].append(round(far / size, 6))
            return False

        def distance() -> Tensor:
            weights, target, dual = prunable(model), split("target"), split("dual")
            squares = [((weights[name] - target[name] + dual[name]) ** 2).sum() for name in names]
            return rho / 2 * torch.stack(squares).sum()

        start = {name: weight.detach() for name, weight in prunable(model).items()}
        update(projected(start, choose(start, kept)), {name: torch.zeros_like(one) for name, one in start.items()})
        hooks.epoch, hooks.regulariser = over, distance
        hooks.memory["distances"] = []
        train(model, train.learning, name="ranks", hooks=hooks)
        train.note(distances=hooks.memory["distances"])
    ranks: Ranks = choose({name: weight.detach() for name, weight in prunable(model).items()}, kept)
    surgery = {name.removesuffix(".weight"): list(of) for name, of in ranks.items() if of is not None}
    if compression == 1:
        surgery = {}
    factorise(model, surgery)
    if train.left:
        train(model, train.left, name="factors")
    return Altered(model, Masks.dense(model), {"factorised": surgery} if surgery else {})
