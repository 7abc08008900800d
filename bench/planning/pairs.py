"""From a suite's `pair` to questions: which networks are compared, in one merged file, over which images' boxes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.bench.planning.exports import Export, export_cell
from prunecert.bench.planning.plan import CellPlan, box
from prunecert.bench.planning.stages import Installed, stages_of, supported_stages
from prunecert.bench.schema.alike import alike_spec
from prunecert.bench.schema.cell import Cell
from prunecert.bench.schema.own import OwnCell
from prunecert.bench.schema.pairs import PAIR_VERIFIER, PairProtocol
from prunecert.errors import UserError
from prunecert.files import write_bytes
from prunecert.hashing import digest
from prunecert.models import DENSE
from prunecert.models.checkpoint_folders import describe_places, locate
from prunecert.onnx.count import count_layers
from prunecert.onnx.io import identity
from prunecert.verifiers.base import Instance, OutputSpec

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Partner:
    """The network that a pruned one is compared with.

    Args:
        name: Its cell.
        path: Its file, with nothing removed.
        step: Whether it is pruned, too: the one before in the chain.
    """

    name: str
    path: Path
    step: bool


@dataclass(frozen=True, eq=False)
class PairPlan(CellPlan):
    """A pruned network, and another of its chain, over the boxes of all images, whatever the networks make of them.

    `export` is the merged file, with the outputs of the partner and then those of the cell's network.

    Args:
        partner: The network that is compared with.
        alike: What is asked; see `bench.schema.alike.ALIKE`.
        own: The cell's own network, with nothing removed.
    """

    partner: Partner = Partner("", Path(), step=False)
    alike: str = ""
    own: Path = Path()
    asks_all = True

    @functools.cached_property
    def spec(self) -> OutputSpec:
        """What is unsafe of both networks' outputs."""
        return alike_spec(self.alike, self.data.classes)

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """Stands for all that decides an answer but the image."""
        what = [self.image_key, "pair", self.spec.digest(), str(self.cell.eps)]
        return tuple(digest([*what, s.verifier, s.version, s.settings_hash, s.timeout])[:20] for s in self.stages)

    def instance(self, position: int, stage: int) -> Instance:
        """Returns the question about one image's box; its label has no part in it."""
        lower, upper = box(self.data.images[position], self.cell.eps)
        return Instance(
            onnx=self.export.path,
            onnx_sha256=self.export.sha256,
            lower=lower,
            upper=upper,
            spec=self.spec,
            timeout=self.stages[stage].timeout,
            name=f"{self.name} with {self.partner.name} image {self.data.indices[position]}",
            classes=2 * self.data.classes,
        )

    def describe(self) -> dict[str, Any]:
        """Returns plain data for the session row of the cell."""
        indices = self.data.indices[: self.images]
        return {
            "partner": self.partner.name,
            "step": self.partner.step,
            "alike": self.alike,
            "onnx_sha256": self.export.sha256,
            "images": self.images,
            "indices": None if np.array_equal(indices, np.arange(self.images)) else indices.tolist(),
            "stages": [{**s.to_json(), "key": key} for s, key in zip(self.stages, self.keys, strict=True)],
            "unsupported": dict(self.unsupported),
        }


def with_pairs(
    plans: Sequence[CellPlan], installed: Installed, checkpoints: Path, exports: Path, tell: Tell
) -> tuple[tuple[CellPlan, ...], tuple[PairPlan, ...]]:
    """Makes the plans of pairs; a pruned network that has nothing to be compared with is named.

    Args:
        plans: The cells.
        installed: Which verifiers there are.
        checkpoints: Where the dense network lies if it is none of the cells.
        exports: Folder for ONNX files.
        tell: Takes a line about what is odd.

    Returns:
        The cells, those that are compared with a word on that for the session row, and what is to be asked.
    """
    cells, pairs = [], []
    for plan in plans:
        mine = [
            pair
            for partner in _partners(plan, plans, checkpoints, exports, tell)
            for pair in _pairs(plan, partner, installed, exports, tell)
        ]
        pairs += mine
        cells.append(replace(plan, extra={**plan.extra, "pairs": [pair.describe() for pair in mine]}) if mine else plan)
    return tuple(cells), tuple(pairs)


def chain_of(cell: Cell) -> tuple[object, ...]:
    """Returns what networks of one chain share: all but how much is pruned, by whom, and the bits of weights."""
    return cell.network, cell.objective, cell.eps, cell.trained_eps, cell.ball, cell.seed


def _partners(
    plan: CellPlan, plans: Sequence[CellPlan], checkpoints: Path, exports: Path, tell: Tell
) -> Iterator[Partner]:
    cell, pair = plan.cell, plan.protocol.pair
    if pair is None or (cell.pruner == DENSE and not cell.rounded):
        return
    chain = [other for other in plans if chain_of(other.cell) == chain_of(cell)]
    dense = next((o.export for o in chain if o.cell.pruner == DENSE and not o.cell.rounded), None)
    if dense is None and not isinstance(cell, OwnCell):
        dense = _dense_checkpoint(cell, checkpoints, exports)
    if dense is None:
        tell(
            f"{cell.name}: no dense network of its kind is among the cells or in {describe_places(checkpoints)}; it is "
            "compared with nothing."
        )
    else:
        yield Partner(_dense_of(cell).name, dense.masked_path, step=False)
    if not pair.steps:
        return
    if cell.rounded:
        # The step is the rounding.
        before = [o for o in chain if o.cell == replace(cell, bits=(), int8=False) and o.cell.pruner != DENSE]
    else:
        before = [
            o
            for o in chain
            if o.cell.pruner == cell.pruner and not o.cell.rounded and o.cell.compression < cell.compression
        ]
    if before:
        other = max(before, key=lambda one: one.cell.compression)
        yield Partner(other.name, other.export.masked_path, step=True)


def _dense_of(cell: Cell) -> Cell:
    """Returns the cell of the dense network, in float32."""
    return replace(cell, pruner=DENSE, compression=1.0, bits=(), int8=False)


def _dense_checkpoint(cell: Cell, checkpoints: Path, exports: Path) -> Export | None:
    checkpoint = locate(checkpoints, _dense_of(cell).as_trained.name)
    return export_cell(checkpoint, exports) if checkpoint.with_suffix(".json").is_file() else None


def _pairs(plan: CellPlan, partner: Partner, installed: Installed, exports: Path, tell: Tell) -> Iterator[PairPlan]:
    """Yields a plan for each thing that is asked of two networks; none where they can't be compared at all."""
    pair = plan.protocol.pair
    assert pair is not None
    own = plan.export.masked_path
    try:
        merged = _merge(partner.path, own, exports)
        capable = tuple(replace(stage, everyone=False) for stage in stages_of(pair.verifiers, plan.protocol, installed))
        stages, unsupported = supported_stages(capable, merged, spec="dnf")
        if (odd := _other_layers(partner.path, own)) is not None:
            stages = tuple(stage for stage in stages if stage.verifier != PAIR_VERIFIER)
            unsupported[PAIR_VERIFIER] = f"{PAIR_VERIFIER} takes two networks of one architecture; {odd}."
    except UserError as error:
        tell(f"{plan.cell.name}: it isn't compared with {partner.name}: {error}")
        return
    for reason in unsupported.values():
        tell(f"{plan.cell.name} with {partner.name}: {reason} It is left out there.")
    if not stages:
        tell(f"{plan.cell.name}: nobody is left who could compare it with {partner.name}.")
        return
    for alike in pair.alike:
        yield PairPlan(
            cell=plan.cell,
            protocol=plan.protocol,
            export=replace(plan.export, path=merged, sha256=identity(merged), masked=None, compaction=None),
            stages=stages,
            unsupported=unsupported,
            data=plan.data,
            images=_images(pair, plan),
            partner=partner,
            alike=alike,
            own=own,
        )


def _images(pair: PairProtocol, plan: CellPlan) -> int:
    return min(pair.images or plan.protocol.images, len(plan.data))


def _merge(first: Path, second: Path, exports: Path) -> Path:
    from prunecert.onnx.merge import merge

    target = exports / "pairs" / f"{first.stem}-with-{second.stem}.onnx"
    data = merge(first, second).SerializeToString(deterministic=True)
    if not (target.is_file() and target.read_bytes() == data):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, data)
    return target


def _other_layers(first: Path, second: Path) -> str | None:
    """Says where the layers' weights have other shapes; None where all are alike."""
    left, right = count_layers(first), count_layers(second)
    if len(left) != len(right):
        return f"{first.name} has {len(left)} layers with weights, {second.name} {len(right)}"
    for one, other in zip(left, right, strict=True):
        if (one.kind, one.shape) != (other.kind, other.shape):
            return f"the layer {one.name!r} of {first.name} has the shape {one.shape}, of {second.name} {other.shape}"
    return None


def describe_pairs(plans: Sequence[PairPlan]) -> list[str]:
    """Returns one line a pair and question: how many images, what, by whom."""
    return [
        f"{plan.cell.name} with {plan.partner.name}{' (a step)' if plan.partner.step else ''}: {plan.images} images, "
        f"{plan.alike}, " + " → ".join(f"{stage.verifier} ({stage.timeout:g} s)" for stage in plan.stages)
        for plan in plans
    ]
