"""What answers mean together: what became of an image, where answers contradict each other, what they took.

Everything that counts images (a run's summary, the gate, the site, comparisons) asks `settle`, so that a number means
the same wherever it stands:

- An image is settled by the first verifier of the cascade that answers `unsat` or `sat`.
- A later `sat` goes before an earlier `unsat`: its counterexample was replayed, so it stands, and nothing there counts
  as verified. The two are a contradiction, which `Claims` and `disputes` find and every command names.
- Its seconds are those of all verifiers up to the one that settled it first, or of all where none did.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from prunecert.bench.results.row_types import PhaseTimes
from prunecert.verifiers.base import Status

MISCLASSIFIED = "misclassified"
PENDING = "pending"
Q = TypeVar("Q", bound=Hashable)
W = TypeVar("W")
#: A phase that `seconds` leaves out unless it is asked for.
Phase = Literal["load", "start"]


class Stage(Protocol):
    """A verifier of a cascade, as far as its answers' meaning depends on it."""

    @property
    def verifier(self) -> str:
        """Its name."""

    @property
    def timeout(self) -> float:
        """Seconds an instance."""

    @property
    def everyone(self) -> bool:
        """Whether it sees images that are decided already."""


class Answer(Protocol):
    """A verifier's answer on an image."""

    @property
    def status(self) -> str:
        """A `Status`."""

    @property
    def seconds(self) -> float:
        """What it took."""


class Outcome(NamedTuple):
    """What became of an image.

    Args:
        status: ``unsat``, ``sat``, ``misclassified``, or the last status of an undecided image.
        by: The verifier that decided it, or None.
        seconds: Of all verifiers up to that one (of all, if none did).
        share: The deciding verifier's seconds over its limit; 0 where nothing was decided.
        complete: Whether no answer is still to come.
    """

    status: str
    by: str | None
    seconds: float
    share: float
    complete: bool = True


def seconds(times: PhaseTimes | None, including: Collection[Phase] = ()) -> float:
    """Returns the seconds that an answer took, without starting its process and loading its network.

    Args:
        times: A row's times; None: all are 0.
        including: Phases that count nevertheless.
    """
    if times is None:
        return 0.0
    spent = times.wall_s if "load" in including else times.wall_s - times.load_s
    return spent + times.start_s if "start" in including else spent


def settle(stages: Sequence[Stage], answers: Iterable[Answer | None], *, breaking: bool = True) -> Outcome:
    """Returns what became of a correctly classified image.

    Example:
        >>> from types import SimpleNamespace as Fields
        >>> stages = [Fields(verifier=name, timeout=10.0, everyone=False) for name in ("ibp", "neuralsat")]
        >>> settle(stages, [Fields(status="unknown", seconds=0.5), Fields(status="unsat", seconds=2.0)])
        Outcome(status='unsat', by='neuralsat', seconds=2.5, share=0.2, complete=True)
        >>> settle(stages, [Fields(status="unknown", seconds=0.5), None]).complete
        False

    Args:
        stages: The verifiers, in the order in which an undecided image meets them.
        answers: Theirs, in the same order; None where there is none.
        breaking: Whether a later `sat` goes before an earlier `unsat`. Not on the site, whose entries are refused if
            they contradict themselves.
    """
    spent, share, last, complete = 0.0, 0.0, str(Status.UNKNOWN), True
    result: str | None = None
    by: str | None = None
    for stage, answer in zip(stages, answers, strict=True):
        if answer is None:
            # Verifiers that see only undecided images have no answer on decided ones; on others it is still to come.
            complete = complete and result is not None and not stage.everyone
        elif result is None:
            spent += answer.seconds
            last = answer.status
            if last in (Status.UNSAT, Status.SAT):
                result, by, share = last, stage.verifier, answer.seconds / stage.timeout
        elif breaking and result == Status.UNSAT and answer.status == Status.SAT:
            result, by = answer.status, stage.verifier
    return Outcome(str(last if result is None else result), by, spent, share, complete)


class Contradiction(NamedTuple, Generic[W]):
    """A question that was answered both ways.

    Args:
        question: What was asked.
        proved: Who was the first to answer `unsat`.
        broken: Who was the first to answer `sat`.
    """

    question: str
    proved: W
    broken: W


def _side(status: str) -> int | None:
    """Returns 0 for a status that proves, 1 for one that breaks, None for one that decides nothing."""
    if status == Status.UNSAT:
        return 0
    return 1 if status == Status.SAT else None


class Claims(Generic[W]):
    """The decided answers to questions, as they come: who was the first to prove each, and who to break it."""

    def __init__(self) -> None:
        self._first: dict[str, list[W | None]] = {}

    def add(self, question: str, status: str, who: W) -> None:
        """Takes an answer; one that decides nothing is no claim."""
        place = _side(status)
        if place is None:
            return
        pair = self._first.get(question)
        if pair is None:
            pair = self._first[question] = [None, None]
        if pair[place] is None:
            pair[place] = who

    def contradictions(self) -> list[Contradiction[W]]:
        """Returns the questions that were answered both ways, in the order in which they were first decided.

        Example:
            >>> contradictions([("image 3", "unsat", "ibp"), ("image 4", "unsat", "ibp"), ("image 3", "sat", "pgd")])
            [Contradiction(question='image 3', proved='ibp', broken='pgd')]
        """
        return [
            Contradiction(question, proved, broken)
            for question, (proved, broken) in self._first.items()
            if proved is not None and broken is not None
        ]


def contradictions(claims: Iterable[tuple[str, str, W]]) -> list[Contradiction[W]]:
    """Returns the contradictions among claims.

    Example:
        >>> contradictions([("q1", "unsat", "ibp"), ("q1", "unknown", "crown"), ("q2", "sat", "pgd")])
        []
        >>> contradictions([("q1", "unsat", "ibp"), ("q1", "sat", "pgd")])
        [Contradiction(question='q1', proved='ibp', broken='pgd')]

    Args:
        claims: Triples: a question, a status, and who says so.
    """
    by_question: Claims[W] = Claims()
    for question, status, who in claims:
        by_question.add(question, status, who)
    return by_question.contradictions()


class Dispute(NamedTuple, Generic[Q, W]):
    """A question that was answered both ways, with everybody who answered it.

    Args:
        question: What was asked.
        proving: Who answered `unsat`, in the order of the claims.
        breaking: Who answered `sat`, likewise.
    """

    question: Q
    proving: Sequence[W]
    breaking: Sequence[W]


def disputes(claims: Iterable[tuple[Q, str, W]]) -> list[Dispute[Q, W]]:
    """Returns the contradictions among claims with all who take a side, in the order in which they were first decided.

    Example:
        >>> disputes([(3, "unsat", "ibp"), (3, "sat", "pgd"), (3, "unsat", "crown"), (4, "timeout", "pgd")])
        [Dispute(question=3, proving=['ibp', 'crown'], breaking=['pgd'])]

    Args:
        claims: Triples: a question, a status, and who says so.
    """
    sides: dict[Q, tuple[list[W], list[W]]] = {}
    for question, status, who in claims:
        place = _side(status)
        if place is not None:
            sides.setdefault(question, ([], []))[place].append(who)
    return [
        Dispute(question, proving, breaking) for question, (proving, breaking) in sides.items() if proving and breaking
    ]
