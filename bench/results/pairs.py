"""From answers about pairs of networks to the numbers of a run, apart from all that is verified of one network.

- *same*: a verifier proved, over an image's whole box, that the two networks are alike in the sense that was asked;
  nobody found a point at which they are not.
- *different*: a point of the box at which they aren't, confirmed on both files.

Shares are of all images, whatever the networks make of them. What is proved of a pair is held against what was found of
its networks: where the dense network keeps an image's class over its box and the other one is proved to have the same
class there, no counterexample to the other one can exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from prunecert.bench.results.outcome import PENDING, Outcome, seconds, settle
from prunecert.bench.results.row_types import PairRow
from prunecert.bench.results.session_types import SessionCell, SessionPair, present
from prunecert.bench.results.stats import share_record

_SHARED = ("name", "network", "objective", "eps", "pruner", "compression", "seed", "split")
_UNDECIDED = ("unknown", "timeout", "memout", "error", "unsupported")
#: What is asked of classes without a margin: of every point of the box.
CLASS = "class"


class PairAnswer(NamedTuple):
    """One answer, as far as the summary needs it; seconds are without start-up and loading."""

    status: str
    seconds: float


PairAnswers = Mapping[str, Mapping[int, PairAnswer]]


def answer_of(row: PairRow) -> PairAnswer:
    """Reads a `pair` row."""
    return PairAnswer(row.status, seconds(row.times))


def outcomes(pair: SessionPair, answers: PairAnswers) -> dict[int, Outcome]:
    """Returns what became of each image that anybody was asked about."""
    by_stage = [answers.get(stage.key, {}) for stage in pair.stages]
    images = present(pair.numbers, {image: True for by_image in by_stage for image in by_image})
    return {image: settle(pair.stages, [by_image.get(image) for by_image in by_stage]) for image in images}


def summarise(cells: Iterable[SessionCell], answers: PairAnswers, confidence: float) -> list[dict[str, Any]]:
    """Returns the numbers of all pairs.

    Args:
        cells: Cells of session rows.
        answers: By stage key and image.
        confidence: Of the intervals.
    """
    return [_summary(cell, pair, answers, confidence) for cell in cells for pair in cell.pairs]


def _summary(cell: SessionCell, pair: SessionPair, answers: PairAnswers, confidence: float) -> dict[str, Any]:
    settled = outcomes(pair, answers)
    complete = {image: outcome for image, outcome in settled.items() if outcome.complete}
    counts = Counter(outcome.status for outcome in complete.values())
    decided: dict[str, Counter[str]] = {stage.verifier: Counter() for stage in pair.stages}
    for outcome in complete.values():
        if outcome.by is not None:
            decided[outcome.by][outcome.status] += 1
    n, spent = len(settled), np.array([outcome.seconds for outcome in complete.values()])
    undecided = {status: counts[status] for status in _UNDECIDED}
    by_stage = {stage.verifier: answers.get(stage.key, {}) for stage in pair.stages}
    return {
        **{key: getattr(cell, key) for key in _SHARED},
        "partner": pair.partner,
        "step": pair.step,
        "alike": pair.alike,
        "onnx_sha256": pair.onnx_sha256,
        "images": n,
        "images_asked": pair.images,
        "finished": n == pair.images == len(complete),
        PENDING: n - len(complete),
        "same": share_record(counts["unsat"], n, confidence),
        "different": share_record(counts["sat"], n, confidence),
        "undecided": {"total": sum(undecided.values()), **undecided},
        "decided_by": {name: {"unsat": c["unsat"], "sat": c["sat"]} for name, c in decided.items()},
        "questions": {name: len(by_image) for name, by_image in by_stage.items()},
        "failed": {
            name: sum(answer.status == "error" for answer in by_image.values()) for name, by_image in by_stage.items()
        },
        "time": {
            "median_s": float(np.median(spent)) if spent.size else None,
            "total_s": float(spent.sum()),
        },
    }


def broken(summaries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the verifiers that failed on every pair that they were asked about."""
    questions: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for item in summaries:
        questions.update(item["questions"])
        failed.update(item["failed"])
    return sorted(name for name in questions if questions[name] and questions[name] == failed[name])


def contradictions(
    cells: Mapping[str, SessionCell], answers: PairAnswers, single: Mapping[str, Mapping[int, Outcome]]
) -> list[dict[str, Any]]:
    """Returns where what was proved of a pair contradicts what was found of its two networks.

    Args:
        cells: Cells of session rows, by name.
        answers: About pairs, by stage key and image.
        single: What became of the images of each cell by itself, by its name.
    """
    items = []
    for cell in cells.values():
        for pair in cell.pairs:
            partner = cells.get(pair.partner)
            if (
                pair.alike != CLASS
                or partner is None
                or (partner.norm, partner.eps, partner.data_fingerprint, partner.split)
                != (cell.norm, cell.eps, cell.data_fingerprint, cell.split)
            ):
                continue
            ours, theirs = single.get(cell.name, {}), single.get(partner.name, {})
            for image, outcome in outcomes(pair, answers).items():
                own, other = ours.get(image), theirs.get(image)
                if own is None or other is None or outcome.status != "unsat" or other.status != "unsat":
                    continue
                if own.status in ("sat", "misclassified"):
                    items.append(
                        {
                            "cell": cell.name,
                            "image": image,
                            "unsat_by": f"{other.by} on {partner.name}, with {outcome.by} on the pair,",
                            "sat_by": own.by or "the image itself",
                            "question": pair.onnx_sha256[:32],
                        }
                    )
    return items
