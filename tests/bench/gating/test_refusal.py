from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from prunecert.bench.gating.records import Snapshot, of_run
from prunecert.bench.gating.refusal import listed, planned, refuse_incomparable
from prunecert.bench.results.session_types import SessionRow
from prunecert.bench.results.store import Log
from prunecert.errors import UserError
from tests.bench import gatekit as kit
from tests.bench.conftest import CELLS
from tests.bench.gatekit import PROVED, SEARCHED, pair, snapshot


def refuse(base: Snapshot, run: Snapshot, **options: bool) -> dict[str, str]:
    defaults = {"skip_unavailable": False, "any_version": False}
    return refuse_incomparable(base, run, list(base.cells), **{**defaults, **options})


@pytest.fixture(scope="module", name="session")
def _session(finished_run: Path) -> SessionRow:
    (session,) = Log(finished_run).all_sessions()
    return session


@pytest.fixture(scope="module", name="base")
def _base(finished_run: Path) -> Snapshot:
    return of_run(finished_run)


def test_what_is_planned_is_compared_as_a_run_is(session: SessionRow, base: Snapshot) -> None:
    run = planned(session, base)
    assert list(run.cells) == list(CELLS)
    assert refuse(base, run) == {}
    assert run.cells[CELLS[0]].stages == base.cells[CELLS[0]].stages
    assert run.cells[CELLS[0]].info == base.cells[CELLS[0]].info
    fewer = structs.replace(session, cells=[structs.replace(cell, images=11) for cell in session.cells])
    with pytest.raises(UserError, match=r"image set: 12 images in the baseline, 11 in the run \(every cell\)"):
        refuse(base, planned(fewer, base))
    other = structs.replace(session, cells=[structs.replace(cell, data_fingerprint="0" * 9) for cell in session.cells])
    with pytest.raises(UserError, match="data fingerprint: "):
        refuse(base, planned(other, base))


def test_a_network_that_no_verifier_takes_can_not_pass(session: SessionRow, base: Snapshot) -> None:
    refusing = {"fake-bound": "no Tanh.", "fake-complete": "no Tanh."}
    cells = [structs.replace(cell, stages=[], unsupported=refusing) for cell in session.cells]
    with pytest.raises(UserError, match=f"No verifier takes {CELLS[0]}, {CELLS[1]}, so that nothing is told"):
        refuse(base, planned(structs.replace(session, cells=cells), base))
    untaken = replace(
        base.cells[CELLS[0]], stages=(), info=structs.replace(base.cells[CELLS[0]].info, unsupported=refusing)
    )
    with pytest.raises(UserError, match=f"No verifier takes {CELLS[0]}, so"):
        refuse(replace(base, cells={**base.cells, CELLS[0]: untaken}), base)


def test_a_network_by_another_name_is_told_to_keep_its_name() -> None:
    base, run = snapshot(kit.cell(PROVED, name="mine-1.2")), snapshot(kit.cell(PROVED, name="mine-1.3"))
    with pytest.raises(UserError, match=r"lacks 1 of the baseline's 1 cells: mine-1\.2.*has mine-1\.3 instead.*name"):
        refuse(base, run)
    with pytest.raises(UserError, match=r"gate only some with --cells\.$"):
        refuse(snapshot(kit.cell(PROVED, name="a"), kit.cell(PROVED, name="b")), snapshot(kit.cell(PROVED, name="a")))


def test_other_data_are_told_in_words() -> None:
    base, run = pair([PROVED, SEARCHED], [PROVED, SEARCHED])
    sample = [{"split": "test", "fingerprint": "0", "official": False, "sample": True, "source": "the sample"}]
    run = kit.with_head(kit.with_info(run, data_fingerprint="0"), data=sample)
    with pytest.raises(UserError, match=r"The baseline's images are of x, the run's of the sample\.$"):
        refuse(base, run)


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(n) for n in range(10)], "; ") == "0; 1; 2; 3; 4; 5; 6; 7; and 2 more"
