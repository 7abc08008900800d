"""After the warm-up a question compiles nothing more."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse import certify
from prunecert.verifiers.sparse.bab import ascent, box_bounds, box_clipping, point_batch
from prunecert.verifiers.sparse.crown.rows import walk as row_walk
from prunecert.verifiers.sparse.crown.units import walk as unit_walk
from prunecert.verifiers.sparse.warmup import warm_up
from tests.verifiers.sparse.searching import search
from tests.verifiers.sparse.test_network import residual


def compiled() -> dict[str, int]:
    """Returns how many signatures each kernel of the search is compiled for."""
    kernels: dict[str, Any] = {
        "ascent": ascent.walk,
        "attack": point_batch.descend,
        "boxes": box_bounds.bound_boxes,
        "clipping": box_clipping.clip_boxes,
        "certify": certify.back,
        "rows": row_walk.bound_image,
        "units": unit_walk.advance,
    }
    return {name: len(kernel.signatures) for name, kernel in kernels.items()}


def test_all_kernels_are_compiled_and_a_question_needs_no_other() -> None:
    warm_up()
    before = compiled()
    assert min(before.values()) > 0
    spec = OutputSpec.robustness(0, 4)
    for split in ("input", "relu"):
        _, outcome = search(residual(0), np.zeros(5), np.ones(5), spec, split=split)
        assert outcome.status in (Status.SAT, Status.UNSAT)
    assert compiled() == before
