"""The numbers of a timing run: seconds by ratio, and what of a speed-up comes from where.

Each pruned network is written in up to three ways that compute the same: *filled* (its zeros replaced by tiny numbers),
*masked* (zeros as they are) and *compact* (dead units removed). From one to the next a single thing changes, so that
the ratio of a verifier's times against the dense network falls into factors, each measured and not modelled:

- *search*, filled over dense: same shapes, same arithmetic; what is left is that fewer ReLUs are unstable and fewer
  domains are visited. The counts stand beside it.
- *arithmetic*, masked over filled: what the verifier saves by skipping zeros. A verifier on dense arithmetic must
  show 1 here, which checks the method.
- *shapes*, compact over masked: what smaller layers save on top of that. For a verifier that skips zeros little is
  left for them: dead units have nothing but zeros.

Beside that, a method that skips zeros (``sparse-crown``) is compared with the same method on dense arithmetic
(``crown``), network by network; that ratio holds all that the two programs do differently.

A verifier that is not a control has no filled times; its *search* is then masked over dense, with the arithmetic
within. The factors of a row multiply to its *whole*, compact (or masked) over dense. A dense network may have dead
units as well: its row has the *shapes* that pruning can't take credit for.

Two statistics: the median image, and the mean. For complete verifiers the mean is PAR2: an undecided image counts
twice the limit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prunecert.bench.results.decode import plain
from prunecert.bench.results.ratios import bootstrap_ratio
from prunecert.bench.results.session_types import SessionCell
from prunecert.bench.results.timing_observations import Observations, ResampledTimes, units
from prunecert.bench.schema.timing import COMPACT, FILLED, MASKED
from prunecert.models import DENSE
from prunecert.verifiers.base import Kind

SCHEMA_VERSION = 1
CONFIDENCE = 0.95
#: A run keeps all cores busy by itself; so much more on average is somebody else.
_LOAD_MARGIN = 0.5
#: Units without which a bootstrap interval says nothing.
_ENOUGH = 5
#: What a verifier that skips zeros is called, before the name of the same method on dense arithmetic.
_SPARSE = "sparse-"
_STATISTICS: Mapping[str, Callable[..., Any]] = {"median": np.median, "mean": np.mean}


def summarise_times(observations: Observations) -> dict[str, Any]:
    """Returns all numbers of a run, as plain data.

    Args:
        observations: Its observations.
    """
    session = observations.session
    cells = list(observations.cells.values())
    names = list(dict.fromkeys(cell.group for cell in cells))
    groups = [_group(name, [cell for cell in cells if cell.group == name], observations) for name in names]
    head = plain(session)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "timing",
        **{key: head[key] for key in ("suite", "profile", "suite_digest", "description", "command", "started")},
        **{key: head[key] for key in ("versions", "machine", "device", "workers", "threads", "skipped", "data")},
        "finished": observations.finished,
        "confidence": CONFIDENCE,
        "load_average": _load(observations.load_averages, session.machine.cores),
        "groups": groups,
    }


def _load(averages: Sequence[float], cores: int) -> dict[str, Any]:
    if not averages:
        return {"median": None, "most": None, "busy": False}
    return {
        "median": float(np.median(averages)),
        "most": float(max(averages)),
        "busy": float(max(averages)) > cores + _LOAD_MARGIN,
    }


def _group(name: str, cells: list[SessionCell], observations: Observations) -> dict[str, Any]:
    order = sorted(cells, key=lambda cell: (cell.pruner != DENSE, cell.pruner, cell.compression))
    verifiers = list(dict.fromkeys(stage.verifier for cell in order for stage in cell.stages))
    return {
        "name": name,
        "images": cells[0].images,
        "common": cells[0].common,
        "timing": cells[0].timing,
        "networks": [
            {
                **{key: getattr(cell, key) for key in ("name", "pruner", "compression", "variant")},
                "shapes": plain(cell.shapes),
                "onnx_sha256": cell.onnx_sha256,
                "sparsity": cell.measured_sparsity,
            }
            for cell in order
        ],
        "verifiers": [
            numbers for verifier in verifiers if (numbers := _verifier(verifier, order, observations)) is not None
        ],
        "twins": [
            twin
            for verifier in verifiers
            if (dense := verifier.removeprefix(_SPARSE)) != verifier and dense in verifiers
            for cell in order
            if (twin := _twin(dense, verifier, cell, observations)) is not None
        ],
    }


def _verifier(verifier: str, cells: list[SessionCell], observations: Observations) -> dict[str, Any] | None:
    """Returns one verifier's numbers on a group, or None if it has answered nothing."""
    stage = next(s for cell in cells for s in cell.stages if s.verifier == verifier)
    complete = stage.kind is Kind.COMPLETE
    batch = max(cell.batches.get(verifier, 1) for cell in cells)
    timed = {
        cell.name: units(observations.times[cell.name, verifier], batch, observations.places(cells[0]))
        for cell in cells
        if observations.times.get((cell.name, verifier))
    }
    if not timed:
        return None
    rows = [
        _row(cell, verifier, timed[cell.name], stage.timeout if complete else None, observations)
        for cell in cells
        if cell.name in timed
    ]
    dense = next((c for c in cells if (c.pruner, c.variant) == (DENSE, MASKED) and c.name in timed), None)
    limit = stage.timeout if complete else None
    return {
        "verifier": verifier,
        **{key: getattr(stage, key) for key in ("kind", "version", "settings", "timeout", "device")},
        "batch": batch,
        "repeats": max(len(cell.keys.get(verifier, ())) for cell in cells),
        "mean_is": "par2" if complete else "mean",
        "networks": rows,
        "factors": [] if dense is None else _all_factors(dense, cells, timed, limit),
    }


def _twin(dense: str, sparse: str, cell: SessionCell, observations: Observations) -> dict[str, Any] | None:
    """Returns the ratio of times of a method that skips zeros over the same method on dense arithmetic, one network."""
    answers = [observations.times.get((cell.name, verifier)) for verifier in (sparse, dense)]
    if not answers[0] or not answers[1]:
        return None
    places = observations.places(cell)
    batches = [cell.batches.get(verifier, 1) for verifier in (sparse, dense)]
    # What was asked together has one time, which its images share. Where the two were asked differently, an image's
    # share is all that can be compared.
    batch = batches[0] if batches[0] == batches[1] else 1
    times = [units(answer, batch, places) for answer in answers if answer]
    images = sorted(set(times[0].images) & set(times[1].images))
    shared = sorted(set(times[0].seconds) & set(times[1].seconds))
    if not shared:
        return None
    columns = [[measured.seconds[unit] for unit in shared] for measured in times]
    return {
        "verifier": sparse,
        "over": dense,
        "network": cell.name,
        "images": len(images),
        **{name: _ratio(columns[0], columns[1], name) for name in _STATISTICS},
    }


def _row(
    cell: SessionCell, verifier: str, units: ResampledTimes, limit: float | None, observations: Observations
) -> dict[str, Any]:
    loads = observations.loads.get((cell.name, verifier), [])
    seconds = [value for value, _ in units.images.values()]
    return {
        "network": cell.name,
        "images": len(seconds),
        "units": len(units.seconds),
        "decided": sum(decided for _, decided in units.images.values()),
        "median_s": float(np.median(list(units.seconds.values()))),
        "mean_s": float(np.mean(list(units.costs(limit).values()))),
        "unstable": units.unstable,
        "domains": units.domains,
        "load_s": float(np.median(loads)) if loads else None,
        "cactus_s": sorted(value for value, decided in units.images.values() if decided),
    }


def _all_factors(
    dense: SessionCell, cells: Sequence[SessionCell], timed: Mapping[str, ResampledTimes], limit: float | None
) -> list[dict[str, Any]]:
    """Returns the factors of each network but the dense one as masked."""
    pruned: dict[tuple[str, float], dict[str, SessionCell]] = {}
    for cell in cells:
        if cell is not dense and cell.name in timed:
            pruned.setdefault((cell.pruner, cell.compression), {})[cell.variant] = cell
    return [
        {
            "pruner": pruner,
            "compression": compression,
            "sparsity": next(iter(written.values())).measured_sparsity,
            "unstable": _count_ratio(timed, written.get(MASKED, dense), dense, "unstable"),
            "domains": _count_ratio(timed, written.get(MASKED, dense), dense, "domains"),
            **{
                name: factors(timed[dense.name], {v: timed[c.name] for v, c in written.items()}, limit, name)
                for name in _STATISTICS
            },
        }
        for (pruner, compression), written in pruned.items()
    ]


def _count_ratio(
    timed: Mapping[str, ResampledTimes], cell: SessionCell, dense: SessionCell, count: str
) -> float | None:
    one, base = getattr(timed[cell.name], count), getattr(timed[dense.name], count)
    return one / base if one is not None and base else None


def factors(
    dense: ResampledTimes, written: Mapping[str, ResampledTimes], limit: float | None, statistic: str
) -> dict[str, Any]:
    """Returns the factors of a ratio against dense, each with its bootstrap interval.

    Args:
        dense: Times on the dense network.
        written: Times on the pruned one, by variant; or on the dense one without its dead units.
        limit: The verifier's limit if undecided images are penalised, else None.
        statistic: ``"median"`` or ``"mean"``.

    Returns:
        ``whole``, and those of ``search``, ``arithmetic`` and ``shapes`` that were measured, each with ``ratio``,
        ``low`` and ``high`` (None with fewer than five units); and ``units``, how many stand behind them: only those
        that all networks have.
    """
    chain = [("dense", dense), *((name, written[name]) for name in (FILLED, MASKED, COMPACT) if name in written)]
    penalty = limit if statistic == "mean" else None
    costs = [units.costs(penalty) for _, units in chain]
    shared = sorted(set.intersection(*(set(each) for each in costs)))
    if not shared:
        return {"units": 0}
    columns = {name: [each[unit] for unit in shared] for (name, _), each in zip(chain, costs, strict=True)}
    after = {FILLED: "search", MASKED: "arithmetic" if FILLED in columns else "search", COMPACT: "shapes"}
    names = list(columns)
    ratios: dict[str, Any] = {"units": len(shared), "whole": _ratio(columns[names[-1]], columns["dense"], statistic)}
    for before, name in itertools.pairwise(names):
        ratios[after[name]] = _ratio(columns[name], columns[before], statistic)
    return ratios


def _ratio(numerator: Sequence[float], denominator: Sequence[float], statistic: str) -> dict[str, float | None]:
    """Returns a ratio and its interval; no interval where there is too little to be drawn again."""
    ratio, low, high = bootstrap_ratio(numerator, denominator, _STATISTICS[statistic], confidence=CONFIDENCE)
    enough = len(numerator) >= _ENOUGH
    return {"ratio": ratio, "low": low if enough else None, "high": high if enough else None}
