"""Where the root's time goes: by layer and by stage, with what is computed of what is there.

``python -m bench.engine.root_profile models/checkpoints/NAME.safetensors NET.onnx …`` takes the first images of the set
that a network classifies correctly, and goes through what a search does before it splits anything, in one thread: CROWN
level by level (`bench.engine.staged_walks`), the bounds and charges for rounding in float64, the first attack, and,
where the question is left open, composing what is left of the network. It prints a table by layer and one by stage;
times are medians over repeats, of the mean over images, after a run that doesn't count. Compiled kernels are the
search's own, but each is called by itself, so that the first run compiles some entries of them.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunecert.bench.engine.complete import BenchmarkRequest, open_images
from prunecert.bench.engine.staged_walks import Clock, Staged, StagedBounds, StagedRows, StagedUnits
from prunecert.bench.options import IMAGES, RADIUS, REPEATS
from prunecert.bench.report.medium import Table
from prunecert.compaction import Mode
from prunecert.errors import EXIT_OK, run_main
from prunecert.models.compact_export import export_compact
from prunecert.models.export import export_onnx
from prunecert.page_help import PageHelp
from prunecert.verifiers.base import Instance
from prunecert.verifiers.sparse.bab.counterexamples import Attackable, Hunt
from prunecert.verifiers.sparse.bab.outcome import Limits
from prunecert.verifiers.sparse.bab.prover import adopt_crown
from prunecert.verifiers.sparse.bab.reduced_network import reduce
from prunecert.verifiers.sparse.certify import Checker
from prunecert.verifiers.sparse.crown.engine import FEW_ENTRIES, Engine, Question
from prunecert.verifiers.sparse.network import Network
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.warmup import warm_up

#: Behind CROWN's own stages: rounding, attack, and what only open questions need.
_AFTER = ("bounds and charges in float64", "first attack", "composing what is left")


@dataclass(frozen=True, eq=False)
class RootRun:
    """One image, once.

    Args:
        crown: Its walks.
        after: Seconds of the stages behind them, `_AFTER`; 0 for what isn't needed.
        open: Whether CROWN leaves it open.
    """

    crown: StagedBounds
    after: tuple[float, ...]
    open: bool


class RootProfile:
    """A network, ready for the roots of its images.

    Args:
        network: The network.
        few_entries: With at most so many entries it is walked row by row.
    """

    def __init__(self, network: Network, few_entries: int = FEW_ENTRIES) -> None:
        self.network = network
        self.staged: Staged = (StagedRows if network.nonzeros <= few_entries else StagedUnits)(network)
        self._checker, self._engine = Checker(network), Engine(network, 1, few_entries=few_entries)

    def run(self, instance: Instance, clock: Clock) -> RootRun:
        """Takes the times of an image.

        Args:
            instance: The question.
            clock: What is measured.
        """
        spec, limits = instance.spec, Limits()
        matrix = np.concatenate([a for a, _ in spec.disjuncts])
        offsets = np.concatenate([b for _, b in spec.disjuncts])
        lower, upper = instance.lower.reshape(-1), instance.upper.reshape(-1)
        question = Question(lower, upper, matrix, offsets)
        crown = self.staged.bound(question, clock)
        # The hidden bounds are the same; they are read from the engine, whose time isn't taken.
        engine_bounds = self._engine.bound(question)
        begin = clock()
        bounds = adopt_crown(self._checker, lower.astype(np.float64), upper.astype(np.float64), engine_bounds)
        charged_s = clock() - begin
        starts = np.cumsum([0, *(len(b) for _, b in spec.disjuncts)])
        left = np.flatnonzero([not crown.rows[a:b].max() > 0 for a, b in itertools.pairwise(starts)])
        if not len(left):
            return RootRun(crown, (charged_s, 0.0, 0.0), False)
        hunt = Hunt(self._checker, spec, lower, upper, limits, None)
        begin = clock()
        hunt.quick(left, Attackable(matrix, offsets, starts), bounds)
        attack_s = clock() - begin
        rows = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in left])
        begin = clock()
        reduce(self._checker, bounds, matrix[rows], offsets[rows])
        return RootRun(crown, (charged_s, attack_s, clock() - begin), True)


def profile(root: RootProfile, instances: Sequence[Instance], repeats: int, clock: Clock) -> tuple[Table, Table]:
    """Returns the table by layer and that by stage.

    Args:
        root: The network.
        instances: Questions about images, one or more.
        repeats: Runs that count.
        clock: What is measured.
    """
    for instance in instances[:1]:
        root.run(instance, clock)
    turns = [[root.run(instance, clock) for instance in instances] for _ in range(repeats)]
    keys = ("interval_s", "walk_s", "relax_s", "walked", "rows", "products", "possible")
    # Repeats, images, levels, keys; then the mean over images, and the median over repeats.
    numbers = [
        [[[float(getattr(level, key)) for key in keys] for level in run.crown.levels] for run in turn] for turn in turns
    ]
    levels = np.median(np.mean(numbers, axis=1), axis=0)
    names = [(level.name, str(level.neurons)) for level in turns[0][0].crown.levels]
    rows = [
        [*name, *map(_milliseconds, level[:3]), *_counts(level[3:])] for name, level in zip(names, levels, strict=True)
    ]
    headings = ("neurons", "intervals ms", "walks ms", "relaxing ms", "rows walked", "of", "products, 10⁶", "of")
    last = np.median([np.mean([run.crown.last_s for run in turn]) for turn in turns])
    after = np.median([np.mean([run.after for run in turn], axis=0) for turn in turns], axis=0)
    seconds = [*levels[:, :3].sum(axis=0), last, *after]
    stages = ("intervals", "walks of hidden rows", "relaxing", "walks of the specification's rows", *_AFTER)
    whole = float(sum(seconds))
    products, possible = (
        float(np.mean([getattr(run.crown, key) for run in turns[0]])) for key in ("last_products", "last_possible")
    )
    pairs = {1: (levels[:, 5].sum(), levels[:, 6].sum()), 3: (products, possible)}
    summed = [
        [stage, _milliseconds(value), f"{value / whole:.1%}", *_products(*pairs.get(place, (0.0, 0.0)))]
        for place, (stage, value) in enumerate(zip(stages, seconds, strict=True))
    ]
    return (
        Table([("layer", False), *((heading, True) for heading in headings)], rows),
        Table(
            [("stage", False), *((heading, True) for heading in ("ms", "share", "products, 10⁶", "of"))],
            [*summed, ["all", _milliseconds(whole), "100.0%", "", ""]],
        ),
    )


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"


def _counts(values: Sequence[float]) -> list[str]:
    return [f"{values[0]:.0f}", f"{values[1]:.0f}", *_products(*values[2:])]


def _products(products: float, possible: float) -> list[str]:
    return [f"{products / 1e6:.2f}", f"{possible / 1e6:.2f}"] if possible else ["", ""]


def as_onnx(path: Path, folder: Path, compact: bool) -> Path:
    """Returns a network as an ONNX file: itself, or what a checkpoint is exported as.

    Args:
        path: An ONNX file, or a ``.safetensors`` with its card beside.
        folder: Where what is exported goes.
        compact: Whether units that do nothing for pixels in [0, 1] are removed.

    Raises:
        UserError: It is missing or damaged.
    """
    onnx = path
    if path.suffix == ".safetensors":
        onnx = folder / f"{path.stem}.onnx"
        export_onnx(path, onnx)
    if compact:
        target = folder / f"{path.stem}.compact.onnx"
        export_compact(onnx, target, Mode.PIXELS)
        # Nothing is written where nothing can be removed.
        onnx = target if target.is_file() else onnx
    return onnx


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine.root_profile", description=__doc__.split("\n\n")[0], formatter_class=PageHelp
    )
    parser.add_argument("networks", nargs="+", type=Path, metavar="FILE", help="ONNX files, or checkpoints")
    parser.add_argument("--compact", action="store_true", help="without the units that do nothing")
    parser.add_argument(
        "--images", type=IMAGES, default=1, help="of the first N, those classified correctly (default: 1)"
    )
    parser.add_argument("--split", choices=("test", "val"), default="test", help="of CIFAR-10 (default: test)")
    parser.add_argument("--eps", type=RADIUS, default=2 / 255, help="radius, linf (default: 2/255)")
    parser.add_argument("--repeats", type=REPEATS, default=3, help="runs that count (default: 3)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what is measured (default: wall)")
    parser.add_argument("--data-root", type=Path, help="folder that holds cifar-10-batches-py")
    options = parser.parse_args(arguments)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        for path in options.networks:
            onnx = as_onnx(path, Path(folder), options.compact)
            request = BenchmarkRequest(
                onnx=(onnx,), images=options.images, split=options.split, eps=options.eps,
                data_root=options.data_root, proved=True,
            )  # fmt: skip
            request.check()
            instances = list(open_images(onnx, request).values())
            if not instances:
                print(f"{onnx.name}: nothing to profile; give more --images.")
                continue
            root = RootProfile(read_network(onnx))
            by_layer, by_stage = profile(root, instances, options.repeats, clock)
            print("\n".join([*by_layer.markdown(), "", *by_stage.markdown(), ""]))
    return EXIT_OK


if __name__ == "__main__":
    run_main(main)
