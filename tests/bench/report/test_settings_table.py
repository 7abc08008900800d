"""The document on settings is made of their declarations."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunecert.bench.report import settings_table
from prunecert.errors import UserError


def test_the_document_is_in_step_with_the_declarations() -> None:
    text = settings_table.DOCUMENT.read_text(encoding="utf-8")
    assert settings_table.updated(text) == text, "run python -m bench.report.settings_table"


def test_a_changed_document_is_mended_and_one_without_marks_refused(tmp_path: Path) -> None:
    text = settings_table.DOCUMENT.read_text(encoding="utf-8")
    copy = tmp_path / "settings.md"
    assert "| `root_iterations` | `60` | 1 or more |" in text
    copy.write_text(text.replace("| `root_iterations` | `60` |", "| `root_iterations` | `61` |"), encoding="utf-8")
    assert settings_table.main(["--document", str(copy)]) == 0
    assert copy.read_text(encoding="utf-8") == text
    copy.write_text("nothing")
    with pytest.raises(UserError, match="lacks the marks"):
        settings_table.main(["--document", str(copy)])


def test_verifiers_of_others_are_not_in_the_document() -> None:
    assert "fake-bound" in dict(settings_table.tables())
    assert "fake-bound" not in settings_table.render()
