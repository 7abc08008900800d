"""Adversarially Robust Distillation (Goldblum et al. 2020, AAAI, section 4): a pruned network learns from its parent.

The student is the pruned network, the teacher the dense one that it comes from; `models.pruners.distillation` has the
loss and its forms.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.masks import Masks
from prunecert.models.pruners.allocation import Allocation
from prunecert.models.pruners.contract import Batch, Hook, Hooks, Train, declares
from prunecert.models.pruners.distillation import FORMS, distil, form_of, frozen_copy
from prunecert.models.pruners.lwm import prune as lwm
from prunecert.models.settings import Choices, Share
from prunecert.ranges import NumberRange

Form = Annotated[str, Choices(*FORMS)]
Temperature = Annotated[float, NumberRange(at_least=1e-3, at_most=1_000_000)]


@declares(Hook.TEACHER, keeps_patterns=True)
def prune(
    model: nn.Module,
    compression: float,
    *,
    train: Train,
    allocation: Allocation = "uniform",
    alpha: Share = 1.0,
    temperature: Temperature = 30.0,
    form: Form = "auto",
) -> Masks:
    """Prunes by magnitude, and fine-tunes against the dense network's soft labels.

    Args:
        model: The pre-trained network, which is the teacher as it is; trained.
        compression: All over kept weights, at least 1.
        train: See `models.pruners.contract`.
        allocation: How many weights each layer keeps; see `models.pruners.allocation`.
        alpha: Weight of the soft labels; the rest is that of the clean cross-entropy.
        temperature: T, above 0.
        form: ``attacked``, as published; ``certified``, the worst logits by intervals; ``mixed``, both in the shares
            of an objective that mixes them, with all of its settings; or ``auto``: mixed or certified where the
            objective is, attacked otherwise. Those that bound the network begin with the ramp of pre-training.

    Raises:
        UserError: The compression cannot be reached, a setting is out of range, the network has no bounds, or the
            recipe gives the objective a setting that the form has no use for.
    """
    chosen = form_of(form, train, model)
    if ignored := chosen.ignored():
        raise UserError(
            f"ARD in its {chosen.name} form is refused: it takes the place of the objective, and has no use for its "
            f"{', '.join(ignored)}; allowed is a recipe without, or another form: {', '.join(FORMS)}."
        )
    masks = lwm(model, compression, allocation=allocation)
    teacher = frozen_copy(model)

    def loss(batch: Batch) -> Tensor:
        return distil(batch, teacher, alpha=alpha, temperature=temperature, form=chosen) + batch.extra()

    masks.apply_(model)
    train(model, train.left, name="distil", masks=masks, hooks=Hooks(loss=loss), ramp=chosen.bounds)
    return masks
