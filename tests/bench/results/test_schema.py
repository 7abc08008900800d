from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.results import schema
from prunecert.bench.results.baseline_types import Baseline
from prunecert.bench.results.protocol_types import SessionStage
from prunecert.bench.results.row_types import KINDS
from prunecert.bench.results.session_types import SessionCell
from prunecert.bench.results.summary_cells import SummaryCell
from prunecert.bench.results.summary_types import Summary
from prunecert.errors import UserError


def test_the_document_is_in_step_with_the_types() -> None:
    text = schema.DOCUMENT.read_text(encoding="utf-8")
    assert schema.updated(text) == text, "run python -m bench.results.schema"


@pytest.mark.parametrize("kind", [*KINDS, SessionCell, SessionStage, Summary, SummaryCell, Baseline])
def test_every_field_is_described(kind: type) -> None:
    assert not set(kind.__struct_fields__) - set(schema.descriptions(kind))  # type: ignore[attr-defined]


def test_a_changed_document_is_mended_and_one_without_marks_refused(tmp_path: Path) -> None:
    text = schema.DOCUMENT.read_text(encoding="utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(text.replace("| `writer` | text |", "| `writer` | number |"), encoding="utf-8")
    assert schema.main(["--document", str(copy)]) == 0
    assert copy.read_text(encoding="utf-8") == text
    copy.write_text("nothing")
    with pytest.raises(UserError, match="lacks the marks"):
        schema.main(["--document", str(copy)])
