from __future__ import annotations

import numpy as np
import pytest

from prunecert.bench.leaderboard.imagesets import EXACT, images_sha256, is_exact, known_labels
from prunecert.models.data import Dataset


@pytest.mark.slow
@pytest.mark.cifar10
def test_the_known_image_sets_are_those_of_cifar10() -> None:
    import os

    from prunecert.models.data import load

    if "CIFAR10_ROOT" not in os.environ:
        pytest.skip("needs CIFAR10_ROOT")
    data = load("test", download=False, allow_sample=False)
    for count in EXACT:
        assert is_exact(count, images_sha256(data, count))
        assert data.labels[:count].tolist() == known_labels(count)
    assert not is_exact(7, images_sha256(data, 7))


@pytest.mark.parametrize("count", sorted(EXACT))
def test_known_labels_are_ten_classes_and_the_first_of_a_longer_set(count: int) -> None:
    labels = known_labels(count)
    assert len(labels) == count
    assert set(labels) <= set(range(10))
    assert labels == known_labels(max(EXACT))[:count]
    assert is_exact(count, EXACT[count])
    assert not is_exact(count, "0" * 64)


def test_the_hash_is_of_the_first_images_and_of_every_pixel() -> None:
    images = np.random.default_rng(0).random((4, 3, 2, 2), dtype=np.float32)
    data = Dataset(images, np.zeros(4, np.int64), np.arange(4), "test", "f", True, False, "x")
    first = images_sha256(data, 3)
    images[3] = 0
    assert images_sha256(data, 3) == first
    images[2, 0, 0, 0] = 1 - images[2, 0, 0, 0]
    assert images_sha256(data, 3) != first
    assert images_sha256(data, 2) != first
