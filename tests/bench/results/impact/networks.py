"""Networks of which only the images' outcomes matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prunecert.bench.results.impact.images import BoolArray, ImageOutcomes
from tests.bench import rowkit

N = 40
#: Four classes.
LABELS = np.arange(N) % 4


def network(
    verified: BoolArray | Sequence[bool],
    *,
    pruner: str = "lwm",
    compression: float = 10.0,
    seed: int = 0,
    attacked: BoolArray | None = None,
    clean: BoolArray | None = None,
    kind: str = "complete",
    **fields: Any,
) -> ImageOutcomes:
    """Returns a network that is proved on these images; what isn't said is as much as that."""
    flags = np.asarray(verified, dtype=bool)
    numbers = np.arange(len(flags), dtype=np.int64)
    compression = 1.0 if pruner == "dense" else compression
    cell = rowkit.cell(
        name=f"net_{pruner}_x{compression:g}_s{seed}",
        pruner=pruner,
        compression=compression,
        measured_compression=compression,
        seed=seed,
        stages=[{**rowkit.STAGE, "kind": kind}],
        **fields,
    )
    attacked = flags if attacked is None else attacked
    clean = attacked if clean is None else clean
    return ImageOutcomes(
        cell, numbers, numbers % 4, clean, attacked, flags, np.ones(len(flags)), (numbers + 10).astype(np.float64)
    )


def proved(*numbers: int, of: int = N) -> BoolArray:
    """Returns which images are proved: those numbers."""
    return np.isin(np.arange(of), numbers)
