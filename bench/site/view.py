"""What the site shows of an entry: numbers counted from its answers, and the dense control that it is compared with."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from prunecert.bench.leaderboard.check import remarks
from prunecert.bench.leaderboard.entry import Entry
from prunecert.bench.leaderboard.imagesets import CIFAR10, RANKED_IMAGES, data_name
from prunecert.bench.leaderboard.runs import LargerRun
from prunecert.bench.results.outcome import MISCLASSIFIED, settle
from prunecert.bench.results.ratios import paired_ratio, unpaired_ratio
from prunecert.bench.schema.cell import parse_eps
from prunecert.models import DENSE
from prunecert.models.data import CLASSES
from prunecert.models.pruners.taxonomy import RECONSTRUCTIONS
from prunecert.verifiers.base import Kind

Share = Mapping[str, Any]
#: What a pruned network keeps of its dense control at 10x, in per cent: Sehwag et al. 2019 (arXiv 1906.06110),
#: abstract, mean of four networks.
SEED_PAPER = {"clean": 93.0, "attacked": 92.5, "verified": 85.0}
METRICS = ("clean", "attacked", "verified")


@dataclass(frozen=True)
class KeptShare:
    """A pruned network's accuracy over that of its dense control, on the same images.

    Args:
        value: The ratio.
        low: Lower end of its 95 % interval.
        high: Upper end.
        paired: Whether the interval knows which images; else it takes the two for independent, and is wider.
    """

    value: float
    low: float
    high: float
    paired: bool = True


@dataclass(frozen=True, eq=False)
class ImageView:
    """What became of one image.

    Args:
        image: Its index in the test set.
        label: Its class.
        predicted: What the network says.
        result: ``misclassified``, ``unsat``, ``sat``, or the last status where it stays undecided.
        by: The verifier that decided, or an empty text.
        seconds: All verifiers up to that one; 0 for a misclassified image.
    """

    image: int
    label: int
    predicted: int
    result: str
    by: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Row:
    """One entry as the site shows it.

    Args:
        entry: The entry.
        outcomes: By image, in order.
        unstable: Median unstable ReLUs by verifier that counts them.
        notes: Remarks on it.
        larger: A run of the same network over more images, if there is one: its counts are what is shown.
        dense: Its dense control, if there is one.
        kept: By metric, where it has a dense control.
        proofs: How many of its certificates we have checked, in words; empty where none were.
    """

    entry: Entry
    outcomes: tuple[ImageView, ...]
    unstable: Mapping[str, float]
    notes: tuple[str, ...]
    larger: LargerRun | None = None
    dense: Row | None = None
    kept: Mapping[str, KeptShare] | None = None
    proofs: str = ""

    @property
    def name(self) -> str:
        """Name of the entry, of its page and of its file."""
        return str(self.entry["name"])

    @property
    def cell(self) -> Mapping[str, Any]:
        """Network, objective, radius, pruner, seed."""
        return self.entry["cell"]  # type: ignore[no-any-return]

    @property
    def result(self) -> Mapping[str, Any]:
        """The counts that are shown: the larger run's, else the entry's."""
        return self.own_result if self.larger is None else self.larger.result

    @property
    def own_result(self) -> Mapping[str, Any]:
        """The counts of the entry's own images, whose answers are known one by one."""
        return self.entry["result"]  # type: ignore[no-any-return]

    @property
    def title(self) -> str:
        """What a person calls the method: the author's title, else pruner and compression."""
        pruner = self.cell["pruner"]
        return str(
            self.entry["method"]["title"] or (pruner if pruner == DENSE else f"{pruner} {self.compression:.3g}×")
        )

    @property
    def full_title(self) -> str:
        """The title with all that tells it from others: network, objective, radius and seed."""
        return f"{self.title}, {self.within}"

    @property
    def within(self) -> str:
        """Network, objective, radius and seed."""
        cell = self.cell
        return f"{cell['network']}, {cell['objective']}, ε = {cell['eps']}, seed {cell['seed']}"

    @property
    def compression(self) -> float:
        """All prunable weights over the non-zero ones."""
        return float(self.entry["weights"]["compression"])

    @property
    def sparsity(self) -> float:
        """Zeros over all prunable weights."""
        return float(self.entry["weights"]["sparsity"])

    @property
    def eps(self) -> float:
        """Radius as a number."""
        return float(parse_eps(self.cell["eps"]))

    @property
    def images(self) -> int:
        """How many images the counts that are shown are about."""
        return self.own_images if self.larger is None else self.larger.images

    @property
    def own_images(self) -> int:
        """How many images the entry has."""
        return int(self.entry["data"]["images"])

    @property
    def data_fingerprint(self) -> str:
        """Hash of the split that the images are the first ones of."""
        return str(self.entry["data"]["fingerprint"])

    @property
    def data_name(self) -> str:
        """The data set that its images are from."""
        return data_name(self.entry["data"]["source"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, where they are known: CIFAR-10's; of other data empty."""
        return CLASSES if self.data_name == CIFAR10 else ()

    @property
    def verifiers(self) -> tuple[str, ...]:
        """Names of its verifiers, in order."""
        return tuple(stage["verifier"] for stage in self.entry["protocol"]["stages"])

    @property
    def can_verify(self) -> bool:
        """Whether one of its verifiers is more than an attack; if not, nothing is said of verified accuracy."""
        return any(stage["kind"] != Kind.ATTACK for stage in self.entry["protocol"]["stages"])

    @property
    def family(self) -> tuple[str, str, str]:
        """Entries of one family can stand in one figure: network, objective, radius."""
        return self.cell["network"], self.cell["objective"], self.cell["eps"]

    @property
    def machine(self) -> tuple[Any, ...]:
        """The times that are shown can be compared where this is equal."""
        if self.larger is None:
            return self.own_machine
        run, cell = self.larger.run, self.larger.cell
        return run.machine.cpu, tuple(counts.device for counts in cell.by_verifier.values()), run.workers, run.threads

    @property
    def own_machine(self) -> tuple[Any, ...]:
        """Likewise of the times in the entry's own answers."""
        protocol = self.entry["protocol"]
        devices = tuple(stage["device"] for stage in protocol["stages"])
        return protocol["machine"]["cpu"], devices, protocol["workers"], protocol["threads"]


class _Stage(NamedTuple):
    """A verifier that has answered; what its limit was doesn't matter here."""

    verifier: str
    timeout: float = 1.0
    everyone: bool = False


class _Answer(NamedTuple):
    stage: _Stage
    status: str
    seconds: float


def make_row(entry: Entry, larger: LargerRun | None = None) -> Row:
    """Returns an entry without its dense control.

    Args:
        entry: The entry.
        larger: A run of its network over more images.
    """
    stages = [stage["verifier"] for stage in entry["protocol"]["stages"]]
    answers: dict[int, list[_Answer]] = defaultdict(list)
    unstable = {}
    for name in stages:
        columns = entry["verdicts"][name]
        for image, status, seconds in zip(columns["image"], columns["status"], columns["seconds"], strict=True):
            answers[image].append(_Answer(_Stage(name), status, seconds))
        counted = [value for value in columns["unstable"] if value is not None]
        if counted:
            unstable[name] = float(np.median(counted))
    images = entry["images"]
    outcomes = tuple(
        _outcome(*four, answers[four[0]])
        for four in zip(images["index"], images["label"], images["predicted"], images["correct"], strict=True)
    )
    return Row(entry, outcomes, unstable, (*remarks(entry), *_reconstruction(entry)), larger)


def _reconstruction(entry: Entry) -> Iterator[str]:
    """Yields that a method of ours is a reconstruction, if it is one; whoever else uses its name may be its author."""
    reason = RECONSTRUCTIONS.get(entry["cell"]["pruner"])
    if reason is not None and entry["training"] is not None:
        yield f"the pruning method is a reconstruction {reason}"


def _outcome(image: int, label: int, predicted: int, correct: bool, answers: Sequence[_Answer]) -> ImageView:
    if not correct:
        return ImageView(image, label, predicted, MISCLASSIFIED, "", 0.0)
    # An entry that contradicts itself is refused by bench.check, so that no rule on that is needed here.
    settled = settle([answer.stage for answer in answers], answers, breaking=False)
    return ImageView(image, label, predicted, settled.status, settled.by or "", settled.seconds)


def make_rows(
    entries: Iterable[Entry],
    larger: Mapping[str, LargerRun] | None = None,
    proofs: Mapping[str, str] | None = None,
) -> list[Row]:
    """Returns all entries in the order of the board: by images, most first, then radius, then the best verified first.

    Args:
        entries: Valid entries.
        larger: Runs over more images, by the entry's name.
        proofs: How many of their certificates we have checked, in words, by the entry's name.
    """
    rows = [
        replace(make_row(entry, (larger or {}).get(entry["name"])), proofs=(proofs or {}).get(entry["name"], ""))
        for entry in entries
    ]
    controls: dict[Any, Row] = {}
    for row in sorted(rows, key=lambda row: row.name):
        if row.cell["pruner"] == DENSE:
            controls.setdefault(_comparable(row), row)
    paired = [_with_control(row, controls.get(_comparable(row))) for row in rows]
    return sorted(
        paired,
        key=lambda row: (
            -row.images,
            row.eps,
            not row.can_verify,
            -row.result["verified"]["value"],
            -row.result["attacked"]["value"],
            -row.compression,
            row.name,
        ),
    )


def classes(rows: Sequence[Row]) -> tuple[list[Row], list[list[Row]]]:
    """Returns the rows that are ranked, and those on other images, image set by image set, most first.

    Ranked are those on CIFAR-10's first 1,000 images; where there are none, those on the first 1,000 of other data,
    else those on most. Networks on different data are never in one group.
    """
    groups: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.images, row.data_fingerprint].append(row)

    def order(group: Sequence[Row]) -> tuple[bool, bool, int, bool, int]:
        images, cifar10 = group[0].images, group[0].data_name == CIFAR10
        enough = images == RANKED_IMAGES
        return enough and cifar10, enough, images, cifar10, len(group)

    main, *others = sorted(groups.values(), key=order, reverse=True) or [[]]
    return main, sorted(others, key=lambda group: (group[0].data_name != CIFAR10, -group[0].images))


def _comparable(row: Row) -> tuple[Any, ...]:
    """What a network and its dense control have in common: everything but the pruning."""
    stages = row.entry["protocol"]["stages"]
    data = row.entry["data"]
    return (
        *row.family,
        row.cell["seed"],
        row.entry["by"],
        row.larger.file if row.larger else data["images_sha256"],
        row.images,
        # Trained on as many images.
        str(((row.entry["training"] or {}).get("recipe") or {}).get("holdout", True)),
        tuple((stage["verifier"], stage["version"], stage["settings_hash"], stage["timeout"]) for stage in stages),
    )


def _with_control(row: Row, control: Row | None) -> Row:
    if control is None or control.name == row.name:
        return row
    kept = {}
    for metric in METRICS:
        if row.larger is not None:
            # Its counts are known, not which images they are.
            k, base = row.result[metric]["k"], control.result[metric]["k"]
            if base and (metric != "verified" or row.can_verify):
                kept[metric] = KeptShare(*unpaired_ratio(k, base, row.images), paired=False)
            continue
        ours, theirs = _holds(row, metric), _holds(control, metric)
        if not any(theirs) or (metric == "verified" and not row.can_verify):
            continue
        table = Counter(zip(ours, theirs, strict=True))
        kept[metric] = KeptShare(*paired_ratio(table[True, True], table[True, False], table[False, True]))
    return replace(row, dense=control, kept=kept)


def _holds(row: Row, metric: str) -> list[bool]:
    bad = {"clean": {"misclassified"}, "attacked": {"misclassified", "sat"}}.get(metric)
    return [o.result == "unsat" if bad is None else o.result not in bad for o in row.outcomes]


def families(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Returns the rows by network, objective and radius, in this order; those of a family in the order of the board."""
    rows_of: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        rows_of[row.family].append(row)
    return dict(sorted(rows_of.items(), key=lambda item: (*item[0][:2], item[1][0].eps)))
