"""What timed answers amount to: medians and PAR2 by network and verifier, ratios image by image, contradictions."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from prunecert.bench.report.medium import Table, print_sentence
from prunecert.bench.results.outcome import contradictions as all_contradictions
from prunecert.errors import UserError
from prunecert.numbers import read_number
from prunecert.printable import plural, shortened
from prunecert.verifiers.base import Status


@dataclass(frozen=True)
class TimedAnswer:
    """One verifier on one image.

    Args:
        network: File name.
        image: Index in the set.
        verifier: Name, or ``sparse-bab + proofs``.
        status: Of the verdict.
        seconds: Wall-clock, without start-up.
        domains: Subdomains, None where the verifier counts none.
        detail: Of the verdict.
    """

    network: str
    image: int
    verifier: str
    status: Status
    seconds: float
    domains: int | None
    detail: str


@dataclass(frozen=True)
class Published:
    """What somebody has published about a verifier; of other images, mostly, and on another machine.

    Args:
        name: What it is called.
        seconds: By what is published of the times: ``median``, ``p90``, ``p99``.
    """

    name: str
    seconds: dict[str, float]

    @classmethod
    def parse(cls, text: str) -> Published:
        """Reads ``NAME=MEDIAN,P90,P99``, in seconds.

        Raises:
            UserError: It is something else.
        """
        name, _, numbers = text.rpartition("=")
        values = [read_number(number) for number in numbers.split(",")]
        seconds = [value for value in values if value is not None and 0 < value < math.inf]
        if not name.strip() or len(values) != len(seconds) or len(seconds) != len(_SHARES):
            raise UserError(
                f"--published {shortened(repr(text), 80)} is refused; allowed is NAME={','.join(_SHARES).upper()}, "
                "seconds above 0."
            )
        return cls(name.strip(), dict(zip(_SHARES, seconds, strict=True)))


#: What is set beside published figures, and the percentiles that they are.
_SHARES = {"median": 50, "p90": 90, "p99": 99}
_COLUMNS = (
    ("network", False),
    ("verifier", False),
    *((heading, True) for heading in ("images", "unsat", "sat", "undecided", "median s", "quartiles s")),
    *((heading, True) for heading in ("p90 s", "p99 s", "mean s", "PAR2 s")),
    ("domains, median", True),
)


#: Columns of a line that an 80-column screen has room for, network by network.
_SMALL = ("verifier", "unsat", "sat", "undecided", "median s", "quartiles s", "p90 s", "PAR2 s")


def table(answers: Sequence[TimedAnswer], timeout: float) -> Table:
    """Returns a line for each network and verifier.

    What is not decided counts in percentiles and mean with the time that it took, and in PAR2 with twice the limit.
    """
    rows = []
    for network, verifier, group in _groups(answers):
        seconds = [answer.seconds for answer in group]
        counts = {status: sum(answer.status is status for answer in group) for status in (Status.UNSAT, Status.SAT)}
        undecided = len(group) - sum(counts.values())
        par2 = statistics.fmean(a.seconds if a.status.decided else 2 * timeout for a in group)
        low, middle, high, late, last = np.percentile(seconds, (25, 50, 75, 90, 99))
        domains = [answer.domains for answer in group if answer.domains is not None]
        rows.append(
            [
                network,
                verifier,
                *map(str, (len(group), counts[Status.UNSAT], counts[Status.SAT], undecided)),
                f"{middle:.3f}",
                f"{low:.3f}–{high:.3f}",
                *(f"{value:.3f}" for value in (late, last, statistics.fmean(seconds), par2)),
                f"{statistics.median(domains) if domains else ''}",
            ]
        )
    return Table(_COLUMNS, rows)


def by_network(whole: Table) -> Iterator[tuple[str, Table]]:
    """Yields for each network of a table its name, and what a screen of 80 columns has room for."""
    headings = [heading for heading, _ in whole.columns]
    keep = [headings.index(heading) for heading in _SMALL]
    for network in dict.fromkeys(row[0] for row in whole.rows):
        rows = [row for row in whole.rows if row[0] == network]
        yield f"{network}, {plural(int(rows[0][2]), 'answer')} each", Table(whole.columns, rows).only(keep)


def show(whole: Table, console: Console | None = None) -> None:
    """Prints a table: in Markdown, or on a screen that is too narrow for that network by network, see `by_network`."""
    console = console or Console()
    lines = whole.markdown()
    if not console.is_terminal or max(map(len, lines)) <= console.width:
        print("\n".join([*lines, ""]), file=console.file)
    elif [heading for heading, _ in whole.columns] != [heading for heading, _ in _COLUMNS]:
        console.print(whole.terminal())
    else:
        for title, small in by_network(whole):
            console.print(small.terminal(title))
        console.print("In a file or a pipe the table has p99, mean and subdomains, too.", highlight=False)


def say_lines(lines: Sequence[str], console: Console | None = None) -> None:
    """Prints lines, filled to the screen where it is one."""
    console = console or Console()
    for line in lines:
        print_sentence(console, line)


def _groups(answers: Sequence[TimedAnswer]) -> Iterator[tuple[str, str, list[TimedAnswer]]]:
    keys = dict.fromkeys((answer.network, answer.verifier) for answer in answers)
    for network, verifier in keys:
        yield network, verifier, [a for a in answers if (a.network, a.verifier) == (network, verifier)]


def ratios(
    answers: Sequence[TimedAnswer], ours: str, others: Sequence[str], keep: Callable[[TimedAnswer], bool]
) -> list[float]:
    """Returns for each image the faster of the others' median time over ours; one that is not decided counts, too."""
    factors = []
    for network, image in dict.fromkeys((a.network, a.image) for a in answers if keep(a)):
        mine = [a for a in answers if (a.network, a.image) == (network, image)]
        medians = {
            name: statistics.median(a.seconds for a in mine if a.verifier == name)
            for name in (ours, *others)
            if any(a.verifier == name for a in mine)
        }
        factors += _factor(medians, ours)
    return factors


def _factor(seconds: Mapping[str, float], ours: str) -> list[float]:
    """Returns the ratio of the fastest of the others to ours; nothing where either is missing."""
    others = [value for name, value in seconds.items() if name != ours]
    return [min(others) / seconds[ours]] if others and ours in seconds else []


def beside(answers: Sequence[TimedAnswer], published: Sequence[Published]) -> list[str]:
    """Returns a line for each network, verifier and published set of figures, with the ratios of their percentiles."""
    lines = []
    for network, verifier, group in _groups(answers):
        seconds = [answer.seconds for answer in group]
        undecided = sum(not answer.status.decided for answer in group)
        for figures in published:
            ours = {name: float(np.percentile(seconds, share)) for name, share in _SHARES.items()}
            pairs = (
                f"{name} {ours[name]:.3f} s beside {theirs:g} s ({theirs / ours[name]:.2f} times)"
                for name, theirs in figures.seconds.items()
            )
            lines.append(
                f"{network}, {verifier}, {plural(len(group), 'answer')}, {undecided} undecided, beside what is "
                f"published of {figures.name}: {', '.join(pairs)}"
            )
    return lines


def asked_before(answers: Sequence[TimedAnswer]) -> set[tuple[str, int]]:
    """Returns networks and images for which an earlier network of the chain was asked about the image."""
    pairs: set[tuple[str, int]] = set()
    networks = list(dict.fromkeys(answer.network for answer in answers))
    images = {name: {answer.image for answer in answers if answer.network == name} for name in networks}
    for place, name in enumerate(networks):
        earlier = set().union(*(images[before] for before in networks[:place]))
        pairs |= {(name, image) for image in images[name] & earlier}
    return pairs


def contradictions(answers: Sequence[TimedAnswer]) -> list[str]:
    """Names images that are proved and broken."""
    claims = ((f"{a.network}, image {a.image}", a.status, a.verifier) for a in answers)
    return [
        f"{question}: sat by {broken} and unsat by {proved}" for question, proved, broken in all_contradictions(claims)
    ]


def spread(factors: Sequence[float]) -> str:
    """Returns median, quartiles and number of ratios, in words."""
    low, middle, high = np.percentile(factors, (25, 50, 75))
    return f"median {middle:.2f}, quartiles {low:.2f} to {high:.2f}, {plural(len(factors), 'image')}"


#: Heading of the column of ratios.
_FASTER = "times faster than the fastest of the others"


def by_outcome(answers: Sequence[TimedAnswer], ours: str, timeout: float) -> Table:
    """Returns a line for the images that somebody proves, one for those that somebody breaks, and one for all.

    Median seconds of each verifier with how many images it leaves undecided, over all networks, and the ratio an image
    of the fastest of the others to ours: median (quartiles). An image that is not decided counts in a ratio with the
    limit, or with the time that it took if that is more, and images that nobody decides count in none.
    """
    images: dict[tuple[str, int], dict[str, list[TimedAnswer]]] = {}
    for answer in answers:
        images.setdefault((answer.network, answer.image), {}).setdefault(answer.verifier, []).append(answer)
    names = sorted(dict.fromkeys(answer.verifier for answer in answers), key=lambda name: name != ours)
    said = {key: {a.status for group in own.values() for a in group if a.status.decided} for key, own in images.items()}
    rows = []
    for what, statuses in (("hold", {Status.UNSAT}), ("don't", {Status.SAT}), ("all", None)):
        group = [own for key, own in images.items() if statuses is None or said[key] == statuses]
        if not group:
            continue
        nobody = sum(not statement for statement in said.values())
        everything = f"all {len(group)}" + (f", {nobody} decided by nobody" if nobody else "")
        cells = [f"{len(group)} that {what}" if statuses else everything]
        for name in names:
            medians = [statistics.median(a.seconds for a in own[name]) for own in group if name in own]
            left = sum(not any(a.status.decided for a in own[name]) for own in group if name in own)
            cells.append(f"{_short(statistics.median(medians))} ({left})" if medians else "")
        factors = [factor for own in group for factor in _faster(own, ours, timeout)]
        low, middle, high = np.percentile(factors, (25, 50, 75)) if factors else (0.0, 0.0, 0.0)
        quartiles = f"{_short(middle)} ({_short(low)}–{_short(high)})" if factors else ""
        rows.append([*cells, quartiles])
    return Table([("images", False), *((f"{name} s", True) for name in names), (_FASTER, True)], rows)


def _short(value: float) -> str:
    """Returns two digits of a number, without an exponent."""
    return f"{float(f'{value:.2g}'):g}"


def _faster(own: Mapping[str, Sequence[TimedAnswer]], ours: str, timeout: float) -> list[float]:
    """Returns the ratio of one image; nothing where nobody decides it, or nobody else was asked."""
    if not any(answer.status.decided for group in own.values() for answer in group):
        return []
    seconds = {
        name: statistics.median(a.seconds if a.status.decided else max(a.seconds, timeout) for a in group)
        for name, group in own.items()
    }
    return _factor(seconds, ours)


def reuse_summary(answers: Sequence[TimedAnswer], ours: str, without: str, first: str) -> list[str]:
    """Returns lines about what earlier proofs save.

    Args:
        answers: Of a chain of networks.
        ours: Name of the search with the proofs of the networks before.
        without: Name of the search without.
        first: The chain's first network, before which there is none.
    """
    pairs = asked_before(answers)
    everything = ratios(answers, ours, [without], lambda a: a.network != first)
    earlier = ratios(answers, ours, [without], lambda a: (a.network, a.image) in pairs)
    new = ratios(answers, ours, [without], lambda a: a.network != first and (a.network, a.image) not in pairs)
    named = (
        ("ratio an image (without proofs over with, after the first network)", everything),
        ("  open at an earlier network, too", earlier),
        ("  open for the first time", new),
    )
    return [f"{what}: {spread(factors)}" for what, factors in named if factors]


def write(answers: Sequence[TimedAnswer], path: Path) -> None:
    """Writes all answers as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = [{**vars(answer), "status": str(answer.status)} for answer in answers]
    path.write_text(json.dumps(data, indent=1) + "\n")
