from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.models.datasets.source import load_split, source_of

ENTRY = {"name": "mine", "shape": [3, 4, 5], "classes": 2, "reader": "npz"}


def write(folder: Path, **arrays: Any) -> None:
    np.savez(folder / "mine.npz", **arrays)


def arrays(images: Any) -> dict[str, Any]:
    labels = np.arange(len(images)) % 2
    return {"x_train": images, "y_train": labels[:, None], "x_test": images[:6], "y_test": labels[:6]}


def test_arrays_are_read_channels_first_and_last(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 5), dtype=np.uint8)
    source = source_of({**ENTRY, "options": {"path": "mine.npz"}})
    write(tmp_path, **arrays(images))
    first = load_split(source, "test", tmp_path)
    write(tmp_path, **arrays(images.transpose(0, 2, 3, 1)))
    last = load_split(source, "test", tmp_path)
    assert np.array_equal(first.images, last.images)
    assert np.array_equal(first.images, images[:6].astype(np.float32) / 255)
    assert first.fingerprint == last.fingerprint
    assert len(load_split(source, "train", tmp_path)) == 36


def test_a_range_and_names_may_be_given(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (10, 3, 4, 5))
    np.savez(tmp_path / "test.npz", pictures=images, classes=np.zeros(10, dtype=int))
    options = {"path": "{part}.npz", "images": "pictures", "labels": "classes", "range": [-1, 1]}
    data = load_split(source_of({**ENTRY, "options": options}), "test", tmp_path)
    assert np.allclose(data.images, (images + 1) / 2, atol=1e-6)


def test_a_file_that_is_not_there_is_named_with_the_folders_it_was_looked_for_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NPZ_ROOT", raising=False)
    with pytest.raises(UserError, match=r"There is no file 'gate/mine\.npz' in 'data' or '\.'; name its folder"):
        load_split(source_of({**ENTRY, "options": {"path": "gate/mine.npz"}}), "test")


@pytest.mark.parametrize(
    ("content", "options", "why"),
    [
        (None, {}, "There is no file 'mine.npz'"),
        (b"no zip", {}, "must be a .npz file of plain arrays"),
        ({"x_test": np.zeros((2, 3, 4, 5))}, {}, "holds no array 'y_test', but x_test"),
        ({"x_test": np.array([object()]), "y_test": np.zeros(1)}, {}, "plain arrays"),
        (arrays(np.full((20, 3, 4, 5), 200.0)), {}, "the option range"),
        (arrays(np.full((20, 3, 4, 5), 200.0)), {"range": [255, 0]}, "lowest and the highest"),
    ],
)
def test_files_that_cannot_be_meant_are_refused(content: Any, options: Any, why: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / "mine.npz").write_bytes(content)
    elif content is not None:
        write(tmp_path, **content)
    with pytest.raises(UserError, match=why):
        load_split(source_of({**ENTRY, "options": {"path": "mine.npz", **options}}), "test", tmp_path)
