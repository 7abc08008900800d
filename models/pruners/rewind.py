"""Iterative magnitude pruning with rewinding (Frankle & Carbin 2019; for robust objectives Li et al. 2022)."""

from __future__ import annotations

from torch import nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks, prunable
from prunecert.models.pruners.allocation import Allocation, reachable
from prunecert.models.pruners.contract import Train, declares
from prunecert.models.pruners.iterative import cut, rounds_to
from prunecert.models.settings import Count, CountFromZero, ProperShare


@declares(from_scratch=True)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    allocation: Allocation = "uniform",
    rate: ProperShare = 0.2,
    epoch: CountFromZero = 0,
    last: ProperShare = 0.5,
    least: Count = 5,
) -> Masks:
    """Trains, prunes, goes back to the initial (or an early) state of the weights that are left, and so on.

    All trainings together take the dense control's epochs, pre-training included. The last one, at the final sparsity,
    gets the share `last` of them; the dense one and the rounds between share the rest, as many rounds as leave each
    `least` epochs: weights that were hardly trained say little about which of them matter.

    Args:
        model: The network with its initial weights; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.
        rate: Share of the remaining weights that a round removes; more if there are too few epochs for so many rounds.
        epoch: Epoch of the dense training to whose end weights are rewound; 0 for the initial weights.
        last: Share of all epochs for the last training.
        least: Epochs that every other training should have at least.

    Raises:
        UserError: The compression cannot be reached, a setting is out of range, or the epochs don't suffice.
    """
    reachable({name: weight.numel() for name, weight in prunable(model).items()}, compression)
    final = max(1, round(last * train.left))
    before = train.left - final - epoch
    rounds = min(rounds_to(compression, rate), max(1, before // least))
    if before < 1:
        raise UserError(
            f"Rewinding to epoch {epoch} is refused: of {train.left} epochs {final} are for the last training, which "
            "leaves none for the one before it; allowed is a longer recipe, a smaller epoch or a smaller 'last'."
        )
    # Whole epochs, the earlier rounds one more where they don't divide.
    lengths = [before // rounds + (index < before % rounds) for index in range(rounds)] + [final]
    masks = Masks.dense(model)
    if epoch:
        train(model, epoch, name="rewind point", masks=masks, restart=True)
    start = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for index, length in enumerate(lengths):
        if index:
            masks = cut(model, masks, compression ** (index / rounds), allocation)
            model.load_state_dict(start)
            masks.apply_(model)
        train(model, length, name=f"round {index}", masks=masks, restart=True, first=epoch)
    return masks
