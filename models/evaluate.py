"""Accuracies for cards and for choosing recipes; what counts is measured by the harness on the ONNX files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunecert.errors import UserError
from prunecert.models.attack import pgd_linf
from prunecert.models.batches import SMALL, Batches, batches_for
from prunecert.models.bounds import interval_margins, propagate
from prunecert.models.crown import crown_ibp_margins
from prunecert.models.data import Dataset
from prunecert.models.faults import is_out_of_memory


def evaluate(
    model: nn.Module,
    data: Dataset,
    eps: float,
    *,
    device: str = "cpu",
    batch: int | None = None,
    limit: int | None = None,
) -> dict[str, float | int]:
    """Measures clean, attacked (PGD, 20 steps) and bound-verified accuracy.

    Args:
        model: The network.
        data: Images to measure on.
        eps: l-infinity radius in pixels of [0, 1].
        device: Torch device.
        batch: Images a step; None: few on the CPU, as many as fit on CUDA, see `models.batches`.
        limit: Only the first so many images.

    Returns:
        ``images``, ``clean``, ``pgd``, and, for networks that `models.bounds` can bound, ``ibp`` and ``crown_ibp``;
        shares in [0, 1].
    """
    model.eval()
    total = len(data) if limit is None else min(limit, len(data))
    sizes = _sizes(model, data, device) if batch is None else Batches(batch, min(batch, SMALL.crown))
    try:
        return _measure(model, data, eps, device, sizes, total)
    except RuntimeError as error:
        if sizes == SMALL or batch is not None or not is_out_of_memory(error):
            raise
    # Only here, where the error and the tensors that it held are gone. Something else has taken the memory.
    torch.cuda.empty_cache()
    return _measure(model, data, eps, device, SMALL, total)


def _sizes(model: nn.Module, data: Dataset, device: str) -> Batches:
    """Returns how many images are measured at a time."""
    return batches_for(model, torch.from_numpy(data.images[:1]).to(device)) if len(data) else SMALL


@torch.no_grad()
def _measure(
    model: nn.Module, data: Dataset, eps: float, device: str, sizes: Batches, total: int
) -> dict[str, float | int]:
    """Measures the first `total` images in batches of given sizes."""
    counts: dict[str, int] = {"clean": 0, "pgd": 0, "ibp": 0, "crown_ibp": 0}
    bounded = True
    generator_state = torch.get_rng_state()
    torch.manual_seed(0)
    for start in range(0, total, sizes.images):
        stop = min(start + sizes.images, total)
        x = torch.from_numpy(data.images[start:stop]).to(device)
        y = torch.from_numpy(data.labels[start:stop]).to(device)
        right = model(x).argmax(1) == y
        with torch.enable_grad():
            point = pgd_linf(model, x, y, eps, steps=20, step_size=eps / 8)
        counts["clean"] += int(right.sum())
        counts["pgd"] += int((right & (model(point).argmax(1) == y)).sum())
        if bounded:
            try:
                bounds = propagate(model, x, eps)
            except UserError:
                bounded = False
                continue
            counts["ibp"] += int((right & _proved(interval_margins(bounds, y), y)).sum())
            # Ten rows an image go back through the network: fewer images at a time.
            for part in range(0, len(y), sizes.crown):
                few = slice(part, part + sizes.crown)
                margins = crown_ibp_margins(model, x[few], eps, propagate(model, x[few], eps), y[few])
                counts["crown_ibp"] += int((right[few] & _proved(margins, y[few])).sum())
    torch.set_rng_state(generator_state)
    names = ("clean", "pgd", "ibp", "crown_ibp") if bounded else ("clean", "pgd")
    return {"images": total, **{name: counts[name] / total for name in names}}


def _proved(margins: Tensor, y: Tensor) -> Tensor:
    """Whether all margins but the label's own are above 0, [N]."""
    others = torch.ones_like(margins, dtype=torch.bool).scatter_(1, y[:, None], False)
    return ((margins > 0) | ~others).all(1)


@torch.no_grad()
def evaluate_noise(
    model: nn.Module, data: Dataset, sigma: float, *, device: str = "cpu", batch: int | None = None
) -> dict[str, float | int]:
    """Measures clean accuracy, and accuracy under Gaussian noise.

    Args:
        model: The network.
        data: Images to measure on.
        sigma: Standard deviation of the noise in pixels of [0, 1].
        device: Torch device.
        batch: Images a step; None: as `evaluate`.

    Returns:
        ``images``, ``clean`` and ``noisy`` (one noisy copy of each image, the same on every call), the latter two as
        shares in [0, 1].
    """
    model.eval()
    if batch is None:
        batch = _sizes(model, data, device).images
    generator = torch.Generator().manual_seed(0)
    counts = {"clean": 0, "noisy": 0}
    for start in range(0, len(data), batch):
        x = torch.from_numpy(data.images[start : start + batch])
        y = torch.from_numpy(data.labels[start : start + batch]).to(device)
        noisy = x + sigma * torch.randn(x.shape, generator=generator)
        counts["clean"] += int((model(x.to(device)).argmax(1) == y).sum())
        counts["noisy"] += int((model(noisy.to(device)).argmax(1) == y).sum())
    return {"images": len(data), **{name: count / len(data) for name, count in counts.items()}}
