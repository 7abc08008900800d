"""From a suite's cells to the networks that are timed: their variants, and the images that all of a group get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.bench.planning.exports import Export, compact_export
from prunecert.bench.planning.plan import CellPlan, is_correct
from prunecert.bench.planning.stages import supported_stages
from prunecert.bench.schema.cell import Cell, show_eps
from prunecert.bench.schema.timing import COMPACT, FILLED, MASKED, Timing
from prunecert.errors import UserError
from prunecert.models.data import Dataset
from prunecert.onnx.count import count_shapes


@dataclass(frozen=True)
class ComparedGroup:
    """Networks whose times are compared: they differ in how they were pruned and written, and in nothing else.

    Args:
        name: Network, objective, radius and seed.
        timing: How their times are taken.
        members: Their numbers in the list of plans.
        images: How many images all of them classify correctly and are asked about.
    """

    name: str
    timing: Timing
    members: tuple[int, ...]
    images: int


def group_name(cell: Cell) -> str:
    """Returns what the cells of one group share."""
    seed = f", seed {cell.seed}" if cell.seed else ""
    return f"{cell.network}, {cell.objective}, ε = {show_eps(cell.eps)}{seed}"


def timed_plans(
    plans: Sequence[CellPlan], folder: Path, tell: Callable[[str], None]
) -> tuple[tuple[CellPlan, ...], list[ComparedGroup]]:
    """Writes the variants of each network and cuts the images down to those that a whole group gets right.

    Args:
        plans: One plan a cell, of suites with a `timing` section.
        folder: Where the variants go.
        tell: Takes a line about what is left out.

    Returns:
        One plan for each network and variant, with the common images only, and the groups.

    Raises:
        UserError: The cells of a group are timed differently, or nothing is left to be timed.
    """
    by_group: dict[str, list[CellPlan]] = {}
    for plan in plans:
        by_group.setdefault(group_name(plan.cell), []).append(plan)
    variants: list[CellPlan] = []
    groups = []
    for name, cells in by_group.items():
        first = cells[0].protocol
        assert first.timing is not None
        if any(plan.protocol != first for plan in cells):
            raise UserError(f"{name}: its cells are verified differently, so that their times cannot be compared.")
        members = [variant for plan in cells for variant in _variants(plan, first.timing, folder, tell)]
        data, right = _common(members, first.timing)
        if right == 0:
            tell(f"{name}: no image among the first {cells[0].images} is classified correctly by all; left out")
            continue
        tell(f"{name}: {right} images that all {len(members)} networks classify correctly, {len(data)} of them used")
        numbers = range(len(variants), len(variants) + len(members))
        for member in members:
            ready = replace(member, data=data, images=len(data))
            extra = {
                "group": name,
                "common": right,
                "timing": first.timing.to_json(),
                "keys": _keys(ready, first.timing),
                "batches": {stage.verifier: stage.batch for stage in ready.stages},
            }
            variants.append(replace(ready, extra={**member.extra, **extra}))
        groups.append(ComparedGroup(name, first.timing, tuple(numbers), len(data)))
    if not variants:
        raise UserError("There is nothing to be timed: no group of networks has an image that all classify correctly.")
    return tuple(variants), groups


def _variants(plan: CellPlan, timing: Timing, folder: Path, tell: Callable[[str], None]) -> list[CellPlan]:
    """Returns a cell's plan for each way of writing its network."""
    from prunecert.models.filled import fill_zeros

    usual = plan.export
    export = replace(usual, path=usual.masked_path, sha256=usual.masked_sha256, masked=None, compaction=None)
    masked = _as(plan, MASKED, export, timing)
    variants = [masked]
    control = [stage for stage in masked.stages if stage.verifier in timing.control]
    if control and export.sparsity > 0:
        path = folder / FILLED / export.path.name
        filled = replace(export, path=path, sha256=fill_zeros(export.path, path))
        variants.append(replace(_as(plan, FILLED, filled, timing), stages=tuple(control)))
    if COMPACT in timing.variants:
        small = compact_export(export, folder)
        if small.sha256 == export.sha256:
            tell(f"{plan.cell.name}: no unit is dead, so that its compact network is the masked one")
        else:
            variants.append(_as(plan, COMPACT, small, timing))
    return variants


def _as(plan: CellPlan, variant: str, export: Export, timing: Timing) -> CellPlan:
    stages, refused = supported_stages(plan.stages, export.path)
    extra: dict[str, Any] = {"variant": variant, "shapes": count_shapes(export.path).to_json()}
    timed = tuple(
        replace(stage, everyone=True, batch=min(stage.batch, timing.dose(stage.verifier).batch), repeat=1)
        for stage in stages
    )
    unsupported = {**plan.unsupported, **refused}
    return replace(plan, export=export, stages=timed, unsupported=unsupported, variant=variant, extra=extra)


def _common(members: Sequence[CellPlan], timing: Timing) -> tuple[Dataset, int]:
    """Returns the images that all members classify correctly, cut to as many as any verifier takes, and their number.

    Raises:
        UserError: A network's logits are not finite.
    """
    from prunecert.verifiers.formats.counterexample import outputs

    data, count = members[0].data, min(plan.images for plan in members)
    right = np.ones(count, dtype=bool)
    for plan in members:
        logits = outputs(plan.export.path, data.images[:count])
        if not np.all(np.isfinite(logits)):
            raise UserError(f"Cell {plan.name}: its network gives logits that are not finite; train it again.")
        right &= [is_correct(y, int(label)) for y, label in zip(logits, data.labels[:count], strict=True)]
    most = max(timing.dose(stage.verifier).images for plan in members for stage in plan.stages)
    places = np.flatnonzero(right)[:most]
    cut = replace(data, images=data.images[places], labels=data.labels[places], indices=data.indices[places])
    return cut, int(right.sum())


def _keys(plan: CellPlan, timing: Timing) -> dict[str, list[str]]:
    """Returns the stage keys of all repeats, by verifier."""
    return {
        stage.verifier: [at_repeat(plan, r + 1).keys[number] for r in range(timing.dose(stage.verifier).repeats)]
        for number, stage in enumerate(plan.stages)
    }


def at_repeat(plan: CellPlan, repeat: int) -> CellPlan:
    """Returns the plan whose keys and ids are those of one repeat."""
    return replace(plan, stages=tuple(replace(stage, repeat=repeat) for stage in plan.stages))
