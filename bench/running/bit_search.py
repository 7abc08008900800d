"""Bits of weights by layer at a given size: a greedy search for the most held-out images that a verifier proves.

It begins with the same number of bits for all layers, whose size nothing may exceed, and exchanges: one layer gives up
a bit, and another gets as many as the size then allows. Of all exchanges that one is made after which most images are
proved (of equal ones, that of the larger mean margin), until none is an improvement. That is ARQ's question (Yang et
al. 2024, arXiv 2410.24214) in a small form: no learning, no layer left out, and a complete list of what was tried.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from prunecert.bench.planning.exports import Export, export_cell, rounded_export
from prunecert.bench.planning.holdout import refuse_contaminated
from prunecert.bench.planning.plan import is_correct, robustness_instance
from prunecert.bench.schema.cell import parse_eps, show_bits
from prunecert.bench.schema.pairs import PAIR_VERIFIER, proves
from prunecert.errors import UserError
from prunecert.models import LEAST_BITS, MOST_BITS
from prunecert.models.bits import BitCount, count_bits, spread_bits, weights_of
from prunecert.models.data import Dataset
from prunecert.models.datasets.source import CIFAR10, load_split, source_of
from prunecert.verifiers import VERIFIERS
from prunecert.verifiers.base import Status
from prunecert.verifiers.formats.counterexample import outputs
from prunecert.verifiers.process.worker import Worker

Bits = tuple[int, ...]


@dataclass(frozen=True, order=True)
class Score:
    """How good a network is; a larger one is better.

    Args:
        proved: Images that it classifies correctly and is proved to.
        margin: Mean over the images of the smallest lower bound of a margin, at most 1; -1 where there is none, or the
            image is misclassified.
    """

    proved: int
    margin: float


Judge = Callable[[Bits], tuple[Score, BitCount]]


@dataclass(frozen=True)
class RoundedTrial:
    """A network that was tried.

    Args:
        bits: Of each layer.
        score: On the images of the search.
        count: What its numbers take.
    """

    bits: Bits
    score: Score
    count: BitCount


class VerifiedJudge:
    """Scores networks by a verifier on images.

    Args:
        export: The network in float32, not compacted.
        folder: Where rounded files go.
        data: The images.
        positions: Which of them.
        eps: Radius.
        worker: The verifier.
        timeout: Seconds an image.
    """

    def __init__(
        self,
        export: Export,
        folder: Path,
        data: Dataset,
        positions: Sequence[int],
        eps: Fraction,
        worker: Worker,
        timeout: float,
    ) -> None:
        self._export, self._folder, self._data = export, folder, data
        self._positions, self._eps, self._worker, self._timeout = positions, eps, worker, timeout

    def __call__(self, bits: Bits) -> tuple[Score, BitCount]:
        """Returns a network's score and size; no bits stand for float32.

        Raises:
            UserError: A layer would be emptied.
        """
        export = rounded_export(self._export, self._folder, bits)
        logits = outputs(export.path, self._data.images[list(self._positions)])
        right = [
            position
            for position, values in zip(self._positions, logits, strict=True)
            if is_correct(values, int(self._data.labels[position]))
        ]
        instances = [
            robustness_instance(export, self._data, p, self._eps, self._timeout, f"{show_bits(bits)} bits, image {p}")
            for p in right
        ]
        verdicts = self._worker.verify(instances)
        failed = next((one for one in verdicts if one.status in (Status.ERROR, Status.UNSUPPORTED)), None)
        if failed is not None:
            # A failure must not look like a worse network.
            what = "failed at" if failed.status is Status.ERROR else "doesn't take the network of"
            raise UserError(f"The search is stopped: {failed.verifier} {what} {show_bits(bits)} bits: {failed.detail}")
        margins = [min(1.0, *verdict.bounds) if verdict.bounds else -1.0 for verdict in verdicts]
        margins += [-1.0] * (len(self._positions) - len(right))
        proved = sum(verdict.status is Status.UNSAT for verdict in verdicts)
        return Score(proved, float(np.mean(np.maximum(margins, -1.0)))), count_bits(export.path)


def exchanges(bits: Bits) -> Iterator[tuple[int, int]]:
    """Yields pairs of layers: one that can give up a bit, and another that can get some."""
    for giver, taker in itertools.permutations(range(len(bits)), 2):
        if bits[giver] > LEAST_BITS and bits[taker] < MOST_BITS:
            yield giver, taker


def exchanged(bits: Bits, giver: int, taker: int, size: int, size_of: Callable[[Bits], int]) -> Bits | None:
    """Returns bits after an exchange: as many to the taker as fit; None where not even one does.

    Args:
        bits: Before.
        giver: The layer that gives up a bit.
        taker: The layer that gets what fits.
        size: What must not be exceeded.
        size_of: Bits of all weights for bits by layer.
    """
    for width in range(MOST_BITS, bits[taker], -1):
        other = tuple(b - 1 if i == giver else width if i == taker else b for i, b in enumerate(bits))
        if size_of(other) <= size:
            return other
    return None


def search_bits(start: Bits, judge: Judge, kept: Sequence[int], tell: Callable[[str], None]) -> list[RoundedTrial]:
    """Searches from equal bits; returns the networks that were taken, the first and the best one last.

    Args:
        start: Bits of each layer, whose size nothing exceeds.
        judge: Scores a network.
        kept: Weights of each layer that aren't zero in float32; they and the bits are the size.
        tell: Takes a line about each network that is tried.
    """

    def size_of(bits: Bits) -> int:
        return sum(width * count for width, count in zip(bits, kept, strict=True))

    trials: dict[Bits, RoundedTrial] = {}

    def tried(bits: Bits) -> RoundedTrial | None:
        if bits not in trials:
            try:
                score, count = judge(bits)
            except UserError as error:
                if "would be zero" not in str(error):
                    raise
                tell(f"{show_bits(bits)}: {error}")
                return None
            trials[bits] = RoundedTrial(bits, score, count)
            tell(f"{show_bits(bits)}: {score.proved} proved, mean margin {score.margin:.4f}, {count.kilobytes:.3g} kB")
        return trials[bits]

    first = tried(start)
    if first is None:
        raise UserError(f"There is nothing to begin with: at {show_bits(start)} bits a layer would be emptied.")
    path = [first]
    while True:
        bits = path[-1].bits
        options = (exchanged(bits, *pair, size_of(start), size_of) for pair in exchanges(bits))
        neighbours = [trial for option in options if option is not None and (trial := tried(option)) is not None]
        best = max(neighbours, key=lambda trial: trial.score, default=None)
        if best is None or best.score <= path[-1].score:
            return path
        path.append(best)


def start_of(export: Export, bits: int) -> tuple[Bits, list[int]]:
    """Returns equal bits for all layers of a network, and how many weights of each aren't zero."""
    names = weights_of(export.path)
    kept = {layer.name: layer.nonzero for layer in count_bits(export.path).layers}
    return tuple(spread_bits([bits], names).values()), [kept[name] for name in names]


def check_verifier(name: str) -> None:
    """Refuses a verifier that proves nothing of one network.

    Raises:
        UserError: It is unknown, or an attack, or compares two networks.
    """
    VERIFIERS.check(name, _proves_one)
    if not proves(name):
        raise UserError(f"--verifier {name} is refused because it proves nothing; name one that does.")
    if not _proves_one(name):
        raise UserError(f"--verifier {name} is refused because it compares two networks; name one that takes one.")


def _proves_one(name: str) -> bool:
    return name != PAIR_VERIFIER and proves(name)


@dataclass(frozen=True)
class BitRequest:
    """What is asked for.

    Args:
        checkpoint: The trained cell's file.
        bits: The size is that of so many for all layers.
        images: Held-out images of the search.
        check: Further ones, to compare the choice on.
        verifier: Who proves.
        timeout: Seconds an image.
        exports: Folder for ONNX files.
        data_root: Folder of the data set, or None to look for it.
        threads: Of the verifier; None: its own choice.
    """

    checkpoint: Path
    bits: int
    images: int
    check: int
    verifier: str
    timeout: float
    exports: Path
    data_root: Path | None = None
    threads: int | None = None


@dataclass(frozen=True)
class BitChoice:
    """What came of a search.

    Args:
        bits: Of each layer.
        start: Equal ones, of the size that was asked for.
        compared: Networks in float32, of equal bits and of the choice, on images that the search has not seen; no bits
            stand for float32.
    """

    bits: Bits
    start: Bits
    compared: tuple[RoundedTrial, ...]


def choose_bits(request: BitRequest, tell: Callable[[str], None]) -> BitChoice:
    """Chooses the bits of a trained cell's layers, and compares the choice on other images.

    Args:
        request: What is asked for.
        tell: Takes a line about each network that is tried.

    Raises:
        UserError: The checkpoint is missing or damaged, or of a data set that isn't shipped; there are too few
            images; or the verifier fails.
    """
    check_verifier(request.verifier)
    export = export_cell(request.checkpoint, request.exports)
    refuse_contaminated([(str(request.checkpoint), "val", export)], tell)
    data = load_split(source_of(export.card.get("data", {}).get("name", CIFAR10)), "val", request.data_root)
    if len(data) < request.images + request.check:
        raise UserError(
            f"{request.images} and {request.check} images are refused: there are {len(data):,} held-out ones; allowed "
            "is that many together."
        )
    eps = parse_eps(str(export.card["eps"]))
    start, kept = start_of(export, request.bits)
    with Worker(request.verifier, threads=request.threads, log=None) as worker:

        def judge(first: int, count: int) -> VerifiedJudge:
            positions = range(first, first + count)
            return VerifiedJudge(export, request.exports, data, positions, eps, worker, request.timeout)

        chosen = search_bits(start, judge(0, request.images), kept, tell)[-1].bits
        check = judge(request.images, request.check)
        compared = tuple(RoundedTrial(bits, *check(bits)) for bits in dict.fromkeys(((), start, chosen)))
    return BitChoice(chosen, start, compared)
