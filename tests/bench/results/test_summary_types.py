from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prunecert.bench.results.decode import plain
from prunecert.bench.results.summary_types import read_summary
from prunecert.errors import UserError
from tests.bench import summarykit

SUMMARY = summarykit.pruned()


def written(folder: Path, data: Any) -> Path:
    path = folder / "summary.json"
    path.write_text(json.dumps(data))
    return path


def test_a_summary_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert plain(read_summary(written(tmp_path, SUMMARY))) == json.loads(json.dumps(SUMMARY))


def test_summaries_of_before_certificates_have_none(tmp_path: Path) -> None:
    old = {key: value for key, value in SUMMARY.items() if key != "certificates"}
    assert read_summary(written(tmp_path, old)).certificates == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "gate"}, "is no run's summary"),
        ({"schema_version": 99}, "version 99, newer than this program reads"),
        ({"workers": 0}, "is damaged: field workers"),
        ({"cells": [{}]}, r"is damaged: field cells\[0\]: object missing required field"),
        ({"confidence": 1.5}, "is damaged: field confidence"),
        ({"suite": "a\nb"}, "is damaged: field suite"),
    ],
)
def test_others_are_refused_in_one_sentence(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_summary(written(tmp_path, {**SUMMARY, **change}))
    assert "\n" not in str(error.value)
