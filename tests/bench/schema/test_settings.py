from __future__ import annotations

import pytest

from prunecert.bench.schema.settings import settings_for
from prunecert.errors import UserError


def test_settings_are_read_as_numbers_and_words() -> None:
    assert settings_for(["a", "b"], ["n=3", "a.lr=0.5", "b.word=kfsb", "b.on=true"]) == {
        "a": {"n": 3, "lr": 0.5},
        "b": {"n": 3, "word": "kfsb", "on": True},
    }
    for wrong in ("n", "=3", "c.n=3", "n=["):
        with pytest.raises(UserError, match="--settings"):
            settings_for(["a", "b"], [wrong])
