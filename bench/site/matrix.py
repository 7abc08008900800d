"""Verifier by network: how much each decides, and its penalised time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prunecert.bench.results.ratios import par2
from prunecert.bench.site.view import Row
from prunecert.verifiers.base import Status

Family = tuple[str, str, str]
_SOLVED = frozenset({str(Status.UNSAT), str(Status.SAT)})


@dataclass(frozen=True)
class Field:
    """A verifier on the networks of a family.

    Args:
        questions: Those that it was asked.
        solved: Of them `unsat` or `sat`.
        par2: Mean seconds a question, an unsolved one for twice its limit.
        everyone: Whether it was asked about all correctly classified images, not about what others left.
    """

    questions: int
    solved: int
    par2: float
    everyone: bool

    @property
    def undecided(self) -> int:
        """Questions that it left open."""
        return self.questions - self.solved


def matrix(families: Mapping[Family, Sequence[Row]]) -> dict[str, dict[Family, Field]]:
    """Returns fields by verifier and family, the verifiers in the order of the cascades.

    They are counted from the entries' own answers.

    Args:
        families: Rows by network, objective and radius.
    """
    fields: dict[str, dict[Family, Field]] = {}
    for family, rows in families.items():
        for verifier in dict.fromkeys(name for row in rows for name in row.verifiers):
            if (field := _field(verifier, [row for row in rows if verifier in row.verifiers])) is not None:
                fields.setdefault(verifier, {})[family] = field
    order = {name: place for row in _rows(families) for place, name in enumerate(row.verifiers)}
    return dict(sorted(fields.items(), key=lambda item: (order[item[0]], item[0])))


def _rows(families: Mapping[Family, Sequence[Row]]) -> list[Row]:
    """Returns all rows, those with most verifiers last: their order counts."""
    return sorted((row for rows in families.values() for row in rows), key=lambda row: len(row.verifiers))


def _field(verifier: str, rows: Sequence[Row]) -> Field | None:
    questions = solved = 0
    penalised = 0.0
    everyone = True
    for row in rows:
        stage = next(stage for stage in row.entry["protocol"]["stages"] if stage["verifier"] == verifier)
        columns = row.entry["verdicts"][verifier]
        decided = [status in _SOLVED for status in columns["status"]]
        everyone = everyone and stage["everyone"]
        if decided:
            questions += len(decided)
            solved += sum(decided)
            penalised += len(decided) * par2(columns["seconds"], decided, stage["timeout"])
    return Field(questions, solved, penalised / questions, everyone) if questions else None
