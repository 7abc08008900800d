"""The critical radius of an input: up to where a network is proved to keep its class, and from where it is broken."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from prunecert.api.asking import COMPLETE, ask, chosen_verifiers, opened_network, supported
from prunecert.api.inputs import (
    PIXELS,
    Bounds,
    Radius,
    as_bounds,
    as_device,
    as_label,
    as_radius,
    as_sample,
    as_seconds,
)
from prunecert.bench.results.critical_radii import shown_radius
from prunecert.bench.running.bisection import CriticalRadius, bisect
from prunecert.errors import UserError
from prunecert.verifiers.base import Verdict
from prunecert.verifiers.formats import counterexample

if TYPE_CHECKING:
    from torch import nn

    from prunecert.api.inputs import Arrays


def critical_radius(
    network: nn.Module | str | Path,
    x: Arrays,
    *,
    label: int | None = None,
    highest: Radius = "32/255",
    tolerance: Radius = "1/1020",
    verifiers: str | Sequence[str] | None = None,
    timeout: float = 20.0,
    bounds: Bounds | None = PIXELS,
    device: str = "cpu",
) -> CriticalRadius:
    """Closes in on an input's critical radius, by bisection over proofs and counterexamples.

    A proof at one radius holds for all smaller ones, a counterexample for all larger ones. A radius at which neither is
    found in time parts the search in two: the largest proved one below it, and the smallest broken one above it.

    Args:
        network: A module in evaluation mode, an ONNX file, a checkpoint or its name.
        x: One input.
        label: Its class; None: the network's.
        highest: The largest radius to ask about.
        tolerance: How far apart the two ends may stay.
        verifiers: Who is asked; None: complete ones that are installed.
        timeout: Seconds for each radius.
        bounds: Lowest and highest value of an input; None for none.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Example:
        >>> import prunecert, torch
        >>> image = torch.full((3, 32, 32), 0.5)
        >>> critical = prunecert.critical_radius("cnn-small_ibp_eps2_lwm_x100_s0", image, tolerance="1/255")
        >>> critical.broken is None or 0 <= critical.proved < critical.broken
        True

    Raises:
        UserError: Anything about the input; or the network gives `x` itself another class.
    """
    bounds, device, seconds = as_bounds(bounds), as_device(device), as_seconds(timeout)
    top, step = as_radius(highest, bounds), as_radius(tolerance, bounds)
    names = chosen_verifiers(verifiers, COMPLETE)
    example = None if isinstance(network, str | Path) else as_sample(x, None, bounds)
    with opened_network(network, example) as target:
        sample = as_sample(x, target.shape, bounds)
        taking = supported(names, target.onnx)
        logits = counterexample.outputs(target.onnx, sample[None], target.classes)[0]
        kept = int(logits.argmax()) if label is None else as_label(label, target.classes)
        if not np.isfinite(logits).all() or np.delete(logits, kept).max() >= logits[kept]:
            raise UserError(f"The network doesn't give x the class {kept}, so that no radius keeps it; pass another x.")

        def verdict_at(eps: Fraction) -> Verdict:
            question = target.question(sample, kept, eps, seconds, bounds, f"x at {shown_radius(eps)}")
            return ask(question, taking, device=device)

        return bisect(verdict_at, top, step)
