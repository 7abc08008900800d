from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunecert.errors import UserError
from prunecert.models.data import SPLITS
from prunecert.models.datasets import DATASETS, SHAPES
from prunecert.models.datasets.reading import Pixels
from prunecert.models.datasets.source import DataSource, held_out_indices, load_split, source_of


def stripes(part: str, root: Path | None, *, download: bool, width: int = 6) -> Pixels:
    """A data set of one's own: a class is where its stripe is."""
    labels = np.arange(40 if part == "train" else 10) % 2
    images = np.zeros((len(labels), 1, 4, width), dtype=np.uint8)
    images[labels == 1, :, :, 0] = 255
    return Pixels(images, labels, "stripes")


OWN = {"name": "stripes", "shape": [1, 4, 6], "classes": 2, "reader": "tests.models.datasets.test_source:stripes"}


def test_a_function_of_ones_own_is_a_data_set() -> None:
    source = source_of(OWN)
    train, val, test = (load_split(source, split) for split in SPLITS)
    assert (len(train), len(val), len(test)) == (36, 4, 10)
    assert train.images.shape == (36, 1, 4, 6)
    assert (float(train.images.min()), float(train.images.max())) == (0.0, 1.0)
    assert train.images.dtype == np.float32
    assert (train.classes, train.name, train.source) == (2, "stripes", "stripes")
    assert not set(train.indices) & set(val.indices)
    assert train.fingerprint == val.fingerprint != test.fingerprint
    assert np.array_equal(train.labels, train.indices % 2)
    assert list(np.bincount(val.labels)) == [2, 2]


def test_what_a_source_says_is_held_to_what_is_read() -> None:
    for change, why in (
        ({"shape": [1, 4, 7]}, r"shape \[1, 4, 6\]; its entry says \[1, 4, 7\]"),
        ({"classes": 3, "options": {"width": 8}}, r"\[1, 4, 8\]"),
    ):
        with pytest.raises(UserError, match=why):
            load_split(source_of({**OWN, **change}), "test")
    with pytest.raises(UserError, match="Unknown split 'all'"):
        load_split(source_of(OWN), "all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"shapes": [1]}, "Did you mean 'shape'"),
        ({"name": "a/b"}, "letters, digits"),
        ({"name": None}, "letters, digits"),
        ({"shape": [4, 6]}, "channels, height and width"),
        ({"shape": [1, 0, 6]}, "channels, height and width"),
        ({"classes": 1}, "whole number from 2 on"),
        ({"classes": True}, "whole number from 2 on"),
        ({"reader": "nowhere.at:all"}, "can't be imported"),
        ({"reader": "tests.models.datasets.test_source:strips"}, "can't be imported"),
        ({"reader": "npzz"}, "Unknown data set 'npzz'. Did you mean 'npz'"),
        ({"options": {"widht": 3}}, "Did you mean 'width'"),
        ({"options": 3}, "must be a mapping"),
        ({"reader": "npz"}, "lacks the option 'path'"),
    ],
)
def test_bad_entries_are_one_sentence(change: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        source_of({**OWN, **change})


def test_names_say_it_all_where_the_shape_is_known() -> None:
    for name, (shape, classes) in SHAPES.items():
        source = source_of(name)
        assert (source.shape, source.classes, source.to_json()) == (shape, classes, name)
        assert source.card() == ({} if name == "cifar10" else {"name": name, "shape": list(shape), "classes": classes})
    assert set(SHAPES) <= set(DATASETS)
    assert source_of({"name": "digits"}) == source_of("digits")
    own = source_of(OWN)
    assert source_of(own.to_json()) == own
    assert isinstance(hash(own), int)
    assert DataSource() == source_of("cifar10")
    with pytest.raises(UserError, match="refused without a shape"):
        source_of("npz")
    with pytest.raises(UserError, match="Did you mean 'mnist'"):
        source_of("mnst")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=300), st.randoms())
def test_a_tenth_of_each_class_is_held_out_always_the_same(labels: list[int], random: Any) -> None:
    array = np.asarray(labels, dtype=np.int64)
    chosen = held_out_indices(array, 5)
    assert np.array_equal(chosen, held_out_indices(array, 5))
    assert len(set(chosen.tolist())) == len(chosen)
    for label in range(5):
        assert int((array[chosen] == label).sum()) == int((array == label).sum()) // 10
