"""Times read back from the log: one observation for each network, verifier, image and repeat."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prunecert.bench.results.outcome import seconds
from prunecert.bench.results.row_types import EndRow, VerdictRow, VisitRow
from prunecert.bench.results.session_types import SessionCell, SessionRow
from prunecert.bench.results.store import Log, collector_off
from prunecert.errors import UserError

#: Times are recorded to the microsecond, so that one of 0 (of a verifier that failed at once, say) is below that.
_LEAST_S = 1e-6


@dataclass(frozen=True)
class Observation:
    """One answer and what it took.

    Args:
        seconds: Without starting the process and loading the network; its share, if images were asked together.
        status: The answer.
        unstable: Unstable ReLUs, where the verifier counts them.
        domains: Domains of branch and bound, likewise.
    """

    seconds: float
    status: str
    unstable: int | None
    domains: int | None


@dataclass
class Observations:
    """All times of a run.

    Args:
        session: The latest session.
        cells: The networks' entries in it, by name.
        times: By network, verifier, and then repeat and image.
        loads: Seconds of loading, by network and verifier.
        load_averages: Of the machine, at each visit.
        finished: Whether the run came to its end.
    """

    session: SessionRow
    cells: dict[str, SessionCell]
    times: dict[tuple[str, str], dict[tuple[int, int], Observation]] = field(default_factory=lambda: defaultdict(dict))
    loads: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    load_averages: list[float] = field(default_factory=list)
    finished: bool = False

    def places(self, cell: SessionCell) -> dict[int, int]:
        """Returns the place among a network's images of each image of which there is an answer."""
        images = {image for observed in self.times.values() for _, image in observed}
        numbers = cell.numbers
        if isinstance(numbers, range):
            return {image: image for image in images if image in numbers}
        return {image: place for place, image in enumerate(numbers) if image in images}


def read(directory: Path) -> Observations:
    """Reads a run of a timing suite.

    Raises:
        UserError: It is none, is damaged, or was killed before it began.
    """
    with collector_off():
        rows = list(Log(directory).rows())
    sessions = [row for row in rows if isinstance(row, SessionRow)]
    if not sessions:
        raise UserError("The run was killed before it began: it holds no session; start it again (prunecert run).")
    latest = sessions[-1]
    if not all(cell.timing is not None for cell in latest.cells):
        raise UserError(f"{directory} holds no times: its suite {latest.suite!r} has no 'timing' section.")
    incomplete = [cell.name for cell in latest.cells if cell.shapes is None or cell.common is None]
    if incomplete:
        raise UserError(f"{directory} is damaged: its session lacks shapes or common of {incomplete[0]}; restore it.")
    observations = Observations(latest, {cell.name: cell for cell in latest.cells})
    numbers = {cell.name: set(cell.numbers) if cell.indices is not None else cell.numbers for cell in latest.cells}
    places = {
        key: (cell.name, verifier, repeat)
        for cell in latest.cells
        for verifier, keys in cell.keys.items()
        for repeat, key in enumerate(keys, start=1)
    }
    for row in rows:
        match row:
            case VerdictRow() if row.key in places and row.image in numbers[places[row.key][0]]:
                name, verifier, repeat = places[row.key]
                observation = Observation(max(seconds(row.times), _LEAST_S), row.status, row.unstable, row.domains)
                observations.times[name, verifier][repeat, row.image] = observation
            case VisitRow() if row.cell in observations.cells:
                observations.loads[row.cell, row.verifier].append(row.load_s)
                observations.load_averages.append(row.load_average)
            case SessionRow():
                observations.finished = False
            case EndRow():
                observations.finished = True
    return observations


@dataclass(frozen=True)
class ResampledTimes:
    """What a verifier took on a network, by what a bootstrap draws again.

    A unit is an image, with the median over its repeats. Where images were asked together it is one such question, so
    that its repeats are units of their own: its images have shares of the same time.

    Args:
        seconds: Seconds an image, by unit: (0, image's place), or (repeat, batch's place).
        decided: Whether all its images were answered `unsat` or `sat` each time, likewise.
        images: Seconds (median over repeats) and whether it was decided each time, by image.
        unstable: Median over the images, where counted.
        domains: Mean over the images, where counted.
    """

    seconds: Mapping[tuple[int, int], float]
    decided: Mapping[tuple[int, int], bool]
    images: Mapping[int, tuple[float, bool]]
    unstable: float | None
    domains: float | None

    def costs(self, limit: float | None) -> dict[tuple[int, int], float]:
        """Returns seconds by unit; where a limit is given, twice the limit for what was not decided within it."""
        return {unit: cost(seconds, self.decided[unit], limit) for unit, seconds in self.seconds.items()}


def cost(seconds: float, decided: bool, limit: float | None) -> float:
    """Returns what an answer counts: its seconds, or, under a limit, PAR2's penalty."""
    return seconds if limit is None or (decided and seconds <= limit) else 2 * limit


def units(observed: Mapping[tuple[int, int], Observation], batch: int, places: Mapping[int, int]) -> ResampledTimes:
    """Returns the units of one network and verifier.

    Args:
        observed: By repeat and image.
        batch: How many images were asked together.
        places: Each image's place among the images.
    """
    by_image: dict[int, list[Observation]] = defaultdict(list)
    for (_, image), answer in observed.items():
        by_image[image].append(answer)
    images = {
        image: (float(np.median([a.seconds for a in answers])), all(a.status in ("unsat", "sat") for a in answers))
        for image, answers in by_image.items()
    }
    seconds: dict[tuple[int, int], float] = {}
    decided: dict[tuple[int, int], bool] = {}
    if batch == 1:
        for image, (value, solved) in images.items():
            seconds[0, places[image]], decided[0, places[image]] = value, solved
    else:
        for (repeat, image), answer in observed.items():
            unit = (repeat, places[image] // batch)
            seconds[unit] = answer.seconds
            decided[unit] = decided.get(unit, True) and answer.status in ("unsat", "sat")
    unstable, domains = _median(by_image, "unstable", np.median), _median(by_image, "domains", np.mean)
    return ResampledTimes(seconds, decided, images, unstable, domains)


def _median(by_image: Mapping[int, list[Observation]], name: str, over: Callable[[list[float]], Any]) -> float | None:
    """Returns an image's median over repeats, taken together over the images."""
    values = []
    for answers in by_image.values():
        numbers = [value for answer in answers if (value := getattr(answer, name)) is not None]
        if numbers:
            values.append(float(np.median(numbers)))
    return float(over(values)) if values else None
