"""One question to a pair, whichever way it is answered; exact answers are in `tests.soundness`."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from prunecert.verifiers.base import OutputSpec, Status
from prunecert.verifiers.sparse.onnx.reader import read_network
from prunecert.verifiers.sparse.pairs.network import joined
from prunecert.verifiers.sparse.pairs.search import PairNetworks, PairSearch
from prunecert.verifiers.sparse.pairs.specification import difference
from tests.soundness.pairs import PairQuestion, questions

NEVER = time.monotonic() + 1e6


def networks_of(question: PairQuestion, folder: Path) -> PairNetworks:
    first, second = (read_network(path) for path in question.files(folder))
    return PairNetworks(joined(first, second), 1)


@pytest.fixture(name="hard", scope="module")
def _hard(tmp_path_factory: pytest.TempPathFactory) -> tuple[PairQuestion, PairNetworks]:
    """A question that holds, and that differential bounds leave open."""
    folder = tmp_path_factory.mktemp("hard")
    for question in questions(40, ("skip",)):
        if question.truth is Status.UNSAT and "x1.01" in question.name:
            networks = networks_of(question, folder)
            late = PairSearch(networks, question.lower, question.upper, question.spec, time.monotonic() - 1)
            if late.run().status is Status.TIMEOUT:
                return question, networks
    raise AssertionError("all are easy")


@pytest.mark.parametrize("entries", [0, 20_000])
def test_near_the_threshold_it_is_split(hard: tuple[PairQuestion, PairNetworks], entries: int) -> None:
    question, networks = hard
    box = question.lower, question.upper
    outcome = PairSearch(networks, *box, question.spec, NEVER, entries=entries).run()
    assert (outcome.status, outcome.stage) == (Status.UNSAT, "bab")
    assert outcome.domains > 0
    assert outcome.unstable
    assert outcome.bound_s > 0


def test_far_from_it_bounds_or_an_attack_suffice(hard: tuple[PairQuestion, PairNetworks]) -> None:
    question, networks = hard
    outputs = networks.pair.outputs
    proved = PairSearch(networks, question.lower, question.upper, difference(100.0, outputs), NEVER).run()
    assert (proved.status, proved.stage) == (Status.UNSAT, "incomplete")
    assert proved.bounds is not None
    assert len(proved.bounds) == 2 * outputs
    assert min(proved.bounds) > 50
    broken = PairSearch(networks, question.lower, question.upper, difference(1e-3, outputs), NEVER).run()
    assert (broken.status, broken.stage) == (Status.SAT, "attack")
    assert broken.witness is not None
    assert difference(1e-3, outputs).violated_by(question.both.evaluate(broken.witness)[0])


def test_more_is_proved_where_an_allowance_asks_for_it(hard: tuple[PairQuestion, PairNetworks]) -> None:
    question, networks = hard
    spec = difference(100.0, networks.pair.outputs)
    for allowed, status in ((1.0, Status.UNSAT), (200.0, Status.UNKNOWN)):
        allowance = (allowed,) * len(spec.disjuncts)
        # The property holds; what is asked beyond it doesn't, and no point breaks the property.
        outcome = PairSearch(networks, question.lower, question.upper, spec, time.monotonic() + 0.5, allowance).run()
        assert outcome.status in (status, Status.TIMEOUT if allowed > 100 else status)


def test_properties_without_rows_are_answered(hard: tuple[PairQuestion, PairNetworks]) -> None:
    question, networks = hard
    box = question.lower, question.upper
    assert PairSearch(networks, *box, OutputSpec(()), NEVER).run().status is Status.UNSAT
    everything = OutputSpec(((np.zeros((0, 2 * networks.pair.outputs)), np.zeros(0)),))
    assert PairSearch(networks, *box, everything, NEVER).run().status is Status.SAT


def test_time_that_is_up_is_said(hard: tuple[PairQuestion, PairNetworks]) -> None:
    question, networks = hard
    outcome = PairSearch(networks, question.lower, question.upper, question.spec, time.monotonic() - 1).run()
    assert outcome.status is Status.TIMEOUT
