"""How many images are measured at a time: few on the CPU, where more gain nothing, and as many as fit on CUDA.

On a card a batch of 250 images is gone before the next one's kernels are launched. How much memory an image takes is
counted from what the network's layers put out for one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Bytes of a float32.
_FLOAT = 4
#: Of the memory that is free, what is counted on: cuDNN's workspaces and other programs have the rest.
_SHARE = 0.25
#: How many times over what the layers put out is held: an attack's gradients; two bounds and their halves.
_HELD = 4
#: Likewise of a layer's rows in CROWN-IBP: of the bounds below and above, before and after a layer, and a product.
_HELD_ROWS = 6


@dataclass(frozen=True)
class Batches:
    """Images at a time.

    Args:
        images: That are classified, attacked and bounded by intervals.
        crown: Whose CROWN-IBP margins are taken: a row a class and image goes back through the network.
    """

    images: int
    crown: int


#: On the CPU; fewer are not worth it anywhere.
SMALL = Batches(250, 50)
#: More gain nothing on any card.
LARGE = Batches(5_000, 2_500)


@dataclass(frozen=True)
class Activations:
    """What a network puts out for one image.

    Args:
        total: Numbers in all layers' outputs, the image included.
        largest: Numbers in the largest of them.
        classes: Logits.
    """

    total: int
    largest: int
    classes: int


def batches_for(model: nn.Module, images: Tensor) -> Batches:
    """Returns how many images of a network are measured at a time, where it is and as much memory as is free.

    Args:
        model: The network, in evaluation mode.
        images: At least one image [N, C, H, W], on the network's device.
    """
    if images.device.type != "cuda":
        return SMALL
    # What torch has kept of earlier tensors counts as free.
    kept = torch.cuda.memory_reserved(images.device) - torch.cuda.memory_allocated(images.device)
    return fitting(count_activations(model, images[:1]), torch.cuda.mem_get_info(images.device)[0] + kept)


@torch.no_grad()
def count_activations(model: nn.Module, image: Tensor) -> Activations:
    """Counts what a network's layers put out for one image.

    Args:
        model: The network, in evaluation mode.
        image: [1, C, H, W].
    """
    sizes = [image.numel()]

    def note(_: nn.Module, __: tuple[object, ...], output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel())

    layers = [module for module in model.modules() if not any(module.children())]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        logits = model(image)
    finally:
        for handle in handles:
            handle.remove()
    return Activations(sum(sizes), max(sizes), logits.shape[1])


def fitting(activations: Activations, free: int) -> Batches:
    """Returns the largest batches that fit, between `SMALL` and `LARGE`.

    >>> fitting(Activations(total=10_000, largest=4_096, classes=10), free=8 << 30)
    Batches(images=5000, crown=1878)
    >>> fitting(Activations(total=3_000_000, largest=262_144, classes=10), free=8 << 30)
    Batches(images=250, crown=50)

    Args:
        activations: See `count_activations`.
        free: Bytes.
    """
    room = int(_SHARE * free)
    image = _FLOAT * _HELD * activations.total
    rows = _FLOAT * _HELD_ROWS * activations.classes * activations.largest
    return Batches(
        images=max(SMALL.images, min(LARGE.images, room // image)),
        crown=max(SMALL.crown, min(LARGE.crown, room // (image + rows))),
    )
