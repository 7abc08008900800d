"""What pruning kept of what was proved of a dense network, as tables: how each guarantee survived or was lost."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from prunecert.bench.report.labels import rest_of
from prunecert.bench.report.medium import Table, print_sentence
from prunecert.printable import plural


class Way(enum.StrEnum):
    """How a guarantee of the dense network was proved of a pruned one, or why it wasn't."""

    #: The dense margin exceeds what the margins of the two networks can differ by; the pruned one was not searched.
    TRANSFER = "margin transfer"
    #: Intervals of the pruned network.
    INTERVALS = "intervals"
    #: Other bounds of the pruned network over the whole box.
    ROOT = "root bound"
    #: Branch and bound.
    SEARCH = "search"
    #: The image itself is taken for another class.
    MISCLASSIFIED = "misclassified"
    #: A counterexample.
    BROKEN = "broken"
    #: Neither is known.
    OPEN = "left open"


#: The ways in which a guarantee survives.
SURVIVED = (Way.TRANSFER, Way.INTERVALS, Way.ROOT, Way.SEARCH)


@dataclass(frozen=True)
class Fate:
    """What became of one guarantee.

    Args:
        image: The image's number.
        label: Its class.
        way: How.
        transfer_s: Seconds that the transfer took, successful or not, with the pruned network's own bounds.
        anew_s: Seconds that the run took to answer for the pruned network, without what was proved of the dense one.
    """

    image: int
    label: int
    way: Way
    transfer_s: float
    anew_s: float

    @property
    def kept(self) -> bool:
        """Whether it survived."""
        return self.way in SURVIVED


@dataclass(frozen=True)
class Retained:
    """A pruned network's fates.

    Args:
        name: The cell.
        dense: The dense cell.
        compression: The ratio that was asked for.
        fates: One for each guarantee of the dense network.
        form: ``int8`` where it is the dense cell's own network in that form; empty: it is a pruned one.
    """

    name: str
    dense: str
    compression: float
    fates: tuple[Fate, ...]
    form: str = ""

    @property
    def kept(self) -> int:
        """How many guarantees survived."""
        return sum(fate.kept for fate in self.fates)

    def sentence(self) -> str:
        """Says it in a sentence.

        >>> fates = (Fate(3, 0, Way.TRANSFER, 0.1, 0.2), Fate(5, 1, Way.BROKEN, 0.1, 2.0))
        >>> Retained("lwm_x10", "dense_x1", 10.0, fates).sentence()
        'lwm_x10: of 2 guarantees of dense_x1, 1 survives 10x (50.0 %)'
        """
        share = f" ({self.kept / len(self.fates):.1%})".replace("%", " %") if self.fates else ""
        guarantees = plural(len(self.fates), "guarantee")
        survive = "survives" if self.kept == 1 else "survive"
        return (
            f"{self.name}: of {guarantees} of {self.dense}, {self.kept} {survive} "
            f"{self.form or f'{self.compression:g}x'}{share}"
        )


def overview(networks: Sequence[Retained]) -> Table:
    """Returns a line for each pruned network: the ways, and the seconds of all guarantees together."""
    ways = [(str(way), True) for way in Way]
    columns = [("network", False), ("×", True), ("guarantees", True), ("kept", True), *ways, ("transfer s", True)]
    rows = []
    for network in networks:
        counts = Counter(fate.way for fate in network.fates)
        transfer, anew = (sum(times) for times in _seconds(network))
        rows.append(
            [
                network.name,
                f"{network.compression:g}",
                str(len(network.fates)),
                str(network.kept),
                *(str(counts[way]) for way in Way),
                f"{transfer:.2f}",
                f"{anew:.2f}",
            ]
        )
    return Table([*columns, ("anew s", True)], rows)


def _seconds(network: Retained) -> tuple[list[float], list[float]]:
    return [fate.transfer_s for fate in network.fates], [fate.anew_s for fate in network.fates]


def lost_by_class(networks: Sequence[Retained], classes: Sequence[str]) -> Table:
    """Returns a line for each class that lost guarantees: how many there were, kept, and the images of the lost ones.

    Args:
        networks: The pruned networks.
        classes: Names of the classes.
    """
    rows = []
    for network in networks:
        for label in sorted({fate.label for fate in network.fates if not fate.kept}):
            own = [fate for fate in network.fates if fate.label == label]
            images = (f"{fate.image}{'?' if fate.way is Way.OPEN else ''}" for fate in own if not fate.kept)
            kept = sum(fate.kept for fate in own)
            rows.append([network.name, classes[label], str(len(own)), str(kept), ", ".join(images)])
    columns = (("network", False), ("class", False), ("guarantees", True), ("kept", True), ("lost images", False))
    return Table(columns, rows)


#: Headings of the ways where there is little room.
_SHORT = {
    Way.TRANSFER: "margin",
    Way.INTERVALS: "interv.",
    Way.ROOT: "root",
    Way.SEARCH: "search",
    Way.MISCLASSIFIED: "miscl.",
    Way.BROKEN: "broken",
    Way.OPEN: "open",
}


def show(networks: Sequence[Retained], classes: Sequence[str], console: Console) -> None:
    """Prints what `markdown` returns; on a terminal that is too narrow for its tables, smaller ones.

    Args:
        networks: The pruned networks.
        classes: Names of the classes.
        console: Where to.
    """
    lines = markdown(networks, classes).splitlines()
    if (
        not console.is_terminal
        or max((len(line) for line in lines if line.startswith("|")), default=0) <= console.width
    ):
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    for network in networks:
        print_sentence(console, f"- {network.sentence()}")
    lost = lost_by_class(networks, classes)
    for dense in dict.fromkeys(network.dense for network in networks):
        mine = [network for network in networks if network.dense == dense]
        names = {network.name: rest_of(network.name, dense) for network in mine}
        rows = [[names[network.name], str(network.kept), *_counts(network).values()] for network in mine]
        columns = [("network", False), ("kept", True), *((_SHORT[way], True) for way in Way)]
        title = f"{dense}: of {len(mine[0].fates)} guarantees, those that are kept or lost, and by what"
        console.print(Table(columns, rows).terminal(title))
        rows = [[names[name], *rest] for name, *rest in lost.rows if name in names]
        if rows:
            console.print(Table(lost.columns, rows).terminal("lost, by class; a question mark: left open"))


def _counts(network: Retained) -> dict[Way, str]:
    counts = Counter(fate.way for fate in network.fates)
    return {way: str(counts[way]) for way in Way}


def markdown(networks: Sequence[Retained], classes: Sequence[str]) -> str:
    """Returns sentences and both tables; a question mark stands for an image that is left open."""
    lines = [f"- {network.sentence()}" for network in networks]
    lines += ["", *overview(networks).markdown()]
    lost = lost_by_class(networks, classes)
    if lost.rows:
        lines += ["", *lost.markdown()]
    return "\n".join([*lines, ""])
