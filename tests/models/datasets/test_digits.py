from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.models.datasets.digits import read
from prunecert.models.datasets.source import load_split, source_of


def test_the_two_parts_are_all_images_once() -> None:
    pytest.importorskip("sklearn")
    train, test = read("train"), read("test")
    assert (train.images.shape, test.images.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert train.images.max() == test.images.max() == 1.0
    assert np.bincount(test.labels).min() > 25
    assert len(load_split(source_of("digits"), "val")) == 140


def test_without_scikit_learn_it_is_said_what_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    own = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return own(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        read("train")
