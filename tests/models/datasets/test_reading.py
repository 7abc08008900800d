from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunecert.errors import UserError
from prunecert.models.datasets.reading import Pixels, channels_first, first_readable, roots


def test_whole_numbers_are_of_255_and_floats_are_as_they_are() -> None:
    labels = np.array([0, 1], dtype=np.uint8)
    whole = Pixels(np.full((2, 1, 2, 2), 51, dtype=np.uint8), labels, "tests")
    assert whole.labels.dtype == np.int64
    assert (whole.floats(np.array([1])) == np.float32(51) / np.float32(255)).all()
    floats = Pixels(np.full((2, 1, 2, 2), 0.2), labels, "tests")
    assert (floats.floats(np.array([0, 1])) == np.float32(0.2)).all()


@pytest.mark.parametrize(
    ("images", "labels", "why"),
    [
        (np.zeros((2, 2, 2)), np.zeros(2, dtype=int), r"\[N, C, H, W\]"),
        (np.zeros((2, 1, 2, 2)), np.zeros(3, dtype=int), r"labels of shape \(3,\)"),
        (np.zeros((2, 1, 2, 2)), np.zeros(2), "whole numbers"),
        (np.zeros((2, 1, 2, 2), dtype=int), np.zeros(2, dtype=int), "uint8 or floats"),
        (np.full((2, 1, 2, 2), np.nan), np.zeros(2, dtype=int), "uint8 or floats"),
        (np.full((2, 1, 2, 2), 255.0), np.zeros(2, dtype=int), "the option range"),
    ],
)
def test_what_is_no_image_is_refused(images: Any, labels: Any, why: str) -> None:
    with pytest.raises(UserError, match=f"tests: .*{why}"):
        Pixels(images, labels, "tests")


def test_channels_are_put_first() -> None:
    assert channels_first(np.zeros((5, 8, 9)), "x").shape == (5, 1, 8, 9)
    assert channels_first(np.zeros((5, 8, 9, 3)), "x").shape == (5, 3, 8, 9)
    assert channels_first(np.zeros((5, 3, 8, 9)), "x").shape == (5, 3, 8, 9)
    with pytest.raises(UserError, match=r"\[N, C, H, W\] or \[N, H, W\]"):
        channels_first(np.zeros((5, 8)), "x")


def test_named_folders_are_looked_in_before_the_usual_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TINY_IMAGENET_ROOT", raising=False)
    assert roots("tiny-imagenet", None) == [Path("data")]
    monkeypatch.setenv("TINY_IMAGENET_ROOT", "there")
    assert roots("tiny-imagenet", None) == [Path("there")]
    assert roots("tiny-imagenet", tmp_path) == [tmp_path, Path("there")]


def test_nothing_is_downloaded_into_a_folder_that_was_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MNIST_ROOT", raising=False)
    calls: list[tuple[Path, bool]] = []

    def read(place: Path, download: bool) -> Pixels | None:
        calls.append((place, download))
        if download:
            raise OSError("no network\nat all")
        return None

    with pytest.raises(UserError, match=r"isn't in .*; put its files there, or name its folder with --data-root"):
        first_readable("mnist", tmp_path, True, read, "its files")
    assert calls == [(tmp_path, False)]
    with pytest.raises(UserError, match=r"the download failed \(no network\); .*MNIST_ROOT"):
        first_readable("mnist", None, True, read, "its files")
    assert calls[1:] == [(Path("data"), False), (Path("data"), True)]
