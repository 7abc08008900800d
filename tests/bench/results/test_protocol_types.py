from __future__ import annotations

from typing import Any

import msgspec
import pytest

from prunecert.bench.results.protocol_types import DataRecord, Machine, SessionStage, StageSettings
from tests.bench.rowkit import MACHINE, SESSION


def test_a_session_is_made_of_them() -> None:
    assert msgspec.to_builtins(msgspec.convert(MACHINE, Machine)) == MACHINE
    (data,) = SESSION["data"]
    assert msgspec.to_builtins(msgspec.convert(data, DataRecord)) == data
    # What a baseline keeps of a stage is in the stage of a session.
    assert set(StageSettings.__struct_fields__) < set(SessionStage.__struct_fields__)


@pytest.mark.parametrize("change", [{"cores": 0}, {"cores": "2"}, {"cpu": None}])
def test_what_no_machine_has_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match=next(iter(change))):
        msgspec.convert({**MACHINE, **change}, Machine)
