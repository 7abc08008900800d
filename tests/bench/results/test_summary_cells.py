from __future__ import annotations

from typing import Any

import msgspec
import pytest

from prunecert.bench.results.summary_cells import CertifiedShare, ShareRecord, SummaryCell

SHARE = {"k": 3, "n": 4, "value": 0.75, "low": 0.3, "high": 0.95}


def test_a_share_of_nothing_has_no_value() -> None:
    assert msgspec.convert({**SHARE, "value": None}, ShareRecord).value is None
    assert issubclass(CertifiedShare, ShareRecord)


@pytest.mark.parametrize("change", [{"k": -1}, {"value": 1.5}, {"low": "0"}, {"n": 1.5}])
def test_a_share_that_is_none_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match=next(iter(change))):
        msgspec.convert({**SHARE, **change}, ShareRecord)


def test_a_cell_says_what_was_not_decided_and_by_whom_the_rest_was() -> None:
    fields = set(SummaryCell.__struct_fields__)
    assert {"clean", "attacked", "verified", "undecided", "decided_by", "finished"} <= fields
